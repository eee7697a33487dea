//! Projections of one kind, by model and name: filled by a watch, corrected by our own writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::runtime::watcher::Event;
use tokio::sync::watch;

use super::{ModelKey, View};

type ByModel<V> = BTreeMap<ModelKey, BTreeMap<String, Entry<V>>>;

struct Entry<V> {
    view: Arc<V>,
    /// Written by us at that time, not yet shown by the watch.
    unseen: Option<Instant>,
}

/// A list of everything, under way.
struct Listing<V> {
    began: Instant,
    found: ByModel<V>,
}

/// See the module.
pub struct Shelf<V> {
    by_model: Mutex<ByModel<V>>,
    listing: Mutex<Option<Listing<V>>>,
    filled: watch::Sender<bool>,
    /// The newest version that the watch has shown; 0: none, or versions are no numbers.
    shown: AtomicU64,
    unseen_for: Duration,
}

impl<V: View> Shelf<V> {
    /// Empty; a write of ours that no watch shows within `unseen_for` is forgotten.
    #[must_use]
    pub fn new(unseen_for: Duration) -> Self {
        Self {
            by_model: Mutex::new(BTreeMap::new()),
            listing: Mutex::new(None),
            filled: watch::Sender::new(false),
            shown: AtomicU64::new(0),
            unseen_for,
        }
    }

    /// Waits for the first complete list.
    pub async fn filled(&self) {
        let mut filled = self.filled.subscribe();
        // The sender lives as long as `self`.
        let _ = filled.wait_for(|filled| *filled).await;
    }

    /// What there is of one model, by name.
    #[must_use]
    pub fn of(&self, model: &ModelKey, now: Instant) -> Vec<Arc<V>> {
        let shelf = lock(&self.by_model);
        let entries = shelf.get(model).into_iter().flat_map(BTreeMap::values);
        let believed = |entry: &&Entry<V>| entry.unseen.is_none_or(|since| now < since + self.unseen_for);
        entries.filter(believed).map(|entry| Arc::clone(&entry.view)).collect()
    }

    /// What writes of ours made of one model so long ago that the watch should have shown it. It may lag for minutes behind
    /// a busy server, so none of it is gone before the server itself has said so; see [`Self::settle`].
    #[must_use]
    pub fn overdue(&self, model: &ModelKey, now: Instant) -> Vec<Arc<V>> {
        let shelf = lock(&self.by_model);
        let entries = shelf.get(model).into_iter().flat_map(BTreeMap::values);
        let overdue = |entry: &&Entry<V>| entry.unseen.is_some_and(|since| now >= since + self.unseen_for);
        entries.filter(overdue).map(|entry| Arc::clone(&entry.view)).collect()
    }

    /// Whether writes of ours made something of one model that no watch has shown yet.
    #[must_use]
    pub fn awaits(&self, model: &ModelKey) -> bool {
        let shelf = lock(&self.by_model);
        shelf.get(model).is_some_and(|entries| entries.values().any(|entry| entry.unseen.is_some()))
    }

    /// Takes in what the server answered when it was asked for `asked`: what there is of that name, if anything. What
    /// belongs to another model by now is left to the watch, which takes it from the one that had it.
    pub fn settle(&self, asked: &V, there: Option<V>, now: Instant) {
        match there.filter(|there| there.model() == asked.model()) {
            Some(there) if there.meta().uid == asked.meta().uid => {
                self.put(there, Some(now));
            }
            there => {
                self.remove(asked);
                // A page of a list under way may be older than this answer.
                if let Some(listing) = lock(&self.listing).as_mut() {
                    forget(&mut listing.found, asked);
                }
                there.into_iter().for_each(|there| self.note(there, now));
            }
        }
    }

    /// The models of which something there is as `wanted` says.
    #[must_use]
    pub fn models(&self, wanted: impl Fn(&V) -> bool) -> BTreeSet<ModelKey> {
        let shelf = lock(&self.by_model);
        let has = |entries: &BTreeMap<String, Entry<V>>| entries.values().any(|entry| wanted(&entry.view));
        shelf.iter().filter(|(_, entries)| has(entries)).map(|(key, _)| key.clone()).collect()
    }

