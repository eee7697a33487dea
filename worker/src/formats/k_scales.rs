//! The eight 6-bit scales and minimums that Q4_K and Q5_K pack into twelve bytes.
//!
//! ```text
//! byte 0..4:   scale i+4, bits 4–5 | scale i,    6 bits      i = 0..4
//! byte 4..8:   min i+4,   bits 4–5 | min i,      6 bits
//! byte 8..12:  min i+4,   bits 0–3 | scale i+4, bits 0–3
//! ```

/// Bytes of the pack.
pub(super) const BYTES: usize = 12;

/// Scale and minimum of run `i` < 8, each below 64.
#[inline(always)]
pub(super) fn unpack(pack: &[u8], i: usize) -> (f32, f32) {
    let (scale, minimum) = if i < 4 {
        (pack[i] & 63, pack[i + 4] & 63)
    } else {
        let low = pack[i + 4];
        (low & 15 | pack[i - 4] >> 6 << 4, low >> 4 | pack[i] >> 6 << 4)
    };
    (f32::from(scale), f32::from(minimum))
}
