//! GGUF Q6_K: 256 numbers of 6 bits, −32 to 31, in sixteen runs of 16, each with a signed 8-bit scale under one binary16.

use super::f16;

/// Numbers of a block.
pub const ELEMENTS: usize = 256;
/// Bytes of a block: low nibbles, high bit pairs, scales, factor.
pub const BYTES: usize = 128 + 64 + 16 + 2;

/// (d · scale) · (q − 32).
///
/// ```text
/// half h of 128 numbers, part p of 32, number i:
/// low  4 bits: byte 64·h + 32·(p mod 2) + i, nibble p div 2
/// high 2 bits: byte 32·h + i,                bits 2·p and 2·p + 1
/// ```
#[inline]
pub fn widen(block: &[u8; BYTES], out: &mut [f32; ELEMENTS]) {
    let (low, rest) = block.split_at(128);
    let (high, rest) = rest.split_at(64);
    let (scales, d) = rest.split_at(16);
    let d = f16::widen(u16::from_le_bytes([d[0], d[1]]));
    for (run, out) in out.chunks_exact_mut(32).enumerate() {
        let (half, part) = (run / 4, run % 4);
        let low = &low[64 * half + 32 * (part % 2)..][..32];
        let high = &high[32 * half..][..32];
        let scales = [scales[2 * run], scales[2 * run + 1]].map(|scale| d * f32::from(scale as i8));
        for (i, (out, (low, high))) in out.iter_mut().zip(low.iter().zip(high)).enumerate() {
            let q = low >> (part / 2 * 4) & 15 | (high >> (2 * part) & 3) << 4;
            *out = scales[i / 16] * (f32::from(q) - 32.0);
        }
    }
}
