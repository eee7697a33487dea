//! Services: server-side apply, only when absent or controlled by us; deleted only to be made anew.

use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};

use super::Problem;
use crate::controller::dereference::ServiceView;
use crate::names::FIELD_MANAGER;

/// Applies `service`; `ours`: the watch shows it under our control. Otherwise it must not exist.
pub(super) async fn apply(
    client: &Client,
    namespace: &str,
    uid: &str,
    (service, ours): (Service, bool),
) -> Result<ServiceView, Problem> {
    let api: Api<Service> = Api::namespaced(client.clone(), namespace);
    let name = service.metadata.name.clone().unwrap_or_default();
    let is_ours = |view: &ServiceView| view.controller.as_deref() == Some(uid);
    let taken = || Problem::NameTaken { kind: "Service", name: name.clone() };
    if !ours {
        let there = api.get_opt(&name).await.map_err(|error| Problem::of("get", "Service", &name, error))?;
        if there.is_some_and(|there| !is_ours(&ServiceView::from(there))) {
            return Err(taken());
        }
    }
    let mut params = PatchParams::apply(FIELD_MANAGER);
    params.force = ours;
    let applied = api.patch(&name, &params, &Patch::Apply(&service)).await;
    match applied {
        Ok(service) => Some(ServiceView::from(service)).filter(is_ours).ok_or_else(taken),
        Err(error) => Err(Problem::of("apply", "Service", &name, error)),
    }
}

/// Deletes exactly the Service that was seen.
pub(super) async fn delete(client: &Client, namespace: &str, view: &ServiceView) -> Result<(), Problem> {
    let api: Api<Service> = Api::namespaced(client.clone(), namespace);
    let name = view.meta.name.as_deref().unwrap_or_default();
    let preconditions = Preconditions { uid: view.meta.uid.clone(), ..Preconditions::default() };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match api.delete(name, &params).await {
        Ok(_) => Ok(()),
        // It is gone, or another one has its name: what follows will see.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(Problem::of("delete", "Service", name, error)),
    }
}
