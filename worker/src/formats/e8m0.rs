//! OCP E8M0: a power of two by its exponent alone.

/// 2^(bits − 127); 255 is NaN.
#[inline(always)]
#[must_use]
pub fn widen(bits: u8) -> f32 {
    match bits {
        0 => f32::from_bits(0x0040_0000),
        255 => f32::NAN,
        _ => f32::from_bits(u32::from(bits) << 23),
    }
}

/// Half of [`widen`], for tables that hold doubled numbers: 2^(bits − 128), and 2^127 for 255.
#[inline(always)]
#[must_use]
pub fn widen_half(bits: u8) -> f32 {
    f32::from_bits(if bits < 2 { 0x0020_0000 << bits } else { u32::from(bits - 1) << 23 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exponent_is_its_power_of_two() {
        for bits in 0..=254_u8 {
            assert_eq!(f64::from(widen(bits)), 2_f64.powi(i32::from(bits) - 127));
            assert_eq!(f64::from(widen_half(bits)), 2_f64.powi(i32::from(bits) - 128));
        }
        assert!(widen(255).is_nan());
    }
}
