//! Where a shard may and should run.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinity, PodAffinityTerm,
    PreferredSchedulingTerm, Toleration, TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use crate::controller::plan::Revision;
use crate::crd::PodSpec;
use crate::inventory::label_of;
use crate::names::{GroupId, label};

/// How long a shard outlives its node's silence.
const NODE_LOST_SECONDS: i64 = 15;

/// How much a shard wants to be packed with its mates, and to stay where groups are spread; at most 100.
const PACK_WEIGHT: i32 = 100;
const STAY_WEIGHT: i32 = 50;
/// How much a shard wants the device for which it was planned; at most 100.
const PRODUCT_WEIGHT: i32 = 100;

/// Those of the user, then a short patience with lost nodes: a group without a shard is useless.
pub(super) fn tolerations(asked: &PodSpec) -> Vec<Toleration> {
    let users = asked.tolerations.iter().map(|toleration| Toleration {
        key: toleration.key.clone(),
        operator: toleration.operator.clone(),
        value: toleration.value.clone(),
        effect: toleration.effect.clone(),
        toleration_seconds: toleration.toleration_seconds,
    });
    let lost = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"].map(|key| Toleration {
        key: Some(key.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        toleration_seconds: Some(NODE_LOST_SECONDS),
        value: None,
    });
    users.chain(lost).collect()
}

/// Onto nodes whose devices hold the shard, and near its mates.
pub(super) fn affinity(revision: &Revision, group: GroupId) -> Option<Affinity> {
    let (node_affinity, pod_affinity) = (large_enough(revision), together(revision, group));
    let any = node_affinity.is_some() || pod_affinity.is_some();
    any.then(|| Affinity { node_affinity, pod_affinity, ..Default::default() })
}

/// Never onto a device whose label says that it is too small; by preference onto the product of the plan. What carries no
/// label is given the benefit of the doubt, as the planner gives it.
fn large_enough(revision: &Revision) -> Option<NodeAffinity> {
    let resource = revision.spec.device.resource.as_deref()?;
    let require = |part: &str, operator: &str, value: Option<String>| NodeSelectorTerm {
        match_expressions: Some(vec![NodeSelectorRequirement {
            key: label_of(resource, part),
            operator: operator.to_owned(),
            values: value.map(|value| vec![value]),
        }]),
        match_fields: None,
    };
    let required = revision.device_bytes.map(|bytes| {
        let below = bytes.div_ceil(1 << 20).saturating_sub(1).to_string();
        let terms = vec![require("memory", "Gt", Some(below)), require("memory", "DoesNotExist", None)];
        NodeSelector { node_selector_terms: terms }
    });
    let preferred = revision.product.as_ref().map(|product| {
        let preference = require("product", "In", Some(product.clone()));
        vec![PreferredSchedulingTerm { weight: PRODUCT_WEIGHT, preference }]
    });
    let any = required.is_some() || preferred.is_some();
    any.then_some(NodeAffinity {
        required_during_scheduling_ignored_during_execution: required,
        preferred_during_scheduling_ignored_during_execution: preferred,
    })
}

/// Pulls the shards of one formation together: onto one value of the packing label, and within one of the spreading.
fn together(revision: &Revision, group: GroupId) -> Option<PodAffinity> {
    let wishes = &revision.spec.placement;
    let (pack, spread) = (wishes.pack_shards_by.as_ref(), wishes.spread_groups_by.as_ref());
    let terms = [(pack, PACK_WEIGHT), (spread.filter(|key| Some(*key) != pack), STAY_WEIGHT)];
    let near = terms.into_iter().filter_map(|(key, weight)| Some(near_mates(revision, group, key?, weight)));
    let preferred_during_scheduling_ignored_during_execution = super::filled(near.collect());
    preferred_during_scheduling_ignored_during_execution.as_ref()?;
    Some(PodAffinity { preferred_during_scheduling_ignored_during_execution, ..Default::default() })
}

fn near_mates(revision: &Revision, group: GroupId, key: &str, weight: i32) -> WeightedPodAffinityTerm {
    let mut labels = of_revision(revision);
    labels.insert(label::GROUP.to_owned(), group.index.to_string());
    labels.insert(label::EPOCH.to_owned(), group.epoch.to_string());
    let label_selector = Some(LabelSelector { match_labels: Some(labels), match_expressions: None });
    let term = PodAffinityTerm { topology_key: key.to_owned(), label_selector, ..Default::default() };
    WeightedPodAffinityTerm { weight, pod_affinity_term: term }
}

