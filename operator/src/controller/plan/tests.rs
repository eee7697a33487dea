//! The planner against numbers counted by hand, and its laws.

use proptest::prelude::*;

use super::bytes::ShardLoad;
use super::*;
use crate::controller::validate::{Validated, validate};
use crate::crd::{Backend, Hardware, ModelDeployment, ModelDeploymentSpec, Serving, Sharding};
use crate::inventory::{Accelerator, Inventory, NodeCapacity, Speed};

const GIB: u64 = 1 << 30;

/// DeepSeek-V2-Lite on CPU or CUDA, 4096 tokens of context, 16 sequences.
fn lite(backend: Backend, shards: Option<i32>) -> Validated {
    let mut spec = lite_spec(shards);
    spec.hardware.backend = Some(backend);
    validate(&ModelDeployment::new("lite", spec)).unwrap()
}

fn lite_spec(shards: Option<i32>) -> ModelDeploymentSpec {
    ModelDeploymentSpec {
        model: crate::crd::ModelSpec { source: "hf://deepseek-ai/DeepSeek-V2-Lite".to_owned(), shape: None },
        replicas: 1,
        sharding: shards.map(|shards| Sharding { shards: Some(shards), strategy: Default::default() }),
        hardware: Hardware::default(),
        serving: Serving::default(),
        rollout: Default::default(),
        recovery: Default::default(),
        placement: Default::default(),
        pod: Default::default(),
    }
}

fn cpu_node(name: &str, gib: u64) -> NodeCapacity {
    NodeCapacity { name: name.to_owned(), memory_bytes: gib * GIB, cpu_millis: 16_000, ..Default::default() }
}

fn gpu_node(count: u64, gib: u64) -> NodeCapacity {
    NodeCapacity { devices: [("nvidia.com/gpu".to_owned(), accelerator(count, gib))].into(), ..cpu_node("gpu", 512) }
}

fn accelerator(count: u64, gib: u64) -> Accelerator {
    Accelerator { count, memory_bytes: Some(gib * GIB), ..Default::default() }
}

#[test]
fn the_bytes_of_a_shard_are_those_counted_by_hand() {
    let spec = lite(Backend::CPU, Some(4));
    let shape = spec.shape.as_ref().unwrap();
    let bytes = ShardBytes::of(shape, &spec, ShardLoad::largest(shape, &spec, 4));
    // Embedding and head, the last norm, 27 attentions with norms, one dense FFN, 26 routers and shared experts.
    let dense = 2 * (419_430_400 + 2048 + 27 * 13_767_168 + 67_239_936 + 26 * (131_072 + 17_301_504));
    // Queries with their absorbed halves, output, cache row; gate and up of the dense and the shared FFN; six experts.
    let counted = 16 * (192 + 2 * 512 + 128) + 576 + 2 * (10_944 + 2 * 1408) + 6 * 1408;
    // Residual, norm, delta, routed, shared and packed row; six terms and six sums; router and lists.
    let per_row = (6 + 2 * 6) * 2048 + 64 + 6 * 6 + 3 + counted;
    let to_a_peer = (1 + 6) * 2048 + 4 * 6 + 3;
    let frame_rows = ((1 << 20) - 4096) / (2048 * 4 + 6 * 10 + 10);
    let served = to_a_peer + 6 * (2048 + 1408);
    let expected = ShardBytes {
        dense,
        experts: 26 * 16 * 2 * 3 * 2048 * 1408,
        kv: 4 * 4096 * 27 * 576 * 4,
        receive: 4 * (3 * 512 * to_a_peer + frame_rows * served),
        activations: 4 * (512 * per_row + 4 * (102_400 + 2 * 2048 + 1)),
        margin: 512 << 20,
        on_device: false,
    };
    assert_eq!(bytes, expected);
    assert_eq!(bytes.host(), bytes.total());
    assert_eq!(bytes.loaded(), expected.dense + expected.experts);
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
    assert_eq!(plan.rejected, vec![], "a wish has nothing beside it");
    insta::assert_snapshot!(plan.verdict.message);
}

#[test]
fn a_refusal_without_a_wish_says_of_fewer_shards_too_why_they_do_not_fit() {
    let told = plan(&lite(Backend::CPU, None), &Inventory::Nodes(vec![cpu_node("a", 2)])).rejected;
    assert!(
        !told.is_empty() && told.iter().all(|(layout, why)| layout.ends_with("CPU") && why.contains("GiB")),
        "{told:?}"
    );
}

