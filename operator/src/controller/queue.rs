//! Whose turn it is to make groups where there is not room for all: a queue per accelerator resource, across objects.
//!
//! ```text
//! nobody refused                    everybody makes groups, in parallel
//! somebody refused, slot taken      everybody else waits: never two groups of a resource are half scheduled
//! somebody refused, slot free       the refused one whose wait is over, the longest refused first; else whoever asks
//! ```
//! *Refused*: the scheduler found no room for a group, which was withdrawn whole. The *slot* is held from the creation of
//! a group until all its pods have nodes, or a minute has passed. While the refused wait, others still get the slot: a
//! model that fits nowhere must not keep a serving one from coming back.
//!
//! Pure: no clock, no client, standard library only beside timestamps. Holds nothing that status and pods do not say, so
//! a restarted operator has the same order.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;

use super::recover::later;
use super::rollout::Turn;

/// The queues of all resources; `K` names a model.
#[derive(Debug)]
pub struct Turns<K> {
    lines: BTreeMap<String, Line<K>>,
    /// How long a slot is held at most.
    hold: Duration,
}

/// What a model wants, as its last pass left it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Case {
    /// A group of its was withdrawn, and none of these has all its nodes now.
    pub refused: Option<Refused>,
    /// A group of its exists of which a pod has no node yet.
    pub placing: bool,
}

/// How the oldest refused group of a model stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Since when.
    pub since: Timestamp,
    /// When it may try again, if no room comes before.
    pub retry: Timestamp,
}

#[derive(Debug)]
struct Line<K> {
    refused: BTreeMap<K, Entry>,
    slot: Option<Slot<K>>,
    /// Who was told to wait, in order of arrival.
    waiting: VecDeque<K>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    refused: Refused,
    /// Room may have come since its last try.
    room: bool,
    /// It has had its turn and wanted nothing, for reasons of its own: nobody waits for it.
    idle: bool,
}

#[derive(Debug)]
struct Slot<K> {
    holder: K,
    until: Timestamp,
}

impl<K: Ord + Clone> Turns<K> {
    /// Empty; nobody holds a slot for longer than `hold`.
    #[must_use]
    pub fn new(hold: Duration) -> Self {
        Self { lines: BTreeMap::new(), hold }
    }

    /// With what a pass of `model` begins: room may have come for its withdrawn groups, before their wait is over.
    #[must_use]
    pub fn opening(&self, model: &K) -> Turn {
        let room = self.lines.values().any(|line| line.refused.get(model).is_some_and(|entry| entry.room));
        if room { Turn::Retry } else { Turn::May }
    }

    /// `model` wants to make groups of `resource`; if it may and there is a queue, it holds the slot from now on.
    pub fn ask(&mut self, model: &K, resource: &str, now: Timestamp) -> Turn {
        let opening = self.opening(model);
        let Some(line) = self.lines.get_mut(resource) else { return Turn::May };
        if let Some(entry) = line.refused.get_mut(model) {
            entry.idle = false;
        }
        let held = line.slot.as_ref().filter(|slot| now < slot.until);
        let until = match held {
            Some(slot) if slot.holder == *model => return opening,
            Some(slot) => slot.until,
            None if line.refused.is_empty() => return opening,
            None if line.head(now).is_none_or(|head| head == *model) => {
                line.give(model.clone(), later(now, self.hold));
                return opening;
            }
            None => later(now, self.hold),
        };
        if !line.waiting.contains(model) {
            line.waiting.push_back(model.clone());
        }
        Turn::NotYet { until: Some(until) }
    }

    /// How `model` stood when the operator before this one ended, as its status tells.
    pub fn restore(&mut self, model: &K, resource: &str, refused: Refused) {
        self.lines.entry(resource.to_owned()).or_default().refuse(model, refused);
    }

    /// How a pass left `model`; returns who shall look again.
    pub fn report(&mut self, model: &K, resource: &str, case: Case, now: Timestamp) -> Vec<K> {
        let mut awake = self.leave(model, |name| name != resource, now);
        if case.refused.is_some() {
            self.lines.entry(resource.to_owned()).or_default();
        }
        if let Some(line) = self.lines.get_mut(resource) {
            awake.extend(line.settle(model, case, (now, later(now, self.hold))));
        }
        self.lines.retain(|_, line| !line.is_over());
        awake
    }

    /// `model` is gone; returns who shall look again.
    pub fn forget(&mut self, model: &K, now: Timestamp) -> Vec<K> {
        let awake = self.leave(model, |_| true, now);
        self.lines.retain(|_, line| !line.is_over());
        awake
    }

