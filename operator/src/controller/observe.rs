//! From projected pods and the remembered status to the plain data of a rollout.
//!
//! Pure. Never decides anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::dereference::PodView;
use super::recover::{MAX_MESSAGE, Recovery};
use super::rollout::{Group, Known, LossReason, Observed, Shard};
use super::validate::Owner;
use crate::crd::{GroupPhase, GroupStatus, ModelDeploymentStatus};
use crate::names::{Epoch, GroupId, GroupIndex, PodName, Rank, RevisionHash, label};

/// The pods of one group that exist, by rank.
pub type Members<'a> = BTreeMap<(u32, u64), BTreeMap<u32, &'a Arc<PodView>>>;

/// Sorts the pods that `uid` controls by group and rank; strangers are left out.
#[must_use]
pub fn members<'a>(uid: &str, pods: &'a [Arc<PodView>]) -> Members<'a> {
    let mut members = Members::new();
    for pod in pods.iter().filter(|pod| pod.controller.as_deref() == Some(uid)) {
        if let Some(place) = &pod.place {
            members.entry((place.index, place.epoch)).or_default().insert(place.rank, pod);
        }
    }
    members
}

/// The pods that were made for `owner` and that somebody has taken from it since, as the reasons of losses that they are:
/// their names hash its UID. They are not ours any more, whatever their labels say.
#[must_use]
pub fn taken(owner: &Owner, pods: &[Arc<PodView>]) -> Vec<Arc<PodView>> {
    let made_for_it = |pod: &&Arc<PodView>| {
        let place = pod.place.as_ref()?;
        let revision = RevisionHash::parse(&place.revision)?;
        let group = GroupId { index: GroupIndex(place.index), epoch: Epoch(place.epoch) };
        let name = PodName::new(&owner.name, &owner.uid, &revision, group, Rank(place.rank));
        Some(pod.meta.name.as_deref() == Some(name.as_str()))
    };
    let theirs = pods.iter().filter(|pod| pod.controller.as_deref() != Some(owner.uid.as_str()));
    let theirs = theirs.filter(|pod| !pod.shard.is_ending() && made_for_it(pod) == Some(true));
    theirs.map(|pod| Arc::new(pod.as_ref().clone().altered("somebody took it from its owner".to_owned()))).collect()
}

/// Joins what exists with what was decided.
///
/// Until a revision has been written to the status, or when the status is lost, the newest formation of every slot that
/// exists is an unfinished first creation, and an older one is being removed; afterwards every decision is written
/// before it is carried out, so what is not listed is being removed.
/// `sizes`: shards of a group by revision, as far as known.
#[must_use]
pub fn observe(
    members: &Members<'_>,
    status: &ModelDeploymentStatus,
    sizes: &BTreeMap<String, usize>,
    now: Timestamp,
) -> Observed {
    let first = status.revisions.is_empty();
    let mut groups: BTreeMap<(u32, u64), Group> = BTreeMap::new();
    for listed in status.groups.iter().filter(|group| group.phase != GroupPhase::Draining) {
        let (index, epoch) = (unsigned(listed.index), u64::try_from(listed.epoch).unwrap_or(0));
        let known = if listed.phase == GroupPhase::Pending { Known::Forming } else { Known::Formed };
        let told = usize::try_from(listed.shards).unwrap_or(0);
        let planned = sizes.get(&listed.revision).copied().filter(|_| known == Known::Forming);
        let shards = vec![Shard::Missing; planned.unwrap_or(told)];
        let (revision, last_note) = (listed.revision.clone(), listed.message.clone());
        groups.insert(
            (index, epoch),
            Group { index, epoch, revision, known, shards, created: None, note: None, last_note },
        );
    }
    let size_of = |revision: &str, (index, epoch): (u32, u64)| {
        let same = |group: &&GroupStatus| unsigned(group.index) == index && u64::try_from(group.epoch) == Ok(epoch);
        let listed = || status.groups.iter().find(same).map(|group| unsigned(group.shards) as usize);
        sizes.get(revision).copied().or_else(listed).unwrap_or(0)
    };
    for (&(index, epoch), ranks) in members {
        let Some(place) = ranks.values().find_map(|pod| pod.place.as_ref()) else { continue };
        // Told by the pods themselves: without a status, today's plan may be another one.
        let size = place.size.map_or_else(|| size_of(&place.revision, (index, epoch)), |size| size as usize);
        let newest = members.range((index, epoch + 1)..=(index, u64::MAX)).next().is_none();
        let group = groups.entry((index, epoch)).or_insert_with(|| Group {
            index,
            epoch,
            revision: place.revision.clone(),
            known: if first && newest { Known::Forming } else { Known::Removed },
            shards: vec![Shard::Missing; size.min(shoal_proto::placement::MAX_SHARDS)],
            created: None,
            note: None,
            last_note: None,
        });
        fill(group, ranks);
    }
    let recovery = status.recovery.iter().map(|entry| Recovery {
        index: unsigned(entry.group),
        epoch: u64::try_from(entry.epoch).unwrap_or(0),
        failures: unsigned(entry.failures),
        streak: unsigned(entry.streak),
        window_start: entry.window_start.as_ref().map_or(now, |time| time.0),
        next_retry: entry.next_retry.as_ref().map_or(now, |time| time.0),
        reason: LossReason::from_word(&entry.reason),
        message: entry.message.clone(),
    });
    Observed { groups: groups.into_values().collect(), recovery: recovery.collect() }
}

