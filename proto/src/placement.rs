//! [`Placement`] as text (an argument) and as something that cannot be wrong.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;

use crate::shard::{self, Strategy};

/// The longest encoded placement, in bytes of base64.
pub const MAX_PLACEMENT_BYTES: usize = 16 * 1024;
/// The most shards of one group.
pub const MAX_SHARDS: usize = 64;
const VERSION: u32 = 1;

/// Why a placement was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlacementError {
    /// Longer than [`MAX_PLACEMENT_BYTES`].
    #[error("placement has {0} bytes; at most {MAX_PLACEMENT_BYTES} are allowed")]
    TooLong(usize),
    /// Not base64, or not the message.
    #[error("placement is not a base64 Placement message: {0}")]
    Encoding(String),
    /// Another version of the message.
    #[error("placement version {0} is not supported; supported: {VERSION}")]
    Version(u32),
    /// A strategy this build cannot run.
    #[error("placement strategy {0} is not supported; supported: EXPERTS, PIPELINE")]
    Strategy(String),
    /// No shard, or too many.
    #[error("placement has {0} shards; 1 to {MAX_SHARDS} are allowed")]
    Shards(usize),
    /// The ranges leave an expert or a layer out, own one twice, or run past the end.
    #[error("placement does not tile {what}s 0..{count}: {problem}")]
    Tiling {
        /// `expert` or `layer`.
        what: &'static str,
        /// How many the model has.
        count: u32,
        /// The first thing found wrong.
        problem: String,
    },
}

/// A checked placement: its ranges tile what is divided exactly once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    strategy: Strategy,
    count: u32,
    shards: Vec<Vec<Range<u32>>>,
}

impl Placement {
    /// Splits `experts` into `shards` contiguous ranges whose sizes differ by at most one; the larger come first.
    ///
    /// # Errors
    /// When `shards` is 0 or above [`MAX_SHARDS`].
    pub fn even(experts: u32, shards: usize) -> Result<Self, PlacementError> {
        Self::new(experts, even_ranges(experts, shards)?)
    }

    /// Checks that `shards[rank]` are ascending ranges that tile `0..experts` exactly once.
    ///
    /// # Errors
    /// [`PlacementError::Shards`] or [`PlacementError::Tiling`].
    pub fn new(experts: u32, shards: Vec<Vec<Range<u32>>>) -> Result<Self, PlacementError> {
        check_tiling("expert", experts, &shards)?;
        Ok(Self { strategy: Strategy::Experts, count: experts, shards })
    }

    /// A pipeline whose rank r computes layers `stages[r]`: together `0..layers`, in order, at least one each.
    ///
    /// # Errors
    /// [`PlacementError::Shards`] or [`PlacementError::Tiling`].
    pub fn pipeline(layers: u32, stages: Vec<Range<u32>>) -> Result<Self, PlacementError> {
        if !stages.is_sorted_by_key(|stage| stage.start) {
            let problem = "the stages are not in the order of their ranks".to_owned();
            return Err(PlacementError::Tiling { what: "layer", count: layers, problem });
        }
        let shards: Vec<_> = stages.into_iter().map(|stage| vec![stage]).collect();
        check_tiling("layer", layers, &shards)?;
        Ok(Self { strategy: Strategy::Pipeline, count: layers, shards })
    }

    /// A pipeline whose stages differ by at most one layer; the longer come first.
    ///
    /// # Errors
    /// When `shards` is 0, above [`MAX_SHARDS`] or above `layers`.
    pub fn even_pipeline(layers: u32, shards: usize) -> Result<Self, PlacementError> {
        let stages = even_ranges(layers, shards)?.into_iter().map(|ranges| {
            let problem = || format!("{shards} stages are more than there are layers");
            ranges.into_iter().next().ok_or_else(|| PlacementError::Tiling {
                what: "layer",
                count: layers,
                problem: problem(),
            })
        });
        Self::pipeline(layers, stages.collect::<Result<_, _>>()?)
    }

    /// For who does not know how many experts the model has: every shard divides them evenly once it does.
    ///
    /// # Errors
    /// When `shards` is 0 or above [`MAX_SHARDS`].
    pub fn undecided(shards: usize) -> Result<Self, PlacementError> {
        Self::even(0, shards)
    }

