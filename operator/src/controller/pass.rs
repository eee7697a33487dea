//! The pure middle of a pass: from what was found to what shall be done.
//!
//! Never talks to anything: a test can print a whole pass.

#[cfg(test)]
mod histories;
mod placing;
mod story;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

pub use self::placing::resource;
use super::apply::{Happening, Lowering, Problem, Work};
use super::build;
use super::dereference::{Applied as _, BudgetView, Found, Owned, PodView, PolicyView};
use super::ends::explain;
use super::observe::{Members, members, observe, taken};
use super::plan::{self, Plan, Revision};
use super::revisions::Revisions;
use super::rollout::{self, Budget, Decision, Known, Observed, Serving, Step, Target, Turn};
use super::status::{Facts, deadline, status};
use super::validate::{Owner, Rejection, validate};
use crate::crd::{ModelDeployment, ModelDeploymentStatus};
use crate::inventory::Inventory;
use crate::names::{Epoch, GroupId, GroupIndex, PodName, Rank};
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
    /// Whether groups may be made now: the word of the queue across objects.
    pub turn: Turn,
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
    budget: Budget,
    members: Members<'a>,
    taken: Vec<Arc<PodView>>,
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
        let mut observed = observe(&members, &before, &revisions.sizes(), input.now);
        let taken = owner.as_ref().map(|owner| taken(owner, &input.found.pods)).unwrap_or_default();
        explain(&mut observed, &members, &[&input.found.gone[..], &taken[..]].concat());
        let budget = budget(input, &revisions);
        let decision = decide(input, &revisions, &observed, &budget);
        let rejection = match validated {
            Ok(spec) => spec.supported().err(),
            Err(rejection) => Some(rejection),
        };
        Self { input, owner, rejection, plan, revisions, budget, members, taken, observed, decision }
    }

    /// What it rests on.
    #[must_use]
    pub fn input(&self) -> &Input<'a> {
        self.input
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
        self.protect(owner, &mut work);
        let mut revisions = BTreeSet::new();
        for step in &self.decision.steps {
            let Step::CreateGroup { index, revision, epoch } = step else { continue };
            let Some(revision) = self.revisions.find(revision) else { continue };
            let pods = self.missing_pods(revision, (*index, *epoch));
            revisions.extend((!pods.is_empty()).then_some(revision.hash.as_str()));
            work.strays.extend(self.strays(owner, revision, (*index, *epoch)));
            work.create.extend(pods);
        }
        // With every formation, not only the first: nobody reads whether the Secret is still there, so the POST that
        // finds it there is how a deleted one comes back.
        work.secrets = revisions.into_iter().filter_map(|hash| build::shard_tls(self.revisions.find(hash)?)).collect();
        self.removals(work)
    }

    /// Brings the PodDisruptionBudget in line with the groups that are to exist.
    fn protect(&self, owner: &Owner, work: &mut Work) {
        let wished = u32::try_from(self.input.model.spec.replicas).unwrap_or(0);
        let groups = &self.decision.groups;
        let ours = |view: &&Arc<BudgetView>| view.controller.as_deref() == Some(owner.uid.as_str());
        let there = self.input.found.budgets.iter().find(ours);
        let Some(wanted) = build::budget(owner, groups, wished) else {
            work.lower = there.map(|view| Lowering::Away(Arc::clone(view)));
            return;
        };
        if there.is_some_and(|view| view.owned == Owned::of(&wanted)) {
            return;
        }
        if build::kept(groups, wished) < build::kept(&self.observed.groups, wished) {
            work.lower = Some(Lowering::To(Box::new(wanted), there.is_some()));
        } else {
            work.raise = Some((wanted, there.is_some()));
        }
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

    /// The pods of the formation before, as far as no watch shows them. Mostly they are gone; one that lost its label is not.
    fn strays(&self, owner: &Owner, revision: &Revision, (index, epoch): (u32, u64)) -> Vec<String> {
        let before = epoch.saturating_sub(1);
        let group = GroupId { index: GroupIndex(index), epoch: Epoch(before) };
        let seen = self.members.get(&(index, before));
        let ranks = if before == 0 { 0 } else { revision.shards };
        let unseen = (0..ranks).filter(|rank| seen.is_none_or(|seen| !seen.contains_key(rank)));
        let name = |rank| PodName::new(&owner.name, &owner.uid, &revision.hash, group, Rank(rank)).to_string();
        unseen.map(name).collect()
    }

    fn removals(&self, mut work: Work) -> Work {
        for step in &self.decision.steps {
            let Step::RemoveGroup { index, epoch, .. } = step else { continue };
            let pods = self.members.get(&(*index, *epoch)).into_iter().flat_map(|ranks| ranks.values());
            let alive = pods.filter(|pod| !pod.shard.is_ending());
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
        let mut status = self.status(&[], None);
        // What hindered this generation before may do so again: only the work itself can tell that it no longer does.
        let before = self.input.model.status.iter().filter(|b| b.observed_generation == status.observed_generation);
        let stalled = |c: &Condition| c.type_ == "Stalled" && c.status == "True";
        if let Some(before) = before.into_iter().find(|before| before.conditions.iter().any(stalled)) {
            status.conditions.clone_from(&before.conditions);
        }
        status
    }

    /// The status after the work: `made` are the pods that were made or told to end, as they are now.
    #[must_use]
    pub fn status_after(&self, made: &[PodView], problem: Option<&Problem>) -> ModelDeploymentStatus {
        self.status(made, problem)
    }

    fn status(&self, made: &[PodView], problem: Option<&Problem>) -> ModelDeploymentStatus {
        status(&Facts {
            model: self.input.model,
            owner: self.owner.as_ref(),
            rejection: self.rejection.as_ref(),
            plan: self.plan.as_ref(),
            revisions: &self.revisions,
            observed: &self.observed,
            decision: &self.decision,
            unmade: &self.unmade(made),
            leaving: self.leaving(made),
            taken: &self.taken,
            unknown: &self.input.found.unknown,
            problem,
            budget: &self.budget,
            now: self.input.now,
        })
    }

    /// Shards that were decided on and do not exist: neither before the pass nor, as `made`, after it.
    fn unmade(&self, made: &[PodView]) -> BTreeSet<(u32, u64, u32)> {
        let made = made.iter().filter_map(|pod| pod.place.as_ref());
        let made: BTreeSet<_> = made.map(|place| (place.index, place.epoch, place.rank)).collect();
        let created = self.decision.steps.iter().filter_map(|step| match step {
            Step::CreateGroup { index, epoch, .. } => Some((*index, *epoch)),
            _ => None,
        });
        let sizes: BTreeMap<_, _> =
            self.decision.groups.iter().map(|group| ((group.index, group.epoch), group.shards.len())).collect();
        let ranks = created.flat_map(|(index, epoch)| {
            let size = sizes.get(&(index, epoch)).copied().unwrap_or(0);
            (0..u32::try_from(size).unwrap_or(0)).map(move |rank| (index, epoch, rank))
        });
        let there = |&(index, epoch, rank): &(u32, u64, u32)| {
            self.members.get(&(index, epoch)).is_some_and(|ranks| ranks.contains_key(&rank))
        };
        ranks.filter(|shard| !there(shard) && !made.contains(shard)).collect()
    }

    /// Whether pods of removed groups are still to be told to end: neither before the pass nor, as `made`, by it.
    fn leaving(&self, made: &[PodView]) -> bool {
        let told = |pod: &PodView| made.iter().any(|made| made.meta.uid == pod.meta.uid && made.shard.is_ending());
        self.removals(Work::default()).delete.iter().any(|pod| !told(pod))
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

    /// How long to wait if nothing changes, given the status that the work led to; `None`: for ever.
    #[must_use]
    pub fn look_again(&self, after: &ModelDeploymentStatus) -> Option<Duration> {
        let overdue = deadline(after, self.budget.progress, self.input.now);
        let at = self.decision.look_again().into_iter().chain(overdue).min()?;
        // A moment late rather than a moment early: otherwise the pass would find nothing to do yet.
        let wait = Duration::try_from(at.duration_since(self.input.now)).unwrap_or_default();
        Some(wait + Duration::from_millis(5))
    }
}

fn decide(input: &Input<'_>, revisions: &Revisions, observed: &Observed, budget: &Budget) -> Decision {
    let Some(wanted) = revisions.wanted() else {
        // Nothing can be built, so nothing is touched.
        let mut groups = observed.groups.clone();
        groups.retain(|group| group.known != Known::Removed);
        return Decision { steps: Vec::new(), groups, recovery: observed.recovery.clone(), again: None };
    };
    let target = Target {
        revision: wanted.hash.to_string(),
        replicas: u32::try_from(input.model.spec.replicas).unwrap_or(0),
        shards: wanted.shards as usize,
        serving: revisions
            .serving
            .as_ref()
            .map(|serving| Serving { revision: serving.hash.to_string(), shards: serving.shards as usize }),
    };
    rollout::step(observed, &target, budget, input.now)
}

fn budget(input: &Input<'_>, revisions: &Revisions) -> Budget {
    let load = revisions.wanted().and_then(|wanted| wanted.load_bytes).unwrap_or(0) / READ_PER_SECOND;
    let spec = &input.model.spec;
    let budget = Budget::new(&spec.rollout, &spec.recovery, input.timing, Duration::from_secs(load));
    Budget { turn: input.turn, ..budget }
}
