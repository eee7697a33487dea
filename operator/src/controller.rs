//! From a ModelDeployment to the objects that serve it.
//!
//! [`Controller::reconcile`] is the whole operator as a numbered list. Only its reading and writing steps hold a
//! client; everything between is a pure function.

pub mod apply;
pub mod build;
pub mod dereference;
pub mod ends;
pub mod observe;
pub mod pass;
pub mod plan;
pub mod queue;
pub mod recover;
pub mod revisions;
pub mod rollout;
mod run;
pub mod status;
pub mod validate;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::{Client, Resource as _};

use self::apply::{Outcome, Problem, Teller, apply, refuse, remember};
use self::dereference::{ModelKey, Stored, Unread, World};
use self::pass::{Input, Pass};
use self::rollout::Turn;
use crate::crd::{ModelDeployment, ModelDeploymentStatus};
use crate::metrics::{Metrics, ReasonLabel};
use crate::timing::Timing;

pub use self::run::run;

/// What all passes share.
pub struct Controller {
    /// The API server; only [`mod@apply`] uses it.
    pub client: Client,
    /// What exists, kept current by watches.
    pub world: Arc<World>,
    /// Publishes Events.
    pub teller: Teller,
    /// Counters.
    pub metrics: Metrics,
    /// All intervals.
    pub timing: Timing,
    /// Worker image of specs that name none.
    pub default_image: String,
    /// Whether every model has a NetworkPolicy; otherwise those that were made are removed.
    pub network_policy: bool,
    /// Failed passes in a row, and groups by phase: by object.
    pub ledger: Mutex<BTreeMap<ModelKey, run::Line>>,
}

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Something was written.
    Applied(Option<Duration>),
    /// Nothing to write; something or, after that time, time itself is awaited.
    Waiting(Option<Duration>),
    /// The object is going away.
    Skipped,
}

/// Why a pass failed; the variant is its metric label.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// The object has changed since it was read, or could not be written.
    #[error("the status was not written")]
    Status(#[source] kube::Error),
    /// A write was refused or failed.
    #[error("{problem}")]
    Apply {
        /// The first problem.
        #[source]
        problem: Problem,
        /// When the pass must be repeated at the latest.
        again: Option<Duration>,
    },
}

impl PassError {
    /// The metric label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Status(kube::Error::Api(status)) if status.code == 409 => "Conflict",
            Self::Status(_) => "StatusError",
            Self::Apply { problem, .. } => problem.reason(),
        }
    }
}

impl Controller {
    /// One pass over one object.
    ///
    /// # Errors
    /// [`PassError`]; the pass is repeated, later each time.
    pub async fn reconcile(&self, stored: Arc<Stored>) -> Result<Ending, PassError> {
        let stored = self.world.newest(stored);
        if stored.meta().deletion_timestamp.is_some() {
            return Ok(Ending::Skipped);
        }
        let model = match &stored.object {
            Ok(model) => model,
            Err(unread) => return self.refuse(&stored, unread).await,
        };
        // 1. dereference: from the stores; the client only for what no watch has shown for long
        // One moment for both: what was not overdue when the server was asked is believed, however long it took to answer.
        let asked_at = Instant::now();
        self.confirm(&ModelKey::of(model), asked_at).await?;
        let mut found = self.world.found(&ModelKey::of(model), asked_at);
        found.unknown.clone_from(&stored.unknown);
        let inventory = self.world.inventory();
        // 2. validate, 3. plan, 4. rollout: no client
        let (default_image, timing) = (self.default_image.as_str(), &self.timing);
        let now = Timestamp::now();
        let key = ModelKey::of(model);
        let turn = self.world.turns(|turns| turns.opening(&key));
        let input = Input { model, found: &found, inventory: &inventory, default_image, timing, turn, now };
        let free = Pass::decide(&input);
        let held = Input { turn: self.turn(&key, &free), ..input };
        let pass = if held.turn == input.turn { free } else { Pass::decide(&held) };
        // 5. build: no client
        let mut work = pass.work();
        pass.guard(self.network_policy, &mut work);
        let idle = work.is_empty();
        // 6. remember what was decided: client
        let before = if pass.must_remember() { self.write(&stored, &pass.status_before()).await? } else { None };
        // 7. apply: client
        let mut outcome = self.carry_out(model, work).await;
        // 8. status, only if different: client
        let lasting = outcome.problem.as_ref().filter(|problem| !matches!(problem, Problem::Api { .. }));
        let status = pass.status_after(&outcome.pods, lasting);
        let after = self.write(before.as_ref().unwrap_or(&stored), &status).await;
        if after.is_err()
            && let Some(problem) = outcome.problem.take()
        {
            // What was refused must wait, which a status that only met a newer version would not.
            return Err(PassError::Apply { problem, again: None });
        }
        let after = after?;
        self.world.turns_taken(|turns| turns.report(&key, pass.resource(), pass.case(), now));
        // 9. tell: client
        self.tell(model, &pass, &status).await;
        let unseen = self.world.awaits_pods(&key).then_some(self.timing.unseen);
        let again = pass.look_again(&status).into_iter().chain(unseen).min();
        if let Some(problem) = outcome.problem {
            return Err(PassError::Apply { problem, again });
        }
        let written = !idle || before.is_some() || after.is_some();
        Ok(if written { Ending::Applied(again) } else { Ending::Waiting(again) })
    }

