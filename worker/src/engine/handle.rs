//! What the async front holds of a running engine: one channel in, and watched values out.
//!
//! Never holds behaviour: the engine moves the values, the front reads them.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::request::Submission;
use super::stats::EngineStats;
use crate::model::loaded::Reads;

/// A running engine, as the front sees it. The engine stops when `submissions` is dropped and the drain is done.
#[derive(Debug, Clone)]
pub struct EngineHandle {
    /// The one way in, bounded: `try_send`, and a full queue is answered at once.
    pub submissions: mpsc::Sender<Submission>,
    /// Whether this epoch of the group answers.
    pub readiness: watch::Receiver<Readiness>,
    /// How far the group's drain has come, whoever began it.
    pub drain: watch::Receiver<DrainPhase>,
    /// Cancelled by the front on SIGTERM: the engine tells its peers and moves `drain`.
    pub leave: CancellationToken,
    /// What is served; never changes while the engine runs.
    pub info: Arc<EngineInfo>,
    /// Counters and gauges of the running engine.
    pub stats: Arc<EngineStats>,
}

/// What is served, known once the model is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// As in `config.json`, such as `DeepseekV3ForCausalLM`.
    pub architecture: String,
    /// The context that is served: what the model allows, cut down to `--context-tokens`.
    pub context_tokens: u32,
    /// Token ids are below this.
    pub vocabulary_size: u32,
    /// Identifies config, tensor table and file sizes, in hexadecimal.
    pub model_digest: String,
    /// {backend, level, activation rounding, KV dtype, kernel revision} in one line.
    pub numerics_id: String,
    /// Bytes of weights that this worker holds.
    pub weight_bytes: u64,
    /// What of them a step reads.
    pub reads: Reads,
    /// Whether requests may come here: of a pipeline, only to rank 0.
    pub takes_requests: bool,
}

/// Whether this epoch of the group answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Loading, or waiting for peers: requests are refused as UNAVAILABLE.
    Starting,
    /// This epoch has answered one real token.
    Ready,
    /// The group cannot serve any more; a new epoch has to replace it.
    Lost {
        /// What happened, for a person.
        reason: String,
    },
}

/// The steps of a drain, in order; a group drains as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DrainPhase {
    /// Nobody wants to leave.
    Accepting,
    /// Readiness is dropped, requests still in flight towards us are accepted (5 s).
    Leaving,
    /// New requests are refused, the started ones run on.
    Refusing,
    /// No stream is left in the group (or its time is up): the process may end.
    Done,
}
