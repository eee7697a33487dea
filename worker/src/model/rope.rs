//! Rotary positions: plain, or yarn. Peng et al. 2023, "YaRN", sections 3.2 and 3.4.

use std::f64::consts::PI;

use super::raw::{RawConfig, RawRope};
use crate::ops::{Pairing, RopeTable};

/// How positions turn queries and keys.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeRule {
    /// Base of the frequencies.
    pub theta: f64,
    /// Context extension, if any.
    pub yarn: Option<Yarn>,
    /// Which elements rotate together.
    pub pairing: Pairing,
}

/// Yarn's parameters, resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Yarn {
    /// How many times longer than the original context.
    pub factor: f64,
    /// Tokens of the original context.
    pub original_context: u64,
    /// Rotations over the original context above which a frequency stays as it is.
    pub beta_fast: f64,
    /// Rotations below which a frequency is divided by `factor`.
    pub beta_slow: f64,
    /// Multiplies cosine and sine.
    pub attention_factor: f64,
    /// Multiplies the softmax scale, squared; 1 when absent.
    pub mscale_all: f64,
    /// Round the ramp's ends outwards to whole dims.
    pub truncate: bool,
}

/// m(s) = 0.1 · s · ln f + 1, and 1 for f ≤ 1.
fn mscale(factor: f64, scale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 }
}

impl RopeRule {
    /// Reads either spelling; `theta` is what the family's class takes where the config has none.
    pub(super) fn check(raw: &RawConfig, theta: f64, pairing: Pairing) -> Result<Self, String> {
        let rope = raw.rope_parameters.clone().or_else(|| raw.rope_scaling.clone()).unwrap_or_default();
        let theta = rope.rope_theta.or(raw.rope_theta).unwrap_or(theta);
        if !(theta.is_finite() && theta > 1.0) {
            return Err(format!("rope_theta is {theta}; a finite number above 1 is allowed"));
        }
        let kind = rope.rope_type.as_deref().or(rope.older_type.as_deref()).unwrap_or("default");
        let yarn = match kind {
            "default" => None,
            "yarn" => Some(Yarn::check(&rope, raw)?),
            other => return Err(format!("rope type {other:?} is not supported; supported: default, yarn")),
        };
        if let Some(part) = rope.partial_rotary_factor.or(raw.partial_rotary_factor).filter(|part| *part != 1.0) {
            return Err(format!("partial_rotary_factor {part} is not supported; supported: 1"));
        }
        Ok(Self { theta, yarn, pairing })
    }

    /// The table for heads whose positional part has `width` columns. Computed in F32, as published code does.
    #[must_use]
    pub fn table(&self, width: usize) -> RopeTable {
        let period = |i: usize| (self.theta as f32).powf((2 * i) as f32 / width as f32);
        let half = width / 2;
        let Some(yarn) = &self.yarn else {
            let inv_freq = (0..half).map(|i| 1.0 / period(i)).collect();
            return RopeTable { inv_freq, factor: 1.0, pairing: self.pairing };
        };
        let (low, high) = yarn.ramp(width, self.theta);
        let inv_freq = (0..half).map(|i| {
            let kept = 1.0 - ((i as f32 - low as f32) / (high as f32 - low as f32)).clamp(0.0, 1.0);
            let stretched = 1.0 / (yarn.factor as f32 * period(i));
            stretched * (1.0 - kept) + kept / period(i)
        });
        RopeTable { inv_freq: inv_freq.collect(), factor: yarn.attention_factor as f32, pairing: self.pairing }
    }

    /// Of latent attention: 1/sqrt(nope + rope), times m(all_dim)² when yarn gives one; acts on both parts of the score.
    #[must_use]
    pub fn softmax_scale(&self, nope: usize, rope: usize) -> f32 {
        let all = self.yarn.as_ref().map_or(1.0, |yarn| yarn.mscale_all);
        (((nope + rope) as f64).powf(-0.5) * all * all) as f32
    }
}

impl Yarn {
    fn check(rope: &RawRope, raw: &RawConfig) -> Result<Self, String> {
        let original_context = rope
            .original_max_position_embeddings
            .filter(|&tokens| tokens > 0)
            .ok_or("yarn needs original_max_position_embeddings above 0")?;
        let stretched = || raw.max_position_embeddings.map(|tokens| tokens as f64 / original_context as f64);
        let factor = rope.factor.or_else(stretched).ok_or("yarn needs factor")?;
        let set = |value: Option<f64>| value.filter(|value| *value != 0.0);
        let attention_factor =
            rope.attention_factor.unwrap_or_else(|| match (set(rope.mscale), set(rope.mscale_all_dim)) {
                (Some(one), Some(all)) => mscale(factor, one) / mscale(factor, all),
                _ => mscale(factor, 1.0),
            });
        let yarn = Self {
            factor,
            original_context,
            beta_fast: set(rope.beta_fast).unwrap_or(32.0),
            beta_slow: set(rope.beta_slow).unwrap_or(1.0),
            attention_factor,
            mscale_all: set(rope.mscale_all_dim).map_or(1.0, |all| mscale(factor, all)),
            truncate: rope.truncate.unwrap_or(true),
        };
        let positive = [
            ("factor", factor),
            ("beta_fast", yarn.beta_fast),
            ("beta_slow", yarn.beta_slow),
            ("attention_factor", attention_factor),
        ];
        match positive.into_iter().find(|(_, value)| !(value.is_finite() && *value > 0.0)) {
            Some((field, value)) => Err(format!("yarn's {field} is {value}; a finite number above 0 is allowed")),
            None => Ok(yarn),
        }
    }

    /// First and last dim of the ramp from kept to stretched frequencies.
    fn ramp(&self, width: usize, theta: f64) -> (f64, f64) {
        let dim = |rotations: f64| {
            width as f64 * (self.original_context as f64 / (rotations * 2.0 * PI)).ln() / (2.0 * theta.ln())
        };
        let (low, high) = (dim(self.beta_fast), dim(self.beta_slow));
        let (low, high) = if self.truncate { (low.floor(), high.ceil()) } else { (low, high) };
        let (low, high) = (low.max(0.0), high.min(width as f64 - 1.0));
        (low, if low == high { high + 0.001 } else { high })
    }
}
