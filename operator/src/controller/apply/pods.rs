//! Pods: made by POST, never applied; told to end gracefully, never forced.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};

use super::{Outcome, Problem};
use crate::controller::dereference::PodView;
use crate::names::FIELD_MANAGER;

/// Requests in flight for one object at first; each success allows one more.
const AT_FIRST: usize = 4;
/// The most requests in flight for one object, of each kind.
const AT_MOST: usize = 32;
/// So many refusals end a pass's writes of a kind: the rest would fare no better, and waits for the next pass.
const REFUSALS: usize = 4;

/// Deletes, then makes, each in parallel: what is too many goes before what takes its place, so that no more groups exist
/// than the budget permits, not even for a moment, and no epoch begins before the one that it replaces was told to end.
pub(super) async fn write(
    client: &Client,
    namespace: &str,
    uid: &str,
    (create, delete, strays): (Vec<Pod>, Vec<Arc<PodView>>, Vec<String>),
    outcome: &mut Outcome,
) {
    let api: &Api<Pod> = &Api::namespaced(client.clone(), namespace);
    let ended = in_parallel(delete.into_iter().map(|pod| async move { end(api, &pod).await })).await;
    let found = in_parallel(strays.into_iter().map(|name| async move { end_stray(api, uid, &name).await })).await;
    let freed = ended.iter().all(Result::is_ok) && found.iter().all(Result::is_ok);
    ended.into_iter().for_each(|result| outcome.take(result));
    found.into_iter().for_each(|result| outcome.take(result.map(|()| None)));
    if freed {
        let makes = create.into_iter().map(|pod| async move { make(api, uid, pod).await.map(Some) });
        in_parallel(makes).await.into_iter().for_each(|result| outcome.take(result));
    }
}

/// Runs `jobs` with a window that grows with every success, so that a server in trouble is asked little. Results are in
/// the jobs' order: of several problems the same is told each time.
async fn in_parallel<T>(
    jobs: impl Iterator<Item = impl Future<Output = Result<T, Problem>>>,
) -> Vec<Result<T, Problem>> {
    let mut jobs = jobs.enumerate().map(|(number, job)| async move { (number, job.await) }).fuse();
    let (mut running, mut window, mut refusals) = (FuturesUnordered::new(), AT_FIRST, 0);
    let mut results: BTreeMap<usize, Result<T, Problem>> = BTreeMap::new();
    loop {
        while refusals < REFUSALS
            && running.len() + refusals < window
            && let Some(job) = jobs.next()
        {
            running.push(job);
        }
        let Some((number, result)) = running.next().await else { return results.into_values().collect() };
        match &result {
            Ok(_) => window = AT_MOST.min(window + 1),
            Err(_) => refusals += 1,
        }
        results.insert(number, result);
    }
}

/// A pod of that name that exists already is ours only if its controller says so. One whose labels say something else is
/// adopted all the same, as the lost shard that it is: its group forms again under the next epoch, and it is told to end.
async fn make(api: &Api<Pod>, uid: &str, pod: Pod) -> Result<PodView, Problem> {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    match api.create(&params, &pod).await {
        Ok(made) => Ok(PodView::from(made)),
        Err(kube::Error::Api(status)) if status.code == 409 && status.reason == "AlreadyExists" => {
            let there = api.get(&name).await.map_err(|error| Problem::of("get", "Pod", &name, error))?;
            adopt(uid, PodView::from(there), PodView::from(pod)).ok_or(Problem::NameTaken { kind: "Pod", name })
        }
        Err(error) => Err(Problem::of("create", "Pod", &name, error)),
    }
}

fn adopt(uid: &str, there: PodView, wanted: PodView) -> Option<PodView> {
    if there.controller.as_deref() != Some(uid) {
        return None;
    }
    let same = (&there.model, &there.place) == (&wanted.model, &wanted.place);
    let (model, place) = (wanted.model, wanted.place);
    Some(if same { there } else { PodView { model, place, ..there.altered("somebody changed its labels".to_owned()) } })
}

/// What there is now of each of `asked`, by its name.
pub(super) async fn look(
    client: &Client,
    namespace: &str,
    asked: &[Arc<PodView>],
) -> Vec<Result<Option<PodView>, Problem>> {
    let api: &Api<Pod> = &Api::namespaced(client.clone(), namespace);
    let look = |pod: &Arc<PodView>| {
        let name = pod.meta.name.clone().unwrap_or_default();
        async move {
            let there = api.get_opt(&name).await.map_err(|error| Problem::of("get", "Pod", &name, error))?;
            Ok(there.map(PodView::from))
        }
    };
    in_parallel(asked.iter().map(look)).await
}

