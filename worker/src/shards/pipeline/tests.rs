//! Steps cut, put together and judged on small shapes.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use pretty_assertions::assert_eq;
use proptest::prelude::*;
use proptest::sample::Index;
use prost::Message as _;
use shoal_proto::shard::{Outcome, Stage, StageChunk, StagePlan, StageSample, StageToken, Taken};
use tokio::sync::mpsc;

use super::frames::{Arrived, Assembly, Parts, cut};
use super::intake::{Door, Intake};
use super::outcome::{Expected, check, to_wire};
use super::*;
use crate::backend::{Control, Report, SampleRow, TokenSource};
use crate::engine::request::{SampledToken, SamplingParams};
use crate::sampling::TokenCounts;
use crate::shards::parcel::Parcel;

const SHAPE: StageShape = include!("../../../tests/common/stage_shape.rs");

fn sample(row: u32, params: SamplingParams) -> SampleRow {
    let mut history = TokenCounts::of_prompt(&[3, 7, 3]);
    history.push_generated(9);
    SampleRow { row, params, history: Arc::new(history), output_index: 4, top_logprobs: 2 }
}

fn control(sequences: &[(Range<u32>, &[u32])], samples: Vec<SampleRow>) -> Control {
    let mut control = Control { sequence_starts: vec![0], samples, ..Control::default() };
    for (positions, blocks) in sequences {
        control.push_sequence(positions.clone(), blocks.to_vec());
    }
    control.tokens = vec![TokenSource::Host(0); control.rows];
    control
}

/// Two sequences, the second of which is sampled with penalties.
fn two() -> Control {
    let params = SamplingParams { temperature: 1.0, seed: 5, repetition_penalty: 1.5, ..SamplingParams::default() };
    control(&[(63..66, &[4, 2]), (0..2, &[7])], vec![sample(4, params)])
}

/// All of a control that can be compared.
fn shown(control: &Control) -> String {
    format!("{control:?}")
}

fn parts(control: &Control) -> Parts {
    let activation = (0..control.rows * SHAPE.row_bytes()).map(|byte| byte as u8).collect::<Vec<_>>().into();
    let fault = NonFinite { row: 1, layer: 0, op: "finite_check" };
    Parts { step: 9, plan: plan::encode(control), activation, faults: vec![fault] }
}

#[test]
fn a_step_arrives_as_it_left() {
    let sent = parts(&two());
    let frames = cut(sent.clone(), 40, SHAPE.row_bytes());
    assert_eq!(frames.iter().map(|f| (f.sequence, f.last)).collect::<Vec<_>>(), [(40, true)]);
    let arrived = Assembly::new(SHAPE).push(&frames[0]).unwrap().unwrap();
    assert_eq!(arrived.parts, sent);
    assert_eq!(shown(&arrived.control), shown(&two()));
}

#[test]
fn what_was_said_travels_only_for_penalties() {
    let plain = control(&[(0..1, &[1])], vec![sample(0, SamplingParams::default())]);
    let arrived = plan::decode(&plan::encode(&plain), &SHAPE).unwrap();
    assert_eq!(*arrived.samples[0].history, TokenCounts::default());
    assert_eq!(arrived.samples[0].params, SamplingParams::default());
}

#[test]
fn a_large_step_is_cut_by_rows_and_every_frame_stays_below_a_mebibyte() {
    let (plan, row_bytes) = (vec![1; 3 * FRAME_BYTES / 2], 160_000);
    let activation = vec![2; 9 * row_bytes];
    let whole = Parts { step: 1, plan: plan.clone().into(), activation: activation.clone().into(), faults: vec![] };
    let frames = cut(whole, 0, row_bytes);
    let sizes: Vec<_> = frames.iter().map(|f| (f.plan.len(), f.activation.len() / row_bytes)).collect();
    assert_eq!(sizes, [(FRAME_BYTES, 0), (FRAME_BYTES / 2, 3), (0, 6)]);
    let joined = |field: fn(&Stage) -> &Bytes| frames.iter().flat_map(|f| field(f).to_vec()).collect::<Vec<u8>>();
    assert_eq!((joined(|f| &f.plan), joined(|f| &f.activation)), (plan, activation));
    let wide = Parts { activation: vec![0; 4 * FRAME_BYTES].into(), ..Parts::default() };
    assert_eq!(cut(wide, 0, 2 * FRAME_BYTES).len(), 2);
}

fn chunk(start: u32, count: u32, blocks: &[u32]) -> StageChunk {
    StageChunk { start, count, blocks: blocks.to_vec(), sample: None }
}

