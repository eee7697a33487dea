//! The planner against numbers counted by hand, and its laws.

use proptest::prelude::*;

use super::bytes::ShardLoad;
use super::*;
use crate::controller::validate::{Validated, validate};
use crate::crd::{Backend, Hardware, ModelDeployment, ModelDeploymentSpec, Serving, Sharding};
use crate::inventory::{Inventory, NodeCapacity};

const GIB: u64 = 1 << 30;

/// DeepSeek-V2-Lite on CPU or CUDA, 4096 tokens of context, 16 sequences.
fn lite(backend: Backend, shards: Option<i32>) -> Validated {
    let spec = ModelDeploymentSpec {
        model: crate::crd::ModelSpec { source: "hf://deepseek-ai/DeepSeek-V2-Lite".to_owned(), shape: None },
        replicas: 1,
        sharding: shards.map(|shards| Sharding { shards: Some(shards), strategy: Default::default() }),
        hardware: Hardware { backend: Some(backend), ..Default::default() },
        serving: Serving::default(),
        rollout: Default::default(),
        recovery: Default::default(),
        placement: Default::default(),
        pod: Default::default(),
    };
    validate(&ModelDeployment::new("lite", spec)).unwrap()
}

fn cpu_node(name: &str, gib: u64) -> NodeCapacity {
    NodeCapacity { name: name.to_owned(), memory_bytes: gib * GIB, cpu_millis: 16_000, ..Default::default() }
}

fn gpu_node(count: u64, gib: u64) -> NodeCapacity {
    NodeCapacity {
        devices: [("nvidia.com/gpu".to_owned(), count)].into(),
        gpu_memory_bytes: Some(gib * GIB),
        ..cpu_node("gpu", 512)
    }
}

#[test]
fn the_bytes_of_a_shard_are_those_counted_by_hand() {
    let spec = lite(Backend::CPU, Some(4));
    let load = ShardLoad { shards: 4, experts: 16 };
    let bytes = ShardBytes::of(spec.shape.as_ref().unwrap(), &spec, load);
    // Embedding and head, the last norm, 27 attentions with norms, one dense FFN, 26 routers and shared experts.
    let dense = 2 * (419_430_400 + 2048 + 27 * 13_767_168 + 67_239_936 + 26 * (131_072 + 17_301_504));
    let per_row = 2 * 2048 + 16 * (128 + 2 * 64 + 2 * 512 + 128 + 64) + 576 + 2 * (2 * 1408 + 6 * 1408);
    assert_eq!(per_row, 4096 + 23_552 + 576 + 22_528, "the routed halves are wider than the dense FFN's 10944");
    let expected = ShardBytes {
        dense,
        experts: 26 * 16 * 2 * 3 * 2048 * 1408,
        kv: 4 * 4096 * 27 * 576 * 4,
        receive: 3 * 512 * (2048 * 4 + 6 * 8),
        activations: 512 * per_row * 4 + 4 * 102_400 * 4,
        margin: 512 << 20,
        on_device: false,
    };
    assert_eq!(bytes, expected);
    assert_eq!(bytes.host(), bytes.total());
}

#[test]
fn without_a_wish_the_fewest_shards_that_fit_are_taken_and_fewer_are_told_why_not() {
    let nodes = Inventory::Nodes(vec![cpu_node("a", 16), cpu_node("b", 16), cpu_node("c", 16)]);
    let plan = plan(&lite(Backend::CPU, None), &nodes);
    assert_eq!(plan.verdict.reason, PlanReason::Fits);
    let told: Vec<_> = plan.rejected.iter().map(|(layout, reason)| format!("{layout}: {reason}")).collect();
    insta::assert_snapshot!(format!("{}\n{}", plan.summary(), told.join("\n")));
}

#[test]
fn a_refusal_names_the_ways_that_would_fit_and_the_largest_node() {
    let nodes = Inventory::Nodes(vec![gpu_node(2, 24), gpu_node(1, 16)]);
    let plan = plan(&lite(Backend::CUDA, Some(1)), &nodes);
    assert_eq!(plan.verdict.reason, PlanReason::DoesNotFit);
    insta::assert_snapshot!(plan.verdict.message);
}

