//! GGUF Q4_K: 256 numbers of 4 bits in eight runs of 32, each with a 6-bit scale and minimum under two binary16 factors.

use super::{f16, k_scales};

/// Numbers of a block.
pub const ELEMENTS: usize = 256;
/// Bytes of a block: factor of scales, factor of minimums, the 6-bit pack, nibbles (two runs share 32 bytes, the first
/// in the low halves).
pub const BYTES: usize = 4 + k_scales::BYTES + 128;

/// (d · scale) · q − (dmin · minimum), every step rounded.
#[inline]
pub fn widen(block: &[u8; BYTES], out: &mut [f32; ELEMENTS]) {
    let d = f16::widen(u16::from_le_bytes([block[0], block[1]]));
    let dmin = f16::widen(u16::from_le_bytes([block[2], block[3]]));
    let (pack, nibbles) = block[4..].split_at(k_scales::BYTES);
    for (run, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = k_scales::unpack(pack, run);
        let (scale, minimum, shift) = (d * scale, dmin * minimum, run % 2 * 4);
        for (out, byte) in out.iter_mut().zip(&nibbles[run / 2 * 32..]) {
            *out = scale * f32::from(byte >> shift & 15) - minimum;
        }
    }
}
