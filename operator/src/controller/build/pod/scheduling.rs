//! Where a shard may and should run.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, PodAffinity, PodAffinityTerm, Toleration, TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use crate::controller::plan::Revision;
use crate::crd::PodSpec;
use crate::names::{GroupId, label};

/// How long a shard outlives its node's silence.
const NODE_LOST_SECONDS: i64 = 15;

/// How much a shard wants to be packed with its mates, and to stay where groups are spread; at most 100.
const PACK_WEIGHT: i32 = 100;
const STAY_WEIGHT: i32 = 50;

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

/// Pulls the shards of one formation together: onto one value of the packing label, and within one of the spreading.
pub(super) fn affinity(revision: &Revision, group: GroupId) -> Option<Affinity> {
    let wishes = &revision.spec.placement;
    let (pack, spread) = (wishes.pack_shards_by.as_ref(), wishes.spread_groups_by.as_ref());
    let terms = [(pack, PACK_WEIGHT), (spread.filter(|key| Some(*key) != pack), STAY_WEIGHT)];
    let near = terms.into_iter().filter_map(|(key, weight)| Some(near_mates(revision, group, key?, weight)));
    let preferred_during_scheduling_ignored_during_execution = super::filled(near.collect());
    preferred_during_scheduling_ignored_during_execution.as_ref()?;
    let together = PodAffinity { preferred_during_scheduling_ignored_during_execution, ..Default::default() };
    Some(Affinity { pod_affinity: Some(together), ..Default::default() })
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
