//! Services, PodDisruptionBudgets and NetworkPolicies: server-side apply, only when absent or controlled by us; deleted
//! with their UID.

use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, Resource as _, ResourceExt as _};

use super::Problem;
use crate::controller::dereference::{Applied, ObjectView};
use crate::names::FIELD_MANAGER;

/// Applies `object`; `ours`: the watch shows it under our control. Otherwise it must not exist.
pub(super) async fn apply<K: Applied>(
    client: &Client,
    uid: &str,
    (object, ours): (K, bool),
) -> Result<ObjectView<K>, Problem> {
    let api: Api<K> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let (kind, name) = (<K as k8s_openapi::Resource>::KIND, object.name_any());
    let is_ours = |view: &ObjectView<K>| view.controller.as_deref() == Some(uid);
    let taken = || Problem::NameTaken { kind, name: name.clone() };
    if !ours {
        let there = api.get_opt(&name).await.map_err(|error| Problem::of("get", kind, &name, error))?;
        if there.is_some_and(|there| !is_ours(&ObjectView::from(there))) {
            return Err(taken());
        }
    }
    let mut params = PatchParams::apply(FIELD_MANAGER);
    params.force = ours;
    match api.patch(&name, &params, &Patch::Apply(&object)).await {
        Ok(applied) => Some(ObjectView::from(applied)).filter(is_ours).ok_or_else(taken),
        Err(error) => Err(Problem::of("apply", kind, &name, error)),
    }
}

/// Gone already, or replaced by another object of the same name: both are what was wanted.
pub(super) async fn remove<K: Applied>(client: &Client, view: &ObjectView<K>) -> Result<(), Problem> {
    let meta = view.meta();
    let api: Api<K> = Api::namespaced(client.clone(), meta.namespace.as_deref().unwrap_or_default());
    let name = meta.name.as_deref().unwrap_or_default();
    let preconditions = Preconditions { uid: meta.uid.clone(), ..Preconditions::default() };
    match api.delete(name, &DeleteParams::default().preconditions(preconditions)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        Err(error) => Err(Problem::of("delete", <K as k8s_openapi::Resource>::KIND, name, error)),
    }
}
