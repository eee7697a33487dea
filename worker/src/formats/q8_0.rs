//! GGUF Q8_0: 32 signed bytes under one binary16 scale.

use super::f16;

/// Numbers of a block.
pub const ELEMENTS: usize = 32;
/// Bytes of a block: scale, numbers.
pub const BYTES: usize = 34;

/// scale · q.
#[inline]
pub fn widen(block: &[u8; BYTES], out: &mut [f32; ELEMENTS]) {
    let scale = f16::widen(u16::from_le_bytes([block[0], block[1]]));
    for (out, &q) in out.iter_mut().zip(&block[2..]) {
        *out = f32::from(q as i8) * scale;
    }
}
