//! What must hold at every moment.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::*;
use super::world::{World, place, size};
use crate::controller::recover::later;
use crate::controller::rollout::{LossReason, Shard};
use crate::names::label;

pub(super) fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// Of a decision, given what it rests on: budgets, and a new epoch only once the older ones were told to end.
pub(super) fn decision(pass: &Pass<'_>) -> Result<(), String> {
    let (now, budget, decided) = (pass.input.now, &pass.budget, &pass.decision);
    let replicas = pass.input.model.spec.replicas as usize;
    let live: Vec<_> = pass.observed.groups.iter().filter(|group| group.known != Known::Removed).collect();
    let had = live.iter().filter(|group| group.available(budget.min_ready, now)).count();
    let has = decided.groups.iter().filter(|group| group.available(budget.min_ready, now)).count();
    let floor = replicas.saturating_sub(budget.max_unavailable as usize);
    check(has >= had.min(floor), || format!("{had} groups were available, {has} stay, {floor} must"))?;
    let most = live.len().max(replicas + budget.max_surge as usize);
    check(decided.groups.len() <= most, || format!("{} groups, at most {most}", decided.groups.len()))?;
    let mut told: Vec<(u32, u64)> = Vec::new();
    for step in &decided.steps {
        match step {
            Step::RemoveGroup { index, epoch, .. } => told.push((*index, *epoch)),
            Step::CreateGroup { index, epoch, .. } => {
                for other in pass.observed.groups.iter().filter(|other| other.index == *index && other.epoch != *epoch)
                {
                    let alive = other.shards.iter().any(|shard| *shard != Shard::Missing && !shard.is_ending());
                    let ended = !alive || told.contains(&(other.index, other.epoch));
                    check(ended, || format!("{step}, but e{} was not told to end", other.epoch))?;
                    check(other.epoch < *epoch, || format!("{step} after e{}", other.epoch))?;
                }
            }
            Step::Wait { .. } => {}
        }
    }
    Ok(())
}

/// Of the world, as a pod is made: no other epoch of the slot serves, and none was higher.
pub(super) fn epoch(world: &mut World, (index, epoch): (u32, u64)) -> Result<(), String> {
    let others = world.pods.values().filter(|pod| place(&pod.view).0 == index && place(&pod.view).1 != epoch);
    for other in others {
        check(other.view.shard.is_ending(), || format!("g{index} e{epoch} is made beside {:?}", other.view))?;
    }
    let listed = world.status().groups.iter().any(|group| group.index == index as i32 && group.epoch != epoch as i64);
    // Its own first pods may have been made by a pass on a stale view, of which nothing is asked here.
    let left = listed || world.pods.values().any(|pod| place(&pod.view).0 == index && place(&pod.view).1 != epoch);
    let before = world.highest.insert(index, epoch).filter(|_| left).unwrap_or(0);
    let pods = || world.pods.values().map(|pod| (place(&pod.view), pod.view.shard)).collect::<Vec<_>>();
    check(epoch >= before, || {
        format!("g{index} e{epoch} is made after e{before}: {:?} {:?}", pods(), world.status().groups)
    })
}

/// Pods that count against the cap.
pub(super) fn held(world: &World) -> usize {
    world.pods.values().filter(|pod| pod.view.shard.holds_accelerator()).count()
}

/// Of the world: a pass never goes further over the cap.
pub(super) fn accelerators(world: &World, before: usize) -> Result<(), String> {
    let cap = world.model.spec.rollout.max_accelerators.map_or(usize::MAX, |cap| cap as usize);
    let after = held(world);
    check(after <= before.max(cap), || format!("{after} accelerators are held, {before} before, the cap is {cap}"))
}

/// Of the status: its selector matches as many pods that were not told to end as it says.
pub(super) fn counted(world: &World) -> Result<(), String> {
    let status = world.status();
    let wanted = format!("{}=m,{}=0", label::MODEL, label::RANK);
    check(status.selector == wanted, || format!("the selector is {}", status.selector))?;
    let heads = world.pods.values().filter(|pod| !pod.view.shard.is_ending());
    let heads = heads.filter(|pod| pod.view.place.as_ref().is_some_and(|place| place.rank == 0)).count();
    check(status.replicas as usize == heads, || format!("status.replicas {}, pods {heads}", status.replicas))
}

/// Of the world after a whole pass: nothing that was to be withdrawn is left.
pub(super) fn withdrawn(world: &World) -> Result<(), String> {
    let mut groups: BTreeMap<(u32, u64), (usize, Timestamp, usize)> = BTreeMap::new();
    for pod in world.pods.values().filter(|pod| !pod.view.shard.is_ending()) {
        let created = pod.view.created.unwrap();
        let group = groups.entry(place(&pod.view)).or_insert((0, created, size(&pod.image)));
        (group.0, group.1) = (group.0 + 1, group.1.min(created));
        if let Shard::Unschedulable(since) = pod.view.shard {
            check(later(since, Duration::from_secs(11)) > world.now, || format!("{:?} was not withdrawn", pod.view))?;
            // It is withdrawn by then, whole or not.
            group.1 = group.1.max(since);
        }
    }
    for (group, (made, created, size)) in groups {
        let old = later(created, Duration::from_secs(60)) < world.now;
        check(made == size || !old, || format!("{group:?} has {made} of {size} pods since {created}"))?;
    }
    Ok(())
}

/// Losses of a slot within ten minutes that the model of these histories forgives.
pub(super) const RESTART_BUDGET: usize = 1;

/// When slots were formed again after losses, withdrawals not counted.
pub(super) fn remember_formed(world: &mut World, pass: &Pass<'_>) {
    let live: Vec<u32> = pass.decision.groups.iter().map(|group| group.index).collect();
    world.formed.retain(|index, _| live.contains(index));
    for step in &pass.decision.steps {
        let Step::CreateGroup { index, epoch, .. } = step else { continue };
        let memory = pass.decision.recovery.iter().find(|memory| memory.index == *index && memory.epoch == *epoch);
        if memory.is_some_and(|memory| !memory.reason.is_withdrawal()) {
            let now = world.now;
            world.formed.entry(*index).or_default().entry(*epoch).or_insert(now);
        }
    }
}

/// Of every slot: ten minutes touch at most two windows, each with its restart budget, and the try between them.
pub(super) fn restarts(world: &World) -> Result<(), String> {
    for (index, times) in &world.formed {
        let recent = times.values().filter(|at| later(**at, Duration::from_secs(600)) > world.now).count();
        check(recent <= 2 * RESTART_BUDGET + 1, || {
            format!("g{index} was formed again {recent} times within ten minutes")
        })?;
    }
    Ok(())
}

/// The kind of happening that a loss is.
pub(super) fn kind(reason: LossReason) -> &'static str {
    match reason {
        LossReason::Exited => "lost: exited",
        LossReason::OutOfMemory => "lost: out of memory",
        LossReason::Evicted => "lost: evicted",
        LossReason::Preempted => "lost: preempted",
        LossReason::ImagePull => "lost: image pull",
        LossReason::NodeLost => "lost: node",
        LossReason::Deleted => "lost: deleted",
        LossReason::Altered => "lost: altered",
        LossReason::Unschedulable => "withdrawn: unschedulable",
        LossReason::Incomplete => "withdrawn: half made",
    }
}
