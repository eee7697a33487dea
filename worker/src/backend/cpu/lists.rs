//! Reads the row lists and partial lists that travel between shards. A list may come from a peer: nothing in it is
//! believed before it is checked.

use crate::backend::BackendError;
use crate::ops::{PartialList, RowList};

use super::run::Run;

/// A checked [`RowList`] without its activations.
pub(super) struct Pairs {
    /// Row of the requester, ascending.
    pub(super) rows: Vec<u32>,
    /// Pairs of row j are `starts[j]..starts[j + 1]`.
    pub(super) starts: Vec<usize>,
    pub(super) experts: Vec<u32>,
    pub(super) weights: Vec<f32>,
}

/// A checked [`PartialList`] without its sums.
pub(super) struct Nodes {
    /// Nodes of row j are `starts[j]..starts[j + 1]`.
    pub(super) starts: Vec<usize>,
    /// First expert and one past the last, ascending and disjoint within a row.
    pub(super) spans: Vec<(u32, u32)>,
}

impl Run {
    pub(super) fn pairs(&self, list: &RowList) -> Result<Pairs, BackendError> {
        let name = &self.memory.get(list.len).decl.name;
        let (rows, experts) = self.sizes(list.len, list.row, list.expert)?;
        let starts = offsets(&self.memory.read(list.pairs)[..rows], experts).ok_or_else(|| unsound(name))?;
        let list = Pairs {
            rows: self.memory.read::<u32>(list.row)[..rows].to_vec(),
            starts,
            experts: self.memory.read::<u32>(list.expert)[..experts].to_vec(),
            weights: self.memory.read::<f32>(list.weight)[..experts].to_vec(),
        };
        let ascending = |all: &[u32]| all.windows(2).all(|two| two[0] < two[1]);
        let sound = list.starts.windows(2).all(|bounds| ascending(&list.experts[bounds[0]..bounds[1]]));
        if sound && ascending(&list.rows) { Ok(list) } else { Err(unsound(name)) }
    }

    /// `rows` is what the list answers.
    pub(super) fn nodes(&self, list: &PartialList, rows: usize) -> Result<Nodes, BackendError> {
        let name = &self.memory.get(list.len).decl.name;
        let (answered, nodes) = self.sizes(list.len, list.nodes, list.lo)?;
        if answered != rows {
            return Err(BackendError::Misuse(format!("{name} answers {answered} rows; {rows} were asked")));
        }
        let starts = offsets(&self.memory.read(list.nodes)[..rows], nodes).ok_or_else(|| unsound(name))?;
        let (lo, hi) = (self.memory.read::<u32>(list.lo), self.memory.read::<u32>(list.hi));
        let spans: Vec<_> = lo[..nodes].iter().copied().zip(hi[..nodes].iter().copied()).collect();
        let of_row_sound = |bounds: &[usize]| {
            let spans = &spans[bounds[0]..bounds[1]];
            spans.iter().all(|span| span.0 < span.1) && spans.windows(2).all(|two| two[0].1 <= two[1].0)
        };
        if starts.windows(2).all(of_row_sound) { Ok(Nodes { starts, spans }) } else { Err(unsound(name)) }
    }

    /// Both lengths of a list, within the capacities of its two kinds of entry.
    fn sizes(
        &self,
        len: crate::program::BufferId,
        rows: crate::program::BufferId,
        entries: crate::program::BufferId,
    ) -> Result<(usize, usize), BackendError> {
        let stored = self.memory.read::<u32>(len);
        let sizes = (stored[0] as usize, stored[1] as usize);
        let capacity = (self.memory.get(rows).decl.rows, self.memory.get(entries).decl.rows);
        if sizes.0 > capacity.0 || sizes.1 > capacity.1 {
            let name = &self.memory.get(len).decl.name;
            return Err(BackendError::Misuse(format!("{name} holds {sizes:?} entries; at most {capacity:?} fit")));
        }
        Ok(sizes)
    }
}

fn unsound(name: &str) -> BackendError {
    BackendError::Misuse(format!("{name}: the list contradicts itself; rows and experts ascend and counts add up"))
}

/// Where the entries of each row begin, and where the last ends, which must be `total`.
fn offsets(counts: &[u32], total: usize) -> Option<Vec<usize>> {
    let mut starts = Vec::with_capacity(counts.len() + 1);
    let mut end = 0_usize;
    starts.push(end);
    for &count in counts {
        end = end.checked_add(count as usize)?;
        starts.push(end);
    }
    (end == total).then_some(starts)
}
