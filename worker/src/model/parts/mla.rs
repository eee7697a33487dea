//! Multi-head latent attention in absorbed form. DeepSeek-V2, section 2.1.
//!
//! ```text
//! h ─► q_a ─ norm ─ q_b ─► q: heads × (nope ‖ rope)      h ─► kv_a: latent ‖ rope
//!      (or q_proj)          │        └ rope(pos)               │        └ rope(pos)
//!                     W_k absorbed ▼                       norm ▼        ▼
//!                     q_latent: heads × latent ──► attend ◄── cache: latent ‖ rope
//!                                                   │ heads × latent ─► W_v ─► heads × value ─► o_proj
//! ```

use crate::model::config::{MlaDims, ModelConfig};
use crate::model::recipe::Recorder;
use crate::ops::{Op, RopeTable};
use crate::program::{BufferId, BufferKind, Dtype, View};
use crate::weights::WeightsError;

/// The norms inside attention use this, whatever `rms_norm_eps` says: so do the published models.
const LATENT_NORM_EPS: f32 = 1e-6;

/// Weights and cache of one layer's attention.
pub(in crate::model) struct MlaAttention {
    query: Query,
    kv_a: BufferId,
    kv_norm: BufferId,
    kv_b: KvB,
    out: BufferId,
    cache: BufferId,
}

/// The factors that are absorbed into q and into the output.
enum KvB {
    /// Of each head, nope rows of keys and then the rows of values, over the latent.
    Fused(BufferId),
    /// GGUF's halves: of each head, latent rows over nope; and value rows over the latent.
    Split { key: BufferId, value: BufferId },
}

enum Query {
    Whole { weight: BufferId },
    LowRank { low: View, a: BufferId, norm: BufferId, b: BufferId },
}

/// Scratch and constants shared by all layers.
pub(in crate::model) struct MlaShared {
    dims: MlaDims,
    hidden: usize,
    table: RopeTable,
    scale: f32,
    q_low: Option<View>,
    q: BufferId,
    kv: BufferId,
    q_latent: BufferId,
    mixed: BufferId,
    value: BufferId,
}

impl MlaShared {
    pub(in crate::model) fn declare(recorder: &mut Recorder<'_>, config: &ModelConfig, dims: MlaDims) -> Self {
        let rope = &config.decoder.rope;
        let mut scratch = |name: &str, cols| recorder.rows(BufferKind::Scratch, &format!("attention.{name}"), cols);
        Self {
            dims,
            hidden: config.hidden,
            table: rope.table(dims.rope),
            scale: rope.softmax_scale(dims.nope, dims.rope),
            q_low: dims.q_lora.map(|rank| View::columns(scratch("q_low", rank), 0, rank)),
            q: scratch("q", dims.heads * (dims.nope + dims.rope)),
            kv: scratch("kv", dims.kv_lora + dims.rope),
            q_latent: scratch("q_latent", dims.heads * dims.kv_lora),
            mixed: scratch("mixed", dims.heads * dims.kv_lora),
            value: scratch("value", dims.heads * dims.value),
        }
    }

    /// Part of each head's query: its first columns without position, or the rest with it.
    fn q_part(&self, offset: usize, width: usize) -> View {
        let stride = self.dims.nope + self.dims.rope;
        View { buffer: self.q, offset, groups: self.dims.heads, stride, width }
    }

    fn heads(&self, buffer: BufferId, width: usize) -> View {
        View { buffer, offset: 0, groups: self.dims.heads, stride: width, width }
    }
}

impl MlaAttention {
    pub(in crate::model) fn bind(
        recorder: &mut Recorder<'_>,
        shared: &MlaShared,
        layer: usize,
        cache: (Dtype, usize),
    ) -> Result<Self, WeightsError> {
        let MlaDims { heads, kv_lora, nope, rope, value, .. } = shared.dims;
        let hidden = shared.hidden;
        let name = |part: &str| format!("model.layers.{layer}.self_attn.{part}.weight");
        let q_cols = heads * (nope + rope);
        let query = match shared.q_low {
            None => Query::Whole { weight: recorder.matrix(&name("q_proj"), [q_cols, hidden])? },
            Some(low) => Query::LowRank {
                low,
                a: recorder.matrix(&name("q_a_proj"), [low.width, hidden])?,
                norm: recorder.vector(&name("q_a_layernorm"), low.width)?,
                b: recorder.matrix(&name("q_b_proj"), [q_cols, low.width])?,
            },
        };
        let (dtype, slots) = cache;
        Ok(Self {
            query,
            kv_a: recorder.matrix(&name("kv_a_proj_with_mqa"), [kv_lora + rope, hidden])?,
            kv_norm: recorder.vector(&name("kv_a_layernorm"), kv_lora)?,
            kv_b: KvB::bind(recorder, shared.dims, name)?,
            out: recorder.matrix(&name("o_proj"), [hidden, heads * value])?,
            cache: recorder.buffer(BufferKind::Kv, dtype, &format!("cache.{layer}"), [slots, kv_lora + rope]),
        })
    }