#[test]
fn taints_cordons_and_selectors_take_nodes_away() {
    let tainted = NodeCapacity {
        taints: vec![("dedicated".to_owned(), "other".to_owned(), "NoSchedule".to_owned())],
        ..cpu_node("tainted", 512)
    };
    let cordoned = NodeCapacity { unschedulable: true, ..cpu_node("cordoned", 512) };
    let mut spec = lite(Backend::CPU, Some(1));
    let nodes = Inventory::Nodes(vec![tainted, cordoned]);
    assert_eq!(plan(&spec, &nodes).verdict.reason, PlanReason::DoesNotFit);
    let toleration = serde_json::json!([{"key": "dedicated", "operator": "Exists"}]);
    spec.pod.tolerations = serde_json::from_value(toleration).unwrap();
    assert_eq!(plan(&spec, &nodes).verdict.reason, PlanReason::Fits);
    spec.pod.node_selector = [("disk".to_owned(), "fast".to_owned())].into();
    assert_eq!(plan(&spec, &nodes).verdict.message, "no node matches spec.pod.nodeSelector and tolerations");
}

#[test]
fn without_a_shape_given_shards_are_unverified_and_none_names_the_ways_out() {
    let mut spec = lite(Backend::CPU, Some(3));
    spec.shape = None;
    let unverified = plan(&spec, &Inventory::Unknown);
    assert_eq!(
        (unverified.verdict.reason, unverified.summary()),
        (PlanReason::Unverified, "3 × CPU, shape unknown".to_owned())
    );
    let placement = unverified.layout.and_then(|layout| layout.placement);
    assert_eq!(placement, Placement::undecided(3).ok());
    spec.shards = None;
    let unknown = plan(&spec, &Inventory::Unknown);
    assert_eq!((unknown.verdict.reason, unknown.layout), (PlanReason::ShapeUnknown, None));
}

#[test]
fn unknown_nodes_are_said_and_permit_pods() {
    let plan = plan(&lite(Backend::CPU, Some(4)), &Inventory::Unknown);
    assert_eq!(plan.verdict.reason, PlanReason::InventoryUnknown);
    assert!(plan.verdict.reason.permits_pods() && plan.verdict.message.starts_with("inventory: unknown"));
}

#[test]
fn a_memory_limit_below_the_need_is_refused_with_both_numbers() {
    let mut spec = lite(Backend::CPU, Some(4));
    let limits = serde_json::json!({"limits": {"memory": "4Gi"}});
    spec.pod.resources = serde_json::from_value(limits).unwrap();
    let plan = plan(&spec, &Inventory::Nodes(vec![cpu_node("a", 512)]));
    assert_eq!(plan.verdict.reason, PlanReason::DoesNotFit);
    assert!(plan.verdict.message.ends_with("spec.pod.resources allows 4.00 GiB"), "{}", plan.verdict.message);
}

proptest! {
    #[test]
    fn every_layout_tiles_all_experts_and_is_the_smallest_that_fits(memory in 4_u64..64, count in 1_usize..12) {
        let nodes: Vec<_> = (0..count).map(|i| cpu_node(&format!("n{i}"), memory)).collect();
        let spec = lite(Backend::CPU, None);
        let chosen = plan(&spec, &Inventory::Nodes(nodes.clone()));
        let layout = chosen.layout.as_ref().unwrap();
        let placement = layout.placement.as_ref().unwrap();
        prop_assert_eq!((placement.experts(), placement.size()), (64, layout.shards as usize));
        prop_assert_eq!(plan(&spec, &Inventory::Nodes(nodes.clone())), chosen.clone());
        if chosen.verdict.reason == PlanReason::Fits && layout.shards > 1 {
            let mut fewer = spec;
            fewer.shards = Some(layout.shards - 1);
            prop_assert_eq!(plan(&fewer, &Inventory::Nodes(nodes)).verdict.reason, PlanReason::DoesNotFit);
        }
    }
}
