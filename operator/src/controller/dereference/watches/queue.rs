//! Objects that wait for a pass: each at most once, so the queue is never longer than there are objects.
//!
//! Fair: whoever came first goes first. Only as many are handed out as are worked on at once, since whoever runs the
//! passes keeps what it cannot begin yet in no order; and none is handed out twice at a time.

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
    /// Popped or begun, not ended.
    busy: BTreeSet<ModelKey>,
}

/// Objects worked on at once.
pub(in crate::controller) const AT_ONCE: u16 = 16;

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

    /// The next object, in order of arrival, as soon as it can be worked on. For one consumer.
    pub(in crate::controller) async fn pop(&self) -> ModelKey {
        loop {
            if let Some(key) = self.with(State::next) {
                return key;
            }
            self.wake.notified().await;
        }
    }

    /// The pass of `key` has begun: whatever happens from now on needs another.
    pub(in crate::controller) fn begun(&self, key: &ModelKey) {
        self.with(|state| {
            state.waiting.remove(key);
            state.busy.insert(key.clone());
        });
    }

    /// The pass of `key` has ended.
    pub(in crate::controller) fn ended(&self, key: &ModelKey) {
        self.with(|state| state.busy.remove(key));
        self.wake.notify_one();
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut state);
        self.depth.set(i64::try_from(state.waiting.len()).unwrap_or(i64::MAX));
        result
    }
}

impl State {
    fn next(&mut self) -> Option<ModelKey> {
        if self.busy.len() >= usize::from(AT_ONCE) {
            return None;
        }
        let at = self.order.iter().position(|key| !self.busy.contains(key))?;
        let key = self.order.remove(at)?;
        self.busy.insert(key.clone());
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use pretty_assertions::assert_eq;

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
        queue.ended(&key("a"));
        assert_eq!(queue.pop().await, key("a"));
        assert_eq!(depth.get(), 2);
    }

    #[tokio::test]
    async fn who_came_first_goes_first_and_a_busy_object_keeps_its_place_but_holds_up_nobody() {
        let queue = Queue::new(Gauge::default());
        let key = |number: u16| ModelKey { namespace: "n".into(), name: number.to_string() };
        (0..AT_ONCE + 3).for_each(|number| queue.push(key(number)));
        for number in 0..AT_ONCE {
            assert_eq!(queue.pop().now_or_never(), Some(key(number)));
            queue.begun(&key(number));
        }
        assert_eq!(queue.pop().now_or_never(), None, "all lanes are taken");
        queue.push(key(0));
        queue.push(key(1));
        queue.ended(&key(1));
        assert_eq!(queue.pop().now_or_never(), Some(key(AT_ONCE)));
        queue.ended(&key(2));
        assert_eq!(queue.pop().now_or_never(), Some(key(AT_ONCE + 1)));
        queue.ended(&key(3));
        queue.ended(&key(0));
        let rest: Vec<_> = std::iter::from_fn(|| queue.pop().now_or_never()).collect();
        assert_eq!(rest, [AT_ONCE + 2, 0].map(key), "1 waits for a lane");
        queue.ended(&key(4));
        assert_eq!(queue.pop().now_or_never(), Some(key(1)));
    }

    #[tokio::test]
    async fn an_object_is_not_handed_out_while_it_is_worked_on() {
        let queue = Queue::new(Gauge::default());
        let key = |name: &str| ModelKey { namespace: "n".into(), name: name.into() };
        queue.push(key("a"));
        assert_eq!(queue.pop().now_or_never(), Some(key("a")));
        queue.begun(&key("a"));
        queue.push(key("a"));
        queue.push(key("b"));
        assert_eq!(queue.pop().now_or_never(), Some(key("b")), "a has not ended");
        assert_eq!(queue.pop().now_or_never(), None);
        queue.ended(&key("a"));
        assert_eq!(queue.pop().now_or_never(), Some(key("a")));
    }
}
