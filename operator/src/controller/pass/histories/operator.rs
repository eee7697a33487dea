//! Passes: whole ones, and ones that end between two writes.

use std::num::NonZeroU32;

use k8s_openapi::api::core::v1::Pod;

use super::super::*;
use super::events::Crash;
use super::rules;
use super::world::{World, place};
use crate::controller::apply::merge_diff;
use crate::controller::recover::later;
use crate::controller::rollout::{Cause, Why};

/// A refused pass is repeated after that.
const RETRY: Duration = Duration::from_secs(10);

/// A pass that goes as far as `crash` lets it.
pub(super) struct Run {
    /// The object that it sees, and its version.
    pub(super) model: ModelDeployment,
    pub(super) version: u64,
    /// The pods that it sees.
    pub(super) found: Found,
    pub(super) crash: Option<Crash>,
    /// What it sees is not what there is.
    pub(super) stale: bool,
}

impl World {
    /// A pass on what there is.
    pub(super) fn pass(&mut self, crash: Option<Crash>) -> Result<(), String> {
        let (model, version, found) = (self.model.clone(), self.version, self.found());
        self.run(Run { model, version, found, crash, stale: false })
    }

    /// A pass on what there was before the last event.
    pub(super) fn stale_pass(&mut self) -> Result<(), String> {
        let Some((model, version, found)) = self.before.take() else { return Ok(()) };
        self.saw("stale view");
        self.run(Run { model, version, found, crash: None, stale: true })
    }

