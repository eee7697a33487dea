//! The routed sum, defined once for every split of the experts: S(lo, hi) = S(lo, mid) + S(mid, hi),
//! mid = ⌊(lo + hi)/2⌋, an absent half skipped, never added as 0.
//!
//! ```text
//! 0..8            a shard that owns 0..4 and 6 returns S(0,4) and S(6,7);
//! 0..4   4..8     the owner of the row goes on from there
//! ```

use std::ops::Range;

use crate::backend::BackendError;
use crate::ops::{Op, PartialList, RowList};
use crate::program::{BufferId, View};

use super::run::{Device, Run};
use super::runs::{Runs, fill};

/// Columns summed at once: a stack buffer per level of the tree.
const BLOCK: usize = 128;

/// A known sum over the experts `lo..hi`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Node {
    lo: u32,
    hi: u32,
    /// Which source holds it.
    source: usize,
    /// Its row there.
    row: usize,
}

impl Run {
    pub(super) fn tree_partials(&self, device: &mut Device, op: &Op) -> Result<(), BackendError> {
        let Op::TreePartials { list, terms, owned, experts, out } = op else {
            return Ok(());
        };
        let pairs = self.pairs(list)?;
        let leaf = |pair: usize| Node { lo: pairs.experts[pair], hi: pairs.experts[pair] + 1, source: 0, row: pair };
        let mut sums: Vec<(u32, u32, Vec<Node>)> = Vec::new();
        let mut counts = Vec::with_capacity(pairs.rows.len());
        for bounds in pairs.starts.windows(2) {
            let before = sums.len();
            let leaves: Vec<Node> = (bounds[0]..bounds[1]).map(leaf).collect();
            if let Some(stranger) = leaves.iter().find(|leaf| !holds(owned, leaf.lo, leaf.hi)) {
                let message = format!("tree_partials: expert {} is not owned here; owned: {owned:?}", stranger.lo);
                return Err(BackendError::Misuse(message));
            }
            maximal(&leaves, (0, *experts), owned, &mut sums);
            counts.push((sums.len() - before) as u32);
        }
        self.write_nodes(out, &counts, &sums)?;
        let (terms, hidden) = (self.memory.read::<f32>(*terms), self.memory.cols(out.sum));
        let mut sum = self.memory.write::<f32>(out.sum);
        let runs = Runs::whole(View::columns(out.sum, 0, hidden), sums.len());
        fill(&mut device.pool, &mut sum, runs, hidden * 2, |node, _, out| {
            let (lo, hi, leaves) = &sums[node];
            add_up(leaves, (*lo, *hi), &[&terms], out);
        });
        Ok(())
    }

    fn write_nodes(
        &self,
        out: &PartialList,
        counts: &[u32],
        sums: &[(u32, u32, Vec<Node>)],
    ) -> Result<(), BackendError> {
        let (mut nodes, mut lo) = (self.memory.write::<u32>(out.nodes), self.memory.write::<u32>(out.lo));
        if counts.len() > nodes.len() || sums.len() > lo.len() {
            let name = &self.memory.get(out.lo).decl.name;
            return Err(BackendError::Misuse(format!("tree_partials: {name} has no room for {} sums", sums.len())));
        }
        let mut hi = self.memory.write::<u32>(out.hi);
        nodes[..counts.len()].copy_from_slice(counts);
        for (slot, sum) in sums.iter().enumerate() {
            (lo[slot], hi[slot]) = (sum.0, sum.1);
        }
        self.memory.write::<u32>(out.len).copy_from_slice(&[counts.len() as u32, sums.len() as u32]);
        Ok(())
    }

