//! The shards of one group: who belongs to it ([`group`]), rows out and partial sums back ([`exchange`]), the expert lane
//! that serves peers ([`expert_lane`]), and steps through the stages of a [`pipeline`].
//!
//! A group is fixed for its epoch. A peer that is lost stays lost: the worker then answers nothing until the operator
//! forms the group anew. Never schedules and never computes: numbers pass through as the bytes of the model's ports.

pub mod exchange;
pub mod expert_lane;
pub mod frames;
pub mod group;
pub mod heartbeat;
pub mod identity;
pub mod link;
pub mod parcel;
pub mod pipeline;
pub mod ports;
pub mod server;
pub mod timing;
pub mod tls;
pub mod tree;

/// Frames that may be unanswered on one ordered pair.
pub const OUTSTANDING: usize = 2;
/// HTTP/2 windows of both ends, in bytes; above the bandwidth-delay product of a data centre.
pub const WINDOW_BYTES: u32 = 8 << 20;
/// Most bytes of rows or sums in one frame.
pub const FRAME_BYTES: usize = 1 << 20;
/// A frame with its lists and envelope; anything longer is refused before it is buffered.
pub const MESSAGE_BYTES: usize = 2 * FRAME_BYTES;
/// Messages that may wait for a stream's socket: rows or sums of the window, heartbeats, a farewell.
pub(crate) const STREAM_BUFFER: usize = 16;
