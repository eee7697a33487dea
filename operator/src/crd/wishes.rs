//! The wishes of a spec: sharding, hardware, serving, rollout and placement.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Span;

/// How to cut the model.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Sharding {
    /// Shards of one group. Omitted: those that make the most tokens for their cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub shards: Option<i32>,
    /// Along what to cut.
    #[serde(default)]
    pub strategy: Strategy,
}

/// Along what a model is cut.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Routed experts are divided; everything else is on every shard.
    #[default]
    Experts,
    /// Layers are divided.
    Pipeline,
}

/// What a shard runs on.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.backend) || self.backend != 'CPU' || (!has(self.gpusPerShard) && !has(self.resourceName))")
        .message("backend CPU takes neither gpusPerShard nor resourceName"),
)]
pub struct Hardware {
    /// Omitted: the planner decides among those that this build runs, today CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<Backend>,
    /// A shard is one device for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1))]
    pub gpus_per_shard: Option<i32>,
    /// Extended resource that a shard asks for. Omitted: nvidia.com/gpu for CUDA, none for WGPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 128))]
    #[x_kube(
        validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$')")
            .message("resourceName must look like vendor.example/device"),
    )]
    pub resource_name: Option<String>,
}

/// Which kernels a worker runs.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Backend {
    CUDA,
    WGPU,
    CPU,
}

/// What a group can hold.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Serving {
    /// Longest prompt and answer together, in tokens.
    #[serde(default = "default_context_tokens")]
    #[schemars(range(min = 64, max = 16_777_216))]
    pub context_tokens: i32,
    /// Sequences of one group at once, divided over its shards.
    #[serde(default = "default_sequences")]
    #[schemars(range(min = 1, max = 65_536))]
    pub max_concurrent_sequences: i32,
    /// Resolve the client Service to the pods themselves, for clients that balance by round_robin.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub headless: bool,
}

fn default_context_tokens() -> i32 {
    4096
}

fn default_sequences() -> i32 {
    16
}

impl Default for Serving {
    fn default() -> Self {
        Self {
            context_tokens: default_context_tokens(),
            max_concurrent_sequences: default_sequences(),
            headless: false,
        }
    }
}

/// How groups are replaced, in groups.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.maxSurge + self.maxUnavailable > 0")
        .message("maxSurge and maxUnavailable must not both be 0"),
)]
pub struct Rollout {
    /// Groups above `replicas` during a rollout.
    #[serde(default = "default_surge")]
    #[schemars(range(min = 0, max = 100))]
    pub max_surge: i32,
    /// Groups that may be missing during a rollout.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub max_unavailable: i32,
    /// Shards that may exist at once, those that still end included, those on unreachable nodes not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_accelerators: Option<i32>,
    /// Seconds that all shards of a group must be ready before it counts.
    #[serde(default = "default_min_ready")]
    #[schemars(range(min = 0, max = 3600))]
    pub min_ready_seconds: i32,
    /// How long a rollout may go without progress before it is Degraded. Omitted: ten minutes more than a start may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress_deadline: Option<Span>,
    /// Makes no group of a new revision and removes none of an old one; lost groups still come back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

fn default_surge() -> i32 {
    1
}

fn default_min_ready() -> i32 {
    5
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            max_surge: default_surge(),
            max_unavailable: 0,
            max_accelerators: None,
            min_ready_seconds: default_min_ready(),
            progress_deadline: None,
            paused: false,
        }
    }
}

/// How often a lost group comes back.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryWishes {
    /// Losses of one group within `window`; one more, and it is left alone until the window has passed.
    #[serde(default = "default_restart_budget")]
    #[schemars(range(min = 0, max = 100))]
    pub restart_budget: i32,
    /// See `restartBudget`.
    #[serde(default = "default_window")]
    pub window: Span,
}

fn default_restart_budget() -> i32 {
    5
}

fn default_window() -> Span {
    Span("10m".to_owned())
}

impl Default for RecoveryWishes {
    fn default() -> Self {
        Self { restart_budget: default_restart_budget(), window: default_window() }
    }
}

impl RecoveryWishes {
    /// Nothing was asked for.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Where pods go.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PlacementWishes {
    /// Node label over whose values the groups are spread, each within one, if possible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317))]
    pub spread_groups_by: Option<String>,
    /// Node label that the shards of one group should share, if possible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317))]
    pub pack_shards_by: Option<String>,
}
