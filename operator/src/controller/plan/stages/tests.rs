//! Cuts of published models, and laws of every cut.

use proptest::prelude::*;

use super::*;
use crate::controller::plan::{PlanReason, Prediction, plan};
use crate::controller::validate::validate;
use crate::crd::ModelDeployment;
use crate::inventory::{Inventory, Speed};

/// A pipeline of `shards` stages, or of as many as the planner likes.
fn pipeline(source: &str, shards: Option<u32>) -> Validated {
    let mut sharding = serde_json::json!({"strategy": "Pipeline"});
    if let Some(shards) = shards {
        sharding["shards"] = shards.into();
    }
    let object = serde_json::json!({
        "apiVersion": "inference.shoal.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": "cut"},
        "spec": {"model": {"source": source}, "sharding": sharding, "hardware": {"backend": "CUDA"}},
    });
    validate(&serde_json::from_value::<ModelDeployment>(object).unwrap()).unwrap()
}

const LITE: &str = "hf://deepseek-ai/DeepSeek-V2-Lite";

#[test]
fn the_ends_hold_a_table_and_get_fewer_layers() {
    let of = |source: &str, shards: u32| {
        let spec = pipeline(source, Some(shards));
        lengths(spec.shape.as_ref().unwrap(), &spec, shards)
    };
    assert_eq!(of(LITE, 1), [27]);
    assert_eq!(of(LITE, 2), [14, 13]);
    assert_eq!(of(LITE, 4), [7, 7, 7, 6]);
    assert_eq!(of(LITE, 27), [1; 27]);
    let mut spec = pipeline(LITE, None);
    // A table as large as three layers and a half.
    let shape = spec.shape.as_mut().unwrap();
    (shape.vocab_size, shape.dense_bytes) = (1_024_000, shape.dense_bytes + 9 * 2 * 102_400 * 2048 * 2);
    assert_eq!(lengths(&shape.clone(), &spec, 3), [8, 11, 8]);
}

#[test]
fn a_pipeline_of_one_stage_needs_what_a_lone_shard_does() {
    let spec = pipeline(LITE, Some(1));
    let shape = spec.shape.as_ref().unwrap();
    let mut alone = spec.clone();
    alone.strategy = crate::crd::Strategy::Experts;
    let bytes = |spec: &Validated| ShardBytes::of(shape, spec, ShardLoad::largest(shape, spec, 1));
    assert_eq!(bytes(&spec), bytes(&alone));
    let device = Speed { bandwidth: 1_000_000_000_000, flops: 100_000_000_000_000 };
    let tokens =
        |spec: &Validated| Prediction::of(shape, spec, ShardLoad::largest(shape, spec, 1), device).tokens_per_second;
    assert!((tokens(&spec) / tokens(&alone) - 1.0).abs() < 1e-12);
}

#[test]
fn the_bytes_of_a_stage_are_those_counted_by_hand() {
    let spec = pipeline(LITE, Some(4));
    let shape = spec.shape.as_ref().unwrap();
    let bytes = ShardBytes::of(shape, &spec, ShardLoad::largest(shape, &spec, 4));
    let table = 102_400 * 2048 * 2;
    let layer = (shape.dense_bytes.unsigned_abs() - table).div_ceil(27);
    assert_eq!(bytes.dense, table + 7 * layer);
    assert_eq!(bytes.experts, 7 * 64 * shape.expert_bytes.unsigned_abs());
    // Every stage caches its layers of all 16 sequences.
    assert_eq!(bytes.kv, 16 * 4096 * 7 * 576 * 2);
    // Rows in and out, and the steps under way.
    assert_eq!(bytes.receive, (2 + 4) * 512 * 2048 * 4);
    // What layers of a stage really hold: the largest has seven with experts and no table.
    let attention = 13_767_168;
    let real = 7 * 2 * (attention + 131_072 + 17_301_504 + 64 * 8_650_752);
    let counted = bytes.dense + bytes.experts;
    assert!(counted >= real && counted < real * 107 / 100, "{counted} of {real}");
}

#[test]
fn a_plan_says_where_it_cuts_and_what_a_hop_costs() {
    let found = plan(&pipeline(LITE, Some(4)), &Inventory::Unknown);
    assert_eq!(found.verdict.reason, PlanReason::InventoryUnknown);
    let placement = found.layout.as_ref().unwrap().placement.clone().unwrap();
    let cuts: Vec<_> = (0..4).map(|rank| placement.ranges(rank)[0].clone()).collect();
    assert_eq!(cuts, [0..7, 7..14, 14..21, 21..27]);
    assert!(found.summary().contains("7 layers each"), "{}", found.summary());
    let text = found.arithmetic.join("\n");
    for part in [
        "dense part of 7 of 27 layers, and a table, at most",
        "rows in, out and of the steps under way: 6 × 512 rows = 24.00 MiB",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let status = found.to_status().layout.unwrap();
    assert_eq!((status.layers_per_shard, status.experts_per_shard), (7, 64));
}

proptest! {
    #[test]
    fn every_cut_has_all_layers_and_no_other_cut_has_a_smaller_largest_stage(
        layers in 1_i32..14, moe in 1_i32..14, shards in 1_u32..5, vocabulary in 1_i32..2_000_000, sequences in 1_u32..64,
    ) {
        let mut spec = pipeline(LITE, None);
        let mut shape = spec.shape.clone().unwrap();
        (shape.layers, shape.moe_layers, shape.vocab_size) = (layers, moe.min(layers), vocabulary);
        shape.dense_bytes = shape.dense_bytes.max(i64::from(vocabulary) * 8192);
        spec.max_concurrent_sequences = sequences;
        let lengths = lengths(&shape, &spec, shards);
        prop_assert_eq!(lengths.iter().sum::<u64>(), u64::try_from(layers).unwrap());
        prop_assert!(lengths.iter().all(|length| *length > 0));
        prop_assert_eq!(placement(&shape, &spec, shards).is_some(), shards <= layers.unsigned_abs());
        let count = lengths.len();
        let largest = |cut: &[u64]| {
            let bytes = |(at, &length): (usize, &u64)| {
                let load = stage(&shape, count as u64, length, at == 0 || at + 1 == count);
                ShardBytes::of(&shape, &spec, load).total()
            };
            cut.iter().enumerate().map(bytes).max()
        };
        let mut cuts = vec![vec![]];
        for _ in 1..count {
            let grown = |cut: Vec<u64>| (1..=lengths.iter().sum()).map(move |next| [cut.clone(), vec![next]].concat());
            cuts = cuts.into_iter().flat_map(grown).collect();
        }
        let all: u64 = lengths.iter().sum();
        let whole = |mut cut: Vec<u64>| {
            let rest = all.checked_sub(cut.iter().sum()).filter(|rest| *rest > 0)?;
            cut.push(rest);
            Some(cut)
        };
        let best = cuts.into_iter().filter_map(whole).filter_map(|cut| largest(&cut)).min();
        prop_assert_eq!(largest(&lengths), best);
    }
}