    /// Takes in what a watch says at `now`; returns the models for which something changed.
    pub fn take(&self, event: Event<V>, now: Instant) -> BTreeSet<ModelKey> {
        match event {
            Event::Apply(view) => {
                self.shown.fetch_max(version(&view).unwrap_or(0), Ordering::Relaxed);
                let left = self.leave(&view);
                self.put(view, None).into_iter().chain(left).collect()
            }
            Event::Delete(view) => {
                self.shown.fetch_max(version(&view).unwrap_or(0), Ordering::Relaxed);
                self.remove(&view).into_iter().collect()
            }
            Event::Init => {
                *lock(&self.listing) = Some(Listing { began: now, found: BTreeMap::new() });
                BTreeSet::new()
            }
            Event::InitApply(view) => {
                if let (Some(model), Some(listing)) = (view.model(), lock(&self.listing).as_mut()) {
                    let name = view.meta().name.clone().unwrap_or_default();
                    let entry = Entry { view: Arc::new(view), unseen: None };
                    listing.found.entry(model).or_default().insert(name, entry);
                }
                BTreeSet::new()
            }
            Event::InitDone => {
                let listing = lock(&self.listing).take();
                let Listing { began, found } =
                    listing.unwrap_or_else(|| Listing { began: now, found: BTreeMap::new() });
                let newest = found.values().flat_map(BTreeMap::values).filter_map(|entry| version(&*entry.view)).max();
                let mut shelf = lock(&self.by_model);
                self.shown.store(newest.unwrap_or(0), Ordering::Relaxed);
                let touched = shelf.keys().chain(found.keys()).cloned().collect();
                let before = std::mem::replace(&mut *shelf, found);
                keep_written(&mut shelf, before, began);
                self.filled.send_replace(true);
                touched
            }
        }
    }

    /// Notes what the API server answered to a creation of ours, before the watch shows it.
    pub fn note(&self, view: V, now: Instant) {
        self.put(view, Some(now));
    }

    /// Notes what the API server answered to a deletion of ours. What the watch has seen go is not brought back.
    pub fn note_ending(&self, view: V, now: Instant) {
        let there = view.model().is_some_and(|model| {
            let shelf = lock(&self.by_model);
            let entry = shelf.get(&model).and_then(|entries| entries.get(view.meta().name.as_deref()?));
            entry.is_some_and(|entry| entry.view.meta().uid == view.meta().uid)
        });
        if there {
            self.put(view, Some(now));
        }
    }

    /// Somebody gave `view` to another model, by its label: to the one that had it, it is gone.
    fn leave(&self, view: &V) -> Option<ModelKey> {
        let (namespace, name) = (view.meta().namespace.clone()?, view.meta().name.as_deref()?);
        let mut shelf = lock(&self.by_model);
        let has = |entries: &BTreeMap<String, Entry<V>>| {
            entries.get(name).is_some_and(|entry| entry.view.meta().uid == view.meta().uid)
        };
        let model = view.model()?;
        if shelf.get(&model).is_some_and(has) {
            return None;
        }
        let from = ModelKey { namespace: namespace.clone(), name: String::new() };
        let mut others = shelf.range_mut(from..).take_while(|(key, _)| key.namespace == namespace);
        let (key, entries) = others.find(|(_, entries)| has(entries))?;
        entries.remove(name);
        Some(key.clone())
    }

    fn put(&self, mut view: V, unseen: Option<Instant>) -> Option<ModelKey> {
        let model = view.model()?;
        let name = view.meta().name.clone().unwrap_or_default();
        let mut shelf = lock(&self.by_model);
        let entries = shelf.entry(model.clone()).or_default();
        let changed = match entries.get(&name) {
            Some(older) if older.view.meta().uid == view.meta().uid => {
                // Of one object, a write noted late must not hide what the watch has shown since.
                if unseen.is_some() && older.unseen.is_none() && !is_older(&*older.view, &view).unwrap_or(true) {
                    return None;
                }
                view.succeed(&older.view)
            }
            // The watch has shown this write, and since then that it is gone.
            None if unseen.is_some() && version(&view).is_some_and(|it| it <= self.shown.load(Ordering::Relaxed)) => {
                return None;
            }
            // Of its predecessor under the same name, told late.
            Some(newer) if is_older(&view, &*newer.view) == Some(true) => return None,
            _ => true,
        };
        entries.insert(name, Entry { view: Arc::new(view), unseen });
        changed.then_some(model)
    }

