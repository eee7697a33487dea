//! The Secret that makes the shards of a revision known to one another, without its key pair: that is made where it is
//! written, and nothing pure ever holds it.

use k8s_openapi::api::core::v1::Secret;
use kube::api::ObjectMeta;

use super::{common_labels, owner_reference};
use crate::controller::plan::Revision;
use crate::names::{label, tls_secret};

/// Immutable, so that kubelets need not watch it: another pair comes with another revision.
pub(super) fn shard_tls(revision: &Revision) -> Secret {
    let owner = &revision.spec.owner;
    let mut labels = common_labels(owner);
    labels.insert(label::REVISION.to_owned(), revision.hash.to_string());
    Secret {
        metadata: ObjectMeta {
            name: Some(name(revision)),
            namespace: Some(owner.namespace.clone()),
            labels: Some(labels),
            owner_references: Some(vec![owner_reference(owner)]),
            ..Default::default()
        },
        type_: Some("kubernetes.io/tls".to_owned()),
        immutable: Some(true),
        ..Default::default()
    }
}

/// Its name, for the pods that mount it.
pub(super) fn name(revision: &Revision) -> String {
    let owner = &revision.spec.owner;
    tls_secret(&owner.name, &owner.uid, &revision.hash)
}