/// The refusal of a frame that is spoiled after a good step 3 has come.
fn refused(spoil: impl FnOnce(&mut Stage)) -> String {
    let mut assembly = Assembly::new(SHAPE);
    let good = |step| cut(Parts { step, ..parts(&two()) }, step, SHAPE.row_bytes()).swap_remove(0);
    assert!(assembly.push(&good(3)).unwrap().is_some());
    let mut frame = good(4);
    spoil(&mut frame);
    let refusal = assembly.push(&frame).map(|arrived| arrived.map(|arrived| arrived.parts));
    refusal.expect_err("a spoiled frame should be refused").to_string()
}

#[test]
fn a_frame_that_lies_is_refused_by_name() {
    type Spoil = fn(&mut Stage);
    let cases: [(Spoil, &str); 15] = [
        (|f| f.activation_dtype = "f16".into(), "activation_dtype \"f16\" is not f32"),
        (|f| f.step = 3, "step 3 after step 3"),
        (|f| f.step = 0, "step 0 after step 3"),
        (|f| (f.last, f.plan, f.activation) = (false, Bytes::new(), Bytes::new()), "an empty piece"),
        (|f| f.last = false, "faults before the last piece"),
        (|f| f.activation = vec![0; 49].into(), "49 bytes of rows; at most 48 are allowed"),
        (|f| f.activation = vec![0; 48].into(), "48 bytes of rows where 40 are due"),
        (|f| f.activation = Bytes::new(), "0 bytes of rows where 40 are due"),
        (|f| f.plan = vec![0; 4000].into(), "4000 bytes of plan; at most 2004 are allowed"),
        (|f| f.plan = Bytes::new(), "a plan without chunks"),
        (|f| f.plan = vec![0x0a, 0x7f].into(), "a plan that is none: "),
        (
            |f| f.fault_layer.clear(),
            "faults in rows [1] and layers []; allowed: ascending rows below 5, layers up to 3",
        ),
        (
            |f| f.fault_row = vec![5],
            "faults in rows [5] and layers [0]; allowed: ascending rows below 5, layers up to 3",
        ),
        (
            |f| f.fault_layer = vec![4],
            "faults in rows [1] and layers [4]; allowed: ascending rows below 5, layers up to 3",
        ),
        (
            |f| (f.fault_row, f.fault_layer) = (vec![1, 1], vec![0, 0]),
            "faults in rows [1, 1] and layers [0, 0]; allowed: ascending rows below 5, layers up to 3",
        ),
    ];
    for (spoil, expected) in cases {
        let found = refused(spoil);
        assert!(
            found.starts_with(expected) && (found == expected || expected.ends_with(' ')),
            "{found:?} {expected:?}"
        );
    }
}

#[test]
fn a_piece_of_another_step_never_completes_one() {
    let mut assembly = Assembly::new(SHAPE);
    let first = Stage { step: 5, plan: vec![0].into(), activation_dtype: "f32".into(), ..Stage::default() };
    assert!(assembly.push(&first).unwrap().is_none());
    let second = Stage { step: 6, last: true, ..first };
    assert_eq!(assembly.push(&second).unwrap_err().to_string(), "step 6 while step 5 is not whole");
}

#[test]
fn a_plan_that_lies_is_refused_by_name() {
    let refused = |chunks: Vec<StageChunk>| {
        plan::decode(&StagePlan { chunks }.encode_to_vec(), &SHAPE)
            .map(|control| shown(&control))
            .unwrap_err()
            .to_string()
    };
    let cases: [(Vec<StageChunk>, &str); 13] = [
        (vec![chunk(0, 0, &[])], "a chunk of 0 rows; 1 to 6 are allowed"),
        (vec![chunk(0, 7, &[1])], "a chunk of 7 rows; 1 to 6 are allowed"),
        (vec![chunk(0, u32::MAX, &[1])], "a chunk of 4294967295 rows; 1 to 6 are allowed"),
        (vec![chunk(0, 4, &[1]), chunk(0, 3, &[2])], "a chunk of 3 rows; 1 to 2 are allowed"),
        (vec![chunk(255, 2, &[1, 2, 3, 4, 5])], "positions 255..257; the context ends at 256"),
        (vec![chunk(u32::MAX, 1, &[1])], "positions 4294967295..4294967296; the context ends at 256"),
        (vec![chunk(64, 1, &[1])], "1 blocks for positions up to 65; 2 are needed"),
        (vec![chunk(0, 1, &[1, 2])], "2 blocks for positions up to 1; 1 are needed"),
        (vec![chunk(0, 1, &[8])], "block 8 is not below 8"),
        (vec![chunk(64, 1, &[u32::MAX, 1])], "block 4294967295 is not below 8"),
        (vec![chunk(0, 1, &[3]), chunk(5, 1, &[3])], "block 3 is written twice"),
        (vec![chunk(0, 1, &[3]), chunk(64, 1, &[3, 4])], "block 3 is written and read by another or as an earlier one"),
        (vec![chunk(64, 1, &[3, 3])], "block 3 is written and read by another or as an earlier one"),
    ];
    for (chunks, expected) in cases {
        assert_eq!(refused(chunks), expected);
    }
    // A beginning that two share is read by both.
    let shared = StagePlan { chunks: vec![chunk(64, 1, &[3, 4]), chunk(64, 1, &[3, 5])] };
    assert!(plan::decode(&shared.encode_to_vec(), &SHAPE).is_ok());
}

