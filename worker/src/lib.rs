//! One shard of a mixture-of-experts model, served over gRPC.

pub mod backend;
pub mod bench;
pub mod config;
pub mod engine;
pub mod formats;
pub mod launch;
pub mod limits;
pub mod metrics;
pub mod model;
pub mod ops;
pub mod oracle;
pub mod process;
pub mod program;
pub mod sampling;
pub mod scheduler;
pub mod serve;
pub mod shards;
pub mod text;
pub mod weights;