    /// As [`Self::undecided`], of layers.
    ///
    /// # Errors
    /// When `shards` is 0 or above [`MAX_SHARDS`].
    pub fn undecided_pipeline(shards: usize) -> Result<Self, PlacementError> {
        Ok(Self { strategy: Strategy::Pipeline, ..Self::undecided(shards)? })
    }

    /// This placement for a model with so many experts and layers: the even one if it was undecided, else itself.
    ///
    /// # Errors
    /// [`PlacementError::Tiling`] when there are more stages than layers.
    pub fn decided(&self, experts: u32, layers: u32) -> Result<Self, PlacementError> {
        match (self.count, self.strategy) {
            (0, Strategy::Pipeline) => Self::even_pipeline(layers, self.size()),
            (0, _) => Self::even(experts, self.size()),
            _ => Ok(self.clone()),
        }
    }

    /// Along what the model is divided: `Experts` or `Pipeline`.
    #[must_use]
    pub fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// How many experts of a layer, or layers, are divided; 0 while undecided.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// How many shards the group has.
    #[must_use]
    pub fn size(&self) -> usize {
        self.shards.len()
    }

    /// The ranges of experts, or the one of layers, that `rank` owns, ascending; empty for an unknown rank.
    #[must_use]
    pub fn ranges(&self, rank: usize) -> &[Range<u32>] {
        self.shards.get(rank).map_or(&[], Vec::as_slice)
    }

    /// The rank that owns expert or layer `index`.
    #[must_use]
    pub fn owner(&self, index: u32) -> Option<usize> {
        self.shards.iter().position(|ranges| ranges.iter().any(|range| range.contains(&index)))
    }

    /// The message, for the wire and for fingerprints.
    #[must_use]
    pub fn to_message(&self) -> shard::Placement {
        let pipeline = self.strategy == Strategy::Pipeline;
        let shard = |ranges: &Vec<Range<u32>>| {
            let experts = ranges.iter().map(|r| shard::ExpertRange { begin: r.start, end: r.end });
            let layers = ranges.first().map(|r| shard::LayerRange { begin: r.start, end: r.end });
            if pipeline {
                shard::ShardPlacement { layers, ..Default::default() }
            } else {
                shard::ShardPlacement { experts: experts.collect(), layers: None }
            }
        };
        shard::Placement {
            version: VERSION,
            strategy: self.strategy.into(),
            experts: if pipeline { 0 } else { self.count },
            layers: if pipeline { self.count } else { 0 },
            shards: self.shards.iter().map(shard).collect(),
        }
    }

    /// The argument of `--placement`.
    #[must_use]
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.to_message().encode_to_vec())
    }

    /// Reads the argument of `--placement`.
    ///
    /// # Errors
    /// Any [`PlacementError`], naming what is wrong and what is allowed.
    pub fn from_base64(text: &str) -> Result<Self, PlacementError> {
        if text.len() > MAX_PLACEMENT_BYTES {
            return Err(PlacementError::TooLong(text.len()));
        }
        let bytes = STANDARD.decode(text).map_err(|error| PlacementError::Encoding(error.to_string()))?;
        let message =
            shard::Placement::decode(bytes.as_slice()).map_err(|error| PlacementError::Encoding(error.to_string()))?;
        if message.version != VERSION {
            return Err(PlacementError::Version(message.version));
        }
        match message.strategy() {
            Strategy::Experts => {
                let ranges = |shard: &shard::ShardPlacement| shard.experts.iter().map(|r| r.begin..r.end).collect();
                Self::new(message.experts, message.shards.iter().map(ranges).collect())
            }
            Strategy::Pipeline if message.layers == 0 => Self::undecided_pipeline(message.shards.len()),
            Strategy::Pipeline => {
                let stage = |shard: &shard::ShardPlacement| shard.layers.map_or(0..0, |r| r.begin..r.end);
                Self::pipeline(message.layers, message.shards.iter().map(stage).collect())
            }
            Strategy::Unspecified => {
                // An unknown number decodes as unspecified too; the number says which it was.
                Err(PlacementError::Strategy(message.strategy.to_string()))
            }
        }
    }
}

