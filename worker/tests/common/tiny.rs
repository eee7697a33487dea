//! Tiny random models as GGUF files.

use shoal_worker::program::Dtype;

use super::gguf::Writer;
use super::noise::{Random, weights};

/// Which format a matrix gets, by its name in the file.
pub(crate) type Formats = fn(&str) -> Dtype;

/// Dims of a DeepSeek model; every row of a matrix is whole blocks of 256 but those of `attn_k_b`.
#[derive(Clone, Copy)]
pub(crate) struct Deepseek {
    pub(crate) layers: usize,
    pub(crate) formats: Formats,
    /// V3's sigmoid with a bias, groups and q_lora; else V2-Lite's softmax.
    pub(crate) third: bool,
    /// The halves of kv_b apart, as newer files have them.
    pub(crate) split: bool,
    pub(crate) seed: u64,
}

pub(crate) const VOCABULARY: usize = 320;
const HIDDEN: usize = 256;
const EXPERTS: usize = 4;
const HEADS: usize = 4;
const NOPE: usize = 64;
const ROPE: usize = 32;
const VALUE: usize = 64;
const LATENT: usize = 256;

/// A file being filled.
pub(crate) struct Model {
    pub(crate) writer: Writer,
    pub(crate) formats: Formats,
    pub(crate) seed: u64,
}

impl Model {
    /// A matrix, or a stack of them, whose products keep the size of their inputs.
    pub(crate) fn matrix(&mut self, name: &str, shape: &[usize]) {
        let dtype = (self.formats)(name);
        let cols = shape[shape.len() - 1];
        let rms = if name == "token_embd.weight" { 1.0 } else { (cols as f32).powf(-0.5) };
        self.noise(name, shape, dtype, rms);
    }

    /// Numbers of that size.
    pub(crate) fn noise(&mut self, name: &str, shape: &[usize], dtype: Dtype, rms: f32) {
        let data = weights(&mut Random::of(name, self.seed), dtype, shape.iter().product(), rms);
        self.writer.tensor(name, shape, dtype, data);
    }

    /// Factors around 1.
    pub(crate) fn norm(&mut self, name: &str, len: usize) {
        let mut random = Random::of(name, self.seed);
        let data = (0..len).flat_map(|_| (1.0 + 0.3 * random.unit()).to_le_bytes()).collect();
        self.writer.tensor(name, &[len], Dtype::F32, data);
    }
}

/// The file of such a model, without a tokenizer.
pub(crate) fn deepseek(dims: Deepseek) -> Writer {
    let mut writer = Writer::new("deepseek2");
    deepseek_keys(&mut writer, dims);
    let mut model = Model { writer, formats: dims.formats, seed: dims.seed };
    model.matrix("token_embd.weight", &[VOCABULARY, HIDDEN]);
    for layer in 0..dims.layers {
        let name = |part: &str| format!("blk.{layer}.{part}");
        model.norm(&name("attn_norm.weight"), HIDDEN);
        let q = HEADS * (NOPE + ROPE);
        if dims.third {
            model.matrix(&name("attn_q_a.weight"), &[256, HIDDEN]);
            model.norm(&name("attn_q_a_norm.weight"), 256);
            model.matrix(&name("attn_q_b.weight"), &[q, 256]);
        } else {
            model.matrix(&name("attn_q.weight"), &[q, HIDDEN]);
        }
        model.matrix(&name("attn_kv_a_mqa.weight"), &[LATENT + ROPE, HIDDEN]);
        model.norm(&name("attn_kv_a_norm.weight"), LATENT);
        if dims.split {
            model.matrix(&name("attn_k_b.weight"), &[HEADS, LATENT, NOPE]);
            model.matrix(&name("attn_v_b.weight"), &[HEADS, VALUE, LATENT]);
        } else {
            model.matrix(&name("attn_kv_b.weight"), &[HEADS * (NOPE + VALUE), LATENT]);
        }
        model.matrix(&name("attn_output.weight"), &[HIDDEN, HEADS * VALUE]);
        model.norm(&name("ffn_norm.weight"), HIDDEN);
        let ends: &[(&str, &[usize])] =
            if layer == 0 { &[("", &[])] } else { &[("_exps", &[EXPERTS]), ("_shexp", &[])] };
        for (end, stack) in ends {
            for part in ["gate", "up", "down"] {
                model.matrix(&name(&format!("ffn_{part}{end}.weight")), &[stack, &[256, 256][..]].concat());
            }
        }
        if layer > 0 {
            // Routers are never quantised.
            model.formats = |_| Dtype::F32;
            model.matrix(&name("ffn_gate_inp.weight"), &[EXPERTS, HIDDEN]);
            model.formats = dims.formats;
            if dims.third {
                model.noise(&name("exp_probs_b.bias"), &[EXPERTS], Dtype::F32, 0.2);
            }
        }
    }
    model.norm("output_norm.weight", HIDDEN);
    model.matrix("output.weight", &[VOCABULARY, HIDDEN]);
    model.writer
}

