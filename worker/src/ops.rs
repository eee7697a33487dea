//! Every op of a [`Program`](crate::program::Program): shapes, dtypes and meaning. Their f64 meaning as code is `oracle`.
//!
//! R is the number of live rows of the run ([`Control::rows`](crate::backend::Control::rows)), unless an op says otherwise.
//! Activations are F32; a weight is F32, BF16, F16, or in a block format or E4M3 under tile scales, whose F32 value is what
//! [`Dtype::widen`](crate::program::Dtype::widen) and [`Scales`](crate::program::Scales) say: it is multiplied as that F32.
//! A row's result depends on that row alone: never on R, on its neighbours, or on threads.

mod lists;
mod rules;

use std::ops::Range;

pub use lists::{ExpertBank, ExpertBiases, PartialList, RowList};
pub use rules::{Activation, GroupScore, Pairing, RopeTable, RouterRule, Scoring};

use crate::program::{BufferId, View};

/// One op. Buffers named `out` never alias an input unless the op says so.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// out\[r\] = table\[token of row r\]. `samples` (U32 \[capacity, 1\], state) holds what the last `Sample` chose, for rows
    /// whose token is [`TokenSource::Sampled`](crate::backend::TokenSource::Sampled).
    Embed {
        /// \[vocabulary, hidden\].
        table: BufferId,
        /// U32 \[samples, 1\].
        samples: BufferId,
        /// F32 \[R, hidden\].
        out: BufferId,
    },
    /// out = input / sqrt(mean(input²) + eps) · weight, over each run of columns. Zhang and Sennrich 2019.
    RmsNorm {
        /// F32, one run or a run per head.
        input: View,
        /// \[1, width\].
        weight: BufferId,
        /// Added to the mean square.
        eps: f32,
        /// F32, as many runs of the same width; may be `input`.
        out: View,
    },
    /// out\[r, n\] = Σ_k input\[r, k\] · weight\[n, k\] + bias\[n\].
    Linear {
        /// F32, one run of K columns.
        input: View,
        /// \[N, K\].
        weight: BufferId,
        /// \[1, N\], added last.
        bias: Option<BufferId>,
        /// F32, one run of N columns.
        out: View,
    },
    /// Per head h: with W_h = weight rows `h·rows_per_head + first_row ..+ rows`:
    /// `transposed` ? out\[r,h,c\] = Σ_i input\[r,h,i\] · W_h\[i, c\] : out\[r,h,j\] = Σ_c input\[r,h,c\] · W_h\[j, c\].
    /// The two halves of `kv_b_proj` absorbed into q and into the output. DeepSeek-V2, section 2.1.
    PerHeadMatmul {
        /// F32, a run per head.
        input: View,
        /// \[heads · rows_per_head, K\].
        weight: BufferId,
        /// Rows of one head in `weight`.
        rows_per_head: usize,
        /// First of them to use.
        first_row: usize,
        /// How many to use.
        rows: usize,
        /// Reduce over the rows instead of the columns.
        transposed: bool,
        /// F32, a run per head.
        out: View,
    },
    /// Rotates each run of `target` in place by the row's position. Su et al. 2021; Peng et al. 2023 for yarn.
    Rope {
        /// F32, runs of width 2 · inv_freq.len().
        target: View,
        /// Frequencies, factor, pairing.
        table: RopeTable,
    },
    /// Limits every element of `target` to −limit..=limit in place; NaN stays.
    Clamp {
        /// F32, one run.
        target: View,
        /// At least 0.
        limit: f32,
    },
    /// cache\[slot of row r\] = first ‖ second, rounded to the cache's dtype; rows without a slot write nothing.
    AppendKv {
        /// F32, one run: the latent, or the keys of all key heads.
        first: View,
        /// F32, one run: the rope part of the key, or the values of all key heads.
        second: View,
        /// KV \[slots, first + second\].
        cache: BufferId,
    },
    /// Multi-head latent attention over the paged cache, absorbed form, causal:
    /// s_t = scale · (q_latent·latent_t + q_rope·rope_t) for t ≤ position; out = Σ softmax(s)_t · latent_t.
    /// Keys in absolute order in tiles of 64 aligned to position 0, running maximum and sum. DeepSeek-V2, section 2.1.
    AttendMla {
        /// F32, a run of latent width per head.
        q_latent: View,
        /// F32, a run of rope width per head.
        q_rope: View,
        /// KV \[slots, latent + rope\].
        cache: BufferId,
        /// Multiplies every score.
        scale: f32,
        /// F32, a run of latent width per head.
        out: View,
    },
    /// Grouped-query attention over the paged cache, causal. Ainslie et al. 2023. Head h reads key head h·G/H:
    /// s_t = scale · q·k_t for t ≤ position and t + window > position; out = Σ softmax(s ‖ sink)_t · v_t, the sink's own
    /// share dropped. Keys in absolute order in tiles of 64 aligned to position 0, running maximum and sum.
    AttendGqa {
        /// F32, a run of key width per head; H heads.
        query: View,
        /// KV \[slots, 2 · G · key width\]: keys of all key heads, then their values.
        cache: BufferId,
        /// G, a divisor of H.
        kv_heads: usize,
        /// Keys seen, the row's own included; `None` for all.
        window: Option<usize>,
        /// \[1, H\]: one more score per head, learned, without a value. Xiao et al. 2023; gpt-oss.
        sinks: Option<BufferId>,
        /// Multiplies every score but the sink.
        scale: f32,
        /// F32, a run of key width per head.
        out: View,
    },
    /// out = silu(gate) · up. Shazeer 2020.
    SwiGlu {
        /// F32, one run.
        gate: View,
        /// F32, one run.
        up: View,
        /// F32, one run; may be `gate`.
        out: View,
    },
    /// out = a + b, elementwise, in this order; `out` may be either.
    Add {
        /// F32 \[R, cols\].
        a: BufferId,
        /// F32 \[R, cols\].
        b: BufferId,
        /// F32 \[R, cols\].
        out: BufferId,
    },
    /// Chooses experts. Ties go to the lowest id. Choices are written in ascending order of id.
    Route {
        /// F32 \[R, experts\]: the router's matmul.
        logits: BufferId,
        /// F32 \[1, experts\], for the choice only.
        bias: Option<BufferId>,
        /// Scores to choices.
        rule: RouterRule,
        /// U32 \[R, top_k\].
        expert: BufferId,
        /// F32 \[R, top_k\].
        weight: BufferId,
    },
    /// Lists the rows that chose an expert in `owned`, with those choices only; a row without one is left out.
    PackRows {
        /// F32 \[R, hidden\].
        input: BufferId,
        /// U32 \[R, top_k\].
        expert: BufferId,
        /// F32 \[R, top_k\].
        weight: BufferId,
        /// Experts of the destination.
        owned: Vec<Range<u32>>,
        /// Where to.
        out: RowList,
    },
    /// For each pair of `list`: out\[pair\] = activation(gate_e·x + its bias, up_e·x + its bias).
    GroupedGateUp {
        /// Whose pairs.
        list: RowList,
        /// Whose weights; every expert in `list` is owned.
        bank: ExpertBank,
        /// F32 \[capacity · top_k, width\].
        out: BufferId,
    },
    /// For each pair of `list`: out\[pair\] = weight · (down_e · input\[pair\] + its bias), the product rounded to F32.
    GroupedDown {
        /// Whose pairs.
        list: RowList,
        /// Whose weights.
        bank: ExpertBank,
        /// F32 \[capacity · top_k, width\].
        input: BufferId,
        /// F32 \[capacity · top_k, hidden\].
        out: BufferId,
    },
    /// Adds the terms of each row up to the maximal nodes of the tree over `0..experts` that `owned` holds whole:
    /// S(lo, hi) = S(lo, mid) + S(mid, hi), mid = ⌊(lo + hi)/2⌋, an absent half skipped, never added as 0.
    TreePartials {
        /// Whose pairs.
        list: RowList,
        /// F32 \[capacity · top_k, hidden\].
        terms: BufferId,
        /// Experts held whole.
        owned: Vec<Range<u32>>,
        /// Leaves of the tree.
        experts: u32,
        /// Where to.
        out: PartialList,
    },
    /// Finishes the same tree for every row from the partial sums of all owners; out\[r\] = root, 0 when nothing was hit.
    TreeCombine {
        /// Rows and partial sums of each owner; a peer's row list is the one packed for it.
        parts: Vec<(RowList, PartialList)>,
        /// Leaves of the tree.
        experts: u32,
        /// F32 \[R, hidden\].
        out: BufferId,
    },
    /// out\[j\] = input\[row of sample j\] for the samples of the run.
    GatherSamples {
        /// F32 \[R, hidden\].
        input: BufferId,
        /// F32 \[samples, hidden\].
        out: BufferId,
    },
    /// RmsNorm over the sampled rows: as [`Op::RmsNorm`], R = samples.
    /// Then logits\[j, v\] = Σ_k norm\[j, k\] · head\[v, k\].
    Logits {
        /// F32 \[samples, hidden\].
        input: BufferId,
        /// \[1, hidden\].
        norm: BufferId,
        /// Added to the mean square.
        eps: f32,
        /// \[vocabulary, hidden\].
        head: BufferId,
        /// F32 \[samples, hidden\], scratch.
        normed: BufferId,
        /// F32 \[samples, vocabulary\].
        out: BufferId,
    },
    /// Chooses a token for every sample of the run ([`crate::sampling`]); goes to the report and to `samples`.
    Sample {
        /// F32 \[samples, vocabulary\].
        logits: BufferId,
        /// U32 \[samples, 1\], state.
        samples: BufferId,
    },
    /// Reports each row of `input` that holds a number that is not finite.
    FiniteCheck {
        /// F32 \[R, cols\].
        input: BufferId,
    },
    /// Reports each sampled row of `input` that holds a number that is not finite.
    FiniteCheckSamples {
        /// F32 \[samples, cols\].
        input: BufferId,
    },
}

