//! Secrets: made by POST and never read. What is there already stays as it is.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::PostParams;
use kube::{Api, Client};

use super::{Problem, keys};
use crate::names::{FIELD_MANAGER, label};

/// Makes each of `secrets` with a key pair of its own. Pods of a revision whose Secret cannot be had leave `pods`: they
/// could not start.
///
/// A Secret of that name is that revision's: an earlier pass made it, for another group or before a crash. Its name hashes
/// the UID of its model, and whoever may write Secrets in the namespace may read this one as well.
pub(super) async fn make(
    client: &Client,
    namespace: &str,
    secrets: Vec<Secret>,
    pods: &mut Vec<Pod>,
) -> Result<(), Problem> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let mut outcome = Ok(());
    for secret in secrets {
        let name = secret.metadata.name.clone().unwrap_or_default();
        let revision = |labels: &Option<BTreeMap<String, String>>| labels.as_ref()?.get(label::REVISION).cloned();
        let its_revision = revision(&secret.metadata.labels);
        match api.create(&params, &filled(secret, &name)).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 && status.reason == "AlreadyExists" => {}
            Err(error) => {
                pods.retain(|pod| revision(&pod.metadata.labels) != its_revision);
                outcome = outcome.and(Err(Problem::of("create", "Secret", &name, error)));
            }
        }
    }
    outcome
}

fn filled(secret: Secret, name: &str) -> Secret {
    let pair = keys::fresh(name, Timestamp::now());
    let data = [("tls.crt", pair.certificate), ("tls.key", pair.key)];
    let data = data.map(|(name, text)| (name.to_owned(), ByteString(text.into_bytes())));
    Secret { data: Some(data.into()), ..secret }
}