    /// A pod of ours that no watch has shown for long is neither there nor gone before the server has been asked for it:
    /// the watch of a busy server may be minutes behind, and whoever took those pods for lost would end them all.
    async fn confirm(&self, key: &ModelKey, now: Instant) -> Result<(), PassError> {
        let asked = self.world.overdue_pods(key, now);
        let answers = apply::look(&self.client, &key.namespace, &asked).await;
        let answered_at = Instant::now();
        for (pod, answer) in asked.iter().zip(answers) {
            match answer {
                Ok(there) => self.world.settle_pod(pod, there, answered_at),
                Err(problem) => return Err(PassError::Apply { problem, again: None }),
            }
        }
        Ok(())
    }

    /// Only what makes groups needs its turn; when it is another's, the pass decides again.
    fn turn(&self, key: &ModelKey, free: &Pass<'_>) -> Turn {
        let Input { turn, now, .. } = *free.input();
        if free.makes_groups() { self.world.turns(|turns| turns.ask(key, free.resource(), now)) } else { turn }
    }

    async fn write(&self, stored: &Stored, status: &ModelDeploymentStatus) -> Result<Option<Stored>, PassError> {
        let written = remember(&self.client, stored, status).await.map_err(PassError::Status)?;
        if let Some(latest) = &written {
            self.world.note_model(stored, latest.clone());
        }
        Ok(written)
    }

    /// Of an object that cannot be read only its conditions are written; nothing that it owns is touched.
    async fn refuse(&self, stored: &Stored, unread: &Unread) -> Result<Ending, PassError> {
        let status = status::not_understood(unread, Timestamp::now());
        let written = refuse(&self.client, unread, &status).await.map_err(PassError::Status)?;
        let Some(latest) = written else { return Ok(Ending::Waiting(None)) };
        self.world.note_model(stored, latest);
        self.metrics.rejections.get_or_create(&ReasonLabel { reason: status::NOT_UNDERSTOOD }).inc();
        Ok(Ending::Applied(None))
    }

    async fn carry_out(&self, model: &ModelDeployment, work: apply::Work) -> Outcome {
        if work.is_empty() {
            return Outcome::default();
        }
        let metadata = &model.metadata;
        let (namespace, uid) = (metadata.namespace.as_deref(), metadata.uid.as_deref());
        let outcome = apply(&self.client, namespace.unwrap_or_default(), uid.unwrap_or_default(), work).await;
        let now = Instant::now();
        outcome.pods.iter().for_each(|pod| self.world.note_pod(pod.clone(), now));
        outcome.services.iter().for_each(|service| self.world.note_service(service.clone(), now));
        outcome.budget.iter().for_each(|budget| self.world.note_budget(budget.clone(), now));
        outcome.unprotected.iter().for_each(|budget| self.world.note_unprotected(budget.as_ref().clone()));
        outcome.policy.iter().for_each(|policy| self.world.note_policy(policy.clone(), now));
        outcome.unguarded.iter().for_each(|policy| self.world.note_unguarded(policy.as_ref().clone()));
        outcome
    }

    async fn tell(&self, model: &ModelDeployment, pass: &Pass<'_>, after: &ModelDeploymentStatus) {
        for loss in pass.losses() {
            self.metrics.restarts.get_or_create(&ReasonLabel { reason: loss.reason.as_str() }).inc();
        }
        let story = pass.story(after);
        if story.iter().any(|happening| happening.reason == "Refused") {
            let reason = pass.refused_because();
            self.metrics.rejections.get_or_create(&ReasonLabel { reason }).inc();
        }
        self.count_groups(&ModelKey::of(model), after);
        self.teller.tell(model, story).await;
    }
}

#[cfg(test)]
mod sample_tests;
