//! The bytes of every shard message, committed: a change of the wire must raise `SHARD_PROTOCOL_VERSION`.
//!
//! After an intended change set `SHOAL_BLESS=1` once, raise the version, and commit both.

use std::path::PathBuf;

use prost::Message;
use shoal_proto::SHARD_PROTOCOL_VERSION;
use shoal_proto::shard::{
    ExchangeRequest, ExchangeResponse, ExpertRange, Heartbeat, HelloRequest, HelloResponse, Identity, LayerRange,
    Leaving, Outcome, Partials, Placement, Refused, Rows, ShardPlacement, Stage, StageChunk, StagePlan, StageSample,
    StageToken, Strategy, Taken, exchange_request, exchange_response,
};

fn identity() -> Identity {
    Identity {
        protocol_version: SHARD_PROTOCOL_VERSION,
        epoch: 7,
        rank: 1,
        size: 3,
        model_digest: vec![0xaa, 0xbb].into(),
        dense_digest: vec![0xcc].into(),
        placement_fingerprint: vec![0xdd].into(),
        numerics_id: "cpu/avx2".into(),
        capacity: "4 blocks".into(),
    }
}

fn rows() -> Rows {
    Rows {
        step: 9,
        layer: 2,
        sequence: 300,
        last: true,
        row: vec![0, 5],
        pairs: vec![1, 2],
        expert: vec![3, 1, 130],
        weight: vec![0.5, -1.25, 2.0],
        activation: vec![1, 2, 3, 4].into(),
        activation_dtype: "f32".into(),
    }
}

fn partials() -> Partials {
    Partials {
        step: 9,
        layer: 2,
        sequence: 300,
        nodes: vec![1, 1],
        lo: vec![0, 128],
        hi: vec![4, 132],
        sum: vec![5, 6, 7, 8].into(),
    }
}

fn stage() -> Stage {
    Stage {
        step: 9,
        sequence: 300,
        last: true,
        plan: vec![1, 2].into(),
        activation: vec![3, 4].into(),
        activation_dtype: "f32".into(),
        fault_row: vec![5],
        fault_layer: vec![6],
    }
}

fn stage_plan() -> StagePlan {
    let sample = StageSample {
        temperature: 1.0,
        top_k: 2,
        top_p: 0.5,
        min_p: 0.25,
        seed: 3,
        repetition_penalty: 1.5,
        presence_penalty: 0.75,
        frequency_penalty: -0.5,
        output_index: 4,
        top_logprobs: 20,
        seen: vec![7, 300],
        seen_prompt: vec![1, 0],
        seen_generated: vec![0, 2],
    };
    StagePlan { chunks: vec![StageChunk { start: 64, count: 2, blocks: vec![9, 130], sample: Some(sample) }] }
}

fn outcome() -> Outcome {
    let token = StageToken { id: Some(7), logprob: -0.5, top: vec![7, 300], top_logprob: vec![-0.5, -1.5] };
    Outcome { step: 9, sequence: 300, samples: vec![token], fault_row: vec![5], fault_layer: vec![6] }
}

fn placement() -> Placement {
    let shard = |begin, end| ShardPlacement { experts: vec![ExpertRange { begin, end }], layers: None };
    let shards = vec![shard(0, 5), shard(5, 8)];
    Placement { version: 1, strategy: Strategy::Experts.into(), experts: 8, shards, layers: 0 }
}

fn pipeline() -> Placement {
    let stage = |begin, end| ShardPlacement { experts: vec![], layers: Some(LayerRange { begin, end }) };
    let shards = vec![stage(0, 2), stage(2, 9)];
    Placement { version: 1, strategy: Strategy::Pipeline.into(), experts: 0, shards, layers: 9 }
}

/// Name and bytes of one message of each kind, every field set.
fn messages() -> Vec<(&'static str, Vec<u8>)> {
    use exchange_request::Frame as Up;
    use exchange_response::Frame as Down;
    let up = |frame| ExchangeRequest { epoch: 7, frame: Some(frame) }.encode_to_vec();
    let down = |frame| ExchangeResponse { epoch: 7, frame: Some(frame) }.encode_to_vec();
    let heartbeat = Heartbeat { count: 4, streams: 2, draining: true, progress: 300 };
    let leaving = Leaving { reason: "drain".into() };
    let refused = Refused { sequence: 300, code: "INTERNAL".into(), message: "no".into(), retryable: true };
    vec![
        ("hello_request", HelloRequest { identity: Some(identity()) }.encode_to_vec()),
        ("hello_response", HelloResponse { identity: Some(identity()) }.encode_to_vec()),
        ("exchange_request.identity", up(Up::Identity(identity()))),
        ("exchange_request.rows", up(Up::Rows(rows()))),
        ("exchange_request.heartbeat", up(Up::Heartbeat(heartbeat))),
        ("exchange_request.leaving", up(Up::Leaving(leaving.clone()))),
        ("exchange_request.stage", up(Up::Stage(stage()))),
        ("exchange_request.outcome", up(Up::Outcome(outcome()))),
        ("exchange_response.partials", down(Down::Partials(partials()))),
        ("exchange_response.heartbeat", down(Down::Heartbeat(heartbeat))),
        ("exchange_response.leaving", down(Down::Leaving(leaving))),
        ("exchange_response.refused", down(Down::Refused(refused))),
        ("exchange_response.taken", down(Down::Taken(Taken { sequence: 300 }))),
        ("stage_plan", stage_plan().encode_to_vec()),
        ("placement", placement().encode_to_vec()),
        ("placement.pipeline", pipeline().encode_to_vec()),
    ]
}

fn render() -> String {
    let line = |(name, bytes): (&str, Vec<u8>)| {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{name} {hex}\n")
    };
    let messages: String = messages().into_iter().map(line).collect();
    format!("protocol version {SHARD_PROTOCOL_VERSION}\n{messages}")
}

#[test]
fn the_bytes_of_every_shard_message_are_those_of_this_protocol_version() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/shard.txt");
    if std::env::var_os("SHOAL_BLESS").is_some() {
        std::fs::write(&path, render()).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    pretty_assertions::assert_eq!(
        render(),
        committed,
        "the wire has changed: raise SHARD_PROTOCOL_VERSION and bless the new bytes"
    );
}
