//! Why the shards of a group ended, as far as pods or what was kept of them tell.
//!
//! Pure. A pod that was told to end shows no state of its own any more, and one that is gone shows nothing: without
//! this every eviction, preemption and lost node would read as a plain deletion.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::dereference::PodView;
use super::observe::Members;
use super::rollout::{Group, Known, Observed, Shard};

/// The most pods of one model that are remembered.
const MOST: usize = 64;

/// The pods of one model that vanished lately and had a reason to.
#[derive(Debug, Default)]
pub struct Graves(VecDeque<(Instant, Arc<PodView>)>);

impl Graves {
    /// Remembers `pod` as it was last seen, if that tells why it went; forgets those older than `keep`.
    pub fn bury(&mut self, pod: PodView, now: Instant, keep: Duration) {
        self.0.retain(|(since, _)| now.saturating_duration_since(*since) < keep);
        if pod.cause.is_some() {
            self.0.push_back((now, Arc::new(pod)));
        }
        if self.0.len() > MOST {
            self.0.pop_front();
        }
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The remembered pods, oldest first.
    #[must_use]
    pub fn pods(&self) -> Vec<Arc<PodView>> {
        self.0.iter().map(|(_, pod)| Arc::clone(pod)).collect()
    }
}

/// Puts the known reasons, and the words that go with them, in the place of bare ends: in groups that are not being
/// removed, where they are losses.
pub fn explain(observed: &mut Observed, members: &Members<'_>, gone: &[Arc<PodView>]) {
    for group in observed.groups.iter_mut().filter(|group| group.known != Known::Removed) {
        let mut words = None;
        for rank in 0..group.shards.len() {
            let pod = match group.shards[rank] {
                Shard::Terminating | Shard::Stranded => member(group, members, rank),
                Shard::Missing if group.known == Known::Formed => gone.iter().rev().find(|pod| was(pod, group, rank)),
                _ => None,
            };
            if let Some((pod, cause)) = pod.and_then(|pod| Some((pod, pod.cause?))) {
                group.shards[rank] = Shard::Lost(cause);
                words = words.or_else(|| Some(format!("shard {rank}: {}", pod.note.as_ref()?)));
            }
        }
        group.note = words.or_else(|| group.note.take());
    }
}

fn member<'a>(group: &Group, members: &Members<'a>, rank: usize) -> Option<&'a Arc<PodView>> {
    members.get(&(group.index, group.epoch))?.get(&u32::try_from(rank).ok()?).copied()
}

fn was(pod: &PodView, group: &Group, rank: usize) -> bool {
    let Some(place) = &pod.place else { return false };
    (place.index, place.epoch, place.rank as usize) == (group.index, group.epoch, rank)
        && place.revision == group.revision
}

#[cfg(test)]
mod tests;
