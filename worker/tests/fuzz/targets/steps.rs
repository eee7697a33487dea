//! Steps of a pipeline on their way, and the streams that carry all frames: what a shard does with each until the point
//! where it would compute.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

use prost::Message;
use shoal_proto::shard::{
    ExchangeRequest, ExchangeResponse, Heartbeat, Identity, Leaving, Outcome, Refused, Stage, Taken,
};
use shoal_proto::shard::{StageChunk, StagePlan, StageSample, exchange_request, exchange_response};
use shoal_worker::backend::{NonFinite, Report};
use shoal_worker::engine::handle::{DrainPhase, Readiness};
use shoal_worker::engine::request::SampledToken;
use shoal_worker::engine::stats::EngineStats;
use shoal_worker::program::Bucket;
use shoal_worker::shards::frames::{check_partials, check_rows};
use shoal_worker::shards::group::{Answer, Group, GroupParts};
use shoal_worker::shards::identity::compare;
use shoal_worker::shards::parcel::Parcel;
use shoal_worker::shards::pipeline::StageShape;
use shoal_worker::shards::pipeline::frames::{Assembly, Parts, cut};
use shoal_worker::shards::pipeline::intake::{Door, Intake};
use shoal_worker::shards::pipeline::outcome::{Expected, check, to_wire};
use shoal_worker::shards::timing::Timing;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::frames::{OWNED, SHAPE, partials, requests};

pub(super) const STAGE: StageShape = include!("../../common/stage_shape.rs");
const EPOCH: u64 = 7;
const FRAMES: usize = 4;

/// What the outcome of step 9 must fit.
pub(super) fn expected() -> Expected {
    Expected { step: 9, rows: 4, top_logprobs: vec![2, 0] }
}

fn identity(rank: u32) -> Identity {
    Identity {
        protocol_version: 1,
        epoch: EPOCH,
        rank,
        size: 3,
        model_digest: vec![1, 2].into(),
        dense_digest: vec![3].into(),
        placement_fingerprint: vec![4].into(),
        numerics_id: "cpu".to_owned(),
        capacity: STAGE.capacity(),
    }
}

/// Rank 1 of 3, and where it delivers answers.
fn group() -> (Group, Receiver<Answer>) {
    let (answers, delivered) = sync_channel(FRAMES);
    let parts = GroupParts {
        identity: identity(1),
        timing: Timing::default(),
        streams: Arc::new(|| 0),
        progress: Arc::new(|| 0),
        answers,
        readiness: watch::Sender::new(Readiness::Starting),
        drain: watch::Sender::new(DrainPhase::Accepting),
        leave: CancellationToken::new(),
        stats: Arc::new(EngineStats::default()),
    };
    (Group::new(parts, Instant::now()), delivered)
}

