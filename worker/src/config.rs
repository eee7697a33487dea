//! How a worker is told what to be: raw [`Args`], then a checked [`Config`]. The only reader of the environment.
//!
//! Never touches a file or a socket: the same parser judges a pod's arguments where neither exists.

mod args;
mod check;
mod env;

use std::net::SocketAddr;
use std::path::PathBuf;

pub use args::{Args, LogFormat};
use shoal_proto::placement::{Placement, PlacementError};

use crate::backend::cpu::Level;
use crate::engine::fault::Fault;
use crate::limits::OutOfLimit;

/// Reads a variable of the environment, by name.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Why arguments were refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Unknown, missing or malformed flags, and also requests for help.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// A number outside its limit; the message names the flag.
    #[error(transparent)]
    Limit(#[from] OutOfLimit),
    /// A placement that cannot be.
    #[error("--placement: {0}")]
    Placement(#[from] PlacementError),
    /// A value that is understood and not allowed.
    #[error("{flag} {found}: {allowed}")]
    Refused {
        /// The flag at fault.
        flag: &'static str,
        /// What was given, or what is missing.
        found: String,
        /// What would be right.
        allowed: String,
    },
}

/// What a worker is to be; every value is within its limits and fits the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The folder with `config.json` and the weights.
    pub model: PathBuf,
    /// The name that clients use.
    pub model_name: String,
    /// Where clients call, and where probes ask.
    pub listen: Listeners,
    /// This worker's place in its group.
    pub group: Group,
    /// Where the numbers are computed, and how exactly.
    pub compute: Compute,
    /// How much is served at once.
    pub capacity: Capacity,
    /// What is logged, and how.
    pub log: Log,
    /// What a test wants broken; its use is logged.
    pub fault: Option<Fault>,
    /// End when this process does (set by whoever starts workers as its children).
    pub die_with_parent: Option<u32>,
}

/// Addresses to listen on; port 0 lets the system choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listeners {
    /// gRPC of clients.
    pub grpc: SocketAddr,
    /// Metrics and plain health over HTTP.
    pub http: Option<SocketAddr>,
    /// gRPC health and nothing else.
    pub health: SocketAddr,
}

/// One worker's place in its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Below `size`.
    pub rank: u32,
    /// How many shards the group has.
    pub size: u32,
    /// Rises with every formation of the group.
    pub epoch: u64,
    /// What the shards of a group need of one another; `None` for a group of one.
    pub shards: Option<Shards>,
}

/// What the shards of a group need of one another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shards {
    /// Where peers call.
    pub listen: SocketAddr,
    /// The folder with the certificate that all shards of the group hold; `None`: plaintext.
    pub tls: Option<PathBuf>,
    /// `host:port` by rank, this worker's own included; names are resolved anew at each dial.
    pub peers: Vec<String>,
    /// Who owns which experts.
    pub placement: Placement,
}

/// Where the numbers are computed, and how exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compute {
    /// The kernels.
    pub backend: BackendKind,
    /// What may be rounded.
    pub numerics: Numerics,
    /// Of the compute pool; `None` lets the engine decide.
    pub threads: Option<usize>,
    /// Of the CPU kernels; `None` takes the highest of this machine.
    pub level: Option<Level>,
}

/// The kernels that this build has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendKind {
    /// Threads and SIMD.
    Cpu,
    /// The CPU behind a device that checks every rule of the boundary; for tests.
    Strict,
}

/// What may be rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Numerics {
    /// Activations and KV in F32.
    Exact,
    /// KV in BF16, and whatever the kernels round.
    Default,
}

/// How much is served at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// The served context; `None`: what the model allows.
    pub context_tokens: Option<u32>,
    /// Of the whole group; each shard runs its share, and at least one.
    pub max_concurrent_sequences: u32,
    /// Of this shard's KV cache; `None`: all sequences can reach the whole context at once.
    pub kv_cache_tokens: Option<u32>,
    /// Token budget of one step, hence the chunk of a long prompt.
    pub step_tokens: u32,
    /// Requests that may wait before others are refused.
    pub queue: u32,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// A `tracing` filter such as `info` or `shoal_worker=debug`.
    pub filter: String,
    /// How lines look.
    pub format: LogFormat,
}

impl Config {
    /// Reads flags (without the program's name) and, for those that are absent, variables `SHOAL_*`.
    ///
    /// # Errors
    /// [`ConfigError`], naming the flag, what was wrong and what is allowed.
    pub fn from_args(
        args: impl IntoIterator<Item = String>,
        environment: Environment<'_>,
    ) -> Result<Self, ConfigError> {
        check::config(env::parse(args, environment)?)
    }

    /// Reads this process's own flags and environment.
    ///
    /// # Errors
    /// [`ConfigError`], naming the flag, what was wrong and what is allowed.
    pub fn of_this_process() -> Result<Self, ConfigError> {
        Self::from_args(std::env::args().skip(1), &|name| std::env::var(name).ok())
    }
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
