//! The plan of a step between a [`Control`] and the wire. What is derived from it (slots, rows) is never sent, so that it
//! cannot contradict the plan. Never touches a device.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use shoal_proto::shard::{StageChunk, StagePlan, StageSample};

use super::StageShape;
use crate::backend::{Control, KV_BLOCK, SampleRow, TokenSource};
use crate::engine::request::SamplingParams;
use crate::limits;
use crate::sampling::TokenCounts;
use crate::sampling::counts::Occurrences;
use crate::shards::frames::FrameError;

/// The plan behind a control whose sequences begin at its first row, one behind the other.
#[must_use]
pub fn encode(control: &Control) -> Bytes {
    let mut samples = control.samples.iter().peekable();
    let bounds = control.sequence_starts.windows(2);
    let chunk = |(bounds, blocks): (&[u32], &Vec<u32>)| {
        let sample = samples.next_if(|sample| sample.row + 1 == bounds[1]).map(to_wire);
        let start = control.positions.get(bounds[0] as usize).copied().unwrap_or_default();
        StageChunk { start, count: bounds[1] - bounds[0], blocks: blocks.clone(), sample }
    };
    let chunks = bounds.zip(&control.block_tables).map(chunk).collect();
    StagePlan { chunks }.encode_to_vec().into()
}

fn to_wire(row: &SampleRow) -> StageSample {
    let params = &row.params;
    let seen = || row.history.iter().filter(|_| !params.is_without_penalties());
    StageSample {
        temperature: params.temperature,
        top_k: params.top_k,
        top_p: params.top_p,
        min_p: params.min_p,
        seed: params.seed,
        repetition_penalty: params.repetition_penalty,
        presence_penalty: params.presence_penalty,
        frequency_penalty: params.frequency_penalty,
        output_index: row.output_index,
        top_logprobs: row.top_logprobs,
        seen: seen().map(|(id, _)| id).collect(),
        seen_prompt: seen().map(|(_, times)| times.prompt).collect(),
        seen_generated: seen().map(|(_, times)| times.generated).collect(),
    }
}

/// What a stage that does not embed is to run; every number is checked.
///
/// # Errors
/// [`FrameError`] saying what is wrong and what is allowed.
pub fn decode(bytes: &[u8], shape: &StageShape) -> Result<Control, FrameError> {
    let plan = StagePlan::decode(bytes).map_err(|error| FrameError(format!("a plan that is none: {error}")))?;
    if plan.chunks.is_empty() {
        return fail("a plan without chunks".into());
    }
    let mut control = Control { sequence_starts: vec![0], ..Control::default() };
    let mut blocks = Blocks::default();
    for chunk in plan.chunks {
        check_chunk(&chunk, control.rows, shape)?;
        blocks.note(&chunk)?;
        let end = chunk.start + chunk.count;
        control.push_sequence(chunk.start..end, chunk.blocks);
        if let Some(sample) = chunk.sample {
            let row = u32::try_from(control.rows - 1).expect("should fit: checked against the bucket");
            control.samples.push(from_wire(sample, row, shape)?);
        }
    }
    blocks.check()?;
    if control.samples.len() > shape.bucket.samples {
        return fail(format!("{} samples; at most {} are allowed", control.samples.len(), shape.bucket.samples));
    }
    control.tokens = vec![TokenSource::Host(0); control.rows];
    Ok(control)
}

fn fail<T>(text: String) -> Result<T, FrameError> {
    Err(FrameError(text))
}

fn check_chunk(chunk: &StageChunk, before: usize, shape: &StageShape) -> Result<(), FrameError> {
    let StageChunk { start, count, blocks, .. } = chunk;
    let room = shape.bucket.rows - before;
    if *count == 0 || *count as usize > room {
        return fail(format!("a chunk of {count} rows; 1 to {room} are allowed"));
    }
    let end = u64::from(*start) + u64::from(*count);
    if end > u64::from(shape.context) {
        return fail(format!("positions {start}..{end}; the context ends at {}", shape.context));
    }
    let needed = end.div_ceil(KV_BLOCK as u64);
    if blocks.len() as u64 != needed {
        return fail(format!("{} blocks for positions up to {end}; {needed} are needed", blocks.len()));
    }
    match blocks.iter().find(|&&block| block >= shape.kv_blocks) {
        Some(block) => fail(format!("block {block} is not below {}", shape.kv_blocks)),
        None => Ok(()),
    }
}

/// Who writes which block, and who only reads it.
#[derive(Default)]
struct Blocks {
    written: HashSet<u32>,
    read: HashSet<u32>,
}

impl Blocks {
    fn note(&mut self, chunk: &StageChunk) -> Result<(), FrameError> {
        let first = chunk.start as usize / KV_BLOCK;
        self.read.extend(&chunk.blocks[..first]);
        match chunk.blocks[first..].iter().find(|&&block| !self.written.insert(block)) {
            Some(block) => fail(format!("block {block} is written twice")),
            None => Ok(()),
        }
    }

    fn check(&self) -> Result<(), FrameError> {
        match self.written.intersection(&self.read).min() {
            Some(block) => fail(format!("block {block} is written and read by another or as an earlier one")),
            None => Ok(()),
        }
    }
}

fn from_wire(sample: StageSample, row: u32, shape: &StageShape) -> Result<SampleRow, FrameError> {
    let checks = [
        limits::TEMPERATURE.check(sample.temperature),
        limits::TOP_K.check(sample.top_k),
        limits::TOP_P.check(sample.top_p),
        limits::MIN_P.check(sample.min_p),
        limits::REPETITION_PENALTY.check(sample.repetition_penalty),
        limits::PRESENCE_PENALTY.check(sample.presence_penalty),
        limits::FREQUENCY_PENALTY.check(sample.frequency_penalty),
        limits::TOP_LOGPROBS.check(sample.top_logprobs),
    ];
    checks.into_iter().collect::<Result<(), _>>().map_err(|error| FrameError(error.to_string()))?;
    Ok(SampleRow {
        row,
        history: Arc::new(history(&sample, shape)?),
        output_index: sample.output_index,
        top_logprobs: sample.top_logprobs,
        params: SamplingParams {
            temperature: sample.temperature,
            top_k: sample.top_k,
            top_p: sample.top_p,
            min_p: sample.min_p,
            seed: sample.seed,
            repetition_penalty: sample.repetition_penalty,
            presence_penalty: sample.presence_penalty,
            frequency_penalty: sample.frequency_penalty,
        },
    })
}

fn history(sample: &StageSample, shape: &StageShape) -> Result<TokenCounts, FrameError> {
    let StageSample { seen, seen_prompt, seen_generated, .. } = sample;
    if seen_prompt.len() != seen.len() || seen_generated.len() != seen.len() {
        let (prompt, generated) = (seen_prompt.len(), seen_generated.len());
        return fail(format!("{} ids seen with {prompt} and {generated} counts", seen.len()));
    }
    let last = seen.last().copied().unwrap_or(0);
    if !seen.is_sorted_by(|a, b| a < b) || last >= shape.vocabulary {
        return fail(format!("ids seen do not ascend below {}", shape.vocabulary));
    }
    let times = seen_prompt.iter().zip(seen_generated);
    let times = times.map(|(&prompt, &generated)| Occurrences { prompt, generated });
    Ok(TokenCounts::from_iter(seen.iter().copied().zip(times)))
}