/// What a shard does with a stream of requests: rank 0 may send steps, rank 2 outcomes, both rows.
pub(super) fn read_up(mut frames: &[u8]) -> Result<(), String> {
    let (group, _) = group();
    let (to_stage, mut stages) = mpsc::channel(FRAMES);
    let (to_first, mut outcomes) = mpsc::channel(FRAMES);
    let doors = [Intake::new(0, Door::Stages(to_stage)), Intake::new(2, Door::Outcomes(to_first))];
    let mut assembly = Assembly::new(STAGE);
    let mut peer = None;
    while !frames.is_empty() {
        let request = ExchangeRequest::decode_length_delimited(&mut frames).map_err(|error| error.to_string())?;
        if request.epoch != EPOCH {
            return Err("another epoch".to_owned());
        }
        let Some(rank) = peer else {
            let Some(exchange_request::Frame::Identity(theirs)) = request.frame else {
                return Err("no identity".to_owned());
            };
            compare(group.identity(), &theirs).map_err(|error| error.to_string())?;
            group.join(theirs.rank, Instant::now());
            peer = Some(theirs.rank);
            continue;
        };
        let door = &doors[usize::from(rank != 0)];
        let parcel = match request.frame {
            Some(exchange_request::Frame::Rows(rows)) => {
                check_rows(&rows, &SHAPE, &OWNED).map_err(|error| error.to_string())?;
                continue;
            }
            Some(exchange_request::Frame::Heartbeat(beat)) => {
                group.hear_heartbeat(rank, &beat, Instant::now());
                continue;
            }
            Some(exchange_request::Frame::Leaving(_)) => {
                group.leave().cancel();
                continue;
            }
            Some(exchange_request::Frame::Stage(stage)) => Parcel::Stage(stage),
            Some(exchange_request::Frame::Outcome(outcome)) => Parcel::Outcome(outcome),
            Some(exchange_request::Frame::Identity(_)) | None => return Err("no frame".to_owned()),
        };
        door.take(rank, parcel).map_err(|error| error.to_string())?;
        // A lane that is behind leaves some where they are.
        if group.peers_are_done() {
            continue;
        }
        while let Ok(stage) = stages.try_recv() {
            assembly.push(&stage).map_err(|error| error.to_string())?;
        }
        while let Ok(outcome) = outcomes.try_recv() {
            check(outcome, &expected(), &STAGE).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

/// What a shard does with a stream of answers to its rows.
pub(super) fn read_down(mut frames: &[u8]) -> Result<(), String> {
    let ((group, _delivered), requests) = (group(), requests());
    while !frames.is_empty() {
        let response = ExchangeResponse::decode_length_delimited(&mut frames).map_err(|error| error.to_string())?;
        if response.epoch != EPOCH {
            return Err("another epoch".to_owned());
        }
        match response.frame {
            Some(exchange_response::Frame::Partials(sums)) => {
                let request = requests.iter().find(|request| request.rows.sequence == sums.sequence);
                let Some(request) = request else { continue };
                check_partials(&sums, request, &SHAPE).map_err(|error| error.to_string())?;
                if !group.deliver(0, sums) {
                    return Err("no room".to_owned());
                }
            }
            Some(exchange_response::Frame::Heartbeat(beat)) => group.hear_heartbeat(0, &beat, Instant::now()),
            Some(exchange_response::Frame::Leaving(_)) => group.leave().cancel(),
            Some(exchange_response::Frame::Taken(Taken { .. })) => {}
            Some(exchange_response::Frame::Refused(refused)) => return Err(refused.code),
            None => return Err("no frame".to_owned()),
        }
    }
    Ok(())
}

fn delimited<M: Message>(frames: &[M]) -> Vec<u8> {
    frames.iter().flat_map(Message::encode_length_delimited_to_vec).collect()
}

fn request(frame: exchange_request::Frame) -> ExchangeRequest {
    ExchangeRequest { epoch: EPOCH, frame: Some(frame) }
}

fn response(frame: exchange_response::Frame) -> ExchangeResponse {
    ExchangeResponse { epoch: EPOCH, frame: Some(frame) }
}

fn sample() -> StageSample {
    StageSample {
        temperature: 1.0,
        top_k: 40,
        top_p: 0.9,
        min_p: 0.1,
        seed: 5,
        repetition_penalty: 1.5,
        presence_penalty: 0.5,
        frequency_penalty: -0.5,
        output_index: 4,
        top_logprobs: 2,
        seen: vec![3, 7, 9],
        seen_prompt: vec![2, 1, 0],
        seen_generated: vec![0, 0, 1],
    }
}

/// More samples than a step may have.
fn crowded() -> Vec<Stage> {
    let chunk = |start| StageChunk { start, count: 1, blocks: vec![start], sample: Some(sample()) };
    let plan = StagePlan { chunks: (0..3).map(chunk).collect() }.encode_to_vec().into();
    let parts = Parts { step: 1, plan, activation: vec![0; 3 * STAGE.row_bytes()].into(), faults: vec![] };
    cut(parts, 0, STAGE.row_bytes())
}

/// Two sequences that share a block that both only read, the second sampled with penalties.
fn plan() -> StagePlan {
    let plain = StageSample { seen: vec![], seen_prompt: vec![], seen_generated: vec![], ..sample() };
    let chunk = |start, count, blocks: &[u32], sample| StageChunk { start, count, blocks: blocks.to_vec(), sample };
    StagePlan { chunks: vec![chunk(64, 3, &[4, 2], Some(plain)), chunk(127, 2, &[4, 7, 5], Some(sample()))] }
}

/// One step, in one piece.
fn step(number: u64, sequence: u64) -> Vec<Stage> {
    let fault = NonFinite { row: 1, layer: 3, op: "finite_check_samples" };
    let parts = Parts {
        step: number,
        plan: plan().encode_to_vec().into(),
        activation: vec![0; 5 * STAGE.row_bytes()].into(),
        faults: vec![fault],
    };
    cut(parts, sequence, STAGE.row_bytes())
}

/// One step in three pieces: plan, plan and rows, rows.
fn pieces(number: u64) -> Vec<Stage> {
    let whole = step(number, 0).swap_remove(0);
    let (plan, rows) = (whole.plan.clone(), whole.activation.clone());
    let half = plan.len() / 2;
    let piece = |sequence, plan, activation| Stage {
        sequence,
        plan,
        activation,
        last: false,
        fault_row: vec![],
        fault_layer: vec![],
        ..whole.clone()
    };
    let last = Stage { sequence: 2, plan: vec![].into(), activation: rows.slice(16..), ..whole.clone() };
    vec![piece(0, plan.slice(..half), vec![].into()), piece(1, plan.slice(half..), rows.slice(..16)), last]
}

/// Steps in a row, each list of frames an input.
pub(super) fn many() -> Vec<Vec<u8>> {
    vec![
        delimited(&crowded()),
        delimited(&step(9, 0)),
        delimited(&[step(1, 0), step(2, 1)].concat()),
        delimited(&pieces(3)),
    ]
}

/// What the last stage sampled in step 9.
pub(super) fn outcome() -> Outcome {
    let token = SampledToken { id: 7, logprob: -0.5, top: vec![(7, -0.5), (9, -1.5)] };
    let fault = NonFinite { row: 1, layer: 0, op: "finite_check" };
    to_wire(9, 0, Report { samples: vec![Some(token), None], non_finite: vec![fault], ..Report::default() })
}

fn beat() -> Heartbeat {
    Heartbeat { count: 1, streams: 2, draining: true, progress: 3 }
}

/// Of a pipeline, from the rank before.
pub(super) fn up() -> Vec<u8> {
    let mut frames = vec![exchange_request::Frame::Identity(identity(0)), exchange_request::Frame::Heartbeat(beat())];
    frames.extend(pieces(1).into_iter().map(exchange_request::Frame::Stage));
    frames.extend(step(2, 3).into_iter().map(exchange_request::Frame::Stage));
    delimited(&frames.into_iter().map(request).collect::<Vec<_>>())
}

/// Rows for experts, an outcome, a farewell, from the last rank.
pub(super) fn up_of_experts() -> Vec<u8> {
    let frames = [
        exchange_request::Frame::Identity(identity(2)),
        exchange_request::Frame::Rows(requests().swap_remove(0).rows),
        exchange_request::Frame::Outcome(outcome()),
        exchange_request::Frame::Leaving(Leaving { reason: "drain".to_owned() }),
    ];
    delimited(&frames.map(request))
}

/// A stranger.
pub(super) fn up_of(rank: u32) -> Vec<u8> {
    delimited(&[request(exchange_request::Frame::Identity(identity(rank)))])
}

/// Every answer.
pub(super) fn down() -> Vec<u8> {
    let refused = Refused { sequence: 3, code: "busy".to_owned(), message: "later".to_owned(), retryable: true };
    let frames = [
        exchange_response::Frame::Heartbeat(beat()),
        exchange_response::Frame::Taken(Taken { sequence: 3 }),
        exchange_response::Frame::Partials(partials(&requests()[0])),
        exchange_response::Frame::Leaving(Leaving::default()),
        exchange_response::Frame::Refused(refused),
    ];
    delimited(&frames.map(response))
}
