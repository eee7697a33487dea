//! The requester's end of an ordered pair: dials the peer, keeps its stream up, sends rows or steps, takes sums.
//!
//! At most [`OUTSTANDING`] frames are unanswered; when the stream breaks they are sent again on the next one under their
//! old sequence numbers, and whatever is not outstanding is dropped on arrival. Never computes and never decides what
//! a lost peer means.

mod dial;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use shoal_proto::shard::{ExchangeRequest, ExchangeResponse, Leaving, Partials};
use shoal_proto::shard::{exchange_request, exchange_response};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tonic::Streaming;

use super::OUTSTANDING;
use super::group::Group;
use super::parcel::Parcel;
use super::tls::Tls;
use crate::engine::handle::DrainPhase;
use dial::{DialError, Stream};

/// The downward half of a stream.
type Down = Streaming<ExchangeResponse>;

/// One ordered pair.
pub struct Link {
    /// What this shard knows of its group.
    pub group: Arc<Group>,
    /// The peer.
    pub rank: u32,
    /// `host:port`, resolved anew at each dial.
    pub address: String,
    /// How the peer is dialled; `None`: in plaintext.
    pub tls: Option<Tls>,
    /// The way in, kept so that a peer without experts has a stream too.
    pub keep: mpsc::Sender<Vec<Parcel>>,
}

/// Frames on their way to the peer, in order of sequence.
#[derive(Debug, Default)]
struct Traffic {
    queued: VecDeque<Parcel>,
    outstanding: VecDeque<Parcel>,
}

/// Why a stream ended.
enum Break {
    /// Dial again.
    Broken(String),
    /// The peer will not serve us in this epoch.
    Refused(String),
}

impl Link {
    /// Keeps the stream up until the peer is lost or the drain is done. `work` carries the frames of one exchange.
    pub async fn run(self, mut work: mpsc::Receiver<Vec<Parcel>>) {
        let mut traffic = Traffic::default();
        let mut down_since = Instant::now();
        let mut last_complaint = String::new();
        while self.group.phase() < DrainPhase::Done {
            let why = match dial::connect(&self).await {
                Ok(stream) => {
                    self.group.join(self.rank, Instant::now());
                    tracing::debug!(rank = self.rank, "stream to peer is up");
                    let end = self.converse(stream, &mut work, &mut traffic).await;
                    down_since = Instant::now();
                    traffic.rewind();
                    match end {
                        Break::Refused(why) => return self.group.lose(self.rank, &why),
                        Break::Broken(why) => why,
                    }
                }
                Err(DialError::Mismatch(why)) => return self.group.lose(self.rank, &why),
                Err(DialError::Failed(why)) => why,
            };
            if self.group.has_joined(self.rank) && down_since.elapsed() > self.group.timing().suspect {
                return self.group.lose(self.rank, &format!("its stream could not be restored: {why}"));
            }
            if why != last_complaint {
                tracing::info!(rank = self.rank, address = self.address, why, "no stream to peer; dialling on");
                last_complaint = why;
            }
            tokio::time::sleep(self.group.timing().redial).await;
        }
    }

    async fn converse(&self, stream: Stream, work: &mut mpsc::Receiver<Vec<Parcel>>, traffic: &mut Traffic) -> Break {
        let Stream { up, mut down } = stream;
        let mut ticks = tokio::time::interval(self.group.timing().heartbeat);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pulses = self.group.pulses();
        let mut count = 0;
        let mut has_left = false;
        loop {
            while let Some(parcel) = traffic.next() {
                if !self.send(&up, parcel.into_frame()) {
                    return Break::Broken("its socket takes no more".into());
                }
            }
            tokio::select! {
                Some(batch) = work.recv() => {
                    traffic.queued.extend(batch);
                    continue;
                }
                message = down.message() => match self.receive(message, traffic) {
                    Ok(()) => continue,
                    Err(end) => return end,
                },
                _ = ticks.tick() => {}
                _ = pulses.changed() => ticks.reset_immediately(),
            }
            if !has_left && self.group.phase() >= DrainPhase::Leaving {
                has_left = self.send(&up, exchange_request::Frame::Leaving(Leaving { reason: String::new() }));
            }
            count += 1;
            // A heartbeat that finds no room is no loss: the socket is full of other signs of life.
            let _has_room = self.send(&up, exchange_request::Frame::Heartbeat(self.group.heartbeat(count)));
        }
    }

