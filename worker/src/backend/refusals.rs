//! What no backend, or not this one, has: enforced by name when a program is compiled, never at step time.

use crate::program::Dtype;

/// Refused pairs of one op and some dtypes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Backends it holds for.
    pub(crate) backends: &'static [&'static str],
    /// Name of the op.
    pub(crate) op: &'static str,
    /// Dtypes of its weight or cache.
    pub(crate) dtypes: &'static [Dtype],
    /// Why, naming what is allowed.
    pub(crate) reason: &'static str,
}

const CPU: &[&str] = &["cpu", "strict"];
const NOT_A_WEIGHT: &str = "a weight is F32, BF16, F16, E4M3 or in a block format of GGUF";
const NOT_A_CACHE: &str = "a cache is F32 or BF16";
const NO_WEIGHTS: &[Dtype] = &[Dtype::U32, Dtype::E8m0];
const NO_CACHES: &[Dtype] = &[
    Dtype::F16,
    Dtype::U32,
    Dtype::E4m3,
    Dtype::E8m0,
    Dtype::Q8_0,
    Dtype::Q4_0,
    Dtype::Q5_0,
    Dtype::Q5_1,
    Dtype::Iq4Nl,
    Dtype::Mxfp4,
    Dtype::Q4K,
    Dtype::Q5K,
    Dtype::Q6K,
];

/// The refusal table.
pub(crate) const REFUSALS: &[Refusal] = &[
    Refusal { backends: CPU, op: "append_kv", dtypes: NO_CACHES, reason: NOT_A_CACHE },
    Refusal { backends: CPU, op: "attend_mla", dtypes: NO_CACHES, reason: NOT_A_CACHE },
    Refusal { backends: CPU, op: "attend_gqa", dtypes: NO_CACHES, reason: NOT_A_CACHE },
    Refusal { backends: CPU, op: "embed", dtypes: NO_WEIGHTS, reason: NOT_A_WEIGHT },
    Refusal { backends: CPU, op: "rms_norm", dtypes: NO_WEIGHTS, reason: NOT_A_WEIGHT },
    Refusal { backends: CPU, op: "linear", dtypes: NO_WEIGHTS, reason: NOT_A_WEIGHT },
    Refusal { backends: CPU, op: "per_head_matmul", dtypes: NO_WEIGHTS, reason: NOT_A_WEIGHT },
    Refusal { backends: CPU, op: "grouped_gate_up", dtypes: NO_WEIGHTS, reason: NOT_A_WEIGHT },
    Refusal { backends: CPU, op: "grouped_down", dtypes: NO_WEIGHTS, reason: NOT_A_WEIGHT },
    Refusal { backends: CPU, op: "logits", dtypes: NO_WEIGHTS, reason: NOT_A_WEIGHT },
];

/// Why `backend` refuses `op` over `dtype`, if it does.
pub(crate) fn reason(backend: &str, op: &str, dtype: Dtype) -> Option<&'static str> {
    let hit =
        |refusal: &&Refusal| refusal.op == op && refusal.dtypes.contains(&dtype) && refusal.backends.contains(&backend);
    REFUSALS.iter().find(hit).map(|refusal| refusal.reason)
}
