//! What was measured, for scripts and for people.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::Bench;
use super::group::Group;
use super::measure::{Decode, Prefill};

/// What one batch gave. Totals are over the batch and over all shards.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// As in `config.json`.
    pub architecture: String,
    /// {backend, level, activation rounding, KV dtype, kernel revision}.
    pub numerics_id: String,
    /// Shards that held the model.
    pub shards: usize,
    /// Along what they divided it.
    pub strategy: &'static str,
    /// Of all shards together.
    pub threads: usize,
    /// Of the tokens.
    pub seed: u64,
    /// Sequences at once.
    pub batch: u32,
    /// Tokens of a prompt.
    pub prefill: u32,
    /// Tokens of an answer after its first one.
    pub decode: u32,
    /// Prompt tokens a second, from submission to the last first token.
    pub prefill_tokens_per_second: f64,
    /// Answer tokens a second while every sequence wrote.
    pub decode_tokens_per_second: f64,
    /// Bytes of weights that a step read then, on average.
    pub weight_bytes_per_step: f64,
    /// Experts that a layer of a step read then, on average.
    pub distinct_experts_per_layer: f64,
    /// Bytes of weights resident.
    pub weight_bytes: u64,
    /// Read bandwidth of memory before, in 10⁹ bytes a second.
    pub read_gbps_before: f64,
    /// The same, after.
    pub read_gbps_after: f64,
    /// From the start of the process to the first token, with every weight resident.
    pub start_to_first_token_seconds: f64,
}

/// One batch, measured.
pub(super) struct Measured {
    pub(super) batch: u32,
    pub(super) prefill: Prefill,
    pub(super) decode: Decode,
    /// Before and after.
    pub(super) read_gbps: [f64; 2],
}

pub(super) fn figures(bench: &Bench, group: &Group, measured: &Measured, first_token: Duration) -> Figures {
    let Measured { batch, prefill, decode, read_gbps } = measured;
    let info = &group.handles[0].info;
    let rate = |tokens: u64, elapsed: Duration| tokens as f64 / elapsed.as_secs_f64();
    let steps = decode.reading.steps.max(1) as f64;
    Figures {
        architecture: info.architecture.clone(),
        numerics_id: info.numerics_id.clone(),
        shards: bench.size(),
        strategy: bench.strategy.name(),
        threads: bench.threads.get(),
        seed: bench.seed,
        batch: *batch,
        prefill: bench.prefill,
        decode: bench.decode,
        prefill_tokens_per_second: rate(prefill.tokens, prefill.elapsed),
        decode_tokens_per_second: rate(decode.tokens, decode.elapsed),
        weight_bytes_per_step: decode.reading.bytes as f64 / steps,
        distinct_experts_per_layer: decode.reading.experts as f64 / steps / group.mixture_layers().max(1) as f64,
        weight_bytes: group.handles.iter().map(|handle| handle.info.weight_bytes).sum(),
        read_gbps_before: read_gbps[0],
        read_gbps_after: read_gbps[1],
        start_to_first_token_seconds: first_token.as_secs_f64(),
    }
}

/// One object for one batch, a list for several.
///
/// # Errors
/// None that a number can cause.
pub fn json(figures: &[Figures]) -> serde_json::Result<String> {
    match figures {
        [one] => serde_json::to_string_pretty(one),
        several => serde_json::to_string_pretty(several),
    }
}

/// For a person at a terminal.
#[must_use]
pub fn table(figures: &[Figures]) -> String {
    let mut text = String::new();
    let Some(first) = figures.first() else { return text };
    let shards =
        if first.shards > 1 { format!(", {} shards ({})", first.shards, first.strategy) } else { String::new() };
    let gigabytes = first.weight_bytes as f64 / 1e9;
    let _ = writeln!(text, "{} of {gigabytes:.2} GB{shards}, {}", first.architecture, first.numerics_id);
    let start = first.start_to_first_token_seconds;
    let _ = writeln!(text, "{} threads; first token {start:.2} s after the start of the process", first.threads);
    let heads = ["batch", "prefill tok/s", "decode tok/s", "MB/step", "experts/layer", "read GB/s"];
    let _ = writeln!(
        text,
        "{:>6}  {:>13}  {:>12}  {:>9}  {:>13}  {:>11}",
        heads[0], heads[1], heads[2], heads[3], heads[4], heads[5]
    );
    for one in figures {
        let read = format!("{:.1}-{:.1}", one.read_gbps_before, one.read_gbps_after);
        let _ = writeln!(
            text,
            "{:>6}  {:>13.1}  {:>12.1}  {:>9.1}  {:>13.1}  {read:>11}",
            one.batch,
            one.prefill_tokens_per_second,
            one.decode_tokens_per_second,
            one.weight_bytes_per_step / 1e6,
            one.distinct_experts_per_layer,
        );
    }
    text
}
