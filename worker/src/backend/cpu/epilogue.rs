//! What happens to finished dot products before they are stored: biases and an expert's activation.

use crate::ops::Activation;

use super::math::{clamped, silu};

/// Of one product; without anything it stores the sum as it is.
#[derive(Clone, Copy, Default)]
pub(super) struct Epilogue<'a> {
    /// By output column, added to the product with the first weight; empty for none.
    pub(super) bias: &'a [f32],
    /// The same for the gated weight.
    pub(super) gated_bias: &'a [f32],
    /// Makes one number of gate and up.
    pub(super) activation: Activation,
}

impl Epilogue<'_> {
    /// Of an ungated product.
    #[inline(always)]
    pub(super) fn single(&self, column: usize, sum: f32) -> f32 {
        plus(self.bias, column, sum)
    }

    /// Of a gated one.
    #[inline(always)]
    pub(super) fn gated(&self, column: usize, gate: f32, up: f32) -> f32 {
        let (gate, up) = (plus(self.bias, column, gate), plus(self.gated_bias, column, up));
        match self.activation {
            Activation::SwiGlu => silu(gate) * up,
            Activation::Clamped { alpha, limit } => clamped(gate, up, alpha, limit),
        }
    }
}

#[inline(always)]
fn plus(bias: &[f32], column: usize, sum: f32) -> f32 {
    bias.get(column).map_or(sum, |bias| sum + bias)
}
