//! Which tokens a sequence has seen: what the penalties look at.

use std::collections::BTreeMap;

/// Occurrences of one token id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Occurrences {
    /// In the prompt.
    pub prompt: u32,
    /// In the answer so far.
    pub generated: u32,
}

/// Occurrences by token id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenCounts {
    by_id: BTreeMap<u32, Occurrences>,
}

impl TokenCounts {
    /// Counts a prompt.
    #[must_use]
    pub fn of_prompt(ids: &[u32]) -> Self {
        let mut counts = Self::default();
        for &id in ids {
            counts.by_id.entry(id).or_default().prompt += 1;
        }
        counts
    }

    /// Counts one more generated token.
    pub fn push_generated(&mut self, id: u32) {
        self.by_id.entry(id).or_default().generated += 1;
    }

    /// Every id seen, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Occurrences)> + '_ {
        self.by_id.iter().map(|(&id, &occurrences)| (id, occurrences))
    }
}

impl FromIterator<(u32, Occurrences)> for TokenCounts {
    fn from_iter<T: IntoIterator<Item = (u32, Occurrences)>>(counts: T) -> Self {
        Self { by_id: counts.into_iter().collect() }
    }
}