/// Away from the other groups of the revision. Own mates do not count, so in whatever order the shards of several
/// groups meet the scheduler, no shard is pushed away from its group; nor do groups that a rollout is about to remove.
pub(super) fn spread(revision: &Revision, group: GroupId) -> Option<Vec<TopologySpreadConstraint>> {
    let key = revision.spec.placement.spread_groups_by.as_ref()?;
    let others = LabelSelectorRequirement {
        key: label::GROUP.to_owned(),
        operator: "NotIn".to_owned(),
        values: Some(vec![group.index.to_string()]),
    };
    let selector = LabelSelector { match_labels: Some(of_revision(revision)), match_expressions: Some(vec![others]) };
    Some(vec![TopologySpreadConstraint {
        max_skew: 1,
        topology_key: key.clone(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(selector),
        ..Default::default()
    }])
}

fn of_revision(revision: &Revision) -> BTreeMap<String, String> {
    let (model, hash) = (revision.spec.owner.name.to_string(), revision.hash.to_string());
    BTreeMap::from([(label::MODEL.to_owned(), model), (label::REVISION.to_owned(), hash)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::plan::plan;
    use crate::controller::validate::validate;
    use crate::crd::ModelDeployment;
    use crate::inventory::Inventory;
    use crate::names::{Epoch, GroupIndex};

    const MIB: u64 = 1 << 20;

    /// What a pod of such a revision asks of its node.
    fn asked(resource: Option<&str>, device_bytes: Option<u64>, product: Option<&str>) -> Option<NodeAffinity> {
        let mut model: ModelDeployment =
            serde_yaml::from_str(include_str!("../../../../../manifests/tiny-cpu.yaml")).unwrap();
        model.spec.placement = Default::default();
        let spec = validate(&model).unwrap();
        let mut revision = Revision::decide(&spec, &plan(&spec, &Inventory::Unknown), "image").unwrap();
        revision.spec.device.resource = resource.map(ToOwned::to_owned);
        (revision.device_bytes, revision.product) = (device_bytes, product.map(ToOwned::to_owned));
        affinity(&revision, GroupId { index: GroupIndex(0), epoch: Epoch(1) })?.node_affinity
    }

    /// As the scheduler reads a term.
    fn matches(term: &NodeSelectorTerm, labels: &[(&str, &str)]) -> bool {
        term.match_expressions.iter().flatten().all(|wanted| {
            let found = labels.iter().find(|(key, _)| *key == wanted.key).map(|(_, value)| *value);
            let value = wanted.values.iter().flatten().next().map(String::as_str);
            let number = |text: Option<&str>| text.map(|text| text.parse::<i64>().unwrap());
            match wanted.operator.as_str() {
                "DoesNotExist" => found.is_none() && value.is_none(),
                "Gt" => found.is_some() && number(found) > number(value),
                "In" => found.is_some() && found == value,
                other => panic!("{other}"),
            }
        })
    }

    fn may(affinity: &NodeAffinity, labels: &[(&str, &str)]) -> bool {
        let required = affinity.required_during_scheduling_ignored_during_execution.as_ref().unwrap();
        required.node_selector_terms.iter().any(|term| matches(term, labels))
    }

    #[test]
    fn a_device_whose_label_says_less_than_the_shard_needs_is_never_taken() {
        for (bytes, least) in [(24_000 * MIB, 24_000), (24_000 * MIB + 1, 24_001), (1, 1)] {
            for resource in ["nvidia.com/gpu", "nvidia.com/gpu.shared"] {
                let affinity = asked(Some(resource), Some(bytes), None).unwrap();
                for (mib, fits) in [(least - 1, false), (least, true), (81_559, true)] {
                    assert_eq!(may(&affinity, &[("nvidia.com/gpu.memory", &mib.to_string())]), fits, "{bytes}: {mib}");
                }
                assert!(may(&affinity, &[("example.com/gpu.memory", "1")]), "nothing is said of it");
            }
        }
    }

    #[test]
    fn the_product_of_the_plan_is_preferred_and_no_other_refused() {
        let affinity = asked(Some("nvidia.com/gpu"), None, Some("NVIDIA-H200")).unwrap();
        assert_eq!(affinity.required_during_scheduling_ignored_during_execution, None);
        let preferred = affinity.preferred_during_scheduling_ignored_during_execution.unwrap();
        let scores = |product| matches(&preferred[0].preference, &[("nvidia.com/gpu.product", product)]);
        assert!(preferred.len() == 1 && scores("NVIDIA-H200") && !scores("NVIDIA-L4"), "{preferred:?}");
    }

    #[test]
    fn a_shard_without_a_device_asks_nothing_of_it() {
        assert_eq!(asked(None, Some(MIB), Some("NVIDIA-L4")), None);
        assert_eq!(asked(Some("nvidia.com/gpu"), None, None), None);
    }
}
