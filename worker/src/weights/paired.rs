//! gpt-oss's MXFP4: all experts of a layer in `NAME_blocks` \[experts, rows, cols/32, 16\], neighbours in a byte, and
//! `NAME_scales` \[experts, rows, cols/32\]; gate and up rows take turns in `gate_up_proj`.
//!
//! Recipes see one matrix an expert, in GGUF's layout, of as many bytes: it is repacked piece by piece while it is read.

use super::checkpoint::Checkpoint;
use super::{Entry, WeightsError};
use crate::formats::mxfp4;
use crate::program::Dtype;

/// Repacked bytes of one piece, about.
const PIECE_BYTES: usize = 1 << 20;

/// One matrix of one expert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Paired {
    blocks: String,
    scales: String,
    expert: usize,
    /// Its first row among those of the expert, and the distance to the next.
    rows: (usize, usize),
}

impl Paired {
    /// What `experts.E.{gate,up,down}_proj.weight` is in such files.
    pub(super) fn of(name: &str) -> Option<Self> {
        let (prefix, rest) = name.split_once(".experts.")?;
        let (expert, part) = rest.split_once('.')?;
        let (stack, rows) = match part {
            "gate_proj.weight" => ("gate_up_proj", (0, 2)),
            "up_proj.weight" => ("gate_up_proj", (1, 2)),
            "down_proj.weight" => ("down_proj", (0, 1)),
            _ => return None,
        };
        let tensor = |end: &str| format!("{prefix}.experts.{stack}_{end}");
        Some(Self { blocks: tensor("blocks"), scales: tensor("scales"), expert: expert.parse().ok()?, rows })
    }

    /// Rows and columns of the matrix, when the checkpoint has both tensors and they fit each other.
    pub(super) fn shape(&self, checkpoint: &Checkpoint) -> Option<[usize; 2]> {
        let bytes = |name: &str| checkpoint.entry(name).filter(|entry| entry.dtype == Err("U8".to_owned()));
        let (blocks, scales) = (bytes(&self.blocks)?, bytes(&self.scales)?);
        let ([experts, rows, count, mxfp4::PAIRED_BYTES], [same, many, each]) = (fixed(&blocks)?, fixed(&scales)?)
        else {
            return None;
        };
        let fits =
            (experts, rows, count) == (same, many, each) && self.expert < experts && rows.is_multiple_of(self.rows.1);
        fits.then_some([rows / self.rows.1, count * mxfp4::ELEMENTS])
    }

    /// Reads the matrix as MXFP4 blocks in consecutive pieces: `each(offset, bytes)`.
    pub(super) fn read<E: From<WeightsError>>(
        &self,
        checkpoint: &Checkpoint,
        shape: [usize; 2],
        mut each: impl FnMut(usize, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let (first, step) = self.rows;
        let (rows, count) = (shape[0], shape[1] / mxfp4::ELEMENTS);
        let at_once = (PIECE_BYTES / (count * mxfp4::BYTES).max(1)).max(1);
        let (mut paired, mut scales, mut piece) = (Vec::new(), Vec::new(), Vec::new());
        for start in (0..rows).step_by(at_once) {
            let some = at_once.min(rows - start);
            // Rows of both kinds are neighbours, and are read together.
            let begin = (self.expert * rows + start) * step * count;
            let blocks = some * step * count;
            checkpoint.read_bytes(
                &self.blocks,
                begin * mxfp4::PAIRED_BYTES,
                blocks * mxfp4::PAIRED_BYTES,
                &mut paired,
            )?;
            checkpoint.read_bytes(&self.scales, begin, blocks, &mut scales)?;
            piece.clear();
            let (paired, _) = paired.as_chunks::<{ mxfp4::PAIRED_BYTES }>();
            for row in (first..some * step).step_by(step) {
                let own = row * count..(row + 1) * count;
                for (&scale, paired) in scales[own.clone()].iter().zip(&paired[own]) {
                    piece.extend(mxfp4::from_paired(scale, paired));
                }
            }
            let offset = start * count * mxfp4::BYTES;
            if let Some(element) = Dtype::Mxfp4.first_not_finite(&piece) {
                let element = start * shape[1] + element;
                return Err(WeightsError::NotFinite { name: self.blocks.clone(), element }.into());
            }
            each(offset, &piece)?;
        }
        Ok(())
    }
}

fn fixed<const N: usize>(entry: &Entry) -> Option<[usize; N]> {
    entry.shape.as_slice().try_into().ok()
}
