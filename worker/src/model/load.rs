//! Loading: read the config and the headers, record, declare buffers, stream the owned bytes, compile.
//!
//! One pass reads, checks, digests and uploads; only what this shard owns is read.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::iter::{IntoParallelRefIterator as _, ParallelIterator as _};
use shoal_proto::placement::Placement;
use shoal_proto::shard::Strategy;

use super::ModelError;
use super::config::ModelConfig;
use super::decoder::{EMBEDDING, RecipeOptions, Recorded, record};
use super::loaded::{KV_BLOCK, LoadedModel, ModelInfo, Programs, Reads};
use super::parts::Ownership;
use super::recipe::{Binding, Part, Scope};
use super::transpose;
use crate::backend::{Backend, Executable};
use crate::program::{Bucket, BufferId, Dtype, Program, Segment};
use crate::weights::checkpoint::Checkpoint;

/// Which part of which model to load, and for how much work.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Directory in Hugging Face layout, or a GGUF file, or a directory with one.
    pub directory: PathBuf,
    /// This shard.
    pub rank: usize,
    /// Who owns which experts or layers; `None` when one shard owns all.
    pub placement: Option<Placement>,
    /// Most tokens of a sequence; `None` takes the model's own limit.
    pub context_tokens: Option<u32>,
    /// Most sequences of this shard at once.
    pub sequences: u32,
    /// Tokens of the KV cache; `None`: all sequences can reach the whole context at once.
    pub kv_tokens: Option<u32>,
    /// Most rows of one step.
    pub step_rows: usize,
    /// F32 for exact numerics, else BF16.
    pub kv_dtype: Dtype,
}

/// Loads a model onto `backend`.
///
/// # Errors
/// Any [`ModelError`], naming the file, field or tensor at fault.
pub fn load(options: &LoadOptions, backend: Arc<dyn Backend>) -> Result<LoadedModel, ModelError> {
    let (config, config_bytes) = ModelConfig::read(&options.directory)?;
    let context = context(&config, options)?;
    let checkpoint = Checkpoint::open(&options.directory)?;
    let kv_blocks = kv_blocks(context, options)?;
    let bucket = Bucket { rows: options.step_rows, samples: options.step_rows.min(options.sequences as usize) };
    let (ownership, layers) = ownership(&config, options)?;
    let mixtures = config.decoder.layers[layers.clone()].iter().filter(|layer| layer.mixture).count();
    let owned = (ownership.own.iter().map(ExactSizeIterator::len).sum::<usize>() * mixtures) as u64;
    // A table that is the head as well is read whole.
    let only_embeds = !config.tied || layers.end < config.decoder.layers.len();
    let recipe = RecipeOptions { bucket, kv_blocks, kv_dtype: options.kv_dtype, ownership, layers };
    let Recorded { recording, peers, serve, stage } = record(&checkpoint, &config, recipe)?;
    for (index, decl) in (0..).zip(&recording.buffers) {
        backend.alloc(BufferId(index), decl)?;
    }
    let resident = upload(&checkpoint, &recording.bindings, backend.as_ref())?;
    let programs = compile(&recording.programs, backend.as_ref())?;
    let mut model_hash = blake3::Hasher::new();
    model_hash.update(&config_bytes);
    checkpoint.hash_table(&mut model_hash);
    let info = ModelInfo {
        hidden: config.hidden,
        vocabulary: u32::try_from(config.vocabulary).expect("should fit: bounded by the config"),
        max_context: context,
        layers: u32::try_from(config.decoder.layers.len()).expect("should fit: bounded by the config"),
        mixture_layers: mixtures,
        experts: config.decoder.mixture.experts,
        top_k: config.decoder.mixture.router.top_k,
        model_digest: *model_hash.finalize().as_bytes(),
        dense_digest: resident.dense_digest,
        weight_bytes: resident.bytes,
        reads: Reads {
            step_bytes: resident.bytes - resident.expert_bytes - if only_embeds { resident.table_bytes } else { 0 },
            expert_bytes: resident.expert_bytes / owned.max(1),
            mixture_layers: mixtures as u64,
        },
        numerics_id: numerics_id(backend.as_ref(), options.kv_dtype),
        kv_blocks,
        architecture: config.architecture,
    };
    Ok(LoadedModel { backend, info, bucket, programs, peers, serve, stage })
}

fn context(config: &ModelConfig, options: &LoadOptions) -> Result<u32, ModelError> {
    let allowed = config.max_context;
    match options.context_tokens {
        Some(wanted) if wanted > allowed => Err(ModelError::Context { wanted, allowed }),
        Some(wanted) => Ok(wanted),
        None => Ok(allowed),
    }
}

/// Blocks of the cache: a request that fills the context must be able to run alone.
fn kv_blocks(context: u32, options: &LoadOptions) -> Result<u32, ModelError> {
    let whole = context.div_ceil(KV_BLOCK as u32);
    match options.kv_tokens {
        Some(tokens) if tokens < context => Err(ModelError::Cache { tokens, context }),
        Some(tokens) => Ok(tokens.div_ceil(KV_BLOCK as u32)),
        None => Ok(options.sequences.saturating_mul(whole)),
    }
}

