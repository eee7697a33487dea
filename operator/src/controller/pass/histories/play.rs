//! One history: every event, the passes that follow it, and an end without faults, in which all must come right.

use std::time::Duration;

use super::super::*;
use super::events::Event;
use super::rules;
use super::world::{World, size};
use crate::controller::recover::later;
use crate::controller::rollout::Shard;

impl World {
    /// Plays `events`, then lets the faults stop.
    pub(super) fn play(&mut self, events: &[Event]) -> Result<(), String> {
        self.step()?;
        for event in events {
            self.lines.push(format!("{event:?}"));
            let seen = (self.model.clone(), self.version, self.found());
            self.happen(event)?;
            self.before = Some(seen);
        }
        self.lines.push("the faults stop".into());
        self.converge()
    }

    /// Scheduler and kubelets, then the operator, if there is anything to see or its time has come.
    fn step(&mut self) -> Result<(), String> {
        self.live();
        let due = self.wake.is_some_and(|wake| wake <= self.now);
        if due || self.left.as_ref() != Some(&self.sight()) {
            self.pass(None)?;
        }
        rules::restarts(self)?;
        // What the pass made or ended is seen by nobody yet.
        rules::withdrawn(self)
    }

    fn happen(&mut self, event: &Event) -> Result<(), String> {
        match *event {
            Event::Wait(seconds) => return self.wait(seconds),
            Event::Crash(crash) => {
                self.pass(Some(crash))?;
                return Ok(());
            }
            Event::Stale => return self.stale_pass(),
            Event::Edit(_) | Event::Revert | Event::Scale(_) | Event::Budgets(..) | Event::Cap(_) | Event::Pause(_) => {
                self.ask(event);
            }
            Event::Lose(nth, reason) => {
                let running = |shard: Shard| matches!(shard, Shard::Running | Shard::Ready(_));
                self.change(nth, running, Shard::Lost(reason));
            }
            Event::Flap(nth) => self.change(nth, |shard| matches!(shard, Shard::Ready(_)), Shard::Running),
            Event::Delete(nth) => {
                let name = self.pods.keys().nth(nth).cloned();
                name.iter().for_each(|name| self.end(name));
            }
            Event::NodeDown(node) => {
                self.node(Some(node));
            }
            Event::NodesUp => _ = self.node(None),
            Event::Pull(seconds) => self.pull = seconds,
            Event::Room(pods) => self.room = pods,
            Event::Gate(closed) => self.gated = closed,
            Event::Turn(may) => {
                self.turn = if may { Turn::May } else { Turn::NotYet { until: None } };
            }
            Event::Quota(quota) => self.quota = quota,
        }
        Ok(())
    }

    /// What the user may ask for.
    fn ask(&mut self, event: &Event) {
        let (status, image) = (self.status(), self.model.spec.pod.image.clone());
        let settled = status.revisions.iter().all(|revision| revision.serving) && !status.revisions.is_empty();
        let serving = status.revisions.iter().find(|revision| revision.serving).map(|revision| revision.image.clone());
        let changed = self.edit(|spec| match *event {
            Event::Edit(letter) => ask_image(spec, &char::from(b'a' + letter).to_string()),
            Event::Revert => ask_image(spec, &serving.clone().or(image).unwrap()),
            Event::Scale(replicas) => spec.replicas = replicas,
            Event::Budgets(surge, unavailable) => {
                spec.rollout.max_surge = if unavailable == 0 { surge.max(1) } else { surge };
                spec.rollout.max_unavailable = unavailable;
            }
            Event::Cap(more) => spec.rollout.max_accelerators = more.map(|more| 3 + more),
            Event::Pause(paused) => spec.rollout.paused = paused,
            _ => {}
        });
        let kind = match event {
            _ if !changed => return,
            Event::Edit(_) if !settled => "edit in mid-rollout",
            Event::Edit(_) => "edit",
            Event::Revert => "revert",
            Event::Scale(_) => "scale",
            Event::Budgets(..) => "budgets changed",
            Event::Cap(_) => "accelerator cap",
            Event::Pause(true) if !settled => "pause in mid-rollout",
            _ => "pause",
        };
        self.saw(kind);
    }

