//! Functions of one number. Evaluated in F64 and rounded once, so that a last-bit difference between maths
//! libraries does not reach a result.

/// e^x.
#[inline]
pub(super) fn exp(x: f32) -> f32 {
    f64::from(x).exp() as f32
}

/// e^x of every x ≤ 0 or NaN, with the bits of [`exp`]: compared for each of the 2³¹ inputs. Without a branch or call, so
/// that it becomes vector code of its caller's level.
///
/// e^x = 2^k · e^r with k the integer next to x / ln 2; e^r by its Taylor series, |r| ≤ ln 2 / 2.
#[inline(always)]
pub(super) fn exp_all(values: &mut [f32]) {
    for value in values {
        *value = exp_below(*value);
    }
}

#[inline(always)]
fn exp_below(x: f32) -> f32 {
    /// Below it e^x rounds to 0 in F32.
    const LOWEST: f32 = -110.0;
    /// A number that is added to it is rounded to an integer, which is then in its low bits.
    const ROUNDING: f64 = 6_755_399_441_055_744.0;
    /// ln 2 = HIGH + LOW, with few enough bits in HIGH that k · HIGH is exact.
    const HIGH: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
    const LOW: f64 = 1.908_214_929_270_587_7e-10;
    // Written so that NaN stays NaN.
    let x = f64::from(if x < LOWEST { LOWEST } else { x });
    let shifted = x * std::f64::consts::LOG2_E + ROUNDING;
    let k = shifted - ROUNDING;
    let r = (x - k * HIGH) - k * LOW;
    let mut series = 0.0;
    for term in SERIES {
        series = series * r + term;
    }
    let power = f64::from_bits((shifted.to_bits() << 52).wrapping_add(1.0_f64.to_bits()));
    ((1.0 + (r + r * r * series)) * power) as f32
}

/// 1/13!, 1/12!, … 1/2!.
const SERIES: [f64; 12] = {
    let mut terms = [0.0; 12];
    let (mut n, mut factorial) = (2, 1.0);
    while n <= 13 {
        factorial *= n as f64;
        terms[13 - n] = 1.0 / factorial;
        n += 1;
    }
    terms
};

/// 1 / (1 + e^−x).
#[inline]
pub(super) fn sigmoid(x: f32) -> f32 {
    (1.0 / (1.0 + (-f64::from(x)).exp())) as f32
}

/// x · sigmoid(x), in F64 up to the one rounding.
#[inline]
pub(super) fn silu(x: f32) -> f32 {
    let x = f64::from(x);
    (x / (1.0 + (-x).exp())) as f32
}

/// gate · sigmoid(alpha · gate) · (up + 1) with gate ≤ limit and up in −limit..=limit; NaN stays NaN.
#[inline]
pub(super) fn clamped(gate: f32, up: f32, alpha: f32, limit: f32) -> f32 {
    // `min` would turn NaN into the limit.
    let gate = f64::from(if gate > limit { limit } else { gate });
    let glu = (gate / (1.0 + (-f64::from(alpha) * gate).exp())) as f32;
    glu * (up.clamp(-limit, limit) + 1.0)
}

/// (cos, sin) of an angle in radians.
#[inline]
pub(super) fn cos_sin(angle: f32) -> (f32, f32) {
    let (sin, cos) = f64::from(angle).sin_cos();
    (cos as f32, sin as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_the_range_are_numbers() {
        assert_eq!((exp(f32::NEG_INFINITY), exp(0.0), exp(f32::INFINITY)), (0.0, 1.0, f32::INFINITY));
        assert_eq!((sigmoid(-1e30), sigmoid(0.0), sigmoid(1e30)), (0.0, 0.5, 1.0));
        assert_eq!((silu(-1e30), silu(0.0), silu(100.0)), (0.0, 0.0, 100.0));
        assert_eq!(cos_sin(0.0), (1.0, 0.0));
        assert_eq!((clamped(100.0, -100.0, 1e3, 7.0), clamped(-1e30, 5.0, 1.702, 7.0)), (-42.0, 0.0));
        assert!(clamped(f32::NAN, 1.0, 1.702, 7.0).is_nan() && clamped(1.0, f32::NAN, 1.702, 7.0).is_nan());
    }

    #[test]
    fn the_exponential_of_many_has_the_bits_of_the_exponential_of_one() {
        // A prime step through all bit patterns from −0 to −∞, and the ends of what is not 0.
        let ends = [0.0, -0.0, -103.972_07, -103.972_08, -104.0, -110.0, -111.0, f32::MIN, f32::NEG_INFINITY];
        let steps = ((-0.0_f32).to_bits()..=f32::NEG_INFINITY.to_bits()).step_by(503).map(f32::from_bits);
        for x in steps.chain(ends) {
            let mut many = [x];
            exp_all(&mut many);
            assert_eq!(many[0].to_bits(), exp(x).to_bits(), "e^{x:e}");
        }
        let mut none = [f32::NAN];
        exp_all(&mut none);
        assert!(none[0].is_nan());
    }
}