fn even_ranges(total: u32, shards: usize) -> Result<Vec<Vec<Range<u32>>>, PlacementError> {
    let count = u32::try_from(shards).map_err(|_| PlacementError::Shards(shards))?;
    if shards == 0 || shards > MAX_SHARDS {
        return Err(PlacementError::Shards(shards));
    }
    let mut begin = 0;
    let ranges = (0..count).map(|rank| {
        let len = total / count + u32::from(rank < total % count);
        let range = begin..begin + len;
        begin += len;
        if range.is_empty() { vec![] } else { vec![range] }
    });
    Ok(ranges.collect())
}

fn check_tiling(what: &'static str, count: u32, shards: &[Vec<Range<u32>>]) -> Result<(), PlacementError> {
    if shards.is_empty() || shards.len() > MAX_SHARDS {
        return Err(PlacementError::Shards(shards.len()));
    }
    let tiling = |problem: String| PlacementError::Tiling { what, count, problem };
    let mut all: Vec<(u32, u32, usize)> = Vec::new();
    for (rank, ranges) in shards.iter().enumerate() {
        for range in ranges {
            if range.start >= range.end {
                return Err(tiling(format!("rank {rank} has the empty range {}..{}", range.start, range.end)));
            }
            all.push((range.start, range.end, rank));
        }
        if !ranges.is_sorted_by(|a, b| a.end <= b.start) {
            return Err(tiling(format!("the ranges of rank {rank} are not ascending")));
        }
    }
    all.sort_unstable();
    let mut next = 0;
    for (begin, end, rank) in all {
        if begin != next {
            let verb = if begin > next { "missing before" } else { "owned twice at" };
            return Err(tiling(format!("{what} {} is {verb} {begin}..{end} of rank {rank}", begin.min(next))));
        }
        next = end;
    }
    if next != count {
        return Err(tiling(format!("the ranges end at {next}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_even_split_gives_the_larger_shares_first_and_survives_the_wire() {
        let placement = Placement::even(10, 4).unwrap();
        assert_eq!(
            (0..4).map(|r| placement.ranges(r).to_vec()).collect::<Vec<_>>(),
            vec![vec![0..3], vec![3..6], vec![6..8], vec![8..10]]
        );
        assert_eq!(Placement::from_base64(&placement.to_base64()), Ok(placement));
    }

    #[test]
    fn an_undecided_placement_becomes_the_even_one_and_a_decided_one_stays() {
        let undecided = Placement::from_base64(&Placement::undecided(3).unwrap().to_base64()).unwrap();
        let even = Placement::even(8, 3).unwrap();
        assert_eq!(undecided.decided(8, 3), Ok(even.clone()));
        assert_eq!(even.decided(9, 3), Ok(even));
        let undecided = Placement::from_base64(&Placement::undecided_pipeline(3).unwrap().to_base64()).unwrap();
        assert_eq!(undecided.decided(8, 7), Placement::even_pipeline(7, 3));
        let text = undecided.decided(8, 2).unwrap_err().to_string();
        assert_eq!(text, "placement does not tile layers 0..2: 3 stages are more than there are layers");
    }

    #[test]
    fn stages_of_a_pipeline_follow_one_another_and_survive_the_wire() {
        let placement = Placement::pipeline(9, vec![0..2, 2..8, 8..9]).unwrap();
        assert_eq!(Placement::from_base64(&placement.to_base64()).as_ref(), Ok(&placement));
        assert_eq!((placement.owner(7), placement.ranges(2).to_vec()), (Some(1), vec![Range { start: 8, end: 9 }]));
        let text = |stages| Placement::pipeline(4, stages).unwrap_err().to_string();
        assert_eq!(
            text(vec![2..4, 0..2]),
            "placement does not tile layers 0..4: the stages are not in the order of their ranks"
        );
        assert_eq!(text(vec![0..2, 2..2]), "placement does not tile layers 0..4: rank 1 has the empty range 2..2");
    }

    #[test]
    fn a_placement_that_does_not_tile_is_refused_by_the_expert_at_fault() {
        let text = |shards| Placement::new(4, shards).unwrap_err().to_string();
        assert_eq!(
            text(vec![vec![0..1], vec![2..4]]),
            "placement does not tile experts 0..4: expert 1 is missing before 2..4 of rank 1"
        );
        assert_eq!(
            text(vec![vec![0..3], vec![2..4]]),
            "placement does not tile experts 0..4: expert 2 is owned twice at 2..4 of rank 1"
        );
        assert_eq!(text(vec![vec![0..3], vec![]]), "placement does not tile experts 0..4: the ranges end at 3");
    }
}