fn fill(group: &mut Group, ranks: &BTreeMap<u32, &Arc<PodView>>) {
    for (&rank, pod) in ranks {
        let at = rank as usize;
        // Ranks come from labels, which anyone may write: no group has more shards than the CRD allows.
        if at >= shoal_proto::placement::MAX_SHARDS {
            continue;
        }
        if group.shards.len() <= at {
            group.shards.resize(at + 1, Shard::Missing);
        }
        // Only the group knows its revision: a label that names another was changed.
        let altered = pod.place.as_ref().is_some_and(|place| place.revision != group.revision);
        group.shards[at] = if altered && !pod.shard.is_ending() { Shard::Lost(LossReason::Altered) } else { pod.shard };
        if altered {
            group.note = Some(format!("shard {rank}: somebody changed its label {}", label::REVISION));
        }
        group.created = [group.created, pod.created].into_iter().flatten().min();
    }
    let told = ranks.iter().filter_map(|(rank, pod)| Some((rank, pod, pod.note.as_ref()?)));
    let most_telling = told.min_by_key(|(rank, pod, _)| (weight(pod.shard), **rank));
    let told = most_telling.map(|(rank, _, note)| shortened(&format!("shard {rank}: {note}")));
    group.note = group.note.take().or(told);
}

/// Whose words are told first: what is lost, then what finds no room, then what still comes.
fn weight(shard: Shard) -> u8 {
    match shard {
        Shard::Lost(_) => 0,
        Shard::Unschedulable(_) => 1,
        Shard::Pending | Shard::Gated => 2,
        _ => 3,
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(MAX_MESSAGE).collect()
}

fn unsigned(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use pretty_assertions::assert_eq;
    use serde_json::json;

    use super::*;
    use crate::controller::dereference::Place;
    use crate::crd::RevisionStatus;

    fn pod(index: u32, epoch: u64, rank: u32, controller: &str) -> Arc<PodView> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {
                "name": format!("m-g{index}-e{epoch}-r{rank}"),
                "labels": {
                    "inference.shoal.dev/model": "m", "inference.shoal.dev/revision": "A",
                    "inference.shoal.dev/group": index.to_string(), "inference.shoal.dev/epoch": epoch.to_string(),
                    "inference.shoal.dev/rank": rank.to_string(), "inference.shoal.dev/accepts": "true",
                },
                "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "m", "uid": controller, "controller": true}],
            },
            "status": {"phase": "Running"},
        }))
        .unwrap();
        Arc::new(PodView::from(pod))
    }

    fn listed(index: i32, epoch: i64, phase: GroupPhase) -> GroupStatus {
        GroupStatus { index, epoch, revision: "A".into(), phase, ready_shards: 0, shards: 2, message: None }
    }

    fn shown(pods: &[Arc<PodView>], status: &ModelDeploymentStatus) -> Vec<(u32, u64, Known, Vec<Shard>)> {
        let sizes = BTreeMap::from([("A".to_owned(), 2)]);
        let observed = observe(&members("us", pods), status, &sizes, Timestamp::UNIX_EPOCH);
        observed.groups.into_iter().map(|group| (group.index, group.epoch, group.known, group.shards)).collect()
    }

    #[test]
    fn before_the_first_status_whatever_exists_is_being_formed_and_strangers_do_not_count() {
        let pods = [pod(0, 1, 0, "us"), pod(1, 1, 1, "them")];
        assert_eq!(
            shown(&pods, &ModelDeploymentStatus::default()),
            [(0, 1, Known::Forming, vec![Shard::Running, Shard::Missing])]
        );
    }

    #[test]
    fn without_a_status_only_the_newest_formation_of_a_slot_counts() {
        let pods = [pod(0, 1, 0, "us"), pod(0, 3, 0, "us"), pod(0, 3, 1, "us"), pod(1, 2, 0, "us")];
        let known: Vec<_> = shown(&pods, &ModelDeploymentStatus::default())
            .into_iter()
            .map(|(index, epoch, known, _)| (index, epoch, known))
            .collect();
        assert_eq!(known, [(0, 1, Known::Removed), (0, 3, Known::Forming), (1, 2, Known::Forming)]);
    }

    #[test]
    fn without_a_status_a_group_has_the_size_that_its_workers_were_told() {
        let told = |size| {
            let mut view = (*pod(0, 1, 0, "us")).clone();
            view.place = view.place.map(|place| Place { size, ..place });
            shown(&[Arc::new(view)], &ModelDeploymentStatus::default()).remove(0).3
        };
        let gone = Shard::Missing;
        // The plan of today says two.
        assert_eq!(told(Some(1)), [Shard::Running]);
        assert_eq!(told(Some(3)), [Shard::Running, gone, gone]);
        assert_eq!(told(None), [Shard::Running, gone]);
    }

    #[test]
    fn afterwards_the_status_tells_what_a_missing_pod_means() {
        let status = ModelDeploymentStatus {
            revisions: vec![RevisionStatus::default()],
            groups: vec![
                listed(0, 2, GroupPhase::Pending),
                listed(1, 1, GroupPhase::Ready),
                listed(2, 1, GroupPhase::Draining),
            ],
            ..ModelDeploymentStatus::default()
        };
        let pods = [pod(0, 1, 0, "us"), pod(1, 1, 1, "us"), pod(2, 1, 0, "us")];
        let gone = Shard::Missing;
        assert_eq!(
            shown(&pods, &status),
            [
                (0, 1, Known::Removed, vec![Shard::Running, gone]),
                (0, 2, Known::Forming, vec![gone, gone]),
                (1, 1, Known::Formed, vec![gone, Shard::Running]),
                (2, 1, Known::Removed, vec![Shard::Running, gone]),
            ]
        );
    }
}
