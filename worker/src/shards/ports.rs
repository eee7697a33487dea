//! The host's view of row lists and partial lists: plain vectors in and out of ports. Never looks at the numbers.
//!
//! The wire and the ports are little endian, as every host that runs a worker.

use bytes::Bytes;
use shoal_proto::shard::{Partials, Rows};

use super::frames::RowBatch;
use crate::backend::{Backend, BackendError};
use crate::ops::{PartialList, RowList};
use crate::program::BufferId;

/// Reads the rows that a run packed for a peer.
///
/// # Errors
/// [`BackendError`] of the port.
pub fn read_rows(backend: &dyn Backend, list: &RowList, hidden: usize) -> Result<RowBatch, BackendError> {
    let (rows, pairs) = read_len(backend, list.len)?;
    if rows == 0 {
        return Ok(RowBatch::default());
    }
    let mut activation = vec![0; rows * hidden * size_of::<f32>()];
    backend.read_port(list.activation, &mut activation)?;
    Ok(RowBatch {
        row: read(backend, list.row, rows)?,
        pairs: read(backend, list.pairs, rows)?,
        expert: read(backend, list.expert, pairs)?,
        weight: read(backend, list.weight, pairs)?,
        activation: activation.into(),
    })
}

/// Writes a peer's checked rows for the expert lane.
///
/// # Errors
/// [`BackendError`] of the port.
pub fn write_rows(backend: &dyn Backend, list: &RowList, rows: &Rows) -> Result<(), BackendError> {
    write_len(backend, list.len, rows.row.len(), rows.expert.len())?;
    write(backend, list.row, &rows.row)?;
    write(backend, list.pairs, &rows.pairs)?;
    write(backend, list.expert, &rows.expert)?;
    write(backend, list.weight, &rows.weight)?;
    backend.write_port(list.activation, &rows.activation)
}

/// Reads the sums that the expert lane made of `rows`.
///
/// # Errors
/// [`BackendError`] of the port.
pub fn read_partials(
    backend: &dyn Backend,
    list: &PartialList,
    rows: &Rows,
    hidden: usize,
) -> Result<Partials, BackendError> {
    let (count, nodes) = read_len(backend, list.len)?;
    let mut sum = vec![0; nodes * hidden * size_of::<f32>()];
    backend.read_port(list.sum, &mut sum)?;
    Ok(Partials {
        step: rows.step,
        layer: rows.layer,
        sequence: rows.sequence,
        nodes: read(backend, list.nodes, count)?,
        lo: read(backend, list.lo, nodes)?,
        hi: read(backend, list.hi, nodes)?,
        sum: sum.into(),
    })
}

/// Writes a peer's checked sums, frame after frame, for the next segment.
///
/// # Errors
/// [`BackendError`] of the port.
pub fn write_partials(backend: &dyn Backend, list: &PartialList, frames: &[Partials]) -> Result<(), BackendError> {
    let join = |field: fn(&Partials) -> &Vec<u32>| -> Vec<u32> { frames.iter().flat_map(field).copied().collect() };
    let (nodes, lo, hi) = (join(|f| &f.nodes), join(|f| &f.lo), join(|f| &f.hi));
    write_len(backend, list.len, nodes.len(), lo.len())?;
    if nodes.is_empty() {
        return Ok(());
    }
    write(backend, list.nodes, &nodes)?;
    write(backend, list.lo, &lo)?;
    write(backend, list.hi, &hi)?;
    let sum = match frames {
        [frame] => frame.sum.clone(),
        frames => Bytes::from(frames.iter().flat_map(|frame| frame.sum.iter().copied()).collect::<Vec<u8>>()),
    };
    backend.write_port(list.sum, &sum)
}

fn read_len(backend: &dyn Backend, id: BufferId) -> Result<(usize, usize), BackendError> {
    let len: Vec<u32> = read(backend, id, 2)?;
    Ok((len[0] as usize, len[1] as usize))
}

fn write_len(backend: &dyn Backend, id: BufferId, rows: usize, entries: usize) -> Result<(), BackendError> {
    let count = |n: usize| u32::try_from(n).map_err(|_| BackendError::Misuse(format!("a list of {n} entries")));
    write(backend, id, &[count(rows)?, count(entries)?])
}

fn read<T: bytemuck::Pod>(backend: &dyn Backend, id: BufferId, count: usize) -> Result<Vec<T>, BackendError> {
    let mut values = vec![T::zeroed(); count];
    backend.read_port(id, bytemuck::cast_slice_mut(&mut values))?;
    Ok(values)
}

fn write<T: bytemuck::Pod>(backend: &dyn Backend, id: BufferId, values: &[T]) -> Result<(), BackendError> {
    backend.write_port(id, bytemuck::cast_slice(values))
}
