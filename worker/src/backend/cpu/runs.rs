//! Cuts an output into its rows or runs and fills them on the pool: a safe door to disjoint writes.
//!
//! Never decides what is written.
#![expect(unsafe_code, reason = "disjoint parts of one slice are written by several threads")]

use std::ops::Range;

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

    /// The elements of run `group` of some rows.
    pub(super) fn rows_of<'a>(&self, buffer: &'a [f32], group: usize, rows: Range<usize>) -> Vec<&'a [f32]> {
        rows.map(|row| self.of(buffer, row, group)).collect()
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

/// Runs that are best filled together: of some rows, neighbouring groups, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) rows: Range<usize>,
    pub(super) groups: Range<usize>,
}

impl Line {
    /// The lines of some bands of rows, ascending, with `together` of all groups in each line.
    ///
    /// # Panics
    /// When bands overlap, or groups do not divide.
    pub(super) fn all(bands: &[Range<usize>], groups: usize, together: usize) -> Vec<Self> {
        assert!(bands.windows(2).all(|two| two[0].end <= two[1].start), "bands should be disjoint");
        assert!(together > 0 && groups.is_multiple_of(together), "every line should have as many groups");
        let of = |rows: &Range<usize>| {
            let rows = rows.clone();
            (0..groups).step_by(together).map(move |first| Self { rows: rows.clone(), groups: first..first + together })
        };
        bands.iter().flat_map(of).collect()
    }

    fn places(&self) -> usize {
        self.rows.len() * self.groups.len()
    }

    /// Row and group of a place.
    pub(super) fn at(&self, place: usize) -> (usize, usize) {
        (self.rows.start + place / self.groups.len(), self.groups.start + place % self.groups.len())
    }
}

/// Calls `fill(line, first, runs)` for neighbours of one line, `first` being the place of the first of them in the line:
/// many at a time, at best multiples of four, and no more than leave every thread its part. `task` is the runs and the
/// multiply-adds of one; `lines` are of [`Line::all`].
pub(super) fn fill_lines(
    pool: &mut Pool,
    out: &mut [f32],
    task: (Runs, usize),
    lines: &[Line],
    fill: impl Fn(&Line, usize, &mut [&mut [f32]]) + Sync,
) {
    let (runs, work) = task;
    if runs.view.width == 0 {
        return;
    }
    let inside = |line: &Line| line.rows.end <= runs.rows && line.groups.end <= runs.view.groups;
    assert!(lines.iter().all(inside), "lines should be among the runs");
    runs.assert_inside(out.len());
    let shared = Shared::new(out);
    let (unit, pieces) = cut(pool, work, lines);
    let starts = |line: usize| (0..lines[line].places()).step_by(unit).map(move |place| (line, place));
    let units: Vec<(usize, usize)> = (0..lines.len()).flat_map(starts).collect();
    pool.run(pieces, &|piece| {
        let own = &units[units.len() * piece / pieces..units.len() * (piece + 1) / pieces];
        for units in own.chunk_by(|one, next| one.0 == next.0) {
            let (Some(&(line, first)), Some(&(_, last))) = (units.first(), units.last()) else { continue };
            let line = &lines[line];
            let part = |place: usize| {
                let (row, group) = line.at(place);
                // SAFETY: runs are inside the slice and disjoint, as asserted; each belongs to one piece.
                unsafe { shared.part(runs.at(row, group), runs.view.width) }
            };
            fill(line, first, &mut (first..line.places().min(last + unit)).map(part).collect::<Vec<_>>());
        }
    });
}

/// How many places of a line stay together, and the pieces: as many together as leave a piece for every thread, and half
/// of the pieces that single ones would make.
fn cut(pool: &Pool, work: usize, lines: &[Line]) -> (usize, usize) {
    let count = lines.iter().map(Line::places).sum();
    let all = work.saturating_mul(count);
    let wanted = pool.pieces(all, count);
    let units = |unit: usize| lines.iter().map(|line| line.places().div_ceil(unit)).sum();
    let least = wanted.div_ceil(2).max(wanted.min(pool.threads()));
    let unit = [4, 2].into_iter().find(|&unit| units(unit) >= least).unwrap_or(1);
    (unit, pool.pieces(all, units(unit)))
}

/// Calls `fill(prepared, group, runs)` group by group, with the runs of all rows; `prepare(group)` is made once for them.
/// `task` is the runs and the multiply-adds of one.
pub(super) fn fill_by_group<T>(
    pool: &mut Pool,
    out: &mut [f32],
    task: (Runs, usize),
    prepare: impl Fn(usize) -> T + Sync,
    fill: impl Fn(&T, usize, &mut [&mut [f32]]) + Sync,
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
            // SAFETY: runs are inside the slice and disjoint, as asserted; each belongs to one piece.
            let part = |row: usize| unsafe { shared.part(runs.at(row, group), width) };
            fill(&prepare(group), group, &mut (0..runs.rows).map(part).collect::<Vec<_>>());
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::program::BufferId;

    #[test]
    fn every_run_is_given_out_once_whatever_stands_together() {
        for (threads, rows, groups, together) in
            [(1, 1, 1, 1), (1, 5, 7, 1), (2, 1, 3, 3), (2, 1, 16, 16), (3, 64, 6, 3), (5, 2, 9, 9), (2, 33, 8, 2)]
        {
            let mut pool = Pool::new(threads, Arc::default()).unwrap();
            let view = View { buffer: BufferId(0), offset: 1, groups, stride: 3, width: 2 };
            let runs = Runs { rows, cols: 3 * groups + 1, view };
            for size in [1, 3, rows] {
                let bands: Vec<_> = (0..rows).step_by(size).map(|at| at..rows.min(at + size)).collect();
                let lines = Line::all(&bands, groups, together);
                for work in [1, 1 << 14, 1 << 24] {
                    let mut out = vec![0.0; rows * runs.cols];
                    fill_lines(&mut pool, &mut out, (runs, work), &lines, |line, first, parts| {
                        for (place, part) in (first..).zip(parts) {
                            let (row, group) = line.at(place);
                            part.iter_mut().for_each(|out| *out += (1 + row * groups + group) as f32);
                        }
                    });
                    let place = |at: usize| (at / runs.cols, (at % runs.cols).checked_sub(1));
                    let expected = (0..out.len()).map(|at| match place(at) {
                        (row, Some(column)) if column % 3 < 2 => (1 + row * groups + column / 3) as f32,
                        _ => 0.0,
                    });
                    assert_eq!(out, expected.collect::<Vec<_>>(), "{threads} threads, {rows} × {groups}, {bands:?}");
                }
            }
        }
    }

    #[test]
    fn one_row_of_few_heads_still_keeps_every_thread_busy() {
        let pool = |threads| Pool::new(threads, Arc::default()).unwrap();
        let work = 1 << 20;
        // (threads, heads) -> (heads together, pieces)
        let two = [((1, 16), (4, 1)), ((2, 16), (4, 4)), ((2, 4), (2, 2)), ((2, 3), (2, 2))];
        let table = two.into_iter().chain([((4, 16), (2, 8)), ((8, 5), (1, 5)), ((8, 16), (2, 8))]);
        let lines = |rows: Range<usize>, heads: usize| Line::all(&[rows], heads, heads);
        for ((threads, heads), expected) in table {
            assert_eq!(cut(&pool(threads), work, &lines(0..1, heads)), expected, "{threads} threads, {heads} heads");
        }
        assert_eq!(cut(&pool(2), work, &lines(0..64, 16)), (4, 8));
    }
}
