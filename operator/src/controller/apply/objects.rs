//! Services, PodDisruptionBudgets and NetworkPolicies: made by POST, so never over one of somebody else; corrected by a
//! merge patch of exactly what differs in the fields that are ours; deleted with their UID.
//!
//! Not by server-side apply: it would have to look first whether the name is free, and leaves in place what others add
//! to a field, as a key of a selector that no pod carries.

use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource as _, ResourceExt as _};
use serde_json::json;

use super::{Problem, merge_diff};
use crate::controller::dereference::{Applied, ObjectView, owned};
use crate::names::FIELD_MANAGER;

/// Makes `object`, or corrects the one that the watch shows under our control.
pub(super) async fn apply<K: Applied>(
    client: &Client,
    uid: &str,
    (object, ours): (K, bool),
) -> Result<ObjectView<K>, Problem> {
    let api: Api<K> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let (kind, name) = (<K as k8s_openapi::Resource>::KIND, object.name_any());
    if !ours {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match api.create(&params, &object).await {
            Ok(made) => return Ok(ObjectView::from(made)),
            Err(kube::Error::Api(status)) if status.code == 409 && status.reason == "AlreadyExists" => {}
            Err(error) => return Err(Problem::of("create", kind, &name, error)),
        }
    }
    let there = api.get(&name).await.map_err(|error| Problem::of("get", kind, &name, error))?;
    let is_ours =
        |there: &K| there.owner_references().iter().any(|owner| owner.controller == Some(true) && owner.uid == uid);
    if !is_ours(&there) {
        return Err(Problem::NameTaken { kind, name });
    }
    let mut change = merge_diff(&owned(&there), &owned(&object));
    // Never into another object that has taken the name since.
    change["metadata"]["uid"] = json!(there.uid());
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let corrected: Result<K, _> = api.patch(&name, &params, &Patch::Merge(&change)).await;
    corrected.map(ObjectView::from).map_err(|error| Problem::of("patch", kind, &name, error))
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
