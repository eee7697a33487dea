//! Rows and partial sums between the flat lists of ports and the frames of the wire. Pure; never touches a device.

use std::ops::Range;

use bytes::Bytes;
use shoal_proto::shard::{Partials, Rows};

use super::FRAME_BYTES;
use super::tree::owned_nodes;

/// The only activation format so far: F32, little endian.
pub const ACTIVATION_DTYPE: &str = "f32";

/// Sizes that every frame of a group is checked against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Elements of a row.
    pub hidden: usize,
    /// Experts chosen for a row.
    pub top_k: usize,
    /// Experts of a layer.
    pub experts: u32,
    /// Layers with experts.
    pub layers: usize,
    /// Most rows of a frame.
    pub rows: usize,
}

impl Shape {
    fn row_bytes(&self) -> usize {
        self.hidden * size_of::<f32>()
    }
}

/// A frame that contradicts the group's shape or the frame that it answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FrameError(pub String);

/// A row list as the host reads it from its ports ([`RowList`](crate::ops::RowList)).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RowBatch {
    /// Index of each row in the step, ascending.
    pub row: Vec<u32>,
    /// Entries of each row in `expert` and `weight`.
    pub pairs: Vec<u32>,
    /// Ascending within a row.
    pub expert: Vec<u32>,
    /// Beside `expert`.
    pub weight: Vec<f32>,
    /// Rows of F32.
    pub activation: Bytes,
}

/// One frame under way with the tree nodes that its answer must hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What is sent.
    pub rows: Rows,
    /// Nodes of each row.
    pub nodes: Vec<u32>,
    /// (lo, hi) of each node, row after row.
    pub bounds: Vec<(u32, u32)>,
}

/// Where a batch goes and how it is numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// Of the requester.
    pub step: u64,
    /// Index among the layers with experts.
    pub layer: u32,
    /// Of the first frame.
    pub sequence: u64,
}

/// Cuts a batch into frames so that neither the rows nor their answer exceed 1 MiB (one row is always sent).
#[must_use]
pub fn cut(batch: &RowBatch, shape: &Shape, owned: &[Range<u32>], label: Label) -> Vec<Request> {
    let mut requests: Vec<Request> = Vec::new();
    let mut entry = 0;
    let mut first = 0;
    let mut current = Request { rows: blank(label, 0), nodes: vec![], bounds: vec![] };
    for (index, (&row, &pairs)) in batch.row.iter().zip(&batch.pairs).enumerate() {
        let entries = entry..entry + pairs as usize;
        entry = entries.end;
        let nodes = owned_nodes(shape.experts, owned, &batch.expert[entries.clone()]);
        let sums = (current.bounds.len() + nodes.len()) * (shape.row_bytes() + 16);
        let full = current.rows.row.len() >= shape.rows || sums > FRAME_BYTES;
        if full && !current.rows.row.is_empty() {
            let next = blank(label, requests.len() as u64 + 1);
            requests.push(close(std::mem::replace(&mut current.rows, next), &mut current, batch, first, shape));
            first = index;
        }
        current.rows.row.push(row);
        current.rows.pairs.push(pairs);
        current.rows.expert.extend_from_slice(&batch.expert[entries.clone()]);
        current.rows.weight.extend_from_slice(&batch.weight[entries]);
        current.nodes.push(u32::try_from(nodes.len()).expect("should fit: at most one node per choice"));
        current.bounds.extend(nodes);
    }
    if !current.rows.row.is_empty() {
        let rows = std::mem::take(&mut current.rows);
        requests.push(close(rows, &mut current, batch, first, shape));
    }
    if let Some(last) = requests.last_mut() {
        last.rows.last = true;
    }
    requests
}

fn blank(label: Label, index: u64) -> Rows {
    Rows {
        step: label.step,
        layer: label.layer,
        sequence: label.sequence + index,
        activation_dtype: ACTIVATION_DTYPE.to_owned(),
        ..Rows::default()
    }
}

