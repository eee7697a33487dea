//! Decides how a model is cut, and says why: bytes of a shard against what nodes can hold.
//!
//! Pure. Never guesses free capacity, never reads a clock, never changes a revision that was decided.

pub mod bytes;
mod choose;
mod decide;
mod fit;
pub mod revision;
pub mod shown;
pub mod speed;
mod stages;
mod words;

use shoal_proto::placement::Placement;

pub use self::bytes::{ShardBytes, ShardLoad};
pub use self::decide::{plan, replan};
pub use self::revision::{Revision, RevisionError};
pub use self::shown::Shown;
pub use self::speed::Prediction;
pub(crate) use self::words::size;

/// What would run where, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The condition `Planned`.
    pub verdict: Verdict,
    /// The layout; also present when it does not fit, so that it can be shown.
    pub layout: Option<Layout>,
    /// How the bytes of the largest shard and the speed of a group come about, a line a term.
    pub arithmetic: Vec<String>,
    /// Layouts that were not chosen: (layout, reason).
    pub rejected: Vec<(String, String)>,
    /// A better layout than the one that serves, which only an edit would start.
    pub better: Option<String>,
}

/// How one group is cut.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// Shards of one group, 1 to 64.
    pub shards: u32,
    /// What a shard runs on, e.g. `CPU` or `nvidia.com/gpu`; with the product where nodes offer several.
    pub device: String,
    /// The product to which it is confined, where nodes offer several.
    pub product: Option<String>,
    /// Who owns which experts or layers; without a shape undecided: then the workers divide them evenly.
    pub placement: Option<Placement>,
    /// Part of the largest shard; `None` without a shape.
    pub load: Option<ShardLoad>,
    /// Bytes of the largest shard; `None` without a shape.
    pub bytes: Option<ShardBytes>,
    /// What a group is expected to do; `None` where a device's speed or the shape is unknown.
    pub prediction: Option<Prediction>,
}

/// The reason of the condition `Planned`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PlanReason {
    /// The layout fits the nodes.
    Fits,
    /// Nodes are unknown: nothing was compared.
    InventoryUnknown,
    /// The shape is unknown, the shards were given.
    Unverified,
    /// The shape is unknown and the shards were not given.
    ShapeUnknown,
    /// No node can hold a shard, or too few can.
    DoesNotFit,
}

/// The condition `Planned`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Why.
    pub reason: PlanReason,
    /// In words, with numbers.
    pub message: String,
}

impl PlanReason {
    /// Whether pods may be made.
    #[must_use]
    pub fn permits_pods(self) -> bool {
        matches!(self, Self::Fits | Self::InventoryUnknown | Self::Unverified)
    }

    /// The reason of the condition, also metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fits => "Fits",
            Self::InventoryUnknown => "InventoryUnknown",
            Self::Unverified => "Unverified",
            Self::ShapeUnknown => "ShapeUnknown",
            Self::DoesNotFit => "DoesNotFit",
        }
    }
}

#[cfg(test)]
mod scenario_tests;
#[cfg(test)]
mod tests;
