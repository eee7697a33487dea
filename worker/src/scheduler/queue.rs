//! Who waits, and who is next: priority, then the tenant that was served least, then arrival; nobody is overtaken for
//! ever. After the virtual token counter of Sheng et al., "Fairness in Serving Large Language Models", 2024.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::sequence::Sequence;
use super::{OVERTAKEN, RequestId};

/// Requests without blocks, and what their tenants have had.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Vec<Sequence>,
    /// Of tenants that have requests.
    tenants: BTreeMap<Arc<str>, Account>,
}

#[derive(Debug)]
struct Account {
    requests: usize,
    /// Tokens computed for it since it has had requests, above what the others had then.
    served: u64,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The name under which a tenant's requests are counted, and one more of them. Who comes anew has had as much as who
    /// was served least: neither owed for its absence nor behind.
    pub(super) fn open(&mut self, tenant: &str) -> Arc<str> {
        let least = self.tenants.values().map(|account| account.served).min().unwrap_or(0);
        let known = self.tenants.get_key_value(tenant).map(|(name, _)| Arc::clone(name));
        let name = known.unwrap_or_else(|| tenant.into());
        self.tenants.entry(Arc::clone(&name)).or_insert(Account { requests: 0, served: least }).requests += 1;
        name
    }

    /// One request of a tenant is over.
    pub(super) fn close(&mut self, tenant: &Arc<str>) {
        let Some(account) = self.tenants.get_mut(tenant) else { return };
        account.requests -= 1;
        if account.requests == 0 {
            self.tenants.remove(tenant);
        }
    }

    pub(super) fn served(&mut self, tenant: &Arc<str>, tokens: u32) {
        if let Some(account) = self.tenants.get_mut(tenant) {
            account.served += u64::from(tokens);
        }
    }

    pub(super) fn push(&mut self, sequence: Sequence) {
        self.waiting.push(sequence);
    }

    /// Index of the request that must begin before any other.
    pub(super) fn next(&self) -> Option<usize> {
        let rank = |sequence: &Sequence| {
            let aged = sequence.overtaken >= OVERTAKEN;
            let served = self.tenants.get(&sequence.tenant).map_or(0, |account| account.served);
            let (priority, served) = if aged { (0, 0) } else { (sequence.admission.priority, served) };
            (Reverse(aged), Reverse(priority), served, sequence.arrival)
        };
        (0..self.waiting.len()).min_by_key(|&index| rank(&self.waiting[index]))
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut Sequence> {
        self.waiting.get_mut(index)
    }

    /// Takes out the request that begins now.
    pub(super) fn begin(&mut self, index: usize) -> Sequence {
        let begun = self.waiting.swap_remove(index);
        for sequence in self.waiting.iter_mut().filter(|sequence| sequence.arrival < begun.arrival) {
            sequence.overtaken = sequence.overtaken.saturating_add(1);
        }
        begun
    }

    /// Takes out one that will never begin.
    pub(super) fn remove(&mut self, id: RequestId) -> Option<Sequence> {
        let index = self.waiting.iter().position(|sequence| sequence.id() == id)?;
        Some(self.waiting.swap_remove(index))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Sequence> {
        self.waiting.iter()
    }
}
