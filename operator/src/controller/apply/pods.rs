//! Pods: made by POST, never applied; told to end gracefully, never forced.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};
use tokio::sync::Semaphore;

use super::{Outcome, Problem};
use crate::controller::dereference::PodView;
use crate::controller::rollout::Shard;
use crate::names::FIELD_MANAGER;

/// Requests in flight for one object.
const AT_ONCE: usize = 32;

/// Makes and deletes in parallel.
pub(super) async fn write(
    client: &Client,
    namespace: &str,
    uid: &str,
    (create, delete): (Vec<Pod>, Vec<Arc<PodView>>),
    outcome: &mut Outcome,
) {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let permits = Semaphore::new(AT_ONCE);
    let (api, permits) = (&api, &permits);
    let makes = create.into_iter().map(|pod| async move {
        let _permit = permits.acquire().await;
        make(api, uid, pod).await.map(Some)
    });
    let mut makes: FuturesUnordered<_> = makes.collect();
    let ends = delete.into_iter().map(|pod| async move {
        let _permit = permits.acquire().await;
        end(api, &pod).await
    });
    let mut ends: FuturesUnordered<_> = ends.collect();
    loop {
        tokio::select! {
            Some(made) = makes.next() => outcome.take(made),
            Some(ended) = ends.next() => outcome.take(ended),
            else => return,
        }
    }
}

/// A pod of that name that exists already is ours only if controller, revision, group, epoch and rank say so.
async fn make(api: &Api<Pod>, uid: &str, pod: Pod) -> Result<PodView, Problem> {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    match api.create(&params, &pod).await {
        Ok(made) => Ok(PodView::from(made)),
        Err(kube::Error::Api(status)) if status.code == 409 && status.reason == "AlreadyExists" => {
            let there = api.get(&name).await.map_err(|error| Problem::of("get", "Pod", &name, error))?;
            let (there, wanted) = (PodView::from(there), PodView::from(pod));
            let ours = there.controller.as_deref() == Some(uid) && there.place == wanted.place;
            if ours { Ok(there) } else { Err(Problem::NameTaken { kind: "Pod", name }) }
        }
        Err(error) => Err(Problem::of("create", "Pod", &name, error)),
    }
}

/// Gone already, or replaced by another pod of the same name: both are what was wanted.
async fn end(api: &Api<Pod>, pod: &PodView) -> Result<Option<PodView>, Problem> {
    let name = pod.meta.name.as_deref().unwrap_or_default();
    let preconditions = Preconditions { uid: pod.meta.uid.clone(), ..Preconditions::default() };
    match api.delete(name, &DeleteParams::default().preconditions(preconditions)).await {
        Ok(answer) => Ok(answer.left().map(PodView::from).filter(|view| view.shard == Shard::Terminating)),
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(None),
        Err(error) => Err(Problem::of("delete", "Pod", name, error)),
    }
}
