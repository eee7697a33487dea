//! GGUF Q5_0: 32 numbers of 5 bits, −16 to 15, under one binary16 scale; the fifth bits stand apart.

use super::f16;

/// Numbers of a block.
pub const ELEMENTS: usize = 32;
/// Bytes of a block: scale, fifth bits (bit i is number i's), nibbles as in Q4_0.
pub const BYTES: usize = 22;

/// scale · (q − 16).
#[inline]
pub fn widen(block: &[u8; BYTES], out: &mut [f32; ELEMENTS]) {
    let scale = f16::widen(u16::from_le_bytes([block[0], block[1]]));
    let fifth = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    for (i, &byte) in block[6..].iter().enumerate() {
        let (low, high) = (fifth >> i & 1, fifth >> (i + 16) & 1);
        out[i] = scale * ((u32::from(byte & 15) | low << 4) as f32 - 16.0);
        out[i + 16] = scale * ((u32::from(byte >> 4) | high << 4) as f32 - 16.0);
    }
}
