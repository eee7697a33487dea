//! Tiny random models of the families besides DeepSeek as GGUF files, as llama.cpp's converter names and lays them out.

use shoal_worker::program::Dtype;

use super::gguf::Writer;
use super::tiny::{Formats, Model, VOCABULARY};

const LAYERS: usize = 4;
const HIDDEN: usize = 256;
const EXPERTS: usize = 8;
const SEED: u64 = 23;

/// What differs.
struct Family {
    architecture: &'static str,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    top_k: usize,
    /// Of an expert.
    width: usize,
    eps: f32,
    theta: f32,
    /// Of gate and up: large enough for clamps to be met.
    gain: f32,
    /// Of down: chosen experts' weights that do not sum to 1 make little of them.
    down_gain: f32,
}

/// Heads wider than their share of the residual, each with its own norm.
pub(crate) fn qwen3(formats: Formats) -> Writer {
    let family = Family { architecture: "qwen3moe", heads: 8, kv_heads: 2, head_dim: 64, ..PLAIN };
    let mut model = family.begin(formats);
    for layer in 0..LAYERS {
        family.layer(&mut model, layer);
        model.norm(&format!("blk.{layer}.attn_q_norm.weight"), family.head_dim);
        model.norm(&format!("blk.{layer}.attn_k_norm.weight"), family.head_dim);
    }
    model.writer
}

/// Experts 96 wide, which is no multiple of 256; norms over all heads.
pub(crate) fn olmoe(formats: Formats) -> Writer {
    let (theta, eps) = (10_000.0, 1e-5);
    let family = Family { architecture: "olmoe", width: 96, theta, eps, down_gain: 2.0, ..PLAIN };
    let mut model = family.begin(formats);
    for layer in 0..LAYERS {
        family.layer(&mut model, layer);
        model.norm(&format!("blk.{layer}.attn_q_norm.weight"), HIDDEN);
        model.norm(&format!("blk.{layer}.attn_k_norm.weight"), HIDDEN);
    }
    model.writer
}

/// A llama with experts; pairs that rotate together are neighbours.
pub(crate) fn mixtral(formats: Formats) -> Writer {
    let family = Family { architecture: "llama", heads: 8, kv_heads: 2, head_dim: 32, top_k: 2, eps: 1e-5, ..PLAIN };
    let mut model = family.begin(formats);
    (0..LAYERS).for_each(|layer| family.layer(&mut model, layer));
    model.writer
}

/// Biases, sinks, a window of 19 in even layers; gate and up apart.
pub(crate) fn gpt_oss(formats: Formats) -> Writer {
    let (theta, eps, gain) = (150_000.0, 1e-5, 3.0);
    let family = Family {
        architecture: "gpt-oss",
        heads: 8,
        kv_heads: 2,
        head_dim: 64,
        top_k: 4,
        theta,
        eps,
        gain,
        down_gain: 1.0 / 3.0,
        ..PLAIN
    };
    let mut model = family.begin(formats);
    model.writer.whole("gpt-oss.attention.sliding_window", 19);
    model.writer.text("gpt-oss.rope.scaling.type", "yarn");
    model.writer.float("gpt-oss.rope.scaling.factor", 32.0);
    model.writer.whole("gpt-oss.rope.scaling.original_context_length", 4096);
    let (q, kv) = (family.heads * family.head_dim, family.kv_heads * family.head_dim);
    for layer in 0..LAYERS {
        family.layer(&mut model, layer);
        let mut vector = |part: &str, shape: &[usize], rms| {
            model.noise(&format!("blk.{layer}.{part}"), shape, Dtype::F32, rms);
        };
        for (part, len) in [("q", q), ("k", kv), ("v", kv), ("output", HIDDEN)] {
            vector(&format!("attn_{part}.bias"), &[len], 0.3);
        }
        vector("attn_sinks.weight", &[family.heads], 1.5);
        vector("ffn_gate_inp.bias", &[EXPERTS], 0.3);
        for (part, len) in [("gate", family.width), ("up", family.width), ("down", HIDDEN)] {
            vector(&format!("ffn_{part}_exps.bias"), &[EXPERTS, len], 0.3);
        }
    }
    model.writer
}

const PLAIN: Family = Family {
    architecture: "",
    heads: 4,
    kv_heads: 4,
    head_dim: 64,
    top_k: 3,
    width: 256,
    eps: 1e-6,
    theta: 1e6,
    gain: 1.0,
    down_gain: 1.0,
};

impl Family {
    fn begin(&self, formats: Formats) -> Model {
        let mut writer = Writer::new(self.architecture);
        let key = |part: &str| format!("{}.{part}", self.architecture);
        for (part, value) in [
            ("block_count", LAYERS),
            ("context_length", 2048),
            ("embedding_length", HIDDEN),
            ("feed_forward_length", self.width),
            ("attention.head_count", self.heads),
            ("attention.head_count_kv", self.kv_heads),
            ("attention.key_length", self.head_dim),
            ("attention.value_length", self.head_dim),
            ("rope.dimension_count", self.head_dim),
            ("expert_count", EXPERTS),
            ("expert_used_count", self.top_k),
            // Without a tokenizer llama.cpp asks for it.
            ("vocab_size", VOCABULARY),
        ] {
            writer.whole(&key(part), value as u32);
        }
        if ["qwen3moe", "gpt-oss"].contains(&self.architecture) {
            writer.whole(&key("expert_feed_forward_length"), self.width as u32);
        }
        writer.float(&key("attention.layer_norm_rms_epsilon"), self.eps);
        writer.float(&key("rope.freq_base"), self.theta);
        writer.text("tokenizer.ggml.model", "none");
        let mut model = Model { writer, formats, seed: SEED };
        model.matrix("token_embd.weight", &[VOCABULARY, HIDDEN]);
        model.norm("output_norm.weight", HIDDEN);
        model.matrix("output.weight", &[VOCABULARY, HIDDEN]);
        model
    }

    fn layer(&self, model: &mut Model, layer: usize) {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        model.norm(&name("attn_norm"), HIDDEN);
        let second = if self.architecture == "gpt-oss" { "post_attention_norm" } else { "ffn_norm" };
        model.norm(&name(second), HIDDEN);
        for (part, rows, cols) in [("q", q, HIDDEN), ("k", kv, HIDDEN), ("v", kv, HIDDEN), ("output", HIDDEN, q)] {
            model.matrix(&name(&format!("attn_{part}")), &[rows, cols]);
        }
        // Routers are never quantised; this one is decisive.
        model.noise(&name("ffn_gate_inp"), &[EXPERTS, HIDDEN], Dtype::F32, 2.0 / (HIDDEN as f32).sqrt());
        for (part, rows, cols, gain) in [
            ("gate", self.width, HIDDEN, self.gain),
            ("up", self.width, HIDDEN, self.gain),
            ("down", HIDDEN, self.width, self.down_gain),
        ] {
            let name = name(&format!("ffn_{part}_exps"));
            let dtype = (model.formats)(&name);
            model.noise(&name, &[EXPERTS, rows, cols], dtype, gain / (cols as f32).sqrt());
        }
    }
}
