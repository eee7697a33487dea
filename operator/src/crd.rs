//! `ModelDeployment`: what a user may ask for, and what Shoal answers.
//!
//! Only types, bounds, CEL rules and printer columns. Never behaviour: the meaning of a field lives in
//! [`crate::controller`]. A field is here only if it acts today; strict decoding refuses all others.

#![allow(unreachable_pub, reason = "the twins that KubeSchema derives sit inside functions")]

pub mod admit;
pub mod model;
pub mod pod;
mod span;
pub mod status;
pub mod wishes;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

pub use self::model::{ModelShape, ModelSpec, WeightFormat};
pub use self::pod::{EnvVariable, PodSpec, PullSecret, ResourceAmounts, SchedulingGate, Toleration};
pub use self::span::Span;
pub use self::status::{
    GroupPhase, GroupStatus, LayoutStatus, ModelDeploymentStatus, PlanStatus, RecoveryStatus, RejectedLayout,
    RevisionStatus,
};
pub use self::wishes::{Backend, Hardware, PlacementWishes, RecoveryWishes, Rollout, Serving, Sharding, Strategy};

/// API group of [`ModelDeployment`].
pub const GROUP: &str = "inference.shoal.dev";
/// Changing the value of this annotation replaces every group by a rollout.
pub const RESTARTED_AT: &str = "inference.shoal.dev/restartedAt";

/// A fleet of groups of workers; each group serves one whole copy of one mixture-of-experts model.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "inference.shoal.dev",
    version = "v1alpha1",
    kind = "ModelDeployment",
    plural = "modeldeployments",
    shortname = "modeldep",
    namespaced,
    doc = "A fleet of groups of workers; each group serves one whole copy of one mixture-of-experts model.",
    status = "ModelDeploymentStatus",
    derive = "PartialEq",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Plan", type_ = "string", json_path = ".status.plan.summary"),
    printcolumn(name = "Groups", type_ = "string", json_path = ".status.groupsReady"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        priority = 1,
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Source", type_ = "string", priority = 1, json_path = ".spec.model.source"),
    validation = Rule::new("self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name must be a DNS-1035 label of at most 40 characters"),
    validation = Rule::new("!has(self.spec.sharding) || !has(self.spec.sharding.shards) || !has(self.spec.rollout) || !has(self.spec.rollout.maxAccelerators) || self.spec.rollout.maxAccelerators >= self.spec.sharding.shards")
        .message("rollout.maxAccelerators must hold at least the shards of one group")
)]
#[serde(rename_all = "camelCase")]
pub struct ModelDeploymentSpec {
    /// What to serve.
    pub model: ModelSpec,
    /// Groups that serve.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,
    /// How to cut the model. Omitted: the planner decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharding: Option<Sharding>,
    /// What a shard runs on.
    #[serde(default)]
    pub hardware: Hardware,
    /// What a group can hold.
    #[serde(default)]
    pub serving: Serving,
    /// How groups are replaced.
    #[serde(default)]
    pub rollout: Rollout,
    /// How lost groups come back.
    #[serde(default, skip_serializing_if = "RecoveryWishes::is_default")]
    pub recovery: RecoveryWishes,
    /// Where pods go.
    #[serde(default)]
    pub placement: PlacementWishes,
    /// What every pod gets beside what Shoal decides.
    #[serde(default)]
    pub pod: PodSpec,
}

fn one() -> i32 {
    1
}
