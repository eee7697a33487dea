//! The door of a stage: every frame of the one peer that may send here once and in order, however often its stream broke.
//! Never looks inside a frame and never waits for the lane behind.

use std::sync::{Mutex, PoisonError};

use shoal_proto::shard::{Outcome, Stage, Taken};
use tokio::sync::mpsc;

use crate::shards::frames::FrameError;
use crate::shards::parcel::Parcel;

/// To the lane behind the door; has room for all that may be in flight.
#[derive(Debug)]
pub enum Door {
    /// Of rank 1 and higher: steps of the rank before it.
    Stages(mpsc::Sender<Stage>),
    /// Of rank 0: what the last rank sampled.
    Outcomes(mpsc::Sender<Outcome>),
}

/// One shard's end of its way in.
#[derive(Debug)]
pub struct Intake {
    from: u32,
    door: Door,
    next: Mutex<u64>,
}

impl Intake {
    /// Nothing has come from rank `from` yet.
    #[must_use]
    pub fn new(from: u32, door: Door) -> Self {
        Self { from, door, next: Mutex::new(0) }
    }

    /// Takes a frame of `rank`; one that came before is acknowledged again and dropped.
    ///
    /// # Errors
    /// [`FrameError`]: the peer breaks the protocol, or the lane is gone.
    pub fn take(&self, rank: u32, parcel: Parcel) -> Result<Taken, FrameError> {
        let fail = |text: String| Err(FrameError(text));
        if rank != self.from {
            return fail(format!("a frame of a step; rank {} sends those", self.from));
        }
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let sequence = parcel.sequence();
        if sequence > *next {
            return fail(format!("frame {sequence} where frame {} is due", *next));
        }
        if sequence == *next {
            let has_room = match (&self.door, parcel) {
                (Door::Stages(lane), Parcel::Stage(stage)) => lane.try_send(stage).is_ok(),
                (Door::Outcomes(lane), Parcel::Outcome(outcome)) => lane.try_send(outcome).is_ok(),
                (Door::Stages(_), _) => return fail("a frame that is no piece of a step".into()),
                (Door::Outcomes(_), _) => return fail("a frame that is no outcome".into()),
            };
            if !has_room {
                return fail("more frames than may be in flight".into());
            }
            *next += 1;
        }
        Ok(Taken { sequence })
    }
}
