//! Whole sequences, printed: a line per pass, what stands and what is decided.

mod losses;
mod pause;
mod room;
mod updates;

use std::num::NonZeroU32;
use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::controller::recover::later;
use crate::crd::{RecoveryWishes, Rollout};
use crate::timing::Timing;

/// A world that carries out steps at once and lets a test say what happens to groups.
struct Sim {
    observed: Observed,
    target: Target,
    budget: Budget,
    now: Timestamp,
    lines: Vec<String>,
}

impl Sim {
    fn new(replicas: u32, surge: u32, unavailable: u32) -> Self {
        let number = |value: u32| i32::try_from(value).unwrap();
        let rollout = Rollout { max_surge: number(surge), max_unavailable: number(unavailable), ..Rollout::default() };
        let timing = Timing::divided(NonZeroU32::MIN);
        Self {
            observed: Observed::default(),
            target: Target { revision: "A".into(), replicas, shards: 2, serving: None },
            budget: Budget::new(&rollout, &RecoveryWishes::default(), &timing, Duration::ZERO),
            now: Timestamp::UNIX_EPOCH,
            lines: Vec::new(),
        }
    }

    /// A settled deployment of revision A.
    fn settled(replicas: u32, surge: u32, unavailable: u32) -> Self {
        let mut sim = Self::new(replicas, surge, unavailable);
        sim.pass();
        sim.all_ready();
        sim.wait(5);
        sim.target.serving = Some(Serving { revision: "A".into(), shards: 2 });
        sim.lines.clear();
        sim
    }

    fn pass(&mut self) -> Decision {
        let decision = step(&self.observed, &self.target, &self.budget, self.now);
        let steps = decision.steps.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        self.lines.push(format!("{:30} | {steps}", self.picture()));
        let kept = |group: &Group| decision.groups.iter().any(|g| (g.index, g.epoch) == (group.index, group.epoch));
        let mut removed: Vec<Group> = self.observed.groups.iter().filter(|group| !kept(group)).cloned().collect();
        for group in &mut removed {
            group.known = Known::Removed;
            group.tell_to_end();
        }
        self.observed.groups = decision.groups.clone();
        for group in &mut self.observed.groups {
            if !group.shards.contains(&Shard::Missing) {
                group.known = Known::Formed;
                group.created.get_or_insert(self.now);
            }
        }
        self.observed.groups.append(&mut removed);
        self.observed.recovery.clone_from(&decision.recovery);
        decision
    }

    fn picture(&self) -> String {
        let mut groups: Vec<_> = self.observed.groups.iter().collect();
        groups.sort_by_key(|group| (group.index, group.epoch));
        let any = |shards: &[Shard], is: fn(&Shard) -> bool| shards.iter().any(is);
        let word = |shards: &[Shard]| match shards {
            all if all.iter().all(|shard| *shard == Shard::Missing) => '_',
            all if all.iter().all(|shard| matches!(shard, Shard::Ready(_))) => '+',
            all if any(all, |shard| shard.is_ending()) => '-',
            all if any(all, |shard| matches!(shard, Shard::Lost(_))) => '!',
            all if any(all, |shard| matches!(shard, Shard::Unschedulable(_))) => '?',
            _ => '.',
        };
        let shown = groups.iter().map(|g| format!("{}{}e{}{}", g.revision, g.index, g.epoch, word(&g.shards)));
        shown.collect::<Vec<_>>().join(" ")
    }

    fn group(&mut self, index: u32) -> &mut Group {
        let live = |group: &&mut Group| group.index == index && group.known != Known::Removed;
        self.observed.groups.iter_mut().find(live).expect("the test names a live group")
    }

    fn ready(&mut self, index: u32) {
        let now = self.now;
        self.group(index).shards.fill(Shard::Ready(now));
    }

    fn ready_of(&mut self, revision: &str) {
        let now = self.now;
        let made = |group: &&mut Group| group.revision == revision && group.known == Known::Formed;
        self.observed.groups.iter_mut().filter(made).for_each(|group| group.shards.fill(Shard::Ready(now)));
    }

    fn lose(&mut self, index: u32, reason: LossReason) {
        self.group(index).shards[0] = Shard::Lost(reason);
    }

    fn all_ready(&mut self) {
        let now = self.now;
        for group in self.observed.groups.iter_mut().filter(|g| g.known == Known::Formed) {
            for shard in group.shards.iter_mut().filter(|s| !matches!(s, Shard::Ready(_))) {
                *shard = Shard::Ready(now);
            }
        }
    }

    /// Time passes; what was told to end is gone then.
    fn wait(&mut self, seconds: u64) {
        self.now = later(self.now, Duration::from_secs(seconds));
        self.observed.groups.retain(|group| group.known != Known::Removed);
    }

    fn edit(&mut self, revision: &str) {
        self.target.revision = revision.into();
    }

    /// Everything starts at once and stays healthy until nothing is left to do.
    fn run(&mut self) {
        for _ in 0..100 {
            if self.pass().steps.is_empty() {
                return;
            }
            self.all_ready();
            self.wait(5);
        }
        panic!("does not settle: {:#?}", self.lines);
    }

    fn table(&self) -> Vec<&str> {
        self.lines.iter().map(String::as_str).collect()
    }
}