    fn change(&mut self, nth: usize, of: impl Fn(Shard) -> bool, into: Shard) {
        if let Some(pod) = self.pods.values_mut().filter(|pod| of(pod.view.shard)).nth(nth) {
            pod.set(into);
            Arc::make_mut(&mut pod.view).note = Some("the last line".into());
        }
    }

    /// Time passes; the operator wakes whenever it wanted to.
    fn wait(&mut self, seconds: u64) -> Result<(), String> {
        let end = later(self.now, Duration::from_secs(seconds));
        self.step()?;
        for _ in 0..200 {
            if self.now >= end {
                break;
            }
            let hop = later(self.now, Duration::from_secs(5.max(seconds / 20)));
            let soonest = later(self.now, Duration::from_secs(1));
            let wake = self.wake.map_or(end, |wake| rounded_up(wake).max(soonest));
            self.now = hop.min(wake).min(end);
            self.tally();
            self.step()?;
        }
        Ok(())
    }

    fn tally(&mut self) {
        if self.pull > 30 && self.pods.values().any(|pod| pod.view.shard == Shard::Pending) {
            self.saw("slow pull");
        }
        if self.pods.values().any(|pod| pod.view.shard == Shard::Stranded) {
            self.saw("pods left on a dead node");
        }
    }

    /// Nothing goes wrong any more: what was asked for must come about, and then nothing may be written.
    fn converge(&mut self) -> Result<(), String> {
        (self.turn, self.quota, self.room, self.pull, self.gated) = (Turn::May, None, usize::MAX, 0, false);
        self.node(None);
        self.edit(|spec| {
            spec.rollout.paused = false;
            spec.rollout.max_surge = spec.rollout.max_surge.max(1);
            let room = (spec.replicas + spec.rollout.max_surge) * 3;
            spec.rollout.max_accelerators = spec.rollout.max_accelerators.map(|most| most.max(room));
            if matches!(spec.pod.image.as_deref(), Some("d" | "e")) {
                ask_image(spec, "a");
            }
        });
        for _ in 0..120 {
            self.wait(30)?;
            if self.is_whole() {
                let version = self.version;
                self.wait(700)?;
                self.wait(5)?;
                let last = self.version;
                self.pass(None)?;
                rules::check(self.version == last, || "a settled object costs a write".into())?;
                rules::check(self.is_whole(), || "it does not stay settled".into())?;
                // Each slot that was lost is forgotten once.
                return rules::check(last <= version + 6, || format!("{} writes while settled", last - version));
            }
        }
        Err(format!("it does not converge: {:#?}", self.status()))
    }

    fn is_whole(&self) -> bool {
        let status = self.status();
        let says = |kind: &str| status.conditions.iter().any(|c| c.type_ == kind && c.status == "True");
        let spec = &self.model.spec;
        let image = spec.pod.image.clone().unwrap_or_default();
        let ready = |pod: &super::world::Machine| matches!(pod.view.shard, Shard::Ready(_)) && pod.image == image;
        says("Ready")
            && !says("Degraded")
            && !says("Reconciling")
            && status.replicas == spec.replicas
            && self.pods.len() == spec.replicas as usize * size(&image)
            && self.pods.values().all(ready)
    }
}

fn ask_image(spec: &mut crate::crd::ModelDeploymentSpec, image: &str) {
    spec.pod.image = Some(image.to_owned());
    spec.sharding.as_mut().unwrap().shards = Some(size(image) as i32);
}

/// Clocks of the simulation go in whole seconds.
fn rounded_up(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second() + i64::from(at.subsec_nanosecond() > 0)).unwrap()
}
