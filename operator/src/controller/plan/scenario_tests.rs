//! The planner against `tests/plans/*.json`, which transformers' classes and a second writing of the rules have made
//! (`tests/gen/plan_referee.py`), with words that a person asked for in each.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::*;
use crate::controller::validate::validate;
use crate::crd::admit::admit;
use crate::inventory::{Catalogue, Inventory, NodeCapacity};

#[derive(Deserialize)]
struct Scenario {
    object: Value,
    catalogue: Value,
    nodes: Option<Vec<Value>>,
    expected: Expected,
    says: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Expected {
    refused: Option<String>,
    reason: Option<String>,
    shards: Option<u32>,
    device: Option<String>,
    experts_per_shard: Option<u32>,
    bytes: Option<Bytes>,
    tokens_per_second: Option<f64>,
}

#[derive(Deserialize, Debug, PartialEq)]
struct Bytes {
    dense: u64,
    experts: u64,
    kv: u64,
    receive: u64,
    activations: u64,
    margin: u64,
}

impl From<&ShardBytes> for Bytes {
    fn from(found: &ShardBytes) -> Self {
        let ShardBytes { dense, experts, kv, receive, activations, margin, on_device: _ } = *found;
        Self { dense, experts, kv, receive, activations, margin }
    }
}

impl Scenario {
    fn inventory(&self) -> Inventory {
        let catalogue = Catalogue::extended(&self.catalogue.to_string()).unwrap();
        let node = |node: &Value| NodeCapacity::of(&serde_json::from_value(node.clone()).unwrap(), &catalogue);
        self.nodes.as_ref().map_or(Inventory::Unknown, |nodes| Inventory::Nodes(nodes.iter().map(node).collect()))
    }

    fn check(&self) {
        let expected = &self.expected;
        let spec = match validate(&admit(&self.object).unwrap()) {
            Ok(spec) => spec,
            Err(rejection) => {
                assert_eq!(Some(rejection.reason()), expected.refused.as_deref());
                return self.says_it(&rejection.to_string());
            }
        };
        let plan = plan(&spec, &self.inventory());
        assert_eq!(Some(plan.verdict.reason.as_str()), expected.reason.as_deref(), "{}", plan.verdict.message);
        let layout = plan.layout.as_ref();
        if let Some(shards) = expected.shards {
            assert_eq!(layout.map(|layout| layout.shards), Some(shards), "{}", plan.summary());
        }
        if let Some(device) = &expected.device {
            let found = layout.map(|layout| (layout.device.clone(), Some(layout.experts())));
            assert_eq!(found, Some((device.clone(), expected.experts_per_shard)));
            let found = layout.and_then(|layout| layout.prediction.as_ref()).map(|found| found.tokens_per_second);
            let near = |(found, wanted): (f64, f64)| (found - wanted).abs() < wanted * 1e-6;
            let same = found.zip(expected.tokens_per_second).map_or(found == expected.tokens_per_second, near);
            assert!(same, "{found:?} tokens/s, not {:?}", expected.tokens_per_second);
        }
        if let Some(bytes) = &expected.bytes {
            let found = layout.and_then(|layout| layout.bytes.as_ref()).map(Bytes::from);
            assert_eq!(found.as_ref(), Some(bytes));
        }
        let rejected = plan.rejected.iter().map(|(layout, reason)| format!("{layout}: {reason}"));
        let lines = [plan.verdict.message.clone()].into_iter().chain(plan.arithmetic.iter().cloned()).chain(rejected);
        self.says_it(&lines.collect::<Vec<_>>().join("\n"));
    }

    fn says_it(&self, text: &str) {
        assert!(!self.says.is_empty() && text.contains(&self.says), "{:?} is not said in:\n{text}", self.says);
    }
}

#[test]
fn every_scenario_gets_the_layout_bytes_and_words_that_the_referee_wrote() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/plans");
    let (mut count, mut wrong) = (0, Vec::new());
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let scenario: Scenario = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| scenario.check()));
        if outcome.is_err() {
            wrong.push(path);
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(count >= 30, "{count} scenarios");
}
