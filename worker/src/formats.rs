//! Number formats of weights and caches: bytes to numbers and back, one file each.
//!
//! Widening to F32 is exact; never knows tensors or files.

pub mod bf16;
pub mod f16;
pub mod f32;
