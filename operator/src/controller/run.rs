//! Runs passes: one at a time per object, as many objects as the watches name, until told to stop.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use kube::Resource as _;
use kube::runtime::controller::{Action, Config, Error, applier};
use tokio_util::sync::CancellationToken;

use super::dereference::{AT_ONCE, ModelKey, Stored};
use super::pass::resource;
use super::queue::Refused;
use super::rollout::LossReason;
use super::validate::validate;
use super::{Controller, Ending, PassError};
use crate::crd::{GroupPhase, ModelDeploymentStatus};
use crate::metrics::{PhaseLabel, StateLabel};

/// What is counted of one object.
#[derive(Clone, Debug, Default)]
pub struct Line {
    failures: u32,
    /// After a failed pass, and after any of a large object: no other begins before then, unless the spec is another
    /// generation.
    not_before: Option<(Instant, Option<i64>)>,
    groups: BTreeMap<&'static str, i64>,
    state: Option<&'static str>,
}

/// Works until `stop`, then finishes the passes that have begun.
pub async fn run(controller: Arc<Controller>, stop: CancellationToken) {
    let world = Arc::clone(&controller.world);
    world.models().state().iter().for_each(|model| controller.requeue(model));
    let named = stream::unfold(Arc::clone(&world), |world| async move {
        let key = world.queue.pop().await;
        Some((Ok::<_, Infallible>(key.to_ref()), world))
    });
    let passes = applier(
        |model: Arc<Stored>, controller: Arc<Controller>| Box::pin(controller.counted(model)),
        |model, error, controller: Arc<Controller>| controller.after_failure(&model, error),
        Arc::clone(&controller),
        world.models(),
        Box::pin(named.take_until(stop.cancelled_owned())),
        Config::default().concurrency(AT_ONCE),
    );
    let mut passes = std::pin::pin!(passes);
    while let Some(pass) = passes.next().await {
        if let Err(Error::ObjectNotFound(reference)) = pass {
            let namespace = reference.namespace.clone().unwrap_or_default();
            controller.forget(&ModelKey { namespace, name: reference.name.clone() });
        }
    }
}

impl Controller {
    /// Puts a model whose groups were refused where it stood before this process began.
    fn requeue(&self, stored: &Stored) {
        let Ok(model) = &stored.object else { return };
        let refused = model.status.iter().flat_map(|status| &status.recovery).filter_map(|entry| {
            let withdrawn = LossReason::from_word(&entry.reason) == LossReason::Unschedulable;
            let (since, retry) = entry.window_start.as_ref().zip(entry.next_retry.as_ref())?;
            withdrawn.then_some(Refused { since: since.0, retry: retry.0 })
        });
        let device = validate(model).map(|spec| spec.device);
        let (Some(refused), Ok(device)) = (refused.min_by_key(|refused| refused.since), device) else { return };
        self.world.turns(|turns| turns.restore(&ModelKey::of(model), resource(&device), refused));
    }

    async fn counted(self: Arc<Self>, model: Arc<Stored>) -> Result<Action, PassError> {
        let key = ModelKey::of(model.as_ref());
        self.world.queue.begun(&key);
        let ending = self.pass(model, &key).await;
        self.world.queue.ended(&key);
        ending
    }

    async fn pass(&self, model: Arc<Stored>, key: &ModelKey) -> Result<Action, PassError> {
        let began = Instant::now();
        let generation = model.meta().generation;
        if let Some(wait) = self.with_line(key, |line| line.wait(began, generation)) {
            return Ok(Action::requeue(wait));
        }
        let ending = self.reconcile(model).await;
        let (label, again) = match &ending {
            Ok(Ending::Applied(again)) => ("applied", *again),
            Ok(Ending::Waiting(again)) => ("waiting", *again),
            Ok(Ending::Skipped) => ("skipped", None),
            Err(error) => (error.reason(), None),
        };
        self.metrics.reconciled(label, began.elapsed());
        tracing::debug!(namespace = %key.namespace, name = %key.name, result = label, "pass");
        ending?;
        self.with_line(key, |line| {
            let pause = pace(&line.groups, began.elapsed());
            line.failures = 0;
            line.not_before = pause.map(|pause| (Instant::now() + pause, generation));
        });
        Ok(again.map_or_else(Action::await_change, Action::requeue))
    }

