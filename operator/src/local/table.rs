//! The process table of one model, read as the cluster's state would be.
//!
//! Never starts a process by itself: it holds what was started and what is known of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ServicePort;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::command::{LocalPort, port_number};
use super::process::{Change, Event, Process};
use crate::controller::recover::Recovery;
use crate::controller::rollout::{Decision, Group, Known, LossReason, Observed, Shard};

/// One pod.
#[derive(Debug)]
pub struct Row {
    /// Slot and formation of its group.
    pub group: (u32, u64),
    /// Revision of its group.
    pub revision: String,
    /// Its place in the group.
    pub rank: usize,
    /// As in the pod.
    pub labels: BTreeMap<String, String>,
    /// Where its ports are here.
    pub ports: Vec<LocalPort>,
    /// What it does.
    pub state: RowState,
    /// The process itself.
    pub process: Process,
}

/// What a pod does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowState {
    /// It runs and is not ready.
    Running,
    /// Ready since then.
    Ready(Timestamp),
    /// It was told to stop.
    Stopping,
    /// It ended without being told.
    Ended,
}

/// All pods of one model, and what the last decision said.
#[derive(Debug, Default)]
pub struct ProcessTable {
    rows: BTreeMap<String, Row>,
    decided: Vec<Group>,
    recovery: Vec<Recovery>,
}

impl ProcessTable {
    /// The state of the world, for the rollout.
    #[must_use]
    pub fn observed(&self) -> Observed {
        let mut groups = self.decided.clone();
        for row in self.rows.values() {
            let known = |group: &&mut Group| (group.index, group.epoch) == row.group;
            if groups.iter_mut().find(known).is_none() {
                let ((index, epoch), revision) = (row.group, row.revision.clone());
                groups.push(Group { known: Known::Removed, ..Group::new((index, epoch), revision, 0) });
            }
        }
        for group in &mut groups {
            let rows = || self.rows.values().filter(|row| row.group == (group.index, group.epoch));
            let shards = rows().map(|row| row.rank + 1).max().unwrap_or(0).max(group.shards.len());
            let shard = |rank| rows().find(|row| row.rank == rank).map_or(Shard::Missing, Row::shard);
            group.shards = (0..shards).map(shard).collect();
        }
        Observed { groups, recovery: self.recovery.clone() }
    }

    /// Remembers a decision before its steps are carried out.
    pub fn remember(&mut self, decision: &Decision) {
        self.decided.clone_from(&decision.groups);
        self.recovery.clone_from(&decision.recovery);
    }

    /// All pods of a group have been started: one that is missing from now on is lost.
    pub fn note_formed(&mut self, formed: (u32, u64), now: Timestamp) {
        for group in self.decided.iter_mut().filter(|group| (group.index, group.epoch) == formed) {
            group.known = Known::Formed;
            group.created = Some(now);
        }
    }

    /// Adds a pod that has just been started.
    pub fn insert(&mut self, name: String, row: Row) {
        self.rows.insert(name, row);
    }

    /// Stops the pods of a group; those that have ended leave the table.
    pub fn remove_group(&mut self, group: (u32, u64)) {
        self.rows.retain(|_, row| row.group != group || row.state != RowState::Ended);
        for row in self.rows.values_mut().filter(|row| row.group == group) {
            row.state = RowState::Stopping;
            row.process.stop();
        }
    }

    /// Takes in an event; false when the pod is not of this model.
    pub fn apply(&mut self, event: &Event, now: Timestamp) -> bool {
        let Some(row) = self.rows.get_mut(&event.pod) else { return false };
        match (&event.change, row.state) {
            (Change::Ended(_), RowState::Stopping) => {
                self.rows.remove(&event.pod);
            }
            (Change::Ended(_), _) => row.state = RowState::Ended,
            (Change::Ready, RowState::Running) => row.state = RowState::Ready(now),
            (Change::NotReady, RowState::Ready(_)) => row.state = RowState::Running,
            _ => {}
        }
        true
    }

    /// Whether the pod is of this model and has not been told to stop.
    #[must_use]
    pub fn is_running(&self, pod: &str) -> bool {
        self.rows.get(pod).is_some_and(|row| matches!(row.state, RowState::Running | RowState::Ready(_)))
    }

    /// Tells every process to drain.
    pub fn stop_all(&mut self) {
        self.rows.retain(|_, row| row.state != RowState::Ended);
        for row in self.rows.values_mut() {
            row.state = RowState::Stopping;
            row.process.stop();
        }
    }

    /// Kills every process.
    pub fn kill_all(&mut self) {
        self.stop_all();
        self.rows.values().for_each(|row| row.process.kill());
    }

    /// Whether no pod is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Groups whose every shard is ready.
    #[must_use]
    pub fn ready_groups(&self) -> usize {
        let ready = |group: &&Group| group.shards.iter().all(|shard| matches!(shard, Shard::Ready(_)));
        let observed = self.observed();
        observed.groups.iter().filter(|group| group.known == Known::Formed).filter(ready).count()
    }

    /// Where a Service that selects `selector` sends new connections to `port`.
    #[must_use]
    pub fn endpoints(&self, selector: &BTreeMap<String, String>, port: &ServicePort) -> Vec<SocketAddr> {
        let selected = |row: &&Row| selector.iter().all(|(key, value)| row.labels.get(key) == Some(value));
        let ready = self.rows.values().filter(|row| matches!(row.state, RowState::Ready(_)));
        ready.filter(selected).filter_map(|row| row.target(port)).collect()
    }
}

impl Row {
    fn shard(&self) -> Shard {
        match self.state {
            RowState::Running => Shard::Running,
            RowState::Ready(since) => Shard::Ready(since),
            RowState::Stopping => Shard::Terminating,
            RowState::Ended => Shard::Lost(LossReason::Exited),
        }
    }

    fn target(&self, port: &ServicePort) -> Option<SocketAddr> {
        let found = self.ports.iter().find(|own| match &port.target_port {
            Some(IntOrString::String(name)) => own.name == *name,
            Some(IntOrString::Int(number)) => own.container == port_number(*number),
            None => own.container == port_number(port.port),
        });
        found.map(|own| own.address)
    }
}

#[cfg(test)]
mod tests;
