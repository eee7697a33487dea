//! The weights of routed experts, as each family stores them.

use std::ops::Range;

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
        ExpertTensors::Stacked => stacked(recorder, config, owned, &format!("{prefix}.experts")),
    }
}

/// gpt-oss: its own files hold all experts of a layer in one tensor; of MXFP4 ones and of GGUF files the checkpoint shows
/// a matrix per expert.
fn stacked(
    recorder: &mut Recorder<'_>,
    config: &ModelConfig,
    owned: Vec<Range<u32>>,
    prefix: &str,
) -> Result<ExpertBank, WeightsError> {
    let mixture = &config.decoder.mixture;
    let (hidden, width, activation) = (config.hidden, mixture.width, mixture.activation);
    let experts = mixture.experts as usize;
    let name = |part: &str| format!("{prefix}.{part}");
    let one = |part: &'static str| move |expert: u32| format!("{prefix}.{expert}.{part}");
    let (gate, up, down) = if recorder.has(&one("down_proj.weight")(0)) {
        let mut bank = |part, shape| recorder.bank(&owned, shape, one(part));
        (
            bank("gate_proj.weight", [width, hidden])?,
            bank("up_proj.weight", [width, hidden])?,
            bank("down_proj.weight", [hidden, width])?,
        )
    } else {
        let both = Stack { tensor: &name("gate_up_proj"), experts, inputs: Some(hidden), outputs: 2 * width };
        let [gate, up] = recorder.interleaved_bank(&owned, both)?;
        let last = Stack { tensor: &name("down_proj"), experts, inputs: Some(width), outputs: hidden };
        (gate, up, recorder.transposed_bank(&owned, last)?)
    };
    let biases = if recorder.has(&one("down_proj.bias")(0)) {
        let mut bank = |part, len| recorder.vector_bank(&owned, len, one(part));
        ExpertBiases {
            gate: bank("gate_proj.bias", width)?,
            up: bank("up_proj.bias", width)?,
            down: bank("down_proj.bias", hidden)?,
        }
    } else {
        let both = Stack { tensor: &name("gate_up_proj_bias"), experts, inputs: None, outputs: 2 * width };
        let [gate, up] = recorder.interleaved_bank(&owned, both)?;
        let last = Stack { tensor: &name("down_proj_bias"), experts, inputs: None, outputs: hidden };
        ExpertBiases { gate, up, down: recorder.transposed_bank(&owned, last)? }
    };
    Ok(ExpertBank { owned, gate, up, down, width, activation, biases: Some(biases) })
}
