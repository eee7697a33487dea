//! GGUF IQ4_NL: 32 indices of 4 bits into a table of 16 numbers, under one binary16 scale.

use super::f16;

/// Numbers of a block.
pub const ELEMENTS: usize = 32;
/// Bytes of a block: scale, nibbles as in Q4_0.
pub const BYTES: usize = 18;

/// What an index stands for; denser around 0.
const VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// scale · table\[q\].
#[inline]
pub fn widen(block: &[u8; BYTES], out: &mut [f32; ELEMENTS]) {
    let scale = f16::widen(u16::from_le_bytes([block[0], block[1]]));
    for (i, &byte) in block[2..].iter().enumerate() {
        out[i] = scale * f32::from(VALUES[usize::from(byte & 15)]);
        out[i + 16] = scale * f32::from(VALUES[usize::from(byte >> 4)]);
    }
}