#[test]
fn only_taints_that_keep_pods_away_count() {
    for (effect, reason) in [
        ("NoSchedule", PlanReason::DoesNotFit),
        ("NoExecute", PlanReason::DoesNotFit),
        ("PreferNoSchedule", PlanReason::Fits),
    ] {
        let taints = vec![("dedicated".to_owned(), "other".to_owned(), effect.to_owned())];
        let nodes = Inventory::Nodes(vec![NodeCapacity { taints, ..cpu_node("a", 512) }]);
        assert_eq!(plan(&lite(Backend::CPU, Some(1)), &nodes).verdict.reason, reason, "{effect}");
    }
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
    let message = plan(&spec, &nodes).verdict.message;
    let expected = "no node matches spec.pod.nodeSelector and tolerations: \
                    1 cordoned, 1 without a label of the selector";
    assert_eq!(message, expected);
    assert_eq!(plan(&spec, &Inventory::Nodes(vec![])).verdict.message, "there are no nodes");
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
    let predicts = |plan: Plan| plan.layout.is_some_and(|layout| layout.prediction.is_some());
    assert!(predicts(plan), "what a CPU does is known without nodes");
    assert!(!predicts(super::plan(&lite(Backend::CUDA, Some(4)), &Inventory::Unknown)));
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

#[test]
fn memory_that_a_manifest_asks_for_is_named_when_no_node_has_it() {
    let mut spec = lite(Backend::CPU, Some(1));
    spec.pod.resources = serde_json::from_value(serde_json::json!({"requests": {"memory": "129Gi"}})).unwrap();
    let plan = plan(&spec, &Inventory::Nodes(vec![cpu_node("a", 64), cpu_node("b", 128)]));
    let expected = "a shard asks for 129.00 GiB of memory; the largest node has 128.00 GiB";
    assert_eq!((plan.verdict.reason, plan.verdict.message.as_str()), (PlanReason::DoesNotFit, expected));
}

/// V2-Lite on twelve GPUs of 24 GiB and on one of 80 GiB, as fast as an L4 and an H100.
fn two_products() -> Vec<NodeCapacity> {
    let node = |name: &str, count, gib, bandwidth| {
        let speed = Some(Speed { bandwidth, flops: bandwidth * 400 });
        let device = Accelerator { product: Some(name.to_owned()), speed, ..accelerator(count, gib) };
        NodeCapacity { devices: [("nvidia.com/gpu".to_owned(), device)].into(), ..cpu_node(name, 512) }
    };
    vec![node("L4", 12, 24, 300_000_000_000), node("H100", 1, 80, 3_350_000_000_000)]
}

#[test]
fn among_products_the_one_with_the_most_tokens_for_its_cost_is_taken_and_the_others_are_told() {
    let chosen = plan(&lite(Backend::CUDA, None), &Inventory::Nodes(two_products()));
    let told: Vec<_> = chosen.rejected.iter().map(|(layout, reason)| format!("{layout}: {reason}")).collect();
    let text = format!("{}\n{}\n{}", chosen.summary(), chosen.arithmetic.join("\n"), told.join("\n"));
    insta::assert_snapshot!(text);
    let layout = chosen.layout.unwrap();
    assert_eq!(layout.device, format!("nvidia.com/gpu {}", layout.product.unwrap()), "the pods are told of it too");
    let only_small = plan(&lite(Backend::CUDA, None), &Inventory::Nodes(two_products()[..1].to_vec()));
    let layout = only_small.layout.unwrap();
    assert_eq!((layout.shards, layout.device.as_str(), layout.product), (2, "nvidia.com/gpu", None));
}

#[test]
fn a_group_may_lie_on_small_nodes_of_different_sizes() {
    let nodes = vec![cpu_node("a", 12), cpu_node("b", 16), cpu_node("c", 24)];
    let chosen = plan(&lite(Backend::CPU, None), &Inventory::Nodes(nodes.clone()));
    assert_eq!(chosen.verdict.reason, PlanReason::Fits);
    let layout = chosen.layout.unwrap();
    let bytes = layout.bytes.unwrap().host();
    let each: Vec<_> = nodes.iter().map(|node| node.memory_bytes / bytes).collect();
    assert_eq!((layout.shards, each), (4, vec![1, 1, 2]), "no node holds the group alone");
}

#[test]
fn without_a_named_backend_what_other_backends_would_do_is_told() {
    let object = |backend| {
        let mut object = ModelDeployment::new("lite", lite_spec(None));
        object.spec.hardware.backend = backend;
        validate(&object).unwrap()
    };
    let mut nodes = two_products();
    nodes.push(cpu_node("cpu", 64));
    let any = plan(&object(None), &Inventory::Nodes(nodes.clone()));
    assert_eq!(any.layout.as_ref().unwrap().device, "CPU");
    let (layout, reason) = any.rejected.last().unwrap();
    assert_eq!(layout, "1 × nvidia.com/gpu H100");
    assert!(reason.starts_with("NotSupportedYet: backend CUDA is not built yet; fits, predicted "), "{reason}");
    let named = plan(&object(Some(Backend::CPU)), &Inventory::Nodes(nodes));
    assert!(named.rejected.iter().all(|(_, reason)| !reason.contains("CUDA")));
}

#[test]
fn a_refusal_says_with_how_many_sequences_or_tokens_it_would_fit() {
    let with = |sequences: u32, tokens: u32, gib: u64| {
        let mut spec = lite(Backend::CPU, Some(1));
        (spec.max_concurrent_sequences, spec.context_tokens) = (sequences, tokens);
        plan(&spec, &Inventory::Nodes(vec![cpu_node("a", gib)])).verdict
    };
    let hint = |verdict: &Verdict| verdict.message.rsplit_once("; with ").map(|(_, hint)| hint.to_owned());
    let refused = with(64, 16_384, 48);
    assert_eq!(hint(&refused).as_deref(), Some("serving.maxConcurrentSequences 19 it would fit"));
    assert_eq!(with(19, 16_384, 48).reason, PlanReason::Fits);
    assert_eq!(with(20, 16_384, 48).reason, PlanReason::DoesNotFit);
    let refused = with(1, 160_000, 32);
    assert_eq!(hint(&refused).as_deref(), Some("serving.contextTokens 35584 it would fit"));
    assert_eq!(with(1, 35_584, 32).reason, PlanReason::Fits);
    assert_eq!(hint(&with(1, 64, 8)), None);
}

#[test]
fn a_shown_plan_stays_unless_another_is_clearly_better() {
    let spec = lite(Backend::CPU, None);
    let on = |gib: &[u64], shown: Option<Shown>| {
        let nodes = gib.iter().enumerate().map(|(index, gib)| cpu_node(&format!("n{index}"), *gib)).collect();
        let found = replan(&spec, &Inventory::Nodes(nodes), shown);
        (found.layout.map(|layout| layout.shards), found.verdict.reason, found.better.is_some())
    };
    let shown = |shards, started| Some(Shown { shards, started });
    assert_eq!(on(&[16, 16, 16], None), (Some(3), PlanReason::Fits, false));
    // A node of 64 GiB holds the model alone, which moves fewer bytes for a token.
    assert_eq!(on(&[16, 16, 16, 64], shown(3, false)), (Some(1), PlanReason::Fits, false));
    assert_eq!(on(&[16, 16, 16, 64], shown(3, true)), (Some(3), PlanReason::Fits, true));
    // Four of three: hardly worse, so it stays as long as it fits.
    assert_eq!(on(&[16, 16, 16, 16], shown(4, false)), (Some(4), PlanReason::Fits, false));
    assert_eq!(on(&[16, 16, 16, 16], shown(4, true)), (Some(4), PlanReason::Fits, false));
    assert_eq!(on(&[16, 16, 16], shown(2, false)), (Some(3), PlanReason::Fits, false));
    assert_eq!(on(&[16, 16, 16], shown(2, true)), (Some(2), PlanReason::DoesNotFit, true));
    assert_eq!(on(&[1], shown(2, true)), (Some(2), PlanReason::DoesNotFit, false));
}

#[test]
fn what_is_shown_is_read_from_the_revision_else_from_the_plan_of_the_same_generation() {
    let spec = lite(Backend::CPU, None);
    let inventory = Inventory::Nodes(vec![cpu_node("a", 64)]);
    let mut status = crate::crd::ModelDeploymentStatus {
        observed_generation: Some(3),
        plan: Some(plan(&spec, &inventory).to_status()),
        ..Default::default()
    };
    assert_eq!(Shown::of(&spec, Some(3), &status), Some(Shown { shards: 1, started: false }));
    assert_eq!(Shown::of(&spec, Some(4), &status), None, "the plan answers another spec");
    let hash = Revision::hash_of(&spec).to_string();
    status.revisions = vec![crate::crd::RevisionStatus { hash, shards: 4, ..Default::default() }];
    assert_eq!(Shown::of(&spec, Some(4), &status), Some(Shown { shards: 4, started: true }));
}

/// Nodes of a few sorts, GPUs of known and unknown speed among them.
fn fleets() -> impl Strategy<Value = Vec<NodeCapacity>> {
    let speed = proptest::option::of(
        (100_u64..8000)
            .prop_map(|gigabytes| Speed { bandwidth: gigabytes * 1_000_000_000, flops: gigabytes * 300_000_000_000 }),
    );
    let node = (4_u64..96, 0_u64..9, 1_u64..96, 0_usize..3, speed);
    proptest::collection::vec(node, 0..8).prop_map(|nodes| {
        let node = |(index, (gib, count, each, product, speed)): (usize, (u64, u64, u64, usize, Option<Speed>))| {
            let product = ["A", "B", "C"].get(product).map(|name| (*name).to_owned());
            let device = Accelerator { product, speed, ..accelerator(count, each) };
            NodeCapacity {
                devices: [("nvidia.com/gpu".to_owned(), device)].into(),
                ..cpu_node(&format!("n{index}"), gib)
            }
        };
        nodes.into_iter().enumerate().map(node).collect()
    })
}

/// Equal shards of this size that the nodes hold, counted node by node without the planner's own code.
fn held(nodes: &[NodeCapacity], spec: &Validated, bytes: &ShardBytes) -> u64 {
    let of = |node: &NodeCapacity| {
        let by_host = (node.memory_bytes / bytes.host()).min(node.cpu_millis / 1000);
        let device = &node.devices["nvidia.com/gpu"];
        let fits = device.memory_bytes.is_none_or(|memory| memory >= bytes.device());
        match spec.device.backend {
            Backend::CPU => by_host,
            _ => by_host.min(if fits { device.count } else { 0 }),
        }
    };
    nodes.iter().map(of).sum()
}

proptest! {
    #[test]
    fn a_plan_is_the_same_every_time_fits_and_beats_every_other_layout_that_fits(
        nodes in fleets(), gpu in any::<bool>(), sequences in 1_u32..256, tokens in 64_u32..16_384,
    ) {
        let mut spec = lite(if gpu { Backend::CUDA } else { Backend::CPU }, None);
        (spec.max_concurrent_sequences, spec.context_tokens) = (sequences, tokens);
        let inventory = Inventory::Nodes(nodes.clone());
        let chosen = plan(&spec, &inventory);
        prop_assert_eq!(plan(&spec, &inventory), chosen.clone());
        let layout = chosen.layout.as_ref().unwrap();
        let placement = layout.placement.as_ref().unwrap();
        prop_assert_eq!((placement.count(), placement.size()), (64, layout.shards as usize));
        prop_assert!(chosen.arithmetic.len() <= 16 && chosen.rejected.len() <= 8);
        let fits = held(&nodes, &spec, layout.bytes.as_ref().unwrap()) >= u64::from(layout.shards);
        prop_assert_eq!(chosen.verdict.reason == PlanReason::Fits, fits);
        let again = replan(&spec, &inventory, Some(Shown { shards: layout.shards, started: false }));
        prop_assert_eq!(again.layout.map(|layout| layout.shards), Some(layout.shards), "steady against itself");
        for shards in 1..=64 {
            let mut pinned = spec.clone();
            pinned.shards = Some(shards);
            let other = plan(&pinned, &inventory);
            if !fits {
                prop_assert_eq!(other.verdict.reason, PlanReason::DoesNotFit, "{} would fit", shards);
            }
        }
    }

    #[test]
    fn what_a_shard_holds_of_the_model_falls_with_their_number_and_everything_else_is_accounted_for(
        shards in 1_u64..64, sequences in 1_u32..512,
    ) {
        let mut spec = lite(Backend::CPU, None);
        spec.max_concurrent_sequences = sequences;
        let shape = spec.shape.clone().unwrap();
        let of = |shards: u64| ShardBytes::of(&shape, &spec, ShardLoad::largest(&shape, &spec, u32::try_from(shards).unwrap()));
        let (one, next) = (of(shards), of(shards + 1));
        prop_assert!(next.experts <= one.experts && next.kv <= one.kv && next.activations <= one.activations);
        prop_assert!(next.receive > one.receive && next.dense == one.dense);
        prop_assert_eq!(one.total(), one.dense + one.experts + one.kv + one.receive + one.activations + one.margin);
        prop_assert!(one.experts * shards >= of(1).experts, "no expert is lost");
    }
}
