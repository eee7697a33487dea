//! The PodDisruptionBudget of a model: at most one group is disrupted at a time.
//!
//! An integer one short of all pods lets exactly one eviction pass; its group then leaves as a whole, and until it is
//! back too few pods are ready for another. (One unavailable pod, or half of them, would let nearly all go: each
//! eviction of a group that is leaving anyway is allowed.)

use std::cmp::Reverse;
use std::collections::BTreeMap;

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::meta;
use crate::controller::rollout::{Group, Known, Standing};
use crate::controller::validate::Owner;
use crate::names::label;

/// Fewer groups than this are not protected: the only one could never leave its node.
const FROM: usize = 2;

/// The budget while `groups` exist and `wished` are to serve; `None`: none is needed.
pub(super) fn budget(owner: &Owner, groups: &[Group], wished: u32) -> Option<PodDisruptionBudget> {
    let least = least(groups, wished)?;
    let selector = BTreeMap::from([(label::MODEL.to_owned(), owner.name.to_string())]);
    let spec = PodDisruptionBudgetSpec {
        min_available: Some(IntOrString::Int(least)),
        selector: Some(LabelSelector { match_labels: Some(selector), match_expressions: None }),
        // What does not serve anyway never keeps a node from being emptied.
        unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
        ..PodDisruptionBudgetSpec::default()
    };
    Some(PodDisruptionBudget { metadata: meta(owner, owner.name.to_string()), spec: Some(spec), status: None })
}

/// How many pods must stay ready: all of the groups that count, but one.
///
/// As many groups count as are wished, or as are ready if these are more: a surge group that never becomes ready does
/// not keep nodes from being emptied.
pub(super) fn least(groups: &[Group], wished: u32) -> Option<i32> {
    let ready = |group: &Group| matches!(group.standing(), Standing::Ready(_));
    let mut sizes: Vec<(bool, usize)> = groups
        .iter()
        .filter(|group| group.known != Known::Removed)
        .map(|group| (ready(group), group.shards.len()))
        .collect();
    sizes.sort_by_key(|&size| Reverse(size));
    let ready = sizes.iter().filter(|(ready, _)| *ready).count();
    sizes.truncate(ready.max(wished as usize));
    let pods: usize = sizes.iter().map(|(_, shards)| shards).sum();
    (sizes.len() >= FROM).then(|| i32::try_from(pods).unwrap_or(i32::MAX).saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use pretty_assertions::assert_eq;

    use super::*;
    use crate::controller::rollout::Shard;

    /// A group for each letter: `+` ready, `.` starting, `-` removed; of two shards each.
    fn groups(letters: &str) -> Vec<Group> {
        let group = |(letter, index): (char, u32)| Group {
            known: if letter == '-' { Known::Removed } else { Known::Formed },
            shards: vec![if letter == '+' { Shard::Ready(Timestamp::UNIX_EPOCH) } else { Shard::Pending }; 2],
            ..Group::new((index, 1), "A".into(), 2)
        };
        letters.chars().zip(0..).map(group).collect()
    }

    #[test]
    fn all_pods_but_one_of_the_groups_that_count_stay() {
        let table = [
            ("", 2, None),
            ("+", 1, None),
            ("+.", 1, None),
            ("++", 1, Some(3)),
            ("++", 2, Some(3)),
            ("+.", 2, Some(3)),
            ("++.", 2, Some(3)),
            ("+++", 2, Some(5)),
            ("++-", 2, Some(3)),
            ("+-", 2, None),
            ("++...", 5, Some(9)),
            ("++++", 1, Some(7)),
        ];
        let answers = table.map(|(letters, wished, _)| (letters, wished, least(&groups(letters), wished)));
        assert_eq!(answers, table);
    }

    #[test]
    fn the_larger_groups_count_first() {
        let mut mixed = groups("++.");
        mixed[1].shards.extend_from_within(..);
        mixed[2].shards.extend_from_within(..);
        assert_eq!(least(&mixed, 2), Some(5));
        assert_eq!(least(&mixed, 3), Some(9));
    }
}
