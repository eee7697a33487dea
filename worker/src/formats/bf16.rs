//! bfloat16: the upper half of binary32.

/// The number that `bits` stand for; exact.
#[inline(always)]
#[must_use]
pub fn widen(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The nearest bfloat16, ties to even; a NaN stays a (quiet) NaN.
#[inline(always)]
#[must_use]
pub fn round(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return ((bits >> 16) | 0x40) as u16;
    }
    let even = (bits >> 16) & 1;
    (bits.wrapping_add(0x7fff + even) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bfloat16_widens_as_the_reference_does_and_comes_back() {
        for bits in 0..=u16::MAX {
            let reference = half::bf16::from_bits(bits);
            if reference.is_nan() {
                assert!(widen(bits).is_nan() && half::bf16::from_bits(round(widen(bits))).is_nan());
            } else {
                assert_eq!(widen(bits).to_bits(), reference.to_f32().to_bits());
                assert_eq!(round(widen(bits)), bits);
            }
        }
    }

    #[test]
    fn rounding_agrees_with_the_reference_around_every_boundary() {
        for high in 0..=u16::MAX {
            for low in [0_u32, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let value = f32::from_bits((u32::from(high) << 16) | low);
                assert_eq!(round(value), half::bf16::from_f32(value).to_bits(), "{value}");
            }
        }
    }
}