/// A pod that lost the label by which it is watched would hold its node's devices until its model goes.
async fn end_stray(api: &Api<Pod>, uid: &str, name: &str) -> Result<(), Problem> {
    let there = api.get_opt(name).await.map_err(|error| Problem::of("get", "Pod", name, error))?;
    let ours = |pod: &PodView| pod.controller.as_deref() == Some(uid) && !pod.shard.is_ending();
    match there.map(PodView::from).filter(ours) {
        Some(pod) => end(api, &pod).await.map(drop),
        None => Ok(()),
    }
}

/// Gone already is what was wanted. A conflict says that the watch has something to show first.
async fn end(api: &Api<Pod>, pod: &PodView) -> Result<Option<PodView>, Problem> {
    let name = pod.meta.name.as_deref().unwrap_or_default();
    let preconditions = Preconditions { uid: pod.meta.uid.clone(), ..Preconditions::default() };
    match api.delete(name, &DeleteParams::default().preconditions(preconditions)).await {
        Ok(answer) => Ok(answer.left().map(PodView::from).filter(|view| view.shard.is_ending())),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(Problem::of("delete", "Pod", name, error)),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::controller::rollout::{LossReason, Shard};

    /// How many of 100 jobs ran, and how many at most at once, when those that `fails` names are refused.
    async fn ran(fails: impl Fn(usize) -> bool) -> (usize, usize) {
        let (running, most, fails) = (&Cell::new(0_usize), &Cell::new(0_usize), &fails);
        let jobs = (0..100).map(|number| async move {
            running.set(running.get() + 1);
            most.set(most.get().max(running.get()));
            tokio::task::yield_now().await;
            running.set(running.get() - 1);
            let refusal = || Problem::NameTaken { kind: "Pod", name: number.to_string() };
            if fails(number) { Err(refusal()) } else { Ok(()) }
        });
        (in_parallel(jobs).await.len(), most.get())
    }

    fn pod(change: impl FnOnce(&mut serde_json::Value)) -> PodView {
        let mut pod = serde_json::json!({"metadata": {
            "name": "m-abcdef-g0-e1-r0", "namespace": "n", "uid": "p",
            "labels": {
                "inference.shoal.dev/model": "m", "inference.shoal.dev/revision": "A", "inference.shoal.dev/group": "0",
                "inference.shoal.dev/epoch": "1", "inference.shoal.dev/rank": "0", "inference.shoal.dev/accepts": "true",
            },
            "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "m", "uid": "us", "controller": true}],
        }});
        change(&mut pod["metadata"]);
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn a_pod_of_that_name_is_adopted_by_its_owner_and_as_a_lost_shard_if_its_labels_were_changed() {
        let adopted = |change: fn(&mut serde_json::Value)| {
            let view = adopt("us", pod(change), pod(|_| {}))?;
            Some((view.model, view.place, view.shard))
        };
        let right = pod(|_| {});
        let lost = Some((right.model.clone(), right.place.clone(), Shard::Lost(LossReason::Altered)));
        assert_eq!(adopted(|_| {}), Some((right.model, right.place, right.shard)));
        assert_eq!(adopted(|metadata| metadata["labels"] = serde_json::json!({})), lost);
        assert_eq!(adopted(|metadata| metadata["labels"]["inference.shoal.dev/model"] = "other".into()), lost);
        assert_eq!(adopted(|metadata| metadata["labels"]["inference.shoal.dev/revision"] = "B".into()), lost);
        assert_eq!(adopted(|metadata| metadata["ownerReferences"][0]["uid"] = "them".into()), None);
        assert_eq!(adopted(|metadata| metadata["ownerReferences"] = serde_json::json!([])), None);
    }

    #[tokio::test]
    async fn the_window_grows_with_success_and_four_refusals_end_the_pass() {
        let (all, most) = ran(|_| false).await;
        assert_eq!(all, 100);
        assert!((AT_FIRST + 1..=AT_MOST).contains(&most), "{most} at once");
        assert_eq!(ran(|_| true).await, (4, 4));
        assert_eq!(ran(|number| number == 7).await.0, 100);
        let (some, _) = ran(|number| number >= 50).await;
        assert!((50 + REFUSALS..=50 + AT_MOST).contains(&some), "{some} ran");
    }
}
