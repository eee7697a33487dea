//! Stacked experts on their way to a backend: one matrix at a time is read and transposed, never the whole tensor.

use super::ModelError;
use super::recipe::{Binding, Part};
use crate::backend::Backend;
use crate::weights::checkpoint::Checkpoint;

/// Uploads a [`Part::Transposed`] binding; returns the bytes read.
pub(super) fn upload(checkpoint: &Checkpoint, binding: &Binding, backend: &dyn Backend) -> Result<u64, ModelError> {
    let Part::Transposed { matrix, shape, element, odd } = binding.part else { return Ok(0) };
    let len = shape[0] * shape[1] * element;
    let mut bytes = Vec::with_capacity(len);
    checkpoint.read_range(&binding.tensor, matrix * len..(matrix + 1) * len, |_, piece| -> Result<(), ModelError> {
        bytes.extend_from_slice(piece);
        Ok(())
    })?;
    let places = [Some((binding.buffer, binding.offset)), odd];
    let step = places.iter().flatten().count();
    for (first, (buffer, offset)) in places.into_iter().flatten().enumerate() {
        backend.upload(buffer, offset, &columns(&bytes, (shape, element), first, step))?;
    }
    Ok(len as u64)
}

/// Columns `first`, `first + step`, … of a matrix \[rows, cols\] of elements of so many bytes, one after another.
fn columns(bytes: &[u8], (shape, element): ([usize; 2], usize), first: usize, step: usize) -> Vec<u8> {
    // Columns walked together: a cache line of every row is then used up before it is given up.
    const BLOCK: usize = 32;
    let [rows, cols] = shape;
    let chosen: Vec<usize> = (first..cols).step_by(step).collect();
    let mut picked = vec![0; chosen.len() * rows * element];
    for (block, columns) in chosen.chunks(BLOCK).enumerate() {
        let target = &mut picked[block * BLOCK * rows * element..];
        for row in 0..rows {
            for (index, column) in columns.iter().enumerate() {
                let from = &bytes[(row * cols + column) * element..][..element];
                target[(index * rows + row) * element..][..element].copy_from_slice(from);
            }
        }
    }
    picked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_become_rows_and_even_and_odd_ones_come_apart() {
        let matrix: Vec<u8> = (0..24).collect();
        assert_eq!(columns(&matrix[..12], ([3, 4], 1), 0, 1), [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]);
        assert_eq!(columns(&matrix[..12], ([3, 4], 1), 1, 2), [1, 5, 9, 3, 7, 11]);
        assert_eq!(columns(&matrix, ([3, 4], 2), 2, 2), [4, 5, 12, 13, 20, 21]);
    }
}
