//! The flags as they are written. Never checks one against another.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::Numerics;
use crate::engine::fault::Fault;

/// One shard of a mixture-of-experts model, served over gRPC.
///
/// Every flag is also an environment variable: `--model-name` is `SHOAL_MODEL_NAME`; the flag wins.
/// `shoal-worker bench --help` says how to measure instead of serving.
#[derive(Debug, clap::Parser)]
#[command(name = "shoal-worker", version)]
pub struct Args {
    /// Where the model lies: file:///DIR, or a directory in Hugging Face layout
    #[arg(long, value_name = "URI")]
    pub model: String,
    /// The name that clients use; without it, the name of the model's directory
    #[arg(long, value_name = "NAME")]
    pub model_name: Option<String>,
    /// Where clients call (gRPC)
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:50051")]
    pub listen: SocketAddr,
    /// Where /metrics, /healthz and /readyz are served; without it, nowhere
    #[arg(long, value_name = "ADDR")]
    pub http: Option<SocketAddr>,
    /// Where grpc.health.v1 alone is served
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:50052")]
    pub health_listen: SocketAddr,
    /// Where the other shards of the group call
    #[arg(long, value_name = "ADDR")]
    pub shard_listen: Option<SocketAddr>,
    /// Folder with tls.crt and tls.key: every shard holds this pair, and a peer must present this very certificate
    #[arg(long, value_name = "DIR")]
    pub shard_tls: Option<PathBuf>,
    /// Allow plaintext between shards on an address other than loopback
    #[arg(long)]
    pub insecure_shard_traffic: bool,
    /// This shard's number, from 0
    #[arg(long, value_name = "I", default_value_t = 0)]
    pub rank: u32,
    /// How many shards the group has
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub size: u32,
    /// host:port of every shard by rank, this one included
    #[arg(long, value_name = "A,B,…", value_delimiter = ',')]
    pub peers: Vec<String>,
    /// Rises with every formation of the group
    #[arg(long, value_name = "E", default_value_t = 1)]
    pub epoch: u64,
    /// Who owns which experts: a Placement message in base64
    #[arg(long, value_name = "BASE64")]
    pub placement: Option<String>,
    /// Longest prompt plus answer; without it, what the model allows
    #[arg(long, value_name = "N")]
    pub context_tokens: Option<u32>,
    /// Sequences that the whole group runs at once
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub max_concurrent_sequences: u32,
    /// Tokens of this shard's KV cache; without it, all sequences can reach the whole context at once
    #[arg(long, value_name = "N")]
    pub kv_cache_tokens: Option<u32>,
    /// Threads that compute; without it, the cores of this host divided by its shards
    #[arg(long, value_name = "T")]
    pub threads: Option<u32>,
    /// What may be rounded
    #[arg(long, value_enum, default_value = "exact")]
    pub numerics: Numerics,
    /// The kernels: auto or cpu; wgpu and cuda are not in this build
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub backend: String,
    /// Highest instruction level of the CPU kernels: scalar, avx2 or avx512; every level gives the same bits
    #[arg(long, value_name = "LEVEL", hide = true)]
    pub cpu_level: Option<String>,
    /// Tokens computed in one step, hence the chunk of a long prompt
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub step_tokens: u32,
    /// Requests that may wait; more are refused at once
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub queue: u32,
    /// What is logged, as a tracing filter
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub log: String,
    /// How log lines look
    #[arg(long, value_enum, default_value = "json")]
    pub log_format: LogFormat,
    /// What a test wants broken
    #[arg(long, value_name = "FAULT", hide = true)]
    pub fault: Option<Fault>,
    /// End when the process with this number does
    #[arg(long, value_name = "PID", hide = true)]
    pub die_with_parent: Option<u32>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For a person at a terminal.
    Text,
}
