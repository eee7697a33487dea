//! Makes a spec that cannot be wrong: the only step that may say no.
//!
//! Pure. Never looks at a cluster: whether a model fits is the planner's question.

mod pod;
pub mod source;

use crate::crd::{
    Backend, Hardware, ModelDeployment, ModelDeploymentSpec, ModelShape, PlacementWishes, PodSpec, RESTARTED_AT,
    RecoveryWishes, Rollout, Strategy,
};
use crate::names::{ModelName, NameError};
use crate::shape;

pub use self::source::{ModelSource, SourceError};

/// The longest compact spec of a revision, in bytes of JSON.
pub const MAX_COMPACT_SPEC_BYTES: usize = 8 * 1024;

/// Whose objects these are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Namespace of the ModelDeployment and of everything it owns.
    pub namespace: String,
    /// Its name.
    pub name: ModelName,
    /// Its uid; empty when there is no cluster.
    pub uid: String,
}

impl Owner {
    /// Reads name, namespace and uid.
    ///
    /// # Errors
    /// [`Rejection::Name`].
    pub fn of(object: &ModelDeployment) -> Result<Self, Rejection> {
        let meta = &object.metadata;
        Ok(Self {
            namespace: meta.namespace.clone().unwrap_or_else(|| "default".to_owned()),
            name: ModelName::parse(meta.name.as_deref().unwrap_or_default())?,
            uid: meta.uid.clone().unwrap_or_default(),
        })
    }
}

/// What a shard runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Kernels of the worker.
    pub backend: Backend,
    /// Extended resource that a shard asks for: one unit.
    pub resource: Option<String>,
}

/// A spec that cannot be wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Validated {
    /// Whose objects these are.
    pub owner: Owner,
    /// Where the weights are.
    pub source: ModelSource,
    /// Sizes: from the spec, else from the table of published models.
    pub shape: Option<ModelShape>,
    /// Groups that serve.
    pub replicas: u32,
    /// Shards of one group, 1 to 64; `None`: the planner decides.
    pub shards: Option<u32>,
    /// Along what to cut.
    pub strategy: Strategy,
    /// What a shard runs on.
    pub device: Device,
    /// No backend is named: the planner decides among those that this build runs.
    pub any_backend: bool,
    /// Longest prompt and answer together, in tokens.
    pub context_tokens: u32,
    /// Sequences of one group at once.
    pub max_concurrent_sequences: u32,
    /// How groups are replaced.
    pub rollout: Rollout,
    /// How lost groups come back.
    pub recovery: RecoveryWishes,
    /// Where pods go.
    pub placement: PlacementWishes,
    /// What every pod gets beside what Shoal decides.
    pub pod: PodSpec,
    /// The spec that revisions keep, as JSON of at most [`MAX_COMPACT_SPEC_BYTES`].
    pub compact: String,
    /// Everything whose change makes a new revision, as JSON.
    pub asked: String,
    not_yet: Option<Rejection>,
}

impl Validated {
    /// Whether this build can run it. What it cannot run is planned all the same, but never built.
    ///
    /// # Errors
    /// [`Rejection::NotSupportedYet`].
    pub fn supported(&self) -> Result<(), Rejection> {
        self.not_yet.clone().map_or(Ok(()), Err)
    }
}

/// Why a spec is not accepted; the variant is the reason of `Accepted=False`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Not a name we can build hostnames from.
    #[error("metadata.name: {0}")]
    Name(#[from] NameError),
    /// A source that names nothing.
    #[error("spec.model.source: {0}")]
    Source(#[from] SourceError),
    /// Numbers of the shape that contradict one another.
    #[error("spec.model.shape: {0}")]
    Shape(String),
    /// More context than the model knows.
    #[error("spec.serving.contextTokens is {asked}; the model knows at most {max}")]
    ContextTooLong {
        /// Tokens asked for.
        asked: u32,
        /// Tokens that the model knows.
        max: u32,
    },
    /// More shards than there are experts, or layers.
    #[error("spec.sharding.shards is {shards}; the model has only {parts} {what} to divide")]
    TooManyShards {
        /// Shards asked for.
        shards: u32,
        /// `experts` or `layers`.
        what: &'static str,
        /// How many there are.
        parts: u32,
    },
    /// A part of `spec.pod` that no pod may have.
    #[error("spec.pod.{field}: {problem}")]
    Pod {
        /// The field under `spec.pod`.
        field: &'static str,
        /// What is wrong and what is allowed.
        problem: String,
    },
    /// Too long to be kept in the status.
    #[error("the spec without its shape has {0} bytes as JSON; at most {MAX_COMPACT_SPEC_BYTES} are allowed")]
    SpecTooLarge(usize),
    /// Right, but not built yet.
    #[error("{0}")]
    NotSupportedYet(String),
}

impl Rejection {
    /// The reason of the condition, also metric label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Name(_) => "InvalidName",
            Self::Source(_) => "InvalidSource",
            Self::Shape(_) => "InvalidShape",
            Self::ContextTooLong { .. } => "ContextTooLong",
            Self::TooManyShards { .. } => "TooManyShards",
            Self::Pod { .. } => "InvalidPod",
            Self::SpecTooLarge(_) => "SpecTooLarge",
            Self::NotSupportedYet(_) => "NotSupportedYet",
        }
    }
}

