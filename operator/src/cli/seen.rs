//! A ModelDeployment as the API server shows it to a command: printed whole, and read as far as this version can.
//!
//! Without this one object that a newer version stored would fail the list of all.

use kube::api::{ApiResource, DynamicObject, ObjectMeta};
use kube::{Api, Client};
use serde::Deserialize as _;

use super::cluster::{ClusterError, during};
use crate::controller::dereference::Stored;
use crate::crd::{ModelDeployment, ModelDeploymentStatus};

/// ModelDeployments of a namespace, or of all without one, as they are stored.
pub(super) fn stored(client: Client, namespace: Option<&str>) -> Api<DynamicObject> {
    let kind = ApiResource::erase::<ModelDeployment>(&());
    match namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &kind),
        None => Api::all_with(client, &kind),
    }
}

/// What can be told of one object.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) metadata: ObjectMeta,
    /// `None`: it has none, or one that cannot be read.
    pub(super) status: Option<ModelDeploymentStatus>,
    /// `spec.model.source`, or the field and the value that this version does not know.
    pub(super) source: Result<String, String>,
}

impl Seen {
    /// # Errors
    /// [`ClusterError::Api`] for an answer that is no object at all.
    pub(super) fn of(object: &DynamicObject) -> Result<Self, ClusterError> {
        let broken = |error| during("read a ModelDeployment")(kube::Error::SerdeError(error));
        let raw = serde_json::to_value(object).map_err(broken)?;
        Ok(match Stored::deserialize(&raw).map_err(broken)?.object {
            Ok(model) => Self::from(&model),
            Err(unread) => Self {
                metadata: unread.meta,
                status: ModelDeploymentStatus::deserialize(&unread.status).ok(),
                source: Err(unread.problem),
            },
        })
    }
}

impl From<&ModelDeployment> for Seen {
    fn from(model: &ModelDeployment) -> Self {
        Self {
            metadata: model.metadata.clone(),
            status: model.status.clone(),
            source: Ok(model.spec.model.source.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_of_a_newer_version_is_shown_with_the_field_that_is_not_known() {
        let object = |backend: &str, phase: &str| {
            let raw = json!({
                "apiVersion": "inference.shoal.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": "m"},
                "spec": {"model": {"source": "file:///m"}, "hardware": {"backend": backend}},
                "status": {"groupsReady": "1/1", "groups": [
                    {"index": 0, "epoch": 1, "revision": "A", "phase": phase, "readyShards": 1, "shards": 1},
                ]},
            });
            Seen::of(&serde_json::from_value(raw).unwrap()).unwrap()
        };
        let known = object("CPU", "Ready");
        assert_eq!((known.source, known.metadata.name), (Ok("file:///m".to_owned()), Some("m".to_owned())));
        let newer = object("TPU", "Ready");
        assert!(newer.source.unwrap_err().starts_with("spec.hardware.backend: Unsupported value: \"TPU\""));
        assert_eq!(newer.status.unwrap().groups_ready, "1/1");
        let newest = object("CPU", "Warm");
        assert!(newest.source.unwrap_err().starts_with("status.groups[0].phase"));
        assert!(newest.status.is_none());
    }
}