impl Op {
    /// The op's name in errors, refusal tables and profiles.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Embed { .. } => "embed",
            Self::RmsNorm { .. } => "rms_norm",
            Self::Linear { .. } => "linear",
            Self::PerHeadMatmul { .. } => "per_head_matmul",
            Self::Rope { .. } => "rope",
            Self::Clamp { .. } => "clamp",
            Self::AppendKv { .. } => "append_kv",
            Self::AttendMla { .. } => "attend_mla",
            Self::AttendGqa { .. } => "attend_gqa",
            Self::SwiGlu { .. } => "swiglu",
            Self::Add { .. } => "add",
            Self::Route { .. } => "route",
            Self::PackRows { .. } => "pack_rows",
            Self::GroupedGateUp { .. } => "grouped_gate_up",
            Self::GroupedDown { .. } => "grouped_down",
            Self::TreePartials { .. } => "tree_partials",
            Self::TreeCombine { .. } => "tree_combine",
            Self::GatherSamples { .. } => "gather_samples",
            Self::Logits { .. } => "logits",
            Self::Sample { .. } => "sample",
            Self::FiniteCheck { .. } => "finite_check",
            Self::FiniteCheckSamples { .. } => "finite_check_samples",
        }
    }

    /// Names of all ops, in the order of the variants; tests are enumerated from it.
    pub const NAMES: [&'static str; 22] = [
        "embed",
        "rms_norm",
        "linear",
        "per_head_matmul",
        "rope",
        "clamp",
        "append_kv",
        "attend_mla",
        "attend_gqa",
        "swiglu",
        "add",
        "route",
        "pack_rows",
        "grouped_gate_up",
        "grouped_down",
        "tree_partials",
        "tree_combine",
        "gather_samples",
        "logits",
        "sample",
        "finite_check",
        "finite_check_samples",
    ];

    /// How far an F32 backend may be from the oracle: |difference| over the largest magnitude of the output.
    #[must_use]
    pub fn tolerance(&self) -> f64 {
        match self {
            Self::Embed { .. }
            | Self::Clamp { .. }
            | Self::AppendKv { .. }
            | Self::PackRows { .. }
            | Self::GatherSamples { .. }
            | Self::FiniteCheck { .. }
            | Self::FiniteCheckSamples { .. } => 0.0,
            Self::Add { .. } | Self::SwiGlu { .. } | Self::Rope { .. } | Self::RmsNorm { .. } => 3e-7,
            Self::Linear { .. }
            | Self::PerHeadMatmul { .. }
            | Self::GroupedGateUp { .. }
            | Self::GroupedDown { .. }
            | Self::Logits { .. }
            | Self::Sample { .. } => 1e-6,
            Self::Route { .. } | Self::TreePartials { .. } | Self::TreeCombine { .. } => 5e-7,
            Self::AttendMla { .. } | Self::AttendGqa { .. } => 2e-6,
        }
    }
}