    fn remove(&self, view: &V) -> Option<ModelKey> {
        forget(&mut lock(&self.by_model), view)
    }
}

/// What was written while a list was under way is in none of its pages, or older there: the watch after it will show it.
/// What the list found at another model is there, whatever our write said.
fn keep_written<V: View>(listed: &mut ByModel<V>, before: ByModel<V>, began: Instant) {
    let since = |entry: &Entry<V>| entry.unseen.is_some_and(|noted| noted >= began);
    let written: Vec<_> = before
        .into_iter()
        .flat_map(|(model, entries)| entries.into_iter().map(move |(name, entry)| (model.clone(), name, entry)))
        .filter(|(_, _, entry)| since(entry))
        .collect();
    if written.is_empty() {
        return;
    }
    let uid = |entry: &Entry<V>| entry.view.meta().uid.clone();
    let found: BTreeSet<_> = listed.values().flat_map(BTreeMap::values).filter_map(uid).collect();
    for (model, name, entry) in written {
        let keeps = match listed.get(&model).and_then(|entries| entries.get(&name)) {
            Some(other) => is_older(&*other.view, &*entry.view).unwrap_or(true),
            None => !uid(&entry).is_some_and(|uid| found.contains(&uid)),
        };
        if keeps {
            listed.entry(model).or_default().insert(name, entry);
        }
    }
}

/// Removes this very object; returns its model, if that was known.
fn forget<V: View>(shelf: &mut ByModel<V>, view: &V) -> Option<ModelKey> {
    let model = view.model()?;
    let name = view.meta().name.as_deref().unwrap_or_default();
    let entries = shelf.get_mut(&model)?;
    if entries.get(name).is_some_and(|entry| entry.view.meta().uid == view.meta().uid) {
        entries.remove(name);
    }
    if entries.is_empty() {
        shelf.remove(&model);
    }
    Some(model)
}

/// Resource versions of one kind are ordered numbers on every API server that exists.
fn version<V: View>(view: &V) -> Option<u64> {
    view.meta().resource_version.as_deref()?.parse().ok()
}

