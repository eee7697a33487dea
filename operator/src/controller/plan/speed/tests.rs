//! The roofline against numbers worked by hand.

use super::*;
use crate::controller::validate::validate;
use crate::crd::ModelDeployment;

/// DeepSeek-V2-Lite on GPUs, 64 sequences of 4096 tokens.
fn lite() -> Validated {
    let object = serde_json::json!({
        "apiVersion": "inference.shoal.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": "lite"},
        "spec": {
            "model": {"source": "hf://deepseek-ai/DeepSeek-V2-Lite"}, "hardware": {"backend": "CUDA"},
            "serving": {"maxConcurrentSequences": 64},
        },
    });
    validate(&serde_json::from_value::<ModelDeployment>(object).unwrap()).unwrap()
}

fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() <= expected.abs() * 1e-9, "{found} is not {expected}");
}

#[test]
fn a_step_reads_the_dense_part_the_experts_it_touches_and_half_of_the_cache() {
    let spec = lite();
    let shape = spec.shape.as_ref().unwrap();
    let device = Speed { bandwidth: 1_000_000_000_000, flops: 100_000_000_000_000 };
    let found = Prediction::of(shape, &spec, ShardLoad::largest(shape, &spec, 4), device);
    // 64 rows choose 6 of 64: of 16 experts all but 16 × (58/64)^64 are touched.
    let touched = 16.0 * (1.0 - (58.0_f64 / 64.0).powi(64));
    near(found.touched, touched);
    // 16 of the sequences are the shard's own.
    let cache = 16.0 * 2048.0 * 27.0 * 576.0 * 2.0;
    near(found.bytes, shape.dense_bytes as f64 + 26.0 * touched * shape.expert_bytes as f64 + cache);
    // Two operations a weight and row: 16 rows through the dense part, 64 × 6 / 4 pairs through the experts.
    near(found.flops, 2.0 * (16.0 * shape.dense_bytes as f64 / 2.0 + 96.0 * 26.0 * shape.expert_bytes as f64 / 2.0));
    near(found.local, found.bytes / 1e12);
    let peers = 3.0 * (1.0 - 0.75_f64.powi(6));
    near(found.peers, peers);
    near(found.exchange, 26.0 * (16.0 * peers * 2.0 * 4.0 * 2048.0 / 3.125e9 + 200e-6));
    near(found.tokens_per_second, 64.0 / (found.local + found.exchange));
}

#[test]
fn a_slow_processor_is_bound_by_its_operations_and_one_shard_exchanges_nothing() {
    let spec = lite();
    let device = Speed { bandwidth: 1_000_000_000_000, flops: 1_000_000_000 };
    let shape = spec.shape.as_ref().unwrap();
    let found = Prediction::of(shape, &spec, ShardLoad::largest(shape, &spec, 1), device);
    near(found.local, found.flops / 1e9);
    assert_eq!((found.peers, found.exchange), (0.0, 0.0));
}

#[test]
fn a_cpu_shard_is_as_fast_as_the_cores_that_its_pod_may_use() {
    let mut spec = lite();
    assert_eq!(of_cpu(&spec), Speed { bandwidth: CORE_BANDWIDTH, flops: CORE_FLOPS });
    spec.pod.resources = serde_json::from_value(serde_json::json!({"limits": {"cpu": "2500m"}})).unwrap();
    assert_eq!(of_cpu(&spec), Speed { bandwidth: CORE_BANDWIDTH / 2 * 5, flops: CORE_FLOPS / 2 * 5 });
}

#[test]
fn known_devices_come_before_unknown_ones_and_slow_ones_hold_up_a_group() {
    let spec = lite();
    let shape = spec.shape.as_ref().unwrap();
    let load = ShardLoad::largest(shape, &spec, 2);
    let (slow, fast) = (Speed { bandwidth: 300, flops: 300 }, Speed { bandwidth: 3000, flops: 3000 });
    let score = |devices: &[(Option<Speed>, u64)]| Score::of(shape, &spec, load, devices);
    let (alike, mixed) = (score(&[(Some(slow), 2)]), score(&[(Some(fast), 1), (Some(slow), 1)]));
    assert!(alike.better_than(&mixed, 1.1), "the fast one waits, and costs ten times as much");
    let unknown = score(&[(None, 2)]);
    assert!(unknown.prediction.is_none() && mixed.better_than(&unknown, 1000.0));
    assert!(!unknown.better_than(&mixed, 0.001));
}

#[test]
fn a_layout_is_rated_by_its_slowest_device_and_paid_for_by_the_bandwidth_of_all() {
    let spec = lite();
    let shape = spec.shape.as_ref().unwrap();
    let load = ShardLoad::largest(shape, &spec, 4);
    let fast = Speed { bandwidth: 4_000_000_000_000, flops: 100_000_000_000_000 };
    let slow = Speed { bandwidth: 1_000_000_000_000, flops: 100_000_000_000_000 };
    let of = |devices: &[(Option<Speed>, u64)]| Score::of(shape, &spec, load, devices);
    let tokens = Prediction::of(shape, &spec, load, slow).tokens_per_second;
    let mixed = of(&[(Some(fast), 1), (Some(slow), 3)]);
    near(mixed.prediction.unwrap().tokens_per_second, tokens);
    near(mixed.per_cost, tokens / 7.0);
    near(of(&[(Some(slow), 4)]).per_cost, tokens / 4.0);
    // Of an unknown device only the order is guessed.
    assert_eq!(of(&[(None, 4)]).prediction, None);
    assert!(of(&[(None, 4)]).per_cost > 0.0);
}