    fn run(&mut self, run: Run) -> Result<(), String> {
        let timing = Timing::divided(NonZeroU32::MIN);
        let (inventory, turn, now) = (Inventory::Unknown, self.turn, self.now);
        let (model, found) = (&run.model, &run.found);
        let input = Input { model, found, inventory: &inventory, default_image: "i", timing: &timing, turn, now };
        let pass = Pass::decide(&input);
        let again = decide(&input, &pass.revisions, &pass.observed, &pass.budget);
        rules::check(again == pass.decision, || "the same input gives another decision".into())?;
        rules::decision(&pass)?;
        self.note(&pass, &run);
        self.carry_out(&pass, run.version, &run)?;
        if !run.stale && run.crash.is_none() {
            self.wake = pass.look_again(&self.status()).and_then(|wait| now.checked_add(wait).ok());
            self.left = Some(self.sight());
            if self.refused {
                self.wake = self.wake.into_iter().chain([later(now, RETRY)]).min();
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, pass: &Pass<'_>, mut version: u64, run: &Run) -> Result<(), String> {
        if run.crash == Some(Crash::Before) {
            if pass.decision.acts() {
                self.saw("crash before remembering");
            }
            return Ok(());
        }
        if pass.must_remember() && !self.write(&pass.status_before(), &mut version) {
            self.saw("conflict");
            return Ok(());
        }
        if run.crash == Some(Crash::Remembered) {
            if pass.decision.acts() {
                self.saw("crash after remembering");
            }
            return Ok(());
        }
        let work = if pass.decision.acts() { pass.work() } else { Work::default() };
        let held = rules::held(self);
        let mut left = match run.crash {
            Some(Crash::Within(writes)) => writes,
            _ => usize::MAX,
        };
        if left < work.delete.len() + work.create.len() {
            self.saw("crash between writes");
        }
        let (mut made, mut problem) = (Vec::new(), None);
        for pod in work.delete {
            if left == 0 {
                return Ok(());
            }
            left -= 1;
            let name = pod.meta.name.clone().unwrap();
            if self.pods.get(&name).is_some_and(|there| there.view.meta.uid == pod.meta.uid) {
                self.end(&name);
                made.extend(self.pods.get(&name).map(|there| PodView::clone(&there.view)));
            }
        }
        self.refused = false;
        for pod in work.create {
            if left == 0 {
                return Ok(());
            }
            left -= 1;
            match self.create(pod, run.stale)? {
                Ok(view) => made.push(view),
                Err(refused) => {
                    self.refused = true;
                    problem = Some(refused);
                }
            }
        }
        if !run.stale {
            rules::accelerators(self, held)?;
        }
        if matches!(run.crash, Some(Crash::Unsaid | Crash::Within(_))) {
            if pass.decision.acts() {
                self.saw("crash before the status");
            }
            return Ok(());
        }
        let after = pass.status_after(&made, problem.as_ref());
        let written = self.write(&after, &mut version);
        if run.stale || !written {
            return Ok(());
        }
        rules::counted(self)?;
        // Of passes that only watched, some are enough.
        let checked = pass.decision.acts() || self.version.is_multiple_of(4);
        if problem.is_none() && checked { self.nothing_is_left() } else { Ok(()) }
    }

    /// Until anything changes, another pass has nothing to do.
    fn nothing_is_left(&self) -> Result<(), String> {
        let timing = Timing::divided(NonZeroU32::MIN);
        let (found, inventory) = (self.found(), Inventory::Unknown);
        let (model, turn, now) = (&self.model, self.turn, self.now);
        let input =
            Input { model, found: &found, inventory: &inventory, default_image: "i", timing: &timing, turn, now };
        let pass = Pass::decide(&input);
        let steps = || format!("a second pass still does: {:?}", pass.decision.steps);
        rules::check(!pass.decision.acts(), steps)?;
        let (was, is) = (self.status(), pass.status_after(&[], None));
        if was == is {
            return Ok(());
        }
        let is = through_json(&is);
        let change = merge_diff(&serde_json::to_value(&was).unwrap(), &serde_json::to_value(&is).unwrap());
        rules::check(was == is, || format!("a second pass changes the status: {change}"))
    }

    /// Writes a status if it differs, unless somebody has written since.
    fn write(&mut self, status: &ModelDeploymentStatus, version: &mut u64) -> bool {
        if *version != self.version {
            return false;
        }
        if self.model.status.as_ref() == Some(status) {
            return true;
        }
        let status = through_json(status);
        if self.model.status.as_ref() != Some(&status) {
            self.model.status = Some(status);
            self.version += 1;
            *version = self.version;
        }
        true
    }

    fn create(&mut self, pod: Pod, stale: bool) -> Result<Result<PodView, Problem>, String> {
        let name = pod.metadata.name.clone().unwrap();
        let wanted = PodView::from(pod.clone());
        if let Some(there) = self.pods.get(&name) {
            let ours = there.view.place == wanted.place;
            return Ok(if ours {
                Ok(PodView::clone(&there.view))
            } else {
                Err(Problem::NameTaken { kind: "Pod", name })
            });
        }
        if self.quota.is_some_and(|quota| self.pods.len() >= quota) {
            let message = "exceeded quota".to_owned();
            return Ok(Err(Problem::Forbidden { verb: "create", kind: "Pod", name, message }));
        }
        if !stale {
            rules::epoch(self, place(&wanted))?;
        }
        Ok(Ok(self.admit(pod)))
    }

    /// Counts what this pass does, and tells it.
    fn note(&mut self, pass: &Pass<'_>, run: &Run) {
        let steps: Vec<String> = pass.decision.steps.iter().map(ToString::to_string).collect();
        let how = run.crash.map(|crash| format!(" {crash:?}")).unwrap_or_default();
        let stale = if run.stale { " stale" } else { "" };
        self.lines.push(format!("  pass{how}{stale}: {}", steps.join(", ")));
        for step in &pass.decision.steps {
            match step {
                Step::Wait { why: Why::Accelerators, .. } => self.saw("cap waited for"),
                Step::Wait { why: Why::Queue, .. } => self.saw("queue waited for"),
                Step::Wait { why: Why::GivenUp, .. } => self.saw("given up"),
                Step::Wait { why: Why::Gates, .. } => self.saw("gated"),
                Step::RemoveGroup { cause: Cause::Lost(reason), .. } => self.saw(rules::kind(*reason)),
                _ => {}
            }
        }
        if run.crash.is_none() && !run.stale {
            rules::remember_formed(self, pass);
        }
    }
}

/// What the API server keeps of a status.
fn through_json(status: &ModelDeploymentStatus) -> ModelDeploymentStatus {
    serde_json::from_value(serde_json::to_value(status).unwrap()).unwrap()
}
