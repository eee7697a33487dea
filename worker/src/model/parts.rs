//! Parts that recipes are built from: attention, MLP, mixture of experts.

mod attention;
mod mixture;
mod mlp;

pub(super) use attention::{MlaAttention, MlaShared};
pub(super) use mixture::{Mixture, MixtureBuffers, Ownership};
pub(super) use mlp::{Mlp, MlpScratch};
