//! Objects that wait for a pass: each at most once, so the queue is never longer than there are objects.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Notify;

use crate::controller::dereference::ModelKey;

/// See the module.
pub(in crate::controller) struct Queue {
    state: Mutex<State>,
    wake: Notify,
    depth: Gauge,
}

#[derive(Default)]
struct State {
    /// Pushed, not begun.
    waiting: BTreeSet<ModelKey>,
    /// Pushed, not popped.
    order: VecDeque<ModelKey>,
}

impl Queue {
    /// Empty; `depth` shows how many wait.
    pub(in crate::controller) fn new(depth: Gauge) -> Self {
        Self { state: Mutex::default(), wake: Notify::new(), depth }
    }

    /// A pass of `key` shall begin some time from now; nothing if one is due already.
    pub(in crate::controller) fn push(&self, key: ModelKey) {
        self.with(|state| {
            if state.waiting.insert(key.clone()) {
                state.order.push_back(key);
            }
        });
        self.wake.notify_one();
    }

    /// The next object, in order of arrival. For one consumer.
    pub(in crate::controller) async fn pop(&self) -> ModelKey {
        loop {
            if let Some(key) = self.with(|state| state.order.pop_front()) {
                return key;
            }
            self.wake.notified().await;
        }
    }

    /// The pass of `key` has begun: whatever happens from now on needs another.
    pub(in crate::controller) fn begun(&self, key: &ModelKey) {
        self.with(|state| state.waiting.remove(key));
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut state);
        self.depth.set(i64::try_from(state.waiting.len()).unwrap_or(i64::MAX));
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_object_waits_once_however_often_it_changes() {
        let depth = Gauge::default();
        let queue = Queue::new(depth.clone());
        let key = |name: &str| ModelKey { namespace: "n".into(), name: name.into() };
        for name in ["a", "b", "a", "a"] {
            queue.push(key(name));
        }
        assert_eq!(depth.get(), 2);
        assert_eq!((queue.pop().await, queue.pop().await), (key("a"), key("b")));
        queue.push(key("a"));
        queue.begun(&key("a"));
        queue.push(key("a"));
        assert_eq!(queue.pop().await, key("a"));
        assert_eq!(depth.get(), 2);
    }
}
