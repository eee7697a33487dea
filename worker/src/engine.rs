//! The engine: lanes (threads) between the async front and the device.
//!
//! ```text
//! front ── submissions ──► step lane ──► backend ◄── expert lane ◄── peers' rows
//!   ▲                        │    ▲
//!   └──────── events ────────┘    └── links ◄──► peers          (links, server, monitor, drain: one small runtime)
//! ```
//! In a pipeline only rank 0 has a step lane, and the others a stage lane in its place.
//! Never builds a gRPC status for clients and never reads the environment.

mod active;
mod books;
mod control;
mod drain;
mod experts;
pub mod fault;
pub mod handle;
mod lane;
mod pipeline;
mod probe;
mod protocol;
pub mod request;
mod start;
pub mod stats;
mod step;

use std::net::SocketAddr;

use shoal_proto::placement::Placement;

use crate::model::loaded::LoadedModel;
use crate::shards::timing::Timing;
use crate::shards::tls::Tls;
use fault::Fault;

pub use start::start;

/// Why an engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The shard port cannot be had.
    #[error("cannot listen for peers on {address}")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A thread or runtime cannot be had.
    #[error("cannot start {what}")]
    Thread {
        /// Its name.
        what: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Peers, placement and model do not fit each other.
    #[error("{0}")]
    Group(String),
}

/// How much is served at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Most tokens of a sequence; the model was loaded for it.
    pub context_tokens: u32,
    /// Most sequences of this shard at once.
    pub sequences: usize,
    /// Most requests that wait.
    pub queue: usize,
}

/// A worker's place in a group of at least two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupConfig {
    /// Of this shard.
    pub rank: u32,
    /// Of the group; rises with each formation.
    pub epoch: u64,
    /// Where peers call.
    pub listen: SocketAddr,
    /// `host:port` by rank; this shard's own entry is not used.
    pub peers: Vec<String>,
    /// Who owns which experts or layers.
    pub placement: Placement,
}

/// All that an engine needs.
pub struct EngineConfig {
    /// Weights resident, programs compiled.
    pub model: LoadedModel,
    /// How much is served at once.
    pub capacity: Capacity,
    /// `None` for a group of one.
    pub group: Option<GroupConfig>,
    /// How the shards of the group prove that they belong together; `None`: plaintext.
    pub tls: Option<Tls>,
    /// Below the vocabulary size, such as BOS: the prompt of the first token of an epoch.
    pub probe_token: u32,
    /// Intervals.
    pub timing: Timing,
    /// What a test wants broken.
    pub fault: Option<Fault>,
}

#[cfg(test)]
mod tests;
