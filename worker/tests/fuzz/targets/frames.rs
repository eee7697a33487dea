//! Frames of the shard protocol, each alone, and whole streams of either direction. The first byte says what follows.

use prost::Message as _;
use shoal_proto::shard::{Outcome, Partials, Rows, Stage};
use shoal_worker::shards::frames::{Label, Request, RowBatch, Shape, check_partials, check_rows, cut};
use shoal_worker::shards::pipeline::frames::Assembly;
use shoal_worker::shards::pipeline::outcome::check;

use super::steps::{self, STAGE, expected};

pub(super) const SHAPE: Shape = Shape { hidden: 4, top_k: 2, experts: 8, layers: 3, rows: 16 };
pub(super) const OWNED: [std::ops::Range<u32>; 2] = [0..3, 4..8];

const ROWS: u8 = 0;
const PARTIALS: u8 = 1;
const STAGES: u8 = 2;
const OUTCOME: u8 = 3;
const UP: u8 = 4;
const DOWN: u8 = 5;

fn batch() -> RowBatch {
    RowBatch {
        row: vec![0, 2, 5],
        pairs: vec![2, 1, 1],
        expert: vec![0, 4, 2, 7],
        weight: vec![0.5, 0.25, 1.0, -0.0],
        activation: vec![0; 3 * 4 * 4].into(),
    }
}

/// What rows were sent, and what their answers must hold.
pub(super) fn requests() -> Vec<Request> {
    cut(&batch(), &SHAPE, &OWNED, Label { step: 1, layer: 2, sequence: 3 })
}

pub(super) fn read(input: &[u8]) -> Result<(), String> {
    let (&kind, frame) = input.split_first().ok_or("empty")?;
    let unread = |error: prost::DecodeError| error.to_string();
    match kind % 6 {
        ROWS => {
            let rows = Rows::decode(frame).map_err(unread)?;
            check_rows(&rows, &SHAPE, &OWNED).map_err(|error| error.to_string())
        }
        PARTIALS => {
            let partials = Partials::decode(frame).map_err(unread)?;
            check_partials(&partials, &requests()[0], &SHAPE).map_err(|error| error.to_string())
        }
        STAGES => stages(frame),
        OUTCOME => {
            let outcome = Outcome::decode(frame).map_err(unread)?;
            check(outcome, &expected(), &STAGE).map(drop).map_err(|error| error.to_string())
        }
        UP => steps::read_up(frame),
        _ => steps::read_down(frame),
    }
}

/// Pieces of steps, one behind the other.
fn stages(mut frames: &[u8]) -> Result<(), String> {
    let mut assembly = Assembly::new(STAGE);
    while !frames.is_empty() {
        let stage = Stage::decode_length_delimited(&mut frames).map_err(|error| error.to_string())?;
        assembly.push(&stage).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// The sums that answer a request.
pub(super) fn partials(request: &Request) -> Partials {
    let (lo, hi) = request.bounds.iter().copied().unzip();
    Partials {
        step: request.rows.step,
        layer: request.rows.layer,
        sequence: request.rows.sequence,
        nodes: request.nodes.clone(),
        lo,
        hi,
        sum: vec![0; request.bounds.len() * SHAPE.hidden * 4].into(),
    }
}

pub(super) fn all() -> Vec<Vec<u8>> {
    let request = &requests()[0];
    let of = |kind: u8, frame: Vec<u8>| [&[kind][..], &frame].concat();
    let mut all = vec![
        of(ROWS, request.rows.encode_to_vec()),
        of(PARTIALS, partials(request).encode_to_vec()),
        of(OUTCOME, steps::outcome().encode_to_vec()),
        of(UP, steps::up()),
        of(UP, steps::up_of_experts()),
        of(UP, steps::up_of(9)),
        of(DOWN, steps::down()),
    ];
    all.extend(steps::many().into_iter().map(|frames| of(STAGES, frames)));
    all
}