/// Checks everything that the CRD's schema and CEL rules cannot.
///
/// # Errors
/// The first [`Rejection`] found.
pub fn validate(object: &ModelDeployment) -> Result<Validated, Rejection> {
    let restarted = object.metadata.annotations.as_ref().and_then(|all| all.get(RESTARTED_AT));
    validate_spec(Owner::of(object)?, &object.spec, restarted.map(String::as_str))
}

/// As [`validate`], for the compact spec of a revision.
///
/// # Errors
/// The first [`Rejection`] found.
pub fn validate_spec(
    owner: Owner,
    spec: &ModelDeploymentSpec,
    restarted_at: Option<&str>,
) -> Result<Validated, Rejection> {
    let source = ModelSource::parse(&spec.model.source)?;
    let shape = spec.model.shape.clone().or_else(|| shape::published(&source));
    let shards = spec.sharding.as_ref().and_then(|sharding| sharding.shards).map(count);
    let context_tokens = count(spec.serving.context_tokens);
    let strategy = spec.sharding.as_ref().map(|sharding| sharding.strategy).unwrap_or_default();
    if let Some(shape) = &shape {
        check_shape(shape, context_tokens)?;
        check_shards(shape, strategy, shards)?;
    }
    pod::check(&spec.pod, &spec.hardware)?;
    let compact = compact(spec);
    if compact.len() > MAX_COMPACT_SPEC_BYTES {
        return Err(Rejection::SpecTooLarge(compact.len()));
    }
    let asked = asked(spec, restarted_at);
    let mut validated = Validated {
        owner,
        source,
        shape,
        replicas: count(spec.replicas),
        shards,
        strategy,
        device: device(&spec.hardware),
        any_backend: spec.hardware.backend.is_none(),
        context_tokens,
        max_concurrent_sequences: count(spec.serving.max_concurrent_sequences),
        rollout: spec.rollout.clone(),
        recovery: spec.recovery.clone(),
        placement: spec.placement.clone(),
        pod: spec.pod.clone(),
        compact,
        asked,
        not_yet: None,
    };
    validated.not_yet = not_yet(&validated);
    Ok(validated)
}

/// The schema bounds every count from below by 0.
fn count(value: i32) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

fn device(hardware: &Hardware) -> Device {
    let backend = hardware.backend.unwrap_or(Backend::CPU);
    let default = (backend == Backend::CUDA).then(|| "nvidia.com/gpu".to_owned());
    Device { backend, resource: hardware.resource_name.clone().or(default) }
}

fn check_shards(shape: &ModelShape, strategy: Strategy, shards: Option<u32>) -> Result<(), Rejection> {
    let (what, parts) = match strategy {
        Strategy::Experts => ("experts", count(shape.experts)),
        Strategy::Pipeline => ("layers", count(shape.layers)),
    };
    match shards {
        Some(shards) if shards > parts => Err(Rejection::TooManyShards { shards, what, parts }),
        _ => Ok(()),
    }
}

fn check_shape(shape: &ModelShape, context_tokens: u32) -> Result<(), Rejection> {
    let all = i128::from(shape.expert_bytes) * i128::from(shape.experts) * i128::from(shape.moe_layers);
    if all > 1 << 52 {
        return Err(Rejection::Shape(format!("{all} bytes of experts; at most 2^52 are allowed")));
    }
    if !shape::ARCHITECTURES.contains(&shape.architecture.as_str()) {
        let known = shape::ARCHITECTURES.join(", ");
        let name = &shape.architecture;
        return Err(Rejection::Shape(format!("architecture {name} is not supported; supported: {known}")));
    }
    let max = count(shape.max_context_tokens);
    if context_tokens > max {
        return Err(Rejection::ContextTooLong { asked: context_tokens, max });
    }
    Ok(())
}

/// Without what never changes a pod (replicas, rollout, headless) and what was already turned into a plan (shape).
fn compact(spec: &ModelDeploymentSpec) -> String {
    let mut kept = spec.clone();
    kept.model.shape = None;
    kept.replicas = 1;
    kept.rollout = Rollout::default();
    kept.serving.headless = false;
    kept.recovery = RecoveryWishes::default();
    serde_json::to_string(&kept).expect("a spec has only string keys, so it should serialize")
}

fn asked(spec: &ModelDeploymentSpec, restarted_at: Option<&str>) -> String {
    let mut asked = spec.clone();
    asked.replicas = 1;
    asked.rollout = Rollout::default();
    asked.serving.headless = false;
    asked.recovery = RecoveryWishes::default();
    serde_json::to_string(&(asked, restarted_at)).expect("a spec has only string keys, so it should serialize")
}

fn not_yet(validated: &Validated) -> Option<Rejection> {
    let backend = validated.device.backend;
    let missing = if backend != Backend::CPU {
        format!("hardware.backend {backend:?} is not supported yet; supported: CPU")
    } else if !validated.source.is_mounted() {
        let scheme = validated.source.scheme();
        format!("model source {scheme}:// is not supported yet; supported: file://, pvc://, oci://")
    } else {
        return None;
    };
    Some(Rejection::NotSupportedYet(missing))
}

#[cfg(test)]
mod tests;
