//! [`Placement`] as text (an argument) and as something that cannot be wrong.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;

use crate::shard;

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
    #[error("placement strategy {0} is not supported; supported: EXPERTS")]
    Strategy(String),
    /// No shard, or too many.
    #[error("placement has {0} shards; 1 to {MAX_SHARDS} are allowed")]
    Shards(usize),
    /// The ranges leave an expert out, own one twice, or run past the end.
    #[error("placement does not tile experts 0..{experts}: {problem}")]
    Tiling {
        /// How many experts the model has.
        experts: u32,
        /// The first thing found wrong.
        problem: String,
    },
}

/// A checked placement: its ranges tile `0..experts` exactly once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    experts: u32,
    shards: Vec<Vec<std::ops::Range<u32>>>,
}

impl Placement {
    /// Splits `experts` into `shards` contiguous ranges whose sizes differ by at most one; the larger come first.
    ///
    /// # Errors
    /// When `shards` is 0 or above [`MAX_SHARDS`].
    pub fn even(experts: u32, shards: usize) -> Result<Self, PlacementError> {
        let count = u32::try_from(shards).map_err(|_| PlacementError::Shards(shards))?;
        if shards == 0 || shards > MAX_SHARDS {
            return Err(PlacementError::Shards(shards));
        }
        let mut begin = 0;
        let ranges = (0..count).map(|rank| {
            let len = experts / count + u32::from(rank < experts % count);
            let range = begin..begin + len;
            begin += len;
            if range.is_empty() { vec![] } else { vec![range] }
        });
        Self::new(experts, ranges.collect())
    }

    /// Checks that `shards[rank]` are ascending ranges that tile `0..experts` exactly once.
    ///
    /// # Errors
    /// [`PlacementError::Shards`] or [`PlacementError::Tiling`].
    pub fn new(experts: u32, shards: Vec<Vec<std::ops::Range<u32>>>) -> Result<Self, PlacementError> {
        if shards.is_empty() || shards.len() > MAX_SHARDS {
            return Err(PlacementError::Shards(shards.len()));
        }
        let tiling = |problem: String| PlacementError::Tiling { experts, problem };
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
                return Err(tiling(format!("expert {} is {verb} {begin}..{end} of rank {rank}", begin.min(next))));
            }
            next = end;
        }
        if next != experts {
            return Err(tiling(format!("the ranges end at {next}")));
        }
        Ok(Self { experts, shards })
    }

    /// For who does not know how many experts the model has: every shard divides them evenly once it does.
    ///
    /// # Errors
    /// When `shards` is 0 or above [`MAX_SHARDS`].
    pub fn undecided(shards: usize) -> Result<Self, PlacementError> {
        Self::even(0, shards)
    }

    /// This placement for a model with `experts` experts: the even one if it was [`Self::undecided`], else itself.
    #[must_use]
    pub fn decided(&self, experts: u32) -> Self {
        let even = if self.experts == 0 { Self::even(experts, self.size()).ok() } else { None };
        even.unwrap_or_else(|| self.clone())
    }

    /// How many routed experts a layer has; 0 while undecided.
    #[must_use]
    pub fn experts(&self) -> u32 {
        self.experts
    }

    /// How many shards the group has.
    #[must_use]
    pub fn size(&self) -> usize {
        self.shards.len()
    }

    /// The expert ranges that `rank` owns, ascending; empty for an unknown rank.
    #[must_use]
    pub fn ranges(&self, rank: usize) -> &[std::ops::Range<u32>] {
        self.shards.get(rank).map_or(&[], Vec::as_slice)
    }

    /// The rank that owns `expert`.
    #[must_use]
    pub fn owner(&self, expert: u32) -> Option<usize> {
        self.shards.iter().position(|ranges| ranges.iter().any(|range| range.contains(&expert)))
    }

    /// The message, for the wire and for fingerprints.
    #[must_use]
    pub fn to_message(&self) -> shard::Placement {
        shard::Placement {
            version: VERSION,
            strategy: shard::Strategy::Experts.into(),
            experts: self.experts,
            shards: self
                .shards
                .iter()
                .map(|ranges| shard::ShardPlacement {
                    experts: ranges.iter().map(|r| shard::ExpertRange { begin: r.start, end: r.end }).collect(),
                })
                .collect(),
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
        if message.strategy() != shard::Strategy::Experts {
            return Err(PlacementError::Strategy(message.strategy().as_str_name().to_owned()));
        }
        let ranges = |shard: &shard::ShardPlacement| shard.experts.iter().map(|r| r.begin..r.end).collect();
        Self::new(message.experts, message.shards.iter().map(ranges).collect())
    }
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
        assert_eq!(undecided.decided(8), even);
        assert_eq!(even.decided(9), even);
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
