//! IEEE binary16.

/// The number that `bits` stand for; exact, subnormals included, without a branch so that it vectorises.
#[inline(always)]
#[must_use]
pub fn widen(bits: u16) -> f32 {
    // The exponent moves from bias 15 to bias 127 by the product with 2^112, which also makes subnormals normal.
    const REBIAS: f32 = f32::from_bits(0x7780_0000);
    let magnitude = u32::from(bits & 0x7fff) << 13;
    let finite = (f32::from_bits(magnitude) * REBIAS).to_bits();
    let infinite = magnitude | 0x7f80_0000;
    let special = bits & 0x7c00 == 0x7c00;
    f32::from_bits((u32::from(bits & 0x8000) << 16) | if special { infinite } else { finite })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_binary16_widens_as_the_reference_does() {
        for bits in 0..=u16::MAX {
            let (ours, reference) = (widen(bits), half::f16::from_bits(bits).to_f32());
            assert!(ours.to_bits() == reference.to_bits() || (ours.is_nan() && reference.is_nan()), "{bits:#06x}");
        }
    }
}
