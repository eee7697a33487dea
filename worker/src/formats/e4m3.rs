//! FP8 E4M3FN: one sign, four exponent bits with bias 7, three fraction bits; no infinity, NaN at all ones.
//! Micikevicius et al. 2022, "FP8 Formats for Deep Learning".

/// Rows and columns of the tiles that share one `weight_scale_inv`.
pub const TILE: usize = 128;

/// The number that `bits` stand for; exact.
#[inline(always)]
#[must_use]
pub fn widen(bits: u8) -> f32 {
    // The exponent moves from bias 7 to bias 127 by the product with 2^120, which also makes subnormals normal.
    const REBIAS: f32 = f32::from_bits(0x7b80_0000);
    let magnitude = f32::from_bits(u32::from(bits & 0x7f) << 20) * REBIAS;
    let magnitude = if is_nan(bits) { f32::NAN } else { magnitude };
    f32::from_bits(u32::from(bits & 0x80) << 24 | magnitude.to_bits())
}

/// Whether `bits` are not a number.
#[inline(always)]
#[must_use]
pub fn is_nan(bits: u8) -> bool {
    bits & 0x7f == 0x7f
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_sign_fraction_and_exponent() {
        for bits in 0..=255_u8 {
            let (exponent, fraction) = (i32::from(bits >> 3 & 15), f64::from(bits & 7) / 8.0);
            let magnitude =
                if exponent == 0 { fraction * 2_f64.powi(-6) } else { (1.0 + fraction) * 2_f64.powi(exponent - 7) };
            let meant = if bits < 128 { magnitude } else { -magnitude };
            if is_nan(bits) {
                assert!(widen(bits).is_nan());
            } else {
                assert_eq!(f64::from(widen(bits)).to_bits(), meant.to_bits(), "{bits:#04x}");
            }
        }
    }
}