    /// Whether there was room.
    fn send(&self, up: &mpsc::Sender<ExchangeRequest>, frame: exchange_request::Frame) -> bool {
        up.try_send(ExchangeRequest { epoch: self.group.identity().epoch, frame: Some(frame) }).is_ok()
    }

    fn receive(
        &self,
        message: Result<Option<ExchangeResponse>, tonic::Status>,
        traffic: &mut Traffic,
    ) -> Result<(), Break> {
        let broken = |why: String| Err(Break::Broken(why));
        let response = match message {
            Ok(Some(response)) => response,
            Ok(None) => return broken("it closed the stream".into()),
            Err(status) if status.code() == tonic::Code::FailedPrecondition => {
                return Err(Break::Refused(status.message().to_owned()));
            }
            Err(status) => return broken(format!("{}: {}", status.code(), status.message())),
        };
        let epoch = self.group.identity().epoch;
        if response.epoch != epoch {
            return Err(Break::Refused(format!("it answers for epoch {}, not {epoch}", response.epoch)));
        }
        let now = Instant::now();
        self.group.hear(self.rank, now);
        match response.frame {
            Some(exchange_response::Frame::Partials(partials)) => self.take(partials, traffic),
            Some(exchange_response::Frame::Heartbeat(beat)) => {
                self.group.hear_heartbeat(self.rank, &beat, now);
                Ok(())
            }
            Some(exchange_response::Frame::Leaving(_)) => {
                self.group.leave().cancel();
                Ok(())
            }
            Some(exchange_response::Frame::Taken(taken)) => {
                // Of a frame that was sent twice the second acknowledgement finds nothing.
                let _was_outstanding = traffic.settle(taken.sequence);
                Ok(())
            }
            Some(exchange_response::Frame::Refused(refused)) => {
                Err(Break::Refused(format!("it refused rows: {} {}", refused.code, refused.message)))
            }
            None => broken("it sent an empty frame".into()),
        }
    }

    fn take(&self, partials: Partials, traffic: &mut Traffic) -> Result<(), Break> {
        if !traffic.settle(partials.sequence) {
            tracing::debug!(rank = self.rank, sequence = partials.sequence, "dropped a late duplicate");
            return Ok(());
        }
        if self.group.deliver(self.rank, partials) {
            return Ok(());
        }
        Err(Break::Refused("the step lane took no more answers".into()))
    }
}

impl Traffic {
    /// The next frame to send, if the window has room.
    fn next(&mut self) -> Option<Parcel> {
        if self.outstanding.len() >= OUTSTANDING {
            return None;
        }
        let parcel = self.queued.pop_front()?;
        self.outstanding.push_back(parcel.clone());
        Some(parcel)
    }

    /// Marks a frame answered; false when it was not outstanding.
    fn settle(&mut self, sequence: u64) -> bool {
        let index = self.outstanding.iter().position(|parcel| parcel.sequence() == sequence);
        index.and_then(|index| self.outstanding.remove(index)).is_some()
    }

    /// Queues what is unanswered again, in front and in order.
    fn rewind(&mut self) {
        while let Some(parcel) = self.outstanding.pop_back() {
            self.queued.push_front(parcel);
        }
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use shoal_proto::shard::Rows;

    use super::*;

    #[test]
    fn a_broken_stream_repeats_what_is_unanswered_and_late_duplicates_are_dropped() {
        let frame = |sequence| Parcel::Rows(Rows { sequence, ..Rows::default() });
        let mut traffic = Traffic { queued: (1..5).map(frame).collect(), ..Traffic::default() };
        let sent =
            |traffic: &mut Traffic| std::iter::from_fn(|| traffic.next()).map(|one| one.sequence()).collect::<Vec<_>>();
        assert_eq!(sent(&mut traffic), [1, 2]);
        assert!(traffic.settle(2));
        assert_eq!(sent(&mut traffic), [3]);
        traffic.rewind();
        assert_eq!(sent(&mut traffic), [1, 3]);
        assert!(!traffic.settle(2));
        assert!(traffic.settle(1) && traffic.settle(3));
        assert_eq!(sent(&mut traffic), [4]);
    }
}