    /// Later each time; a conflict only waits for the watch to show what has changed.
    fn after_failure(&self, model: &Stored, error: &PassError) -> Action {
        let key = ModelKey::of(model);
        let conflict = error.reason() == "Conflict";
        let failures = self.with_line(&key, |line| {
            line.failures = if conflict { 1 } else { line.failures.saturating_add(1) };
            line.failures
        });
        let wait = self.error_wait(failures);
        // A half-made group must be withdrawn in time, however long the server has been refusing.
        let wait = match error {
            PassError::Apply { again: Some(again), .. } => wait.min(*again),
            _ => wait,
        };
        if !conflict {
            let (source, wait_ms) = (innermost(error), u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
            tracing::warn!(namespace = %key.namespace, name = %key.name, %error, source, wait_ms, "pass failed");
            let until = Some((Instant::now() + wait, model.meta().generation));
            self.with_line(&key, |line| line.not_before = until);
        }
        Action::requeue(wait)
    }

    fn error_wait(&self, failures: u32) -> Duration {
        let doubled = self.timing.error_first.saturating_mul(1 << failures.saturating_sub(1).min(16));
        // Jitter: objects that failed together do not come back together.
        doubled.min(self.timing.error_cap).mul_f64(1.0 + rand::random::<f64>() * 0.2)
    }

    /// Shows how many groups there are in each phase, over all objects.
    pub(super) fn count_groups(&self, key: &ModelKey, status: &ModelDeploymentStatus) {
        let mut groups: BTreeMap<&'static str, i64> = BTreeMap::new();
        for group in &status.groups {
            *groups.entry(phase_word(group.phase)).or_default() += 1;
        }
        let before = self.with_line(key, |line| std::mem::replace(&mut line.groups, groups.clone()));
        self.show_groups(&before, &groups);
        let state = Some(state_word(status));
        let before = self.with_line(key, |line| std::mem::replace(&mut line.state, state));
        self.show_state(before, state);
    }

    /// Shows how many objects are available, over all objects.
    fn show_state(&self, before: Option<&'static str>, after: Option<&'static str>) {
        let gauge = |state| self.metrics.models.get_or_create_owned(&StateLabel { state });
        before.into_iter().for_each(|state| _ = gauge(state).dec());
        after.into_iter().for_each(|state| _ = gauge(state).inc());
    }

    fn show_groups(&self, before: &BTreeMap<&'static str, i64>, after: &BTreeMap<&'static str, i64>) {
        for (phase, n) in before {
            self.metrics.groups.get_or_create(&PhaseLabel { phase }).dec_by(*n);
        }
        for (phase, n) in after {
            self.metrics.groups.get_or_create(&PhaseLabel { phase }).inc_by(*n);
        }
    }

    /// The object is gone; if it has come back meanwhile, it waits again.
    fn forget(&self, key: &ModelKey) {
        let line = self.ledger.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        let line = line.unwrap_or_default();
        self.show_groups(&line.groups, &BTreeMap::new());
        self.show_state(line.state, None);
        self.world.queue.begun(key);
        self.world.queue.ended(key);
        if self.world.models().get(&key.to_ref()).is_some() {
            self.world.queue.push(key.clone());
        }
    }

    fn with_line<T>(&self, key: &ModelKey, change: impl FnOnce(&mut Line) -> T) -> T {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        change(ledger.entry(key.clone()).or_default())
    }
}

impl Line {
    /// How long the next pass must wait: events of a failing object do not make it fail more often.
    fn wait(&self, now: Instant, generation: Option<i64>) -> Option<Duration> {
        let (until, of) = self.not_before.filter(|(until, _)| *until > now)?;
        (of == generation).then(|| until - now)
    }
}

/// How long an object with groups of these phases rests after a pass that `took` so long: its status is a large write,
/// and while hundreds of pods come or go each event would ask for one. A slow API server is asked less often, and so is
/// one that has many groups left to bring up or down: few of them change within a moment.
fn pace(groups: &BTreeMap<&'static str, i64>, took: Duration) -> Option<Duration> {
    let all: i64 = groups.values().sum();
    let moving = all - groups.get(phase_word(GroupPhase::Ready)).copied().unwrap_or(0);
    let millis = |count: i64, each: u64| Duration::from_millis(u64::try_from(count).unwrap_or(0).saturating_mul(each));
    let large = millis(all, 1).max(took).min(Duration::from_millis(500));
    (all > 16).then(|| large.max(millis(moving, 8)).min(Duration::from_secs(2)))
}

/// The cause that says most.
fn innermost(error: &PassError) -> String {
    let mut error: &dyn std::error::Error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn state_word(status: &ModelDeploymentStatus) -> &'static str {
    let available = status.conditions.iter().find(|condition| condition.type_ == "Available");
    match available.map(|condition| (condition.status.as_str(), condition.reason.as_str())) {
        Some(("True", _)) => "available",
        Some((_, "ScaledToZero")) => "scaled_to_zero",
        _ => "unavailable",
    }
}

fn phase_word(phase: GroupPhase) -> &'static str {
    match phase {
        GroupPhase::Pending => "Pending",
        GroupPhase::Starting => "Starting",
        GroupPhase::Ready => "Ready",
        GroupPhase::Lost => "Lost",
        GroupPhase::Draining => "Draining",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_large_objects_rest_after_a_pass_and_never_for_long() {
        let pauses = |moving: i64, took| {
            [0, 16, 17, 100, 1000].map(|all: i64| {
                let moving = moving.min(all);
                let groups = BTreeMap::from([("Ready", all - moving), ("Draining", moving)]);
                pace(&groups, took).map(|pause| pause.as_millis())
            })
        };
        assert_eq!(pauses(0, Duration::ZERO), [None, None, Some(17), Some(100), Some(500)]);
        assert_eq!(pauses(1, Duration::ZERO), [None, None, Some(17), Some(100), Some(500)]);
        assert_eq!(pauses(0, Duration::from_millis(200)), [None, None, Some(200), Some(200), Some(500)]);
        assert_eq!(pauses(0, Duration::from_secs(9)), [None, None, Some(500), Some(500), Some(500)]);
        assert_eq!(pauses(1000, Duration::ZERO), [None, None, Some(136), Some(800), Some(2000)]);
    }

    #[test]
    fn after_a_failure_events_wait_for_the_back_off_but_an_edit_does_not() {
        let now = Instant::now();
        let later = now + Duration::from_secs(8);
        let line = Line { not_before: Some((later, Some(3))), ..Line::default() };
        assert_eq!(line.wait(now, Some(3)), Some(Duration::from_secs(8)));
        assert_eq!(line.wait(later, Some(3)), None);
        assert_eq!(line.wait(now, Some(4)), None);
        assert_eq!(Line::default().wait(now, Some(3)), None);
    }
}
