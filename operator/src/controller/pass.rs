//! The pure middle of a pass: from what was found to what shall be done.
//!
//! Never talks to anything: a test can print a whole pass.

mod story;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::apply::{Happening, Problem, Work};
use super::dereference::{Applied as _, Found, Owned, PodView, PolicyView};
use super::observe::{Members, members, observe};
use super::plan::{self, Plan, Revision};
use super::revisions::Revisions;
use super::rollout::{self, Budget, Decision, Known, Observed, Step, Target};
use super::status::{Facts, status};
use super::validate::{Owner, Rejection, validate};
use super::{build, rollout::Group};
use crate::crd::{ModelDeployment, ModelDeploymentStatus};
use crate::inventory::Inventory;
use crate::names::{Epoch, GroupId, GroupIndex};
use crate::timing::Timing;

/// Bytes that a node reads per second at least: what a start may take.
const READ_PER_SECOND: u64 = 50_000_000;

/// Everything that a pass rests on.
pub struct Input<'a> {
    /// The newest object.
    pub model: &'a ModelDeployment,
    /// What exists of it.
    pub found: &'a Found,
    /// What nodes could hold.
    pub inventory: &'a Inventory,
    /// Worker image of specs that name none.
    pub default_image: &'a str,
    /// All intervals.
    pub timing: &'a Timing,
    /// Now.
    pub now: Timestamp,
}

/// What a pass decided.
pub struct Pass<'a> {
    input: &'a Input<'a>,
    owner: Option<Owner>,
    rejection: Option<Rejection>,
    plan: Option<Plan>,
    revisions: Revisions,
    members: Members<'a>,
    observed: Observed,
    decision: Decision,
}

impl<'a> Pass<'a> {
    /// Runs validate → plan → rollout.
    #[must_use]
    pub fn decide(input: &'a Input<'a>) -> Self {
        let model = input.model;
        let before = model.status.clone().unwrap_or_default();
        let validated = validate(model);
        let shown = |spec| plan::Shown::of(spec, model.metadata.generation, &before);
        let plan = validated.as_ref().ok().map(|spec| plan::replan(spec, input.inventory, shown(spec)));
        let owner = Owner::of(model).ok();
        let revisions = owner.as_ref().map_or_else(Revisions::default, |owner| {
            let asked = validated.as_ref().ok().zip(plan.as_ref());
            Revisions::decide(owner, asked, &before, input.default_image)
        });
        let members = members(model.metadata.uid.as_deref().unwrap_or_default(), &input.found.pods);
        let observed = observe(&members, &before, &revisions.sizes(), input.now);
        let decision = decide(input, &revisions, &observed);
        let rejection = match validated {
            Ok(spec) => spec.supported().err(),
            Err(rejection) => Some(rejection),
        };
        Self { input, owner, rejection, plan, revisions, members, observed, decision }
    }

    /// What the decision means for objects: pods to make or end, Services to make or correct.
    #[must_use]
    pub fn work(&self) -> Work {
        let mut work = Work::default();
        let (Some(owner), Some(_)) = (&self.owner, self.revisions.wanted()) else { return self.removals(work) };
        let services = build::services(owner, self.input.model.spec.serving.headless);
        for service in [services.client, services.shards] {
            let there = self.input.found.services.iter().find(|view| view.meta.name == service.metadata.name);
            let ours = there.filter(|view| view.controller.as_deref() == Some(owner.uid.as_str()));
            if let Some(view) = ours.filter(|view| view.fixed != service.fixed()) {
                work.outdated.push(Arc::clone(view));
            }
            if ours.is_none_or(|view| view.owned != Owned::of(&service)) {
                work.services.push((service, ours.is_some()));
            }
        }
        let mut revisions = BTreeSet::new();
        for step in &self.decision.steps {
            let Step::CreateGroup { index, revision, epoch } = step else { continue };
            let Some(revision) = self.revisions.find(revision) else { continue };
            let pods = self.missing_pods(revision, (*index, *epoch));
            revisions.extend((!pods.is_empty()).then_some(revision.hash.as_str()));
            work.create.extend(pods);
        }
        // With every formation, not only the first: nobody reads whether the Secret is still there, so the POST that
        // finds it there is how a deleted one comes back.
        work.secrets = revisions.into_iter().filter_map(|hash| build::shard_tls(self.revisions.find(hash)?)).collect();
        self.removals(work)
    }

    /// Brings the NetworkPolicy in line with whether there is to be one.
    pub fn guard(&self, wanted: bool, work: &mut Work) {
        let Some(owner) = &self.owner else { return };
        let ours = |view: &&Arc<PolicyView>| view.controller.as_deref() == Some(owner.uid.as_str());
        let there = self.input.found.policies.iter().find(ours);
        if !wanted {
            work.unguard = there.map(Arc::clone);
        } else if self.revisions.wanted().is_some() {
            let policy = build::policy(owner);
            let right = there.is_some_and(|view| view.owned == Owned::of(&policy));
            work.policy = (!right).then_some((policy, there.is_some()));
        }
    }

    fn missing_pods(&self, revision: &Revision, (index, epoch): (u32, u64)) -> Vec<k8s_openapi::api::core::v1::Pod> {
        let id = GroupId { index: GroupIndex(index), epoch: Epoch(epoch) };
        let there = self.members.get(&(index, epoch));
        let pods = build::group(revision, id).pods.into_iter().zip(0_u32..);
        pods.filter(|(_, rank)| there.is_none_or(|ranks| !ranks.contains_key(rank))).map(|(pod, _)| pod).collect()
    }