    pub(super) fn tree_combine(
        &self,
        device: &mut Device,
        parts: &[(RowList, PartialList)],
        experts: u32,
        out: BufferId,
    ) -> Result<(), BackendError> {
        let rows = self.control.rows;
        let mut of_row: Vec<Vec<Node>> = vec![Vec::new(); rows];
        for (source, (list, partials)) in parts.iter().enumerate() {
            let pairs = self.pairs(list)?;
            if pairs.rows.is_empty() {
                continue;
            }
            let nodes = self.nodes(partials, pairs.rows.len())?;
            let name = &self.memory.get(partials.len).decl.name;
            for (&row, bounds) in pairs.rows.iter().zip(nodes.starts.windows(2)) {
                let Some(known) = of_row.get_mut(row as usize) else {
                    return Err(BackendError::Misuse(format!("tree_combine: {name} names row {row} of {rows}")));
                };
                for row in bounds[0]..bounds[1] {
                    let (lo, hi) = nodes.spans[row];
                    if !is_node((lo, hi), experts) {
                        let message = format!("tree_combine: {name} holds {lo}..{hi}, no node over {experts} experts");
                        return Err(BackendError::Misuse(message));
                    }
                    known.push(Node { lo, hi, source, row });
                }
            }
        }
        for (row, known) in of_row.iter_mut().enumerate() {
            known.sort_unstable_by_key(|node| node.lo);
            if known.windows(2).any(|two| two[0].hi > two[1].lo) {
                return Err(BackendError::Misuse(format!(
                    "tree_combine: two shards sent the same expert of row {row}"
                )));
            }
        }
        let sums: Vec<_> = parts.iter().map(|(_, partials)| self.memory.read::<f32>(partials.sum)).collect();
        let sources: Vec<&[f32]> = sums.iter().map(|sum| &**sum).collect();
        let hidden = self.memory.cols(out);
        let mut out_rows = self.memory.write::<f32>(out);
        let runs = Runs::whole(View::columns(out, 0, hidden), rows);
        fill(&mut device.pool, &mut out_rows, runs, hidden * 2, |row, _, out| {
            if of_row[row].is_empty() {
                out.fill(0.0);
            } else {
                add_up(&of_row[row], (0, experts), &sources, out);
            }
        });
        Ok(())
    }
}

/// Pushes the maximal nodes in `span` that `owned` holds whole and that have leaves.
fn maximal(leaves: &[Node], span: (u32, u32), owned: &[Range<u32>], out: &mut Vec<(u32, u32, Vec<Node>)>) {
    let (lo, hi) = span;
    if leaves.is_empty() {
        return;
    }
    if holds(owned, lo, hi) {
        out.push((lo, hi, leaves.to_vec()));
        return;
    }
    let mid = middle(lo, hi);
    let (left, right) = leaves.split_at(leaves.partition_point(|leaf| leaf.hi <= mid));
    maximal(left, (lo, mid), owned, out);
    maximal(right, (mid, hi), owned, out);
}

fn middle(lo: u32, hi: u32) -> u32 {
    lo + (hi - lo) / 2
}

/// Whether all of `lo..hi` is owned; ranges are ascending and disjoint.
fn holds(owned: &[Range<u32>], lo: u32, hi: u32) -> bool {
    let overlap = |range: &Range<u32>| range.end.min(hi).saturating_sub(range.start.max(lo));
    owned.iter().map(overlap).sum::<u32>() == hi - lo
}

/// Whether halving `0..experts` ever gives `span`.
fn is_node(span: (u32, u32), experts: u32) -> bool {
    let (mut lo, mut hi) = (0, experts);
    while (lo, hi) != span {
        let mid = middle(lo, hi);
        if hi.saturating_sub(lo) <= 1 {
            return false;
        }
        (lo, hi) = if span.0 < mid { (lo, mid) } else { (mid, hi) };
    }
    true
}

/// out = S(span) over known nodes, which are nodes of the tree in `span`, ascending, disjoint, at least one.
fn add_up(nodes: &[Node], span: (u32, u32), sources: &[&[f32]], out: &mut [f32]) {
    let width = out.len();
    for (index, out) in out.chunks_mut(BLOCK).enumerate() {
        add_up_block(nodes, span, &|node| &sources[node.source][node.row * width + index * BLOCK..], out);
    }
}

fn add_up_block<'a>(nodes: &[Node], span: (u32, u32), values: &impl Fn(&Node) -> &'a [f32], out: &mut [f32]) {
    if let [node] = nodes {
        out.copy_from_slice(&values(node)[..out.len()]);
        return;
    }
    let mid = middle(span.0, span.1);
    let (left, right) = nodes.split_at(nodes.partition_point(|node| node.hi <= mid));
    if left.is_empty() || right.is_empty() {
        let half = if left.is_empty() { (mid, span.1) } else { (span.0, mid) };
        add_up_block(nodes, half, values, out);
        return;
    }
    let mut other = [0.0; BLOCK];
    let other = &mut other[..out.len()];
    add_up_block(left, (span.0, mid), values, out);
    add_up_block(right, (mid, span.1), values, other);
    out.iter_mut().zip(other).for_each(|(out, other)| *out += *other);
}
