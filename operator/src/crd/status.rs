//! `status`: the plan with its arithmetic, the groups, and everything that must outlive the operator.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// What Shoal answers.
// Shown until an operator has answered: to kstatus (Helm, Flux, Argo CD) an object without conditions is done, unless
// its status is one of another generation.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[schemars(extend("default" = {"observedGeneration": UNSEEN}))]
#[serde(rename_all = "camelCase", default)]
pub struct ModelDeploymentStatus {
    /// Generation of the spec that this status answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What would run where, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanStatus>,
    /// Every group that exists.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1100))]
    pub groups: Vec<GroupStatus>,
    /// Plans and images of the revisions that exist: decided once, never recomputed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub revisions: Vec<RevisionStatus>,
    /// Groups that were lost or withdrawn and have not been healthy for ten minutes since.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub recovery: Vec<RecoveryStatus>,
    /// When the rollout last came nearer to what is asked; absent when nothing is left to do, or nothing may be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progressed_at: Option<Time>,
    /// Groups that exist, for the scale subresource.
    pub replicas: i32,
    /// Groups whose shards are all ready, of any revision.
    pub available_groups: i32,
    /// Groups of the target revision.
    pub updated_groups: i32,
    /// Available and wished groups, e.g. 1/2.
    #[schemars(length(max = 16))]
    pub groups_ready: String,
    /// Selects exactly one pod per group, for the scale subresource.
    #[schemars(length(max = 256))]
    pub selector: String,
    /// Accepted, Planned, Available, Ready, Reconciling, Stalled, Degraded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

/// The generation that an object's status answers before any operator has looked at it.
const UNSEEN: i64 = -1;

impl ModelDeploymentStatus {
    /// Whether an operator has written it; otherwise it is the schema's default.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.observed_generation != Some(UNSEEN)
    }
}

/// What would run where, and why.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct PlanStatus {
    /// One line, e.g. 4 × CPU, 16 experts each, 9.3 GiB.
    #[schemars(length(max = 256))]
    pub summary: String,
    /// The layout in numbers; absent when none could be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<LayoutStatus>,
    /// How the bytes of the largest shard and the speed of a group come about, a line a term.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 256)))]
    pub arithmetic: Vec<String>,
    /// Layouts that were not chosen, with reasons.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub rejected: Vec<RejectedLayout>,
    /// A layout that makes at least 1.1 times the tokens for its cost; only a restart or an edit would start it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub better: Option<String>,
}

/// A layout in numbers.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LayoutStatus {
    /// Shards of one group.
    pub shards: i32,
    /// What a shard runs on.
    #[schemars(length(max = 64))]
    pub device: String,
    /// Experts of one layer on the largest shard; 0 if unknown.
    pub experts_per_shard: i32,
    /// Layers on the largest shard; 0 if unknown.
    #[serde(default)]
    pub layers_per_shard: i32,
    /// Bytes that the largest shard needs; 0 if unknown.
    pub shard_bytes: i64,
    /// Tokens per second of one group when all its sequences decode, by a roofline model; 0 if unknown.
    #[serde(default)]
    pub predicted_tokens_per_second: i64,
}

/// A layout that was not chosen.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RejectedLayout {
    /// The layout, e.g. 2 × CPU.
    #[schemars(length(max = 64))]
    pub layout: String,
    /// Why not.
    #[schemars(length(max = 256))]
    pub reason: String,
}

/// One group.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct GroupStatus {
    /// Its place among the replicas.
    pub index: i32,
    /// How often it was formed.
    pub epoch: i64,
    /// Its revision.
    #[schemars(length(max = 16))]
    pub revision: String,
    /// What it is doing.
    pub phase: GroupPhase,
    /// Shards that are ready.
    pub ready_shards: i32,
    /// Shards in all.
    pub shards: i32,
    /// Why it is not ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub message: Option<String>,
}

/// What a group is doing.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum GroupPhase {
    Pending,
    Starting,
    Ready,
    Lost,
    Draining,
}

/// What was decided once for one revision, enough to form its groups again.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RevisionStatus {
    /// Hash of what the user asked for.
    #[schemars(length(max = 16))]
    pub hash: String,
    /// New groups get this revision.
    #[serde(default)]
    pub target: bool,
    /// Groups of this revision exist or may be formed again.
    #[serde(default)]
    pub serving: bool,
    /// Worker image.
    #[schemars(length(max = 512))]
    pub image: String,
    /// Shards of one group.
    pub shards: i32,
    /// The Placement message in base64; empty: every worker divides the experts evenly.
    #[serde(default)]
    #[schemars(length(max = 16384))]
    pub placement: String,
    /// Memory that a shard requests; 0 if unknown.
    #[serde(default)]
    pub shard_bytes: i64,
    /// Bytes that a shard reads at start; 0 if unknown.
    #[serde(default)]
    pub load_bytes: i64,
    /// Memory that a shard needs on its device; absent without a device or if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_bytes: Option<i64>,
    /// The product for which it was planned, where nodes offered several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub product: Option<String>,
    /// The spec as JSON, without replicas, rollout and shape.
    #[schemars(length(max = 8192))]
    pub spec: String,
}

/// How one group came back.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryStatus {
    /// Its index.
    pub group: i32,
    /// Its epoch, written before the first pod of that epoch.
    pub epoch: i64,
    /// Losses since `windowStart`; withdrawals for want of room are no losses.
    pub failures: i32,
    /// Losses, or withdrawals, in a row: what the wait grows with.
    #[serde(default)]
    pub streak: i32,
    /// When counting began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_start: Option<Time>,
    /// Not formed again before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_retry: Option<Time>,
    /// Why the shard was lost.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub reason: String,
    /// What was said last: log lines of the lost shard, or the scheduler's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub message: String,
}

fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "maxItems": 16,
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": {"type": "string", "maxLength": 64},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                "reason": {"type": "string", "maxLength": 64},
                "message": {"type": "string", "maxLength": 4096},
                "lastTransitionTime": {"type": "string", "format": "date-time"},
                "observedGeneration": {"type": "integer", "format": "int64"}
            }
        }
    })
}