    fn removals(&self, mut work: Work) -> Work {
        for step in &self.decision.steps {
            let Step::RemoveGroup { index, epoch, .. } = step else { continue };
            let pods = self.members.get(&(*index, *epoch)).into_iter().flat_map(|ranks| ranks.values());
            let alive = pods.filter(|pod| pod.shard != rollout::Shard::Terminating);
            work.delete.extend(alive.map(|pod| Arc::clone(pod)));
        }
        work
    }

    /// Whether the decision must be durable before it is carried out: always, except for the very first creation, of
    /// which everything can be read from the pods themselves.
    #[must_use]
    pub fn must_remember(&self) -> bool {
        let first = self.input.model.status.as_ref().is_none_or(|status| status.revisions.is_empty());
        let creates_only = self.decision.steps.iter().all(|step| !matches!(step, Step::RemoveGroup { .. }));
        self.decision.acts() && !(first && creates_only)
    }

    /// The status before the work: groups to be made are Pending.
    #[must_use]
    pub fn status_before(&self) -> ModelDeploymentStatus {
        let created = self.decision.steps.iter().filter_map(|step| match step {
            Step::CreateGroup { index, epoch, .. } => Some((*index, *epoch)),
            _ => None,
        });
        let mut status = self.status(&created.collect(), None);
        // What hindered this generation before may do so again: only the work itself can tell that it no longer does.
        let before = self.input.model.status.iter().filter(|b| b.observed_generation == status.observed_generation);
        let stalled = |c: &Condition| c.type_ == "Stalled" && c.status == "True";
        if let Some(before) = before.into_iter().find(|before| before.conditions.iter().any(stalled)) {
            status.conditions.clone_from(&before.conditions);
        }
        status
    }

    /// The status after the work: `made` are the pods that exist now.
    #[must_use]
    pub fn status_after(&self, wanted: usize, made: &[PodView], problem: Option<&Problem>) -> ModelDeploymentStatus {
        let mut unmade = BTreeSet::new();
        if wanted > made.iter().filter(|pod| pod.shard != rollout::Shard::Terminating).count() {
            let complete = |group: &&Group| {
                let made = made.iter().filter_map(|pod| pod.place.as_ref());
                let made = made.filter(|place| (place.index, place.epoch) == (group.index, group.epoch)).count();
                let there = self.members.get(&(group.index, group.epoch)).map_or(0, std::collections::BTreeMap::len);
                made + there < group.shards.len()
            };
            let forming = self.decision.groups.iter().filter(|group| group.known == Known::Forming);
            unmade = forming.filter(complete).map(|group| (group.index, group.epoch)).collect();
        }
        self.status(&unmade, problem)
    }

    fn status(&self, unmade: &BTreeSet<(u32, u64)>, problem: Option<&Problem>) -> ModelDeploymentStatus {
        status(&Facts {
            model: self.input.model,
            owner: self.owner.as_ref(),
            rejection: self.rejection.as_ref(),
            plan: self.plan.as_ref(),
            revisions: &self.revisions,
            observed: &self.observed,
            members: &self.members,
            decision: &self.decision,
            unmade,
            problem,
            min_ready: min_ready(self.input),
            now: self.input.now,
        })
    }

    /// What is worth an Event, given the status that the work led to.
    #[must_use]
    pub fn story(&self, after: &ModelDeploymentStatus) -> Vec<Happening> {
        story::story(self, after)
    }

    /// Losses that this pass saw first, by slot.
    pub fn losses(&self) -> impl Iterator<Item = &super::recover::Recovery> {
        self.decision.recovery.iter().filter(|memory| {
            let before = self.observed.recovery.iter().find(|before| before.index == memory.index);
            before.is_none_or(|before| before.epoch < memory.epoch)
        })
    }

    /// Why nothing can be made of the object, from a closed set.
    #[must_use]
    pub fn refused_because(&self) -> &'static str {
        let planned = self.plan.as_ref().map_or("ApplyRefused", |plan| plan.verdict.reason.as_str());
        self.rejection.as_ref().map_or(planned, Rejection::reason)
    }

    /// How long to wait if nothing changes; `None`: for ever.
    #[must_use]
    pub fn look_again(&self) -> Option<Duration> {
        let at = self.decision.look_again()?;
        // A moment late rather than a moment early: otherwise the pass would find nothing to do yet.
        let wait = Duration::try_from(at.duration_since(self.input.now)).unwrap_or_default();
        Some(wait + Duration::from_millis(5))
    }
}

fn decide(input: &Input<'_>, revisions: &Revisions, observed: &Observed) -> Decision {
    let spec = &input.model.spec;
    let Some(wanted) = revisions.wanted() else {
        // Nothing can be built, so nothing is touched.
        let mut groups = observed.groups.clone();
        groups.retain(|group| group.known != Known::Removed);
        return Decision { steps: Vec::new(), groups, recovery: observed.recovery.clone() };
    };
    let target = Target {
        revision: wanted.hash.to_string(),
        replicas: u32::try_from(spec.replicas).unwrap_or(0),
        shards: wanted.shards as usize,
        serving: revisions.serving.as_ref().map(|serving| serving.hash.to_string()),
    };
    let load = Duration::from_secs(wanted.load_bytes.unwrap_or(0) / READ_PER_SECOND);
    let budget = Budget {
        max_surge: u32::try_from(spec.rollout.max_surge).unwrap_or(0),
        max_unavailable: u32::try_from(spec.rollout.max_unavailable).unwrap_or(0),
        min_ready: min_ready(input),
        startup: input.timing.startup + input.timing.scale(load),
        backoff: input.timing.backoff,
    };
    rollout::step(observed, &target, &budget, input.now)
}

fn min_ready(input: &Input<'_>) -> Duration {
    let seconds = u64::try_from(input.model.spec.rollout.min_ready_seconds).unwrap_or(0);
    input.timing.scale(Duration::from_secs(seconds))
}