fn close(mut rows: Rows, lists: &mut Request, batch: &RowBatch, first: usize, shape: &Shape) -> Request {
    let bytes = shape.row_bytes();
    rows.activation = batch.activation.slice(first * bytes..(first + rows.row.len()) * bytes);
    Request { rows, nodes: std::mem::take(&mut lists.nodes), bounds: std::mem::take(&mut lists.bounds) }
}

/// Checks a peer's rows before they reach a device: sizes, order, and that every expert is one of `owned`.
///
/// # Errors
/// [`FrameError`] saying what is wrong and what is allowed.
pub fn check_rows(rows: &Rows, shape: &Shape, owned: &[Range<u32>]) -> Result<(), FrameError> {
    let fail = |text: String| Err(FrameError(text));
    let count = rows.row.len();
    if rows.activation_dtype != ACTIVATION_DTYPE {
        return fail(format!("activation_dtype {:?} is not {ACTIVATION_DTYPE}", rows.activation_dtype));
    }
    if rows.layer as usize >= shape.layers {
        return fail(format!("layer {} is not below {}", rows.layer, shape.layers));
    }
    if count == 0 || count > shape.rows || rows.pairs.len() != count {
        return fail(format!("{count} rows with {} pair counts; 1 to {} are allowed", rows.pairs.len(), shape.rows));
    }
    if !rows.row.is_sorted_by(|a, b| a < b) {
        return fail("the row indices do not ascend".into());
    }
    let pairs: u64 = rows.pairs.iter().map(|&pairs| u64::from(pairs)).sum();
    if pairs != rows.expert.len() as u64 || rows.weight.len() != rows.expert.len() {
        return fail(format!("{pairs} pairs with {} experts and {} weights", rows.expert.len(), rows.weight.len()));
    }
    if rows.activation.len() != count * shape.row_bytes() {
        return fail(format!(
            "{} bytes of activation for {count} rows of {}",
            rows.activation.len(),
            shape.row_bytes()
        ));
    }
    let mut rest = rows.expert.as_slice();
    for &pairs in &rows.pairs {
        let (experts, others) = rest.split_at(pairs as usize);
        rest = others;
        if experts.is_empty() || experts.len() > shape.top_k || !experts.is_sorted_by(|a, b| a < b) {
            return fail(format!("a row chose {experts:?}; 1 to {} ascending ids are allowed", shape.top_k));
        }
        if let Some(alien) = experts.iter().find(|expert| !owned.iter().any(|range| range.contains(expert))) {
            return fail(format!("expert {alien} is not among {owned:?}"));
        }
    }
    Ok(())
}

/// Checks an answer against its request: exactly the expected nodes, exactly their bytes.
///
/// # Errors
/// [`FrameError`]; the step then fails, since a sum that is not understood must never become a token.
pub fn check_partials(partials: &Partials, request: &Request, shape: &Shape) -> Result<(), FrameError> {
    let fail = |text: String| Err(FrameError(text));
    if (partials.step, partials.layer) != (request.rows.step, request.rows.layer) {
        return fail(format!(
            "sums of step {} layer {} answer step {} layer {}",
            partials.step, partials.layer, request.rows.step, request.rows.layer
        ));
    }
    let lo = request.bounds.iter().map(|bounds| bounds.0);
    let hi = request.bounds.iter().map(|bounds| bounds.1);
    if partials.nodes != request.nodes || !lo.eq(partials.lo.iter().copied()) || !hi.eq(partials.hi.iter().copied()) {
        return fail("the tree nodes are not those that the rows hit".into());
    }
    let expected = request.bounds.len() * shape.row_bytes();
    if partials.sum.len() != expected {
        return fail(format!("{} bytes of sums where {expected} are due", partials.sum.len()));
    }
    Ok(())
}

#[cfg(test)]
#[path = "frames/tests.rs"]
mod tests;
