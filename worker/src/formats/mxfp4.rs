//! MXFP4 in GGUF's layout: 32 numbers of E2M1 under one E8M0 scale. OCP Microscaling Formats 1.0.

use super::e8m0;

/// Numbers of a block.
pub const ELEMENTS: usize = 32;
/// Bytes of a block: scale, nibbles as in Q4_0 (halves 16 apart).
pub const BYTES: usize = 17;

/// Twice what an E2M1 code stands for; code 8 is 0 here, not −0.
const DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// scale · number.
#[inline]
pub fn widen(block: &[u8; BYTES], out: &mut [f32; ELEMENTS]) {
    let half = e8m0::widen_half(block[0]);
    for (i, &byte) in block[1..].iter().enumerate() {
        out[i] = half * f32::from(DOUBLED[usize::from(byte & 15)]);
        out[i + 16] = half * f32::from(DOUBLED[usize::from(byte >> 4)]);
    }
}

/// Bytes of a block of gpt-oss's `*_blocks`, whose scale stands in `*_scales`.
pub const PAIRED_BYTES: usize = BYTES - 1;

/// A block from gpt-oss's layout: byte i of `paired` holds numbers 2i (low nibble) and 2i + 1.
#[must_use]
pub fn from_paired(scale: u8, paired: &[u8; PAIRED_BYTES]) -> [u8; BYTES] {
    let code = |number: usize| paired[number / 2] >> (number % 2 * 4) & 15;
    let mut block = [scale; BYTES];
    for (i, byte) in block[1..].iter_mut().enumerate() {
        *byte = code(i) | code(i + 16) << 4;
    }
    block
}
