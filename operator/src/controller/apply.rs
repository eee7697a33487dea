//! The only writer: everything is made by POST; Services, budgets and policies are corrected by patches; deletes with UID
//! preconditions, the status as a patch on the resourceVersion it was computed from, and Events.
//!
//! Never decides: it carries out what a pass decided and says what the API server answered.

mod diff;
mod events;
pub mod keys;
mod objects;
mod pods;
mod secrets;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{ObjectMeta, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

pub use self::diff::{keep_unknown, merge_diff};
pub use self::events::{Happening, Teller};
use super::dereference::{BudgetView, PodView, PolicyView, ServiceView, Stored, Unread};
use crate::crd::ModelDeploymentStatus;

/// What kept a write from being carried out.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// Something of that name exists and is not ours; it was not touched.
    #[error("{kind} {name} exists and belongs to somebody else; it was not touched")]
    NameTaken {
        /// Pod, Service or PodDisruptionBudget.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// Our rights do not suffice, or a policy or quota says no.
    #[error("not allowed to {verb} {kind} {name}: {message}")]
    Forbidden {
        /// What was tried.
        verb: &'static str,
        /// On what kind.
        kind: &'static str,
        /// On which object.
        name: String,
        /// The server's words.
        message: String,
    },
    /// The API server finds the object itself wrong.
    #[error("the API server refuses {kind} {name}: {message}")]
    Invalid {
        /// Pod, Service or PodDisruptionBudget.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The server's words.
        message: String,
    },
    /// Anything else; trying again may help.
    #[error("could not {verb} {kind} {name}")]
    Api {
        /// What was tried.
        verb: &'static str,
        /// On what kind.
        kind: &'static str,
        /// On which object.
        name: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
}

impl Problem {
    /// Reason of the condition, also metric label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NameTaken { .. } => "NameTaken",
            Self::Forbidden { .. } => "Forbidden",
            Self::Invalid { .. } => "RefusedByServer",
            Self::Api { .. } => "ApiError",
        }
    }

    fn of(verb: &'static str, kind: &'static str, name: &str, error: kube::Error) -> Self {
        let name = name.to_owned();
        match &error {
            kube::Error::Api(status) if status.code == 422 || status.code == 400 => {
                Self::Invalid { kind, name, message: status.message.clone() }
            }
            kube::Error::Api(status) if status.code == 403 => {
                Self::Forbidden { verb, kind, name, message: status.message.clone() }
            }
            _ => Self::Api { verb, kind, name, source: Box::new(error) },
        }
    }
}

/// What became of a group of writes: everything that succeeded, and the first problem.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Pods as they are now: made, adopted or told to end.
    pub pods: Vec<PodView>,
    /// Services as they are now.
    pub services: Vec<ServiceView>,
    /// The PodDisruptionBudget as it is now.
    pub budget: Option<BudgetView>,
    /// The PodDisruptionBudget that is gone.
    pub unprotected: Option<Arc<BudgetView>>,
    /// The NetworkPolicy as it is now.
    pub policy: Option<PolicyView>,
    /// The NetworkPolicy that is gone.
    pub unguarded: Option<Arc<PolicyView>>,
    /// The first problem.
    pub problem: Option<Problem>,
}

impl Outcome {
    fn take(&mut self, result: Result<Option<PodView>, Problem>) {
        let view = self.sift(result).flatten();
        self.pods.extend(view);
    }

    /// What succeeded; the first problem is kept.
    fn sift<T>(&mut self, result: Result<T, Problem>) -> Option<T> {
        match result {
            Ok(done) => Some(done),
            Err(problem) => {
                self.problem.get_or_insert(problem);
                None
            }
        }
    }
}

/// What a pass wants to be carried out.
#[derive(Debug, Default)]
pub struct Work {
    /// Secrets that pods to make will mount, still without their key pairs.
    pub secrets: Vec<Secret>,
    /// Pods to make.
    pub create: Vec<Pod>,
    /// Pods to tell to end.
    pub delete: Vec<Arc<PodView>>,
    /// Names of pods that no watch shows and that are told to end if they are there and ours after all.
    pub strays: Vec<String>,
    /// Services of ours to delete first, because what is to change in them never changes.
    pub outdated: Vec<Arc<ServiceView>>,
    /// Services to make or to correct; `true`: seen and ours.
    pub services: Vec<(Service, bool)>,
    /// The PodDisruptionBudget that keeps more pods than before, written before they are made; `true`: as above.
    pub raise: Option<(PodDisruptionBudget, bool)>,
    /// What keeps fewer pods than before, written when they have been told to end: no eviction slips in between.
    pub lower: Option<Lowering>,
    /// The NetworkPolicy to make or to correct; `true`: as above.
    pub policy: Option<(NetworkPolicy, bool)>,
    /// The NetworkPolicy that is not wanted any more.
    pub unguard: Option<Arc<PolicyView>>,
}

