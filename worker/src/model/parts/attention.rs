//! The attention of a layer, whichever kind the family has.

use crate::model::config::{Attention, ModelConfig};
use crate::model::parts::gqa::{GqaAttention, GqaShared};
use crate::model::parts::mla::{MlaAttention, MlaShared};
use crate::model::recipe::Recorder;
use crate::program::{BufferId, Dtype};
use crate::weights::WeightsError;

/// Scratch and constants shared by all layers.
pub(in crate::model) enum AttentionShared {
    Mla(MlaShared),
    Gqa(GqaShared),
}

/// Weights and cache of one layer.
pub(in crate::model) enum LayerAttention {
    Mla(MlaAttention),
    Gqa(GqaAttention),
}

impl AttentionShared {
    pub(in crate::model) fn declare(recorder: &mut Recorder<'_>, config: &ModelConfig) -> Self {
        match config.decoder.attention {
            Attention::Mla(dims) => Self::Mla(MlaShared::declare(recorder, config, dims)),
            Attention::Gqa(dims) => Self::Gqa(GqaShared::declare(recorder, config, dims)),
        }
    }

    /// Binds layer `layer`; `window` keys are seen, and the cache has (dtype, slots).
    pub(in crate::model) fn bind(
        &self,
        recorder: &mut Recorder<'_>,
        layer: usize,
        window: Option<usize>,
        cache: (Dtype, usize),
    ) -> Result<LayerAttention, WeightsError> {
        Ok(match self {
            Self::Mla(shared) => LayerAttention::Mla(MlaAttention::bind(recorder, shared, layer, cache)?),
            Self::Gqa(shared) => LayerAttention::Gqa(GqaAttention::bind(recorder, shared, layer, window, cache)?),
        })
    }

    /// `out` = attention of the normed rows in `input`.
    pub(in crate::model) fn record(
        &self,
        recorder: &mut Recorder<'_>,
        layer: &LayerAttention,
        input: BufferId,
        out: BufferId,
    ) {
        match (self, layer) {
            (Self::Mla(shared), LayerAttention::Mla(attention)) => attention.record(recorder, shared, input, out),
            (Self::Gqa(shared), LayerAttention::Gqa(attention)) => attention.record(recorder, shared, input, out),
            _ => unreachable!("a layer is bound by the shared part that records it"),
        }
    }
}