/// `None`: their versions are no numbers.
fn is_older<V: View>(older: &V, newer: &V) -> Option<bool> {
    Some(version(older)? < version(newer)?)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod races;

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use pretty_assertions::assert_eq;
    use serde_json::json;

    use super::super::PodView;
    use super::*;
    use crate::controller::rollout::Shard;

    fn pod(name: &str, version: &str, deleted: bool) -> PodView {
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "n", "uid": format!("uid-{name}"), "resourceVersion": version,
                "labels": {"inference.shoal.dev/model": "m"}}
        }))
        .unwrap();
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        pod.metadata.deletion_timestamp = deleted.then_some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
        PodView::from(pod)
    }

    fn shelf() -> (Shelf<PodView>, ModelKey) {
        (Shelf::new(Duration::from_secs(60)), ModelKey { namespace: "n".into(), name: "m".into() })
    }

    #[test]
    fn a_list_replaces_everything_and_a_write_shows_before_its_watch_event() {
        let (shelf, key) = shelf();
        let now = Instant::now();
        shelf.note(pod("old", "1", false), now);
        assert_eq!(shelf.of(&key, now).len(), 1);
        assert!(shelf.of(&key, now + Duration::from_secs(60)).is_empty(), "an unseen write is not believed for ever");
        shelf.take(Event::Init, now + Duration::from_secs(1));
        shelf.take(Event::InitApply(pod("new", "2", false)), now);
        assert_eq!(shelf.of(&key, now).len(), 1);
        assert_eq!(shelf.take(Event::InitDone, now), BTreeSet::from([key.clone()]));
        let names: Vec<_> = shelf.of(&key, now).iter().map(|pod| pod.meta.name.clone().unwrap()).collect();
        assert_eq!(names, ["new"]);
    }

    #[test]
    fn what_is_made_while_a_list_is_under_way_is_not_forgotten_when_it_ends() {
        let (shelf, key) = shelf();
        let now = Instant::now();
        shelf.take(Event::Apply(pod("gone", "1", false)), now);
        shelf.take(Event::Init, now);
        shelf.take(Event::InitApply(pod("listed", "2", false)), now);
        shelf.note(pod("made", "3", false), now);
        shelf.take(Event::InitDone, now);
        let names: Vec<_> = shelf.of(&key, now).iter().map(|pod| pod.meta.name.clone().unwrap()).collect();
        assert_eq!(names, ["listed", "made"]);
    }

    #[test]
    fn what_no_watch_has_shown_for_long_is_kept_or_forgotten_as_the_server_says() {
        let (shelf, key) = shelf();
        let now = Instant::now();
        let later = now + Duration::from_secs(60);
        for name in ["there", "gone", "anew", "others"] {
            shelf.note(pod(name, "3", false), now);
        }
        assert!(shelf.awaits(&key));
        shelf.take(Event::Apply(pod("seen", "4", false)), now);
        assert!(shelf.overdue(&key, now).is_empty());
        shelf.note(pod("fresh", "5", false), later);
        let overdue = shelf.overdue(&key, later);
        assert_eq!(shelf.of(&key, later).len() + overdue.len(), 6, "at one moment each is believed or asked for");
        let name = |pod: &PodView| pod.meta.name.clone().unwrap();
        assert_eq!(overdue.iter().map(|pod| name(pod)).collect::<Vec<_>>(), ["anew", "gone", "others", "there"]);
        for asked in overdue {
            let there = match name(&asked).as_str() {
                "gone" => None,
                "anew" => {
                    let mut other = pod("anew", "9", false);
                    other.meta.uid = Some("another".to_owned());
                    Some(other)
                }
                "others" => Some(PodView { model: None, ..pod("others", "9", false) }),
                name => Some(pod(name, "9", true)),
            };
            shelf.settle(&asked, there, later);
        }
        let found = shelf.of(&key, later);
        let found: Vec<_> = found.iter().map(|pod| (name(pod), pod.meta.uid.clone().unwrap(), pod.shard)).collect();
        let entry = |name: &str, uid: &str, shard| (name.to_owned(), uid.to_owned(), shard);
        let pending = Shard::Pending;
        let expected = [
            entry("anew", "another", pending),
            entry("fresh", "uid-fresh", pending),
            entry("seen", "uid-seen", pending),
            entry("there", "uid-there", Shard::Terminating),
        ];
        assert_eq!(found, expected);
        assert!(shelf.overdue(&key, later + Duration::from_secs(59)).is_empty(), "asked once a minute");
    }

    #[test]
    fn an_object_whose_label_names_another_model_leaves_the_one_that_had_it() {
        let (shelf, key) = shelf();
        let now = Instant::now();
        shelf.take(Event::Apply(pod("p", "5", false)), now);
        let other = ModelKey { name: "other".into(), ..key.clone() };
        let moved = PodView { model: Some("other".into()), ..pod("p", "6", false) };
        assert_eq!(shelf.take(Event::Apply(moved), now), BTreeSet::from([key.clone(), other.clone()]));
        assert_eq!((shelf.of(&key, now).len(), shelf.of(&other, now).len()), (0, 1));
        assert_eq!(shelf.take(Event::Apply(pod("p", "7", false)), now), BTreeSet::from([key.clone(), other.clone()]));
        assert_eq!((shelf.of(&key, now).len(), shelf.of(&other, now).len()), (1, 0));
    }

    #[test]
    fn a_deletion_is_never_taken_back_and_a_late_note_hides_nothing() {
        let (shelf, key) = shelf();
        let now = Instant::now();
        shelf.take(Event::Apply(pod("p", "5", false)), now);
        shelf.note_ending(pod("p", "7", true), now);
        assert!(shelf.take(Event::Apply(pod("p", "6", false)), now).is_empty());
        assert_eq!(shelf.of(&key, now)[0].shard, Shard::Terminating);
        shelf.take(Event::Delete(pod("p", "8", true)), now);
        assert!(shelf.of(&key, now).is_empty());
        shelf.note_ending(pod("p", "7", true), now);
        assert!(shelf.of(&key, now).is_empty(), "a pod that is gone does not come back as an ending one");
        shelf.take(Event::Apply(pod("q", "9", true)), now);
        shelf.note(pod("q", "8", false), now);
        assert_eq!(shelf.of(&key, now)[0].shard, Shard::Terminating);
    }
}
