//! Checks a [`Control`] against what a program was compiled for, so that kernels never meet a bad index.
//!
//! Used by every backend at submit; never runs anything.

use std::ops::Range;

use super::{BackendError, Control, KV_BLOCK, TokenSource};
use crate::program::Bucket;

/// What a control may not exceed; `None` where the program does not look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) bucket: Bucket,
    /// Rows of the embedding.
    pub(crate) vocabulary: Option<usize>,
    /// Entries of the last samples.
    pub(crate) sampled: Option<usize>,
    /// Fewest slots of any cache.
    pub(crate) slots: Option<usize>,
}

impl Control {
    /// Adds the rows of one sequence at these positions, but not their tokens; `blocks` holds a block for each.
    pub(crate) fn push_sequence(&mut self, positions: Range<u32>, blocks: Vec<u32>) {
        let slot = |position: u32| {
            let (block, offset) = (position as usize / KV_BLOCK, position as usize % KV_BLOCK);
            i64::from(blocks[block]) * KV_BLOCK as i64 + offset as i64
        };
        self.kv_slots.extend(positions.clone().map(slot));
        self.positions.extend(positions);
        self.rows = self.positions.len();
        self.sequence_starts.push(u32::try_from(self.rows).expect("should fit: bounded by the step's token budget"));
        self.block_tables.push(blocks);
    }
}

impl Bounds {
    /// # Errors
    /// [`BackendError::Misuse`], naming the row and what is allowed.
    pub(crate) fn check(&self, control: &Control) -> Result<(), BackendError> {
        let Control { rows, tokens, positions, kv_slots, sequence_starts, block_tables, samples } = control;
        at_most("rows", *rows, self.bucket.rows)?;
        at_most("samples", samples.len(), self.bucket.samples)?;
        for (what, len) in [("tokens", tokens.len()), ("positions", positions.len()), ("KV slots", kv_slots.len())] {
            if len != *rows {
                return misuse(format!("a control of {rows} rows has {len} {what}"));
            }
        }
        for (row, token) in tokens.iter().enumerate() {
            self.check_token(row, *token)?;
        }
        if let Some(sample) = samples.iter().find(|sample| sample.row as usize >= *rows) {
            return misuse(format!("row {} is sampled; the run has {rows} rows", sample.row));
        }
        if !samples.is_sorted_by_key(|sample| sample.row) {
            return misuse("sampled rows are not ascending".into());
        }
        let counted = block_tables.len() + usize::from(!(block_tables.is_empty() && sequence_starts.is_empty()));
        if sequence_starts.len() != counted || !sequence_starts.is_sorted() {
            return misuse(format!(
                "sequence starts {sequence_starts:?} do not bound {} sequences",
                block_tables.len()
            ));
        }
        at_most("end of sequences", sequence_starts.last().map_or(0, |&end| end as usize), *rows)?;
        self.slots.map_or(Ok(()), |slots| check_slots(control, slots))
    }

    fn check_token(&self, row: usize, token: TokenSource) -> Result<(), BackendError> {
        let (what, value, limit) = match token {
            TokenSource::Host(id) => ("token", id, self.vocabulary),
            TokenSource::Sampled(index) => ("sample", index, self.sampled),
        };
        match limit {
            Some(limit) if value as usize >= limit => misuse(format!("row {row}: {what} {value} is not below {limit}")),
            _ => Ok(()),
        }
    }
}

/// Every row is padding (slot −1) or belongs to a sequence whose block table holds its position.
fn check_slots(control: &Control, slots: usize) -> Result<(), BackendError> {
    let sequences = sequence_of_rows(control);
    for table in &control.block_tables {
        if let Some(block) = table.iter().find(|&&block| (block as usize + 1) * KV_BLOCK > slots) {
            return misuse(format!("block {block} is not among the {} of the cache", slots / KV_BLOCK));
        }
    }
    for (row, (&slot, sequence)) in control.kv_slots.iter().zip(sequences).enumerate() {
        if slot == -1 {
            continue;
        }
        let position = control.positions[row] as usize;
        let block = sequence.and_then(|s| control.block_tables[s].get(position / KV_BLOCK));
        let expected = block.map(|&block| i64::from(block) * KV_BLOCK as i64 + (position % KV_BLOCK) as i64);
        if expected != Some(slot) {
            return misuse(format!(
                "row {row} at position {position} has slot {slot}; its block table says {expected:?}"
            ));
        }
    }
    Ok(())
}

/// The sequence of each row; `None` for rows of no sequence.
pub(crate) fn sequence_of_rows(control: &Control) -> Vec<Option<usize>> {
    let mut of_row = vec![None; control.rows];
    for (sequence, bounds) in control.sequence_starts.windows(2).enumerate() {
        of_row[bounds[0] as usize..bounds[1] as usize].fill(Some(sequence));
    }
    of_row
}

fn at_most(what: &str, value: usize, limit: usize) -> Result<(), BackendError> {
    if value > limit {
        return misuse(format!("{what}: {value}; the program allows at most {limit}"));
    }
    Ok(())
}

fn misuse<T>(message: String) -> Result<T, BackendError> {
    Err(BackendError::Misuse(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds() -> Bounds {
        let bucket = Bucket { rows: 8, samples: 2 };
        Bounds { bucket, vocabulary: Some(10), sampled: Some(2), slots: Some(256) }
    }

    fn control() -> Control {
        Control {
            rows: 3,
            tokens: vec![TokenSource::Host(1), TokenSource::Sampled(0), TokenSource::Host(9)],
            positions: vec![63, 64, 0],
            kv_slots: vec![127, 192, -1],
            sequence_starts: vec![0, 2],
            block_tables: vec![vec![1, 3]],
            samples: Vec::new(),
        }
    }

    fn refused(change: impl FnOnce(&mut Control)) -> String {
        let mut changed = control();
        change(&mut changed);
        bounds().check(&changed).unwrap_err().to_string()
    }

    #[test]
    fn a_control_that_fits_is_accepted() {
        assert_eq!(bounds().check(&control()), Ok(()));
        assert_eq!(bounds().check(&Control::default()), Ok(()));
    }

    #[test]
    fn whatever_does_not_fit_is_refused_by_name() {
        assert_eq!(refused(|c| c.tokens[2] = TokenSource::Host(10)), "row 2: token 10 is not below 10");
        assert_eq!(refused(|c| c.tokens[1] = TokenSource::Sampled(2)), "row 1: sample 2 is not below 2");
        assert_eq!(refused(|c| c.rows = 9), "rows: 9; the program allows at most 8");
        assert_eq!(refused(|c| c.positions.truncate(1)), "a control of 3 rows has 1 positions");
        assert_eq!(refused(|c| c.block_tables[0][1] = 4), "block 4 is not among the 4 of the cache");
        let wrong_slot = "row 1 at position 64 has slot 191; its block table says Some(192)";
        assert_eq!(refused(|c| c.kv_slots[1] = 191), wrong_slot);
        let no_sequence = "row 2 at position 0 has slot 0; its block table says None";
        assert_eq!(refused(|c| c.kv_slots[2] = 0), no_sequence);
        assert_eq!(refused(|c| c.sequence_starts = vec![0, 4]), "end of sequences: 4; the program allows at most 3");
        let unbounded = "sequence starts [0] do not bound 1 sequences";
        assert_eq!(refused(|c| c.sequence_starts = vec![0]), unbounded);
    }
}