/// The experts and the layers of this shard: one or the other is all of them.
fn ownership(config: &ModelConfig, options: &LoadOptions) -> Result<(Ownership, Range<usize>), ModelError> {
    let experts = config.decoder.mixture.experts;
    let all = 0..config.decoder.layers.len();
    let alone = || Ownership { own: std::iter::once(0..experts).collect(), peers: vec![None] };
    let Some(placement) = &options.placement else { return Ok((alone(), all)) };
    let layers = u32::try_from(all.len()).expect("should fit: bounded by the config");
    let placement = placement.decided(experts, layers)?;
    let (what, actual) = match placement.strategy() {
        Strategy::Pipeline => ("layer", layers),
        Strategy::Experts | Strategy::Unspecified => ("expert", experts),
    };
    if placement.count() != actual {
        return Err(ModelError::Placement { what, placed: placement.count(), actual });
    }
    if placement.strategy() == Strategy::Pipeline {
        let stage = placement.ranges(options.rank).first().cloned().unwrap_or_default();
        return Ok((alone(), stage.start as usize..stage.end as usize));
    }
    let peers = (0..placement.size()).map(|rank| {
        let owned = placement.ranges(rank);
        (rank != options.rank && !owned.is_empty()).then(|| owned.to_vec())
    });
    Ok((Ownership { own: placement.ranges(options.rank).to_vec(), peers: peers.collect() }, all))
}

struct Resident {
    bytes: u64,
    /// Of them, those of experts and those of the embedding.
    expert_bytes: u64,
    table_bytes: u64,
    dense_digest: [u8; 32],
}

/// Streams every binding to the backend, tensors in parallel; dense tensors are digested on the way.
fn upload(checkpoint: &Checkpoint, bindings: &[Binding], backend: &dyn Backend) -> Result<Resident, ModelError> {
    let one = |binding: &Binding| -> Result<(u64, blake3::Hash), ModelError> {
        if let Part::Transposed { .. } = binding.part {
            return Ok((transpose::upload(checkpoint, binding, backend)?, blake3::Hasher::new().finalize()));
        }
        let mut hasher = blake3::Hasher::new();
        let mut bytes = 0;
        checkpoint.read(&binding.tensor, |offset, piece| {
            bytes += piece.len() as u64;
            if binding.scope == Scope::Dense {
                hasher.update(piece);
            }
            backend.upload(binding.buffer, binding.offset + offset, piece).map_err(ModelError::from)
        })?;
        Ok((bytes, hasher.finalize()))
    };
    let done = bindings.par_iter().map(one).collect::<Result<Vec<_>, _>>()?;
    let mut dense = blake3::Hasher::new();
    let of_dense = bindings.iter().zip(&done).filter(|(binding, _)| binding.scope == Scope::Dense);
    of_dense.for_each(|(_, (_, hash))| {
        dense.update(hash.as_bytes());
    });
    let sum = |of: &dyn Fn(&Binding) -> bool| -> u64 {
        bindings.iter().zip(&done).filter(|(binding, _)| of(binding)).map(|(_, (bytes, _))| bytes).sum()
    };
    Ok(Resident {
        bytes: sum(&|_| true),
        expert_bytes: sum(&|binding| binding.scope == Scope::Expert),
        table_bytes: sum(&|binding| binding.tensor == EMBEDDING),
        dense_digest: *dense.finalize().as_bytes(),
    })
}

fn compile(programs: &[Program], backend: &dyn Backend) -> Result<Programs, ModelError> {
    let (mut front, mut local, mut serve): (Vec<Executable>, Vec<_>, Vec<_>) = Default::default();
    for program in programs {
        let executable = backend.compile(program)?;
        match program.segment {
            Segment::Whole => return Ok(Programs::Whole(executable)),
            Segment::Front(_) => front.push(executable),
            Segment::Local(_) => local.push(executable),
            Segment::Serve(_) => serve.push(executable),
        }
    }
    Ok(Programs::Sharded { front, local, serve })
}

/// {backend, level, activation rounding, KV dtype, kernel revision}.
fn numerics_id(backend: &dyn Backend, kv: Dtype) -> String {
    let capabilities = backend.capabilities();
    let (name, level, revision) = (capabilities.name, capabilities.level, capabilities.kernel_revision);
    format!("{name}/{level}/activations-f32/kv-{}/r{revision}", format!("{kv:?}").to_lowercase())
}

/// The directory of a model source, as a worker sees it: `file:///dir` or a plain path.
///
/// # Errors
/// The source's scheme, when no reader for it exists yet.
pub fn source_directory(source: &str) -> Result<&Path, String> {
    match source.split_once("://") {
        None => Ok(Path::new(source)),
        Some(("file", path)) if path.starts_with('/') => Ok(Path::new(path)),
        Some(("file", _)) => Err(format!("{source:?} is not absolute; file:///DIR is allowed")),
        Some((scheme, _)) => Err(format!("source {scheme}:// is not supported yet; supported: file:///DIR")),
    }
}