/// How a PodDisruptionBudget comes to keep fewer pods.
#[derive(Debug)]
pub enum Lowering {
    /// By a smaller number; `true`: seen and ours.
    To(Box<PodDisruptionBudget>, bool),
    /// By its removal.
    Away(Arc<BudgetView>),
}

impl Work {
    /// Nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let budget = self.raise.is_some() || self.lower.is_some();
        let policy = self.policy.is_some() || self.unguard.is_some();
        self.create.is_empty() && self.delete.is_empty() && self.services.is_empty() && !budget && !policy
    }
}

/// Carries out all of `work`, pods in parallel; one problem does not stop the rest.
pub async fn apply(client: &Client, namespace: &str, uid: &str, mut work: Work) -> Outcome {
    let mut outcome = Outcome::default();
    for view in work.outdated {
        outcome.sift(objects::remove(client, &view).await);
    }
    // Services first: shards resolve one another's names as soon as they start.
    let applied = work.services.into_iter().map(|service| objects::apply(client, uid, service));
    for result in futures::future::join_all(applied).await {
        let applied = outcome.sift(result);
        outcome.services.extend(applied);
    }
    if let Some(budget) = work.raise {
        outcome.budget = outcome.sift(objects::apply(client, uid, budget).await);
    }
    if let Some(policy) = work.policy {
        outcome.policy = outcome.sift(objects::apply(client, uid, policy).await);
    }
    if let Some(view) = work.unguard {
        outcome.unguarded = outcome.sift(objects::remove(client, &view).await).map(|()| view);
    }
    // Secrets before the pods that wait for them.
    outcome.sift(secrets::make(client, namespace, work.secrets, &mut work.create).await);
    let pods = (work.create, work.delete, work.strays);
    pods::write(client, namespace, uid, pods, &mut outcome).await;
    match work.lower {
        Some(Lowering::To(budget, ours)) => {
            outcome.budget = outcome.sift(objects::apply(client, uid, (*budget, ours)).await);
        }
        Some(Lowering::Away(view)) => {
            let gone = outcome.sift(objects::remove(client, &view).await);
            outcome.unprotected = gone.map(|()| view);
        }
        None => {}
    }
    outcome
}

/// Asks for pods, one by one: what there is now of each, in order; after some refusals the rest is left out.
pub async fn look(client: &Client, namespace: &str, asked: &[Arc<PodView>]) -> Vec<Result<Option<PodView>, Problem>> {
    pods::look(client, namespace, asked).await
}

/// Writes `status` if it differs from what `stored` carries; returns the object as it is then. What this version does
/// not know of it stays.
///
/// # Errors
/// What the API server answers; 409: `stored` is not the newest.
pub async fn remember(
    client: &Client,
    stored: &Stored,
    status: &ModelDeploymentStatus,
) -> Result<Option<Stored>, kube::Error> {
    let Ok(model) = &stored.object else { return Ok(None) };
    let change = match &stored.status {
        Some(raw) => merge_diff(raw, &keep_unknown(raw, to_value(status))),
        None => {
            let written = model.status.as_ref().filter(|status| status.is_written());
            merge_diff(&written.map_or_else(|| json!({}), to_value), &to_value(status))
        }
    };
    patch_status(client, &model.metadata, change).await
}

/// Writes `status` to an object that cannot be read, if it differs from what is stored; as [`remember`].
///
/// # Errors
/// As [`remember`].
pub async fn refuse(client: &Client, unread: &Unread, status: &Value) -> Result<Option<Stored>, kube::Error> {
    let before = if unread.status.is_object() { unread.status.clone() } else { json!({}) };
    patch_status(client, &unread.meta, merge_diff(&before, status)).await
}

async fn patch_status(client: &Client, metadata: &ObjectMeta, change: Value) -> Result<Option<Stored>, kube::Error> {
    if change.as_object().is_none_or(serde_json::Map::is_empty) {
        return Ok(None);
    }
    let api: Api<Stored> = Api::namespaced(client.clone(), metadata.namespace.as_deref().unwrap_or_default());
    let patch = json!({
        "metadata": {"uid": metadata.uid, "resourceVersion": metadata.resource_version},
        "status": change,
    });
    let name = metadata.name.as_deref().unwrap_or_default();
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await.map(Some)
}

fn to_value(status: &ModelDeploymentStatus) -> Value {
    serde_json::to_value(status).expect("a status has only string keys, so it should serialise")
}
