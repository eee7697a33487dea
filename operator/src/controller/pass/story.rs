//! What a pass is worth telling: one Event a kind of step, however many groups it touched.

use super::{Happening, Pass};
use crate::controller::rollout::{Cause, Step};
use crate::crd::{GroupPhase, ModelDeploymentStatus};

/// See the module.
pub(super) fn story(pass: &Pass<'_>, after: &ModelDeploymentStatus) -> Vec<Happening> {
    let mut all = Vec::new();
    for loss in pass.losses() {
        let (index, epoch, why) = (loss.index, loss.epoch, loss.reason.as_str());
        let lost = epoch.saturating_sub(1);
        let said = if loss.message.is_empty() { String::new() } else { format!(": {}", loss.message) };
        let (reason, what) = match loss.reason.is_withdrawal() {
            true => ("GroupWithdrawn", "was withdrawn"),
            false => ("GroupLost", "lost a shard"),
        };
        let note = format!("group {index} epoch {lost} {what} ({why}){said}; it forms again as epoch {epoch}");
        all.push(Happening { reason, note, warning: true });
    }
    let steps = &pass.decision.steps;
    let removed = steps.iter().filter_map(|step| match step {
        Step::RemoveGroup { index, epoch, cause: Cause::Excess | Cause::Superseded, .. } => Some((*index, *epoch)),
        _ => None,
    });
    // A group that could not be made is Pending still: its creation is told when it has happened.
    let unmade = |index: u32, epoch: u64| {
        let mut pending = after.groups.iter().filter(|group| group.phase == GroupPhase::Pending);
        pending.any(|group| (i64::from(group.index), group.epoch) == (i64::from(index), epoch.cast_signed()))
    };
    let created = steps.iter().filter_map(|step| match step {
        Step::CreateGroup { index, epoch, .. } => Some((*index, *epoch)).filter(|_| !unmade(*index, *epoch)),
        _ => None,
    });
    all.extend(named("GroupRemoved", "removing", removed.collect()));
    all.extend(named("GroupCreated", "forming", created.collect()));
    all.extend(refusal(pass, after));
    all
}

fn named(reason: &'static str, verb: &str, groups: Vec<(u32, u64)>) -> Option<Happening> {
    if groups.is_empty() {
        return None;
    }
    let words: Vec<String> = groups.iter().map(|(index, epoch)| format!("group {index} epoch {epoch}")).collect();
    Some(Happening { reason, note: format!("{verb} {}", words.join(", ")), warning: false })
}

/// Told once, when it begins or its reason changes.
fn refusal(pass: &Pass<'_>, after: &ModelDeploymentStatus) -> Option<Happening> {
    let stalled = |status: &ModelDeploymentStatus| {
        let condition = status.conditions.iter().find(|c| c.type_ == "Stalled" && c.status == "True")?;
        Some((condition.reason.clone(), condition.message.clone()))
    };
    let (reason, note) = stalled(after)?;
    let before = pass.input.model.status.as_ref().and_then(stalled).map(|(reason, _)| reason);
    (before.as_ref() != Some(&reason)).then(|| Happening {
        reason: "Refused",
        note: format!("{reason}: {note}"),
        warning: true,
    })
}