#[test]
fn a_sample_outside_its_limits_is_refused_by_name() {
    type Spoil = fn(&mut StageSample);
    let cases: [(Spoil, &str); 11] = [
        (|s| s.temperature = f32::NAN, "sampling.temperature is NaN; allowed: 0 to 2"),
        (|s| s.top_k = u32::MAX, "sampling.top_k is 4294967295 tokens; allowed: 0 to 1048576"),
        (|s| s.top_p = 0.0, "sampling.top_p is 0; allowed: 0.000001 to 1"),
        (|s| s.min_p = -1.0, "sampling.min_p is -1; allowed: 0 to 1"),
        (|s| s.repetition_penalty = 0.0, "sampling.repetition_penalty is 0; allowed: 0.1 to 10"),
        (|s| s.presence_penalty = f32::INFINITY, "sampling.presence_penalty is inf; allowed: -2 to 2"),
        (|s| s.frequency_penalty = 3.0, "sampling.frequency_penalty is 3; allowed: -2 to 2"),
        (|s| s.top_logprobs = 21, "top_logprobs is 21 tokens; allowed: 0 to 20"),
        (|s| s.seen_prompt.clear(), "3 ids seen with 0 and 3 counts"),
        (|s| s.seen = vec![3, 3, 9], "ids seen do not ascend below 50"),
        (|s| s.seen = vec![3, 7, 50], "ids seen do not ascend below 50"),
    ];
    for (spoil, expected) in cases {
        let mut plan = StagePlan::decode(plan::encode(&two())).unwrap();
        spoil(plan.chunks[1].sample.as_mut().unwrap());
        let refused = plan::decode(&plan.encode_to_vec(), &SHAPE).map(|control| shown(&control));
        assert_eq!(refused.unwrap_err().to_string(), expected);
    }
    let mut plan = StagePlan::decode(plan::encode(&two())).unwrap();
    let sampled = StageChunk { count: 1, ..plan.chunks[1].clone() };
    plan.chunks = (0..3).map(|block| StageChunk { blocks: vec![block], ..sampled.clone() }).collect();
    let refused = plan::decode(&plan.encode_to_vec(), &SHAPE).map(|control| shown(&control));
    assert_eq!(refused.unwrap_err().to_string(), "3 samples; at most 2 are allowed");
}

fn report() -> Report {
    let token = SampledToken { id: 7, logprob: -0.5, top: vec![(7, -0.5), (9, -1.5)] };
    let fault = NonFinite { row: 3, layer: 3, op: "finite_check_samples" };
    Report { samples: vec![Some(token), None], non_finite: vec![fault], ..Report::default() }
}

#[test]
fn an_outcome_that_lies_is_refused_by_name() {
    let expected = Expected { step: 9, rows: 4, top_logprobs: vec![2, 0] };
    assert_eq!(check(to_wire(9, 0, report()), &expected, &SHAPE), Ok(report()));
    type Spoil = fn(&mut Outcome);
    let cases: [(Spoil, &str); 8] = [
        (|o| o.step = 8, "an outcome of step 8 where step 9 is due"),
        (|o| o.samples.truncate(1), "1 samples where 2 are due"),
        (
            |o| o.samples[1] = StageToken { id: Some(1), top: vec![2], ..StageToken::default() },
            "1 alternatives with 0 log-probabilities where 0 are due",
        ),
        (|o| o.samples[0].top_logprob.truncate(1), "2 alternatives with 1 log-probabilities where 2 are due"),
        (|o| o.samples[0].id = Some(50), "token 50 is not below 50"),
        (|o| o.samples[0].top[1] = u32::MAX, "token 4294967295 is not below 50"),
        (|o| o.samples[0].logprob = f32::NAN, "a log-probability that is not a number"),
        (
            |o| o.fault_row = vec![4],
            "faults in rows [4] and layers [3]; allowed: ascending rows below 4, layers up to 3",
        ),
    ];
    for (spoil, text) in cases {
        let mut outcome = to_wire(9, 0, report());
        spoil(&mut outcome);
        assert_eq!(check(outcome, &expected, &SHAPE).unwrap_err().to_string(), text);
    }
}

