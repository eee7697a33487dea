//! GGUF Q5_K: as Q4_K with a fifth bit for every number, standing apart.

use super::{f16, k_scales};

/// Numbers of a block.
pub const ELEMENTS: usize = 256;
/// Bytes of a block: two factors, the 6-bit pack, fifth bits (bit r of byte i is number 32·r + i's), nibbles as in Q4_K.
pub const BYTES: usize = 4 + k_scales::BYTES + 32 + 128;

/// (d · scale) · q − (dmin · minimum), every step rounded.
#[inline]
pub fn widen(block: &[u8; BYTES], out: &mut [f32; ELEMENTS]) {
    let d = f16::widen(u16::from_le_bytes([block[0], block[1]]));
    let dmin = f16::widen(u16::from_le_bytes([block[2], block[3]]));
    let (pack, bits) = block[4..].split_at(k_scales::BYTES);
    let (fifth, nibbles) = bits.split_at(32);
    for (run, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = k_scales::unpack(pack, run);
        let (scale, minimum, shift) = (d * scale, dmin * minimum, run % 2 * 4);
        for ((out, byte), fifth) in out.iter_mut().zip(&nibbles[run / 2 * 32..]).zip(fifth) {
            *out = scale * f32::from(byte >> shift & 15 | (fifth >> run & 1) << 4) - minimum;
        }
    }
}
