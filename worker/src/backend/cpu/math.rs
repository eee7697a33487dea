//! Functions of one number. Evaluated in F64 and rounded once, so that a last-bit difference between maths
//! libraries does not reach a result.

/// e^x.
#[inline]
pub(super) fn exp(x: f32) -> f32 {
    f64::from(x).exp() as f32
}

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
}
