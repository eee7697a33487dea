//! What no backend, or not this one, has: enforced by name when a program is compiled, never at step time.

use crate::program::Dtype;

/// One refused pair of op and dtype.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Backends it holds for.
    pub(crate) backends: &'static [&'static str],
    /// Name of the op.
    pub(crate) op: &'static str,
    /// Dtype of its weight or cache.
    pub(crate) dtype: Dtype,
    /// Why, naming what is allowed.
    pub(crate) reason: &'static str,
}

const CPU: &[&str] = &["cpu", "strict"];
const NOT_A_WEIGHT: &str = "a weight is F32, BF16 or F16, not U32";
const NOT_A_CACHE: &str = "a cache is F32 or BF16";

/// The refusal table.
pub(crate) const REFUSALS: &[Refusal] = &[
    Refusal { backends: CPU, op: "append_kv", dtype: Dtype::F16, reason: NOT_A_CACHE },
    Refusal { backends: CPU, op: "append_kv", dtype: Dtype::U32, reason: NOT_A_CACHE },
    Refusal { backends: CPU, op: "attend_mla", dtype: Dtype::F16, reason: NOT_A_CACHE },
    Refusal { backends: CPU, op: "attend_mla", dtype: Dtype::U32, reason: NOT_A_CACHE },
    Refusal { backends: CPU, op: "attend_gqa", dtype: Dtype::F16, reason: NOT_A_CACHE },
    Refusal { backends: CPU, op: "attend_gqa", dtype: Dtype::U32, reason: NOT_A_CACHE },
    Refusal { backends: CPU, op: "embed", dtype: Dtype::U32, reason: NOT_A_WEIGHT },
    Refusal { backends: CPU, op: "rms_norm", dtype: Dtype::U32, reason: NOT_A_WEIGHT },
    Refusal { backends: CPU, op: "linear", dtype: Dtype::U32, reason: NOT_A_WEIGHT },
    Refusal { backends: CPU, op: "per_head_matmul", dtype: Dtype::U32, reason: NOT_A_WEIGHT },
    Refusal { backends: CPU, op: "grouped_gate_up", dtype: Dtype::U32, reason: NOT_A_WEIGHT },
    Refusal { backends: CPU, op: "grouped_down", dtype: Dtype::U32, reason: NOT_A_WEIGHT },
    Refusal { backends: CPU, op: "logits", dtype: Dtype::U32, reason: NOT_A_WEIGHT },
];

/// Why `backend` refuses `op` over `dtype`, if it does.
pub(crate) fn reason(backend: &str, op: &str, dtype: Dtype) -> Option<&'static str> {
    let hit = |refusal: &&Refusal| refusal.op == op && refusal.dtype == dtype && refusal.backends.contains(&backend);
    REFUSALS.iter().find(hit).map(|refusal| refusal.reason)
}
