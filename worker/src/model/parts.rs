//! Parts that recipes are built from: attention, MLP, mixture of experts.

mod attention;
mod experts;
mod gqa;
mod mixture;
mod mla;
mod mlp;

pub(super) use attention::{AttentionShared, LayerAttention};
pub(super) use mixture::{Mixture, MixtureBuffers, Ownership};
pub(super) use mlp::{Mlp, MlpScratch};
