use pretty_assertions::assert_eq;
use serde_json::json;

use super::*;
use crate::controller::observe::members;
use crate::controller::rollout::LossReason;

fn pod(rank: u32, shard: Shard, cause: Option<LossReason>) -> Arc<PodView> {
    let view: PodView = serde_json::from_value(json!({"metadata": {
        "name": format!("m-g0-e1-r{rank}"),
        "labels": {
            "inference.shoal.dev/model": "m", "inference.shoal.dev/revision": "A", "inference.shoal.dev/group": "0",
            "inference.shoal.dev/epoch": "1", "inference.shoal.dev/rank": rank.to_string(),
            "inference.shoal.dev/accepts": "true",
        },
        "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "m", "uid": "us", "controller": true}],
    }}))
    .unwrap();
    Arc::new(PodView { shard, cause, ..view })
}

/// What `known` makes of a group of four: one runs, two are ending, one is gone.
fn explained(known: Known) -> Vec<Shard> {
    let pods = [
        pod(0, Shard::Running, Some(LossReason::Evicted)),
        pod(1, Shard::Terminating, Some(LossReason::Preempted)),
        pod(2, Shard::Terminating, None),
    ];
    let gone = [pod(3, Shard::Terminating, Some(LossReason::NodeLost))];
    let shards = vec![Shard::Running, Shard::Terminating, Shard::Terminating, Shard::Missing];
    let group = Group { known, shards, ..Group::new((0, 1), "A".into(), 4) };
    let mut observed = Observed { groups: vec![group], recovery: Vec::new() };
    explain(&mut observed, &members("us", &pods), &gone);
    observed.groups.remove(0).shards
}

#[test]
fn an_end_gets_its_reason_where_it_is_a_loss_and_stays_an_end_where_it_was_wanted() {
    let lost = |reason| Shard::Lost(reason);
    let told = [Shard::Running, lost(LossReason::Preempted), Shard::Terminating, lost(LossReason::NodeLost)];
    let wanted = [Shard::Running, Shard::Terminating, Shard::Terminating, Shard::Missing];
    assert_eq!(explained(Known::Formed), told);
    assert_eq!(explained(Known::Removed), wanted);
    let forming = [told[0], told[1], told[2], Shard::Missing];
    assert_eq!(explained(Known::Forming), forming, "a shard that was never made is not lost");
}

#[test]
fn only_pods_that_tell_why_are_remembered_and_not_for_ever() {
    let mut graves = Graves::default();
    let (now, keep) = (Instant::now(), Duration::from_secs(60));
    graves.bury(pod(0, Shard::Terminating, None).as_ref().clone(), now, keep);
    assert!(graves.is_empty());
    for rank in 0..70 {
        graves.bury(pod(rank, Shard::Terminating, Some(LossReason::Evicted)).as_ref().clone(), now, keep);
    }
    let ranks: Vec<u32> = graves.pods().iter().filter_map(|pod| Some(pod.place.as_ref()?.rank)).collect();
    assert_eq!((ranks.len(), ranks[0]), (64, 6));
    graves.bury(pod(1, Shard::Terminating, None).as_ref().clone(), now + keep, keep);
    assert!(graves.is_empty());
}