fn deepseek_keys(writer: &mut Writer, dims: Deepseek) {
    for (key, value) in [
        ("block_count", dims.layers),
        ("context_length", 2048),
        ("embedding_length", HIDDEN),
        ("feed_forward_length", 256),
        ("attention.head_count", HEADS),
        ("attention.head_count_kv", if dims.split { 1 } else { HEADS }),
        ("attention.kv_lora_rank", LATENT),
        ("attention.key_length", if dims.split { LATENT + ROPE } else { NOPE + ROPE }),
        ("attention.value_length", if dims.split { LATENT } else { VALUE }),
        ("rope.dimension_count", ROPE),
        ("leading_dense_block_count", 1),
        ("expert_count", EXPERTS),
        ("expert_used_count", 2),
        ("expert_shared_count", 1),
        ("expert_feed_forward_length", 256),
        ("rope.scaling.original_context_length", 32),
    ] {
        writer.whole(&format!("deepseek2.{key}"), value as u32);
    }
    if dims.split {
        writer.whole("deepseek2.attention.key_length_mla", (NOPE + ROPE) as u32);
        writer.whole("deepseek2.attention.value_length_mla", VALUE as u32);
    }
    if dims.third {
        writer.whole("deepseek2.attention.q_lora_rank", 256);
        writer.whole("deepseek2.expert_gating_func", 2);
        writer.whole("deepseek2.expert_group_count", 2);
        writer.whole("deepseek2.expert_group_used_count", 1);
        writer.truth("deepseek2.expert_weights_norm", true);
        writer.float("deepseek2.expert_weights_scale", 2.5);
    } else {
        writer.float("deepseek2.expert_weights_scale", 1.0);
    }
    writer.float("deepseek2.attention.layer_norm_rms_epsilon", 1e-6);
    writer.float("deepseek2.rope.freq_base", 10_000.0);
    writer.text("deepseek2.rope.scaling.type", "yarn");
    writer.float("deepseek2.rope.scaling.factor", 4.0);
    writer.float("deepseek2.rope.scaling.yarn_log_multiplier", 0.0707);
    writer.text("tokenizer.ggml.model", "none");
}

/// Every matrix in one format, but where its rows are too short for blocks of 256.
pub(crate) fn only(dtype: Dtype) -> Formats {
    macro_rules! of {
        ($($variant:ident),*) => {
            match dtype {
                $(Dtype::$variant => |name| if name.ends_with("attn_k_b.weight") && Dtype::$variant.block().0 > 64 { Dtype::Q5_0 } else { Dtype::$variant },)*
                other => panic!("{other:?} is no format of GGUF"),
            }
        };
    }
    of!(F32, Bf16, F16, Q8_0, Q4_0, Q5_0, Q5_1, Iq4Nl, Mxfp4, Q4K, Q5K, Q6K)
}

/// The same file with every tensor as the F32 numbers that it stands for.
pub(crate) fn decoded(writer: &Writer) -> Writer {
    let mut twin = writer.clone();
    for tensor in &mut twin.tensors {
        let mut kinds = Dtype::ALL.into_iter().filter(|dtype| {
            ![Dtype::U32, Dtype::E4m3, Dtype::E8m0].contains(dtype) && super::gguf::kind(*dtype) == tensor.kind
        });
        let dtype = kinds.next().expect("should be known: it was written");
        let mut numbers = vec![0.0; tensor.shape.iter().product::<u64>() as usize];
        dtype.widen(&tensor.data, &mut numbers);
        tensor.data = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        tensor.kind = 0;
    }
    twin
}
