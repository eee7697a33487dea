//! Cuts an output into its rows or runs and fills them on the pool: a safe door to disjoint writes.
//!
//! Never decides what is written.
#![expect(unsafe_code, reason = "disjoint parts of one slice are written by several threads")]

use crate::program::View;

use super::pool::Pool;

/// A slice that several pieces of one job write, each its own elements.
#[derive(Clone, Copy)]
pub(super) struct Shared {
    start: *mut f32,
}

// SAFETY: a pointer to F32; every use vouches for disjointness.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(super) fn new(slice: &mut [f32]) -> Self {
        Self { start: slice.as_mut_ptr() }
    }

    /// # Safety
    /// `at` is below the slice's length, the slice is still borrowed, and nobody else touches the element during the job.
    #[inline(always)]
    pub(super) unsafe fn set(self, at: usize, value: f32) {
        // SAFETY: the caller vouches for it.
        unsafe { *self.start.add(at) = value };
    }

    /// # Safety
    /// `at + len` is at most the slice's length, the slice is still borrowed, and nobody else touches the part during the job.
    pub(super) unsafe fn part<'a>(self, at: usize, len: usize) -> &'a mut [f32] {
        // SAFETY: the caller vouches for it.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at), len) }
    }
}

/// Where the runs of a view stand in its buffer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Runs {
    /// Live rows.
    pub(super) rows: usize,
    /// Columns of the buffer.
    pub(super) cols: usize,
    /// The columns looked at.
    pub(super) view: View,
}

impl Runs {
    /// Whole rows of a buffer.
    pub(super) fn whole(view: View, rows: usize) -> Self {
        Self { rows, cols: view.width, view }
    }

    /// First element of run `group` of `row`.
    pub(super) fn at(&self, row: usize, group: usize) -> usize {
        row * self.cols + self.view.offset + group * self.view.stride
    }

    /// The elements of a run.
    pub(super) fn of<'a>(&self, buffer: &'a [f32], row: usize, group: usize) -> &'a [f32] {
        &buffer[self.at(row, group)..][..self.view.width]
    }

    fn assert_inside(&self, out: usize) {
        let View { offset, groups, stride, width, .. } = self.view;
        assert!(groups == 1 || stride >= width, "runs of an output should not overlap");
        assert!(offset + (groups - 1) * stride + width <= self.cols, "runs should stay in their row");
        assert!(self.rows * self.cols <= out, "rows should stay in their buffer");
    }

    /// Copies every run out, one behind the other.
    pub(super) fn gather(&self, buffer: &[f32]) -> Vec<f32> {
        let mut all = Vec::with_capacity(self.rows * self.view.groups * self.view.width);
        for row in 0..self.rows {
            for group in 0..self.view.groups {
                all.extend_from_slice(self.of(buffer, row, group));
            }
        }
        all
    }
}

/// Calls `fill(row, group, run)` for every run of `out`; `work` is the multiply-adds of one.
pub(super) fn fill(
    pool: &mut Pool,
    out: &mut [f32],
    runs: Runs,
    work: usize,
    fill: impl Fn(usize, usize, &mut [f32]) + Sync,
) {
    let (groups, width) = (runs.view.groups, runs.view.width);
    let count = runs.rows * groups;
    if count == 0 || width == 0 {
        return;
    }
    runs.assert_inside(out.len());
    let shared = Shared::new(out);
    let pieces = pool.pieces(work.saturating_mul(count), count);
    pool.run(pieces, &|piece| {
        for run in piece * count / pieces..(piece + 1) * count / pieces {
            let (row, group) = (run / groups, run % groups);
            // SAFETY: runs are inside the slice and disjoint, as asserted; each belongs to one piece.
            fill(row, group, unsafe { shared.part(runs.at(row, group), width) });
        }
    });
}

/// As [`fill`], group by group: `prepare(group)` is made once for all rows; `task` is the runs and the work of one.
pub(super) fn fill_by_group<T>(
    pool: &mut Pool,
    out: &mut [f32],
    task: (Runs, usize),
    prepare: impl Fn(usize) -> T + Sync,
    fill: impl Fn(&T, usize, usize, &mut [f32]) + Sync,
) {
    let (runs, work) = task;
    let (groups, width) = (runs.view.groups, runs.view.width);
    if runs.rows == 0 || groups == 0 || width == 0 {
        return;
    }
    runs.assert_inside(out.len());
    let shared = Shared::new(out);
    let pieces = pool.pieces(work.saturating_mul(runs.rows * groups), groups);
    pool.run(pieces, &|piece| {
        for group in piece * groups / pieces..(piece + 1) * groups / pieces {
            let prepared = prepare(group);
            for row in 0..runs.rows {
                // SAFETY: runs are inside the slice and disjoint, as asserted; each belongs to one piece.
                fill(&prepared, row, group, unsafe { shared.part(runs.at(row, group), width) });
            }
        }
    });
}
