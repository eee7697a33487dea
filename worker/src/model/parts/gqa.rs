//! Grouped-query attention. Ainslie et al. 2023; with as many key heads as heads it is multi-head attention.
//!
//! ```text
//! h ─► q ─ norm ─ clip ─ rope(pos) ─► q: heads × width       h ─► k ─ norm ─ clip ─ rope(pos)      h ─► v ─ clip
//!                                      │                            └──────► cache: keys ‖ values ◄──────┘
//!                                      └───► attend (window, sinks) ◄──────────┘
//!                                              │ heads × width ─► o_proj
//! ```

use crate::model::config::{GqaDims, ModelConfig, QkNorm};
use crate::model::recipe::Recorder;
use crate::ops::{Op, RopeTable};
use crate::program::{BufferId, BufferKind, Dtype, View};
use crate::weights::WeightsError;

/// A matrix and its bias.
#[derive(Clone, Copy)]
struct Projection {
    weight: BufferId,
    bias: Option<BufferId>,
}

impl Projection {
    fn record(self, recorder: &mut Recorder<'_>, input: View, out: View) {
        recorder.push(Op::Linear { input, weight: self.weight, bias: self.bias, out });
    }
}

/// Weights and cache of one layer's attention.
pub(in crate::model) struct GqaAttention {
    q: Projection,
    k: Projection,
    v: Projection,
    out: Projection,
    /// Of q and of k.
    norms: Option<[BufferId; 2]>,
    sinks: Option<BufferId>,
    window: Option<usize>,
    cache: BufferId,
}

/// Scratch and constants shared by all layers.
pub(in crate::model) struct GqaShared {
    dims: GqaDims,
    hidden: usize,
    eps: f32,
    table: RopeTable,
    q: BufferId,
    kv: BufferId,
    mixed: BufferId,
}

impl GqaShared {
    pub(in crate::model) fn declare(recorder: &mut Recorder<'_>, config: &ModelConfig, dims: GqaDims) -> Self {
        let mut scratch = |name: &str, cols| recorder.rows(BufferKind::Scratch, &format!("attention.{name}"), cols);
        Self {
            dims,
            hidden: config.hidden,
            eps: config.decoder.norm_eps,
            table: config.decoder.rope.table(dims.head_dim),
            q: scratch("q", dims.heads * dims.head_dim),
            kv: scratch("kv", 2 * dims.kv_heads * dims.head_dim),
            mixed: scratch("mixed", dims.heads * dims.head_dim),
        }
    }

    fn heads(&self, buffer: BufferId, groups: usize) -> View {
        let width = self.dims.head_dim;
        View { buffer, offset: 0, groups, stride: width, width }
    }

    /// What is done to a query or key of `heads` heads between its projection and the scores.
    fn record_turn(&self, recorder: &mut Recorder<'_>, buffer: BufferId, heads: usize, norm: Option<BufferId>) {
        let apart = self.heads(buffer, heads);
        let whole = View::columns(buffer, 0, heads * self.dims.head_dim);
        if let Some(weight) = norm {
            let view = if self.dims.qk_norm == QkNorm::PerHead { apart } else { whole };
            recorder.push(Op::RmsNorm { input: view, weight, eps: self.eps, out: view });
        }
        if let Some(limit) = self.dims.clip {
            recorder.push(Op::Clamp { target: whole, limit });
        }
        recorder.push(Op::Rope { target: apart, table: self.table.clone() });
    }
}

impl GqaAttention {
    pub(in crate::model) fn bind(
        recorder: &mut Recorder<'_>,
        shared: &GqaShared,
        layer: usize,
        window: Option<usize>,
        (dtype, slots): (Dtype, usize),
    ) -> Result<Self, WeightsError> {
        let GqaDims { heads, kv_heads, head_dim, bias, qk_norm, sinks, .. } = shared.dims;
        let (q_cols, kv_cols) = (heads * head_dim, kv_heads * head_dim);
        let name = |part: &str| format!("model.layers.{layer}.self_attn.{part}");
        let mut project = |part: &str, outputs, inputs| -> Result<Projection, WeightsError> {
            let weight = recorder.matrix(&name(&format!("{part}.weight")), [outputs, inputs])?;
            let bias = bias.then(|| recorder.vector(&name(&format!("{part}.bias")), outputs)).transpose()?;
            Ok(Projection { weight, bias })
        };
        let (q, k) = (project("q_proj", q_cols, shared.hidden)?, project("k_proj", kv_cols, shared.hidden)?);
        let (v, out) = (project("v_proj", kv_cols, shared.hidden)?, project("o_proj", shared.hidden, q_cols)?);
        let mut norms = |q_width, k_width| -> Result<Option<[BufferId; 2]>, WeightsError> {
            let q = recorder.vector(&name("q_norm.weight"), q_width)?;
            Ok(Some([q, recorder.vector(&name("k_norm.weight"), k_width)?]))
        };
        let norms = match qk_norm {
            QkNorm::None => None,
            QkNorm::PerHead => norms(head_dim, head_dim)?,
            QkNorm::Whole => norms(q_cols, kv_cols)?,
        };
        let sinks = sinks.then(|| recorder.vector(&name("sinks"), heads)).transpose()?;
        let cache = recorder.buffer(BufferKind::Kv, dtype, &format!("cache.{layer}"), [slots, 2 * kv_cols]);
        Ok(Self { q, k, v, out, norms, sinks, window, cache })
    }

    /// `out` = attention of the normed rows in `input`.
    pub(in crate::model) fn record(
        &self,
        recorder: &mut Recorder<'_>,
        shared: &GqaShared,
        input: BufferId,
        out: BufferId,
    ) {
        let GqaDims { heads, kv_heads, head_dim, clip, .. } = shared.dims;
        let input = View::columns(input, 0, shared.hidden);
        let whole = |buffer| View::columns(buffer, 0, heads * head_dim);
        let keys = View::columns(shared.kv, 0, kv_heads * head_dim);
        let values = View::columns(shared.kv, kv_heads * head_dim, kv_heads * head_dim);
        self.q.record(recorder, input, whole(shared.q));
        self.k.record(recorder, input, keys);
        self.v.record(recorder, input, values);
        shared.record_turn(recorder, shared.q, heads, self.norms.map(|[q, _]| q));
        shared.record_turn(recorder, shared.kv, kv_heads, self.norms.map(|[_, k]| k));
        if let Some(limit) = clip {
            recorder.push(Op::Clamp { target: values, limit });
        }
        recorder.push(Op::AppendKv { first: keys, second: values, cache: self.cache });
        recorder.push(Op::AttendGqa {
            query: shared.heads(shared.q, heads),
            cache: self.cache,
            kv_heads,
            window: self.window,
            sinks: self.sinks,
            scale: (head_dim as f64).powf(-0.5) as f32,
            out: shared.heads(shared.mixed, heads),
        });
        self.out.record(recorder, whole(shared.mixed), View::columns(out, 0, shared.hidden));
    }
}