    /// `out` = attention of the normed rows in `input`.
    pub(in crate::model) fn record(
        &self,
        recorder: &mut Recorder<'_>,
        shared: &MlaShared,
        input: BufferId,
        out: BufferId,
    ) {
        let MlaDims { heads, kv_lora, nope, rope, value, .. } = shared.dims;
        let input = View::columns(input, 0, shared.hidden);
        let q = View::columns(shared.q, 0, heads * (nope + rope));
        self.query.record(recorder, input, q);
        let kv = View::columns(shared.kv, 0, kv_lora + rope);
        let latent = View::columns(shared.kv, 0, kv_lora);
        let k_rope = View::columns(shared.kv, kv_lora, rope);
        recorder.push(Op::Linear { input, weight: self.kv_a, bias: None, out: kv });
        recorder.push(Op::RmsNorm { input: latent, weight: self.kv_norm, eps: LATENT_NORM_EPS, out: latent });
        let q_rope = shared.q_part(nope, rope);
        recorder.push(Op::Rope { target: q_rope, table: shared.table.clone() });
        recorder.push(Op::Rope { target: k_rope, table: shared.table.clone() });
        recorder.push(Op::AppendKv { first: latent, second: k_rope, cache: self.cache });
        let (into_q, into_out) = self.kv_b.halves(shared.dims);
        let q_latent = shared.heads(shared.q_latent, kv_lora);
        let mixed = shared.heads(shared.mixed, kv_lora);
        recorder.push(into_q(shared.q_part(0, nope), q_latent));
        recorder.push(Op::AttendMla { q_latent, q_rope, cache: self.cache, scale: shared.scale, out: mixed });
        recorder.push(into_out(mixed, shared.heads(shared.value, value)));
        let values = View::columns(shared.value, 0, heads * value);
        let out = View::columns(out, 0, shared.hidden);
        recorder.push(Op::Linear { input: values, weight: self.out, bias: None, out });
    }
}

impl KvB {
    fn bind(recorder: &mut Recorder<'_>, dims: MlaDims, name: impl Fn(&str) -> String) -> Result<Self, WeightsError> {
        let MlaDims { heads, kv_lora, nope, value, .. } = dims;
        if recorder.has(&name("k_b_proj")) && !recorder.has(&name("kv_b_proj")) {
            return Ok(Self::Split {
                key: recorder.matrix(&name("k_b_proj"), [heads * kv_lora, nope])?,
                value: recorder.matrix(&name("v_b_proj"), [heads * value, kv_lora])?,
            });
        }
        Ok(Self::Fused(recorder.matrix(&name("kv_b_proj"), [heads * (nope + value), kv_lora])?))
    }

    /// The op that takes a query to the latent, and the one that takes a mixed latent to values.
    fn halves(&self, dims: MlaDims) -> (impl Fn(View, View) -> Op, impl Fn(View, View) -> Op) {
        let MlaDims { kv_lora, nope, value, .. } = dims;
        let half = |weight, rows_per_head, first_row, rows, transposed| {
            move |input, out| Op::PerHeadMatmul { input, weight, rows_per_head, first_row, rows, transposed, out }
        };
        match *self {
            Self::Fused(weight) => {
                (half(weight, nope + value, 0, nope, true), half(weight, nope + value, nope, value, false))
            }
            Self::Split { key, value: values } => {
                (half(key, kv_lora, 0, kv_lora, false), half(values, value, 0, value, false))
            }
        }
    }
}

impl Query {
    fn record(&self, recorder: &mut Recorder<'_>, input: View, out: View) {
        match *self {
            Self::Whole { weight } => recorder.push(Op::Linear { input, weight, bias: None, out }),
            Self::LowRank { low, a, norm, b } => {
                recorder.push(Op::Linear { input, weight: a, bias: None, out: low });
                recorder.push(Op::RmsNorm { input: low, weight: norm, eps: LATENT_NORM_EPS, out: low });
                recorder.push(Op::Linear { input: low, weight: b, bias: None, out });
            }
        }
    }
}
