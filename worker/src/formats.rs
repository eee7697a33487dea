//! Number formats of weights and caches: bytes to numbers and back, one file each.
//!
//! Widening to F32 is exact for the formats of single numbers. In a block format a number is a small integer under
//! scales; its F32 value is defined by the order of F32 operations that GGUF's own code has, which `widen` repeats bit
//! for bit. Never knows tensors or files.

pub mod bf16;
pub mod e4m3;
pub mod e8m0;
pub mod f16;
pub mod f32;
pub mod iq4_nl;
mod k_scales;
pub mod mxfp4;
pub mod q4_0;
pub mod q4_k;
pub mod q5_0;
pub mod q5_1;
pub mod q5_k;
pub mod q6_k;
pub mod q8_0;

/// Widens as many whole blocks as both `bytes` and `out` hold.
pub fn widen_blocks<const B: usize, const N: usize>(
    bytes: &[u8],
    out: &mut [f32],
    widen: impl Fn(&[u8; B], &mut [f32; N]),
) {
    for (block, out) in bytes.as_chunks::<B>().0.iter().zip(out.as_chunks_mut::<N>().0) {
        widen(block, out);
    }
}

#[cfg(test)]
#[path = "formats/reference_tests.rs"]
mod reference_tests;
