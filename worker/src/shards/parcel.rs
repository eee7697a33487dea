//! What travels up a stream until its receiver has answered or acknowledged it. Never looks inside.

use shoal_proto::shard::{Outcome, Rows, Stage, exchange_request};

/// One frame with its number on its ordered pair.
#[derive(Debug, Clone, PartialEq)]
pub enum Parcel {
    /// Answered by sums.
    Rows(Rows),
    /// Acknowledged.
    Stage(Stage),
    /// Acknowledged.
    Outcome(Outcome),
}

impl Parcel {
    /// Rises by one per frame of the pair; a resent frame keeps its own.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        match self {
            Self::Rows(rows) => rows.sequence,
            Self::Stage(stage) => stage.sequence,
            Self::Outcome(outcome) => outcome.sequence,
        }
    }

    /// As it goes onto the wire.
    #[must_use]
    pub fn into_frame(self) -> exchange_request::Frame {
        match self {
            Self::Rows(rows) => exchange_request::Frame::Rows(rows),
            Self::Stage(stage) => exchange_request::Frame::Stage(stage),
            Self::Outcome(outcome) => exchange_request::Frame::Outcome(outcome),
        }
    }
}
