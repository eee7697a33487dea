//! From a checked [`Config`] to a running engine: the one match on the kind of backend.
//!
//! Blocks as long as loading takes; never serves.

use std::num::NonZeroUsize;
use std::sync::Arc;

use shoal_proto::shard::Strategy;

use crate::backend::cpu::{CpuBackend, CpuOptions};
use crate::backend::strict::{StrictBackend, StrictOptions};
use crate::backend::{Backend, BackendError};
use crate::config::{BackendKind, Config, Group, Numerics, Shards};
use crate::engine::handle::EngineHandle;
use crate::engine::{self, Capacity, EngineConfig, EngineError, GroupConfig};
use crate::model::load::{LoadOptions, load};
use crate::model::{ModelError, loaded::LoadedModel};
use crate::program::Dtype;
use crate::shards::timing::Timing;
use crate::shards::tls::{self, TlsError};

/// Why no engine runs.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The device cannot be had.
    #[error("the backend cannot start")]
    Backend(#[from] BackendError),
    /// The files are not a model that can be served.
    #[error("the model cannot be loaded")]
    Model(#[from] ModelError),
    /// The traffic between shards cannot be secured.
    #[error("--shard-tls cannot be honoured")]
    Tls(#[from] TlsError),
    /// The lanes cannot be had.
    #[error("the engine cannot start")]
    Engine(#[from] EngineError),
}

/// Loads the model and starts the engine; call it where blocking is allowed.
///
/// # Errors
/// [`LaunchError`], with the file, tensor, device or address at fault.
pub fn engine(config: &Config) -> Result<EngineHandle, LaunchError> {
    let shards = config.group.shards.as_ref();
    // Before the weights, which take their time: a file that is missing should be known at once.
    let tls = shards.and_then(|shards| shards.tls.as_deref()).map(tls::load).transpose()?;
    // Every stage of a pipeline sees every sequence.
    let is_pipeline = shards.is_some_and(|shards| shards.placement.strategy() == Strategy::Pipeline);
    let share = if is_pipeline { 1 } else { config.group.size };
    let sequences = config.capacity.max_concurrent_sequences.div_ceil(share);
    let options = LoadOptions {
        directory: config.model.clone(),
        rank: config.group.rank as usize,
        placement: shards.map(|shards| shards.placement.clone()),
        context_tokens: config.capacity.context_tokens,
        sequences,
        kv_tokens: config.capacity.kv_cache_tokens,
        step_rows: config.capacity.step_tokens as usize,
        kv_dtype: match config.compute.numerics {
            Numerics::Exact => Dtype::F32,
            Numerics::Default => Dtype::Bf16,
        },
    };
    let model = load(&options, backend(config)?)?;
    report(&model);
    let capacity = Capacity {
        context_tokens: model.info.max_context,
        sequences: sequences as usize,
        queue: config.capacity.queue as usize,
    };
    let group = |shards: &Shards| -> Result<GroupConfig, ModelError> {
        Ok(GroupConfig {
            rank: config.group.rank,
            epoch: config.group.epoch,
            listen: shards.listen,
            peers: shards.peers.clone(),
            placement: shards.placement.decided(model.info.experts, model.info.layers)?,
        })
    };
    let group = shards.map(group).transpose()?;
    let timing = Timing::default();
    Ok(engine::start(EngineConfig { model, capacity, group, tls, probe_token: 0, timing, fault: config.fault })?)
}

fn backend(config: &Config) -> Result<Arc<dyn Backend>, BackendError> {
    // Draws the interleavings of the strict backend.
    const SEED: u64 = 1;
    let options = CpuOptions { threads: threads(config), level: config.compute.level };
    match config.compute.backend {
        BackendKind::Cpu => Ok(Arc::new(CpuBackend::new(options)?)),
        BackendKind::Strict => Ok(Arc::new(StrictBackend::new(StrictOptions { cpu: options, seed: SEED })?)),
    }
}

fn threads(config: &Config) -> NonZeroUsize {
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let here = NonZeroUsize::new(shards_of_this_host(&config.group)).unwrap_or(NonZeroUsize::MIN);
    let share = NonZeroUsize::new(cores.get() / here).unwrap_or(NonZeroUsize::MIN);
    config.compute.threads.and_then(NonZeroUsize::new).unwrap_or(share)
}

/// Shards that talk over loopback share one host; others are taken to have one each.
fn shards_of_this_host(group: &Group) -> usize {
    let together = group.shards.as_ref().is_some_and(|shards| shards.listen.ip().is_loopback());
    if together { group.size as usize } else { 1 }
}

fn report(model: &LoadedModel) {
    let info = &model.info;
    tracing::info!(
        architecture = info.architecture,
        numerics = info.numerics_id,
        weight_bytes = info.weight_bytes,
        kv_blocks = info.kv_blocks,
        "loaded"
    );
}
