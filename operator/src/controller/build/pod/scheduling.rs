//! Where a shard may and should run.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, PodAffinity, PodAffinityTerm, Toleration, TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::controller::plan::Revision;
use crate::crd::PodSpec;
use crate::names::{GroupId, Rank, label};

/// How long a shard outlives its node's silence.
const NODE_LOST_SECONDS: i64 = 15;

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

/// Pulls the shards of one formation together.
pub(super) fn affinity(revision: &Revision, group: GroupId) -> Option<Affinity> {
    let key = revision.spec.placement.pack_shards_by.as_ref()?;
    let selector = select([
        (label::MODEL, revision.spec.owner.name.to_string()),
        (label::REVISION, revision.hash.to_string()),
        (label::GROUP, group.index.to_string()),
        (label::EPOCH, group.epoch.to_string()),
    ]);
    let term = PodAffinityTerm { topology_key: key.clone(), label_selector: Some(selector), ..Default::default() };
    let preferred = vec![WeightedPodAffinityTerm { weight: 100, pod_affinity_term: term }];
    let together =
        PodAffinity { preferred_during_scheduling_ignored_during_execution: Some(preferred), ..Default::default() };
    Some(Affinity { pod_affinity: Some(together), ..Default::default() })
}

/// Spreads equal ranks: one pod stands for its group.
pub(super) fn spread(revision: &Revision, rank: Rank) -> Option<Vec<TopologySpreadConstraint>> {
    let key = revision.spec.placement.spread_groups_by.as_ref()?;
    let selector = select([(label::MODEL, revision.spec.owner.name.to_string()), (label::RANK, rank.to_string())]);
    Some(vec![TopologySpreadConstraint {
        max_skew: 1,
        topology_key: key.clone(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(selector),
        ..Default::default()
    }])
}

fn select<const N: usize>(labels: [(&str, String); N]) -> LabelSelector {
    let labels: BTreeMap<_, _> = labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    LabelSelector { match_labels: Some(labels), match_expressions: None }
}