#[test]
fn the_door_lets_every_frame_of_its_peer_in_once_and_in_order() {
    let (lane, mut frames) = mpsc::channel(2);
    let intake = Intake::new(1, Door::Stages(lane));
    let stage = |sequence| Parcel::Stage(Stage { sequence, ..Stage::default() });
    assert_eq!(intake.take(1, stage(0)), Ok(Taken { sequence: 0 }));
    // The stream broke before the acknowledgement arrived.
    assert_eq!(intake.take(1, stage(0)), Ok(Taken { sequence: 0 }));
    assert_eq!(intake.take(1, stage(1)), Ok(Taken { sequence: 1 }));
    let text = |rank, parcel| intake.take(rank, parcel).unwrap_err().to_string();
    assert_eq!(text(1, stage(3)), "frame 3 where frame 2 is due");
    assert_eq!(text(0, stage(2)), "a frame of a step; rank 1 sends those");
    assert_eq!(text(1, stage(2)), "more frames than may be in flight");
    let outcome = Parcel::Outcome(Outcome { sequence: 2, ..Outcome::default() });
    assert_eq!(text(1, outcome), "a frame that is no piece of a step");
    let came = std::iter::from_fn(|| frames.try_recv().ok());
    assert_eq!(came.map(|stage| stage.sequence).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(intake.take(1, stage(2)), Ok(Taken { sequence: 2 }));
    drop(frames);
    assert_eq!(text(1, stage(3)), "more frames than may be in flight");
    let (lane, _outcomes) = mpsc::channel(1);
    let first = Intake::new(2, Door::Outcomes(lane));
    assert_eq!(first.take(2, stage(0)).unwrap_err().to_string(), "a frame that is no outcome");
}

proptest! {
    /// A good frame of which some bytes are others is refused, or it is a step as a step may be.
    #[test]
    fn any_bytes_are_judged_without_a_panic(changes in prop::collection::vec((any::<Index>(), any::<u8>()), 0..4)) {
        let mut bytes = cut(parts(&two()), 0, SHAPE.row_bytes()).swap_remove(0).encode_to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let frame = Stage::decode(&bytes[..]).unwrap_or_default();
        if let Ok(Some(Arrived { parts, control })) = Assembly::new(SHAPE).push(&frame) {
            let rows = control.rows;
            prop_assert!((1..=SHAPE.bucket.rows).contains(&rows) && control.samples.len() <= SHAPE.bucket.samples);
            prop_assert_eq!(parts.activation.len(), rows * SHAPE.row_bytes());
            prop_assert!(parts.faults.iter().all(|fault| (fault.row as usize) < rows && fault.layer <= SHAPE.layers));
            prop_assert!(control.positions.iter().all(|&position| position < SHAPE.context));
            prop_assert!(control.block_tables.iter().flatten().all(|&block| block < SHAPE.kv_blocks));
            let written: HashSet<_> = control.kv_slots.iter().collect();
            prop_assert_eq!(written.len(), rows);
            let seen = control.samples.iter().flat_map(|sample| sample.history.iter());
            prop_assert!(seen.map(|(id, _)| id).all(|id| id < SHAPE.vocabulary));
        }
    }

    /// Whatever control the engine makes is read back.
    #[test]
    fn every_plan_is_read_back(sizes in prop::collection::vec((0..100_u32, 1..3_u32, any::<bool>()), 1..3)) {
        let mut blocks = 0..8_u32;
        let mut made = control(&[], vec![]);
        for (start, count, sampled) in sizes {
            let end = start + count;
            made.push_sequence(start..end, blocks.by_ref().take((end as usize).div_ceil(KV_BLOCK)).collect());
            if sampled {
                made.samples.push(sample(made.rows as u32 - 1, SamplingParams { min_p: 0.5, presence_penalty: 1.0, ..SamplingParams::default() }));
            }
        }
        made.tokens = vec![TokenSource::Host(0); made.rows];
        let encoded = plan::encode(&made);
        prop_assert!(encoded.len() <= SHAPE.plan_bytes());
        prop_assert_eq!(shown(&plan::decode(&encoded, &SHAPE).unwrap()), shown(&made));
    }
}
