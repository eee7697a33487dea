//! GGUF Q5_1: 32 numbers of 5 bits, 0 to 31, under a binary16 scale and minimum.

use super::f16;

/// Numbers of a block.
pub const ELEMENTS: usize = 32;
/// Bytes of a block: scale, minimum, fifth bits, nibbles; the last two as in Q5_0.
pub const BYTES: usize = 24;

/// scale · q + minimum, the product rounded first.
#[inline]
pub fn widen(block: &[u8; BYTES], out: &mut [f32; ELEMENTS]) {
    let scale = f16::widen(u16::from_le_bytes([block[0], block[1]]));
    let minimum = f16::widen(u16::from_le_bytes([block[2], block[3]]));
    let fifth = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
    for (i, &byte) in block[8..].iter().enumerate() {
        let (low, high) = (fifth >> i & 1, fifth >> (i + 16) & 1);
        out[i] = scale * (u32::from(byte & 15) | low << 4) as f32 + minimum;
        out[i + 16] = scale * (u32::from(byte >> 4) | high << 4) as f32 + minimum;
    }
}
