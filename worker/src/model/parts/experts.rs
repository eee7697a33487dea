//! The weights of routed experts, as each family stores them.

use crate::model::config::{ExpertTensors, ModelConfig};
use crate::model::parts::Ownership;
use crate::model::recipe::{Recorder, Stack};
use crate::ops::{ExpertBank, ExpertBiases};
use crate::weights::WeightsError;

/// Binds the experts of one mixture layer that `ownership` gives to this shard; `prefix` ends before `.experts`.
pub(super) fn bind(
    recorder: &mut Recorder<'_>,
    config: &ModelConfig,
    ownership: &Ownership,
    prefix: &str,
) -> Result<ExpertBank, WeightsError> {
    let mixture = &config.decoder.mixture;
    let (hidden, width, activation) = (config.hidden, mixture.width, mixture.activation);
    let owned = ownership.own.clone();
    match mixture.tensors {
        ExpertTensors::Apart { gate, up, down } => {
            let mut bank = |part: &str, shape| {
                recorder.bank(&owned, shape, |expert| format!("{prefix}.experts.{expert}.{part}.weight"))
            };
            let (gate, up) = (bank(gate, [width, hidden])?, bank(up, [width, hidden])?);
            let down = bank(down, [hidden, width])?;
            Ok(ExpertBank { owned, gate, up, down, width, activation, biases: None })
        }
        ExpertTensors::Stacked => {
            let experts = mixture.experts as usize;
            let name = |part: &str| format!("{prefix}.experts.{part}");
            let both = Stack { tensor: &name("gate_up_proj"), experts, inputs: Some(hidden), outputs: 2 * width };
            let [gate, up] = recorder.interleaved_bank(&owned, both)?;
            let down = Stack { tensor: &name("down_proj"), experts, inputs: Some(width), outputs: hidden };
            let down = recorder.transposed_bank(&owned, down)?;
            let both = Stack { tensor: &name("gate_up_proj_bias"), experts, inputs: None, outputs: 2 * width };
            let [gate_bias, up_bias] = recorder.interleaved_bank(&owned, both)?;
            let last = Stack { tensor: &name("down_proj_bias"), experts, inputs: None, outputs: hidden };
            let biases = ExpertBiases { gate: gate_bias, up: up_bias, down: recorder.transposed_bank(&owned, last)? };
            Ok(ExpertBank { owned, gate, up, down, width, activation, biases: Some(biases) })
        }
    }
}
