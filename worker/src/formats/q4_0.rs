//! GGUF Q4_0: 32 numbers of 4 bits, −8 to 7, under one binary16 scale.
//!
//! ```text
//! byte:   2        3        …  17
//! bits:   16 | 0   17 | 1   …  31 | 15      high | low nibble: which number
//! ```

use super::f16;

/// Numbers of a block.
pub const ELEMENTS: usize = 32;
/// Bytes of a block: scale, nibbles.
pub const BYTES: usize = 18;

/// scale · (q − 8).
#[inline]
pub fn widen(block: &[u8; BYTES], out: &mut [f32; ELEMENTS]) {
    let scale = f16::widen(u16::from_le_bytes([block[0], block[1]]));
    for (i, &byte) in block[2..].iter().enumerate() {
        out[i] = scale * (f32::from(byte & 15) - 8.0);
        out[i + 16] = scale * (f32::from(byte >> 4) - 8.0);
    }
}