    /// Room may have come; returns who shall look again: the longest refused of each resource.
    pub fn room(&mut self, now: Timestamp) -> Vec<K> {
        for entry in self.lines.values_mut().flat_map(|line| line.refused.values_mut()) {
            (entry.room, entry.idle) = (true, false);
        }
        self.lines.values_mut().flat_map(|line| line.next(now)).collect()
    }

    /// Whether a group of `model` was refused and waits: what it gives back it had only tried.
    #[must_use]
    pub fn is_refused(&self, model: &K) -> bool {
        self.lines.values().any(|line| line.refused.contains_key(model))
    }

    fn leave(&mut self, model: &K, lines: impl Fn(&str) -> bool, now: Timestamp) -> Vec<K> {
        let left = self.lines.iter_mut().filter(|(name, line)| lines(name) && line.knows(model));
        left.flat_map(|(_, line)| {
            line.waiting.retain(|other| other != model);
            line.settle(model, Case::default(), (now, now))
        })
        .collect()
    }
}

impl Entry {
    fn is_due(&self, now: Timestamp) -> bool {
        self.room || self.refused.retry <= now
    }
}

impl<K> Default for Line<K> {
    fn default() -> Self {
        Self { refused: BTreeMap::new(), slot: None, waiting: VecDeque::new() }
    }
}

impl<K: Ord + Clone> Line<K> {
    fn knows(&self, model: &K) -> bool {
        self.refused.contains_key(model) || self.holds(model) || self.waiting.contains(model)
    }

    fn holds(&self, model: &K) -> bool {
        self.slot.as_ref().is_some_and(|slot| slot.holder == *model)
    }

    fn is_over(&self) -> bool {
        self.refused.is_empty() && self.waiting.is_empty()
    }

    fn settle(&mut self, model: &K, case: Case, (now, hold): (Timestamp, Timestamp)) -> Vec<K> {
        let involved = self.refused.contains_key(model) || self.holds(model) || case.refused.is_some();
        match case.refused {
            Some(refused) => self.refuse(model, refused),
            None => drop(self.refused.remove(model)),
        }
        if !case.placing && self.holds(model) {
            self.slot = None;
        }
        let free = self.slot.as_ref().is_none_or(|slot| slot.until <= now);
        // What was being placed when the queue began takes the slot that nobody was given.
        if case.placing && free && !self.refused.is_empty() {
            self.give(model.clone(), hold);
        }
        let silent = free && !case.placing && !self.waiting.contains(model);
        if let Some(entry) = self.refused.get_mut(model).filter(|entry| silent && entry.is_due(now)) {
            entry.idle = true;
        }
        if involved { self.next(now) } else { Vec::new() }
    }

    fn refuse(&mut self, model: &K, refused: Refused) {
        let before = self.refused.get(model).copied();
        // The place in the queue is that of the first refusal; a later try that failed has used up the room that came.
        let since = before.map_or(refused.since, |entry| entry.refused.since.min(refused.since));
        let again = before.is_none_or(|entry| entry.refused.retry != refused.retry);
        let room = before.is_some_and(|entry| entry.room) && !again;
        let idle = before.is_some_and(|entry| entry.idle) && !again;
        self.refused.insert(model.clone(), Entry { refused: Refused { since, ..refused }, room, idle });
    }

    /// Of those whose wait is over, the longest refused.
    fn head(&self, now: Timestamp) -> Option<K> {
        let due = self.refused.iter().filter(|(_, entry)| !entry.idle && entry.is_due(now));
        due.min_by_key(|(model, entry)| (entry.refused.since, *model)).map(|(model, _)| model.clone())
    }

    fn give(&mut self, holder: K, until: Timestamp) {
        self.waiting.retain(|model| *model != holder);
        if let Some(entry) = self.refused.get_mut(&holder) {
            entry.room = false;
        }
        self.slot = Some(Slot { holder, until });
    }

    /// Who shall look again now that the slot may be free: with no queue left everyone, else the next.
    fn next(&mut self, now: Timestamp) -> Vec<K> {
        if self.slot.as_ref().is_some_and(|slot| now < slot.until) {
            return Vec::new();
        }
        if self.refused.is_empty() {
            return self.waiting.drain(..).collect();
        }
        self.head(now).or_else(|| self.waiting.pop_front()).into_iter().collect()
    }
}

#[cfg(test)]
mod tests;
