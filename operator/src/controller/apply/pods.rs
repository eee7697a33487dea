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
    (create, delete): (Vec<Pod>, Vec<Arc<PodView>>),
    outcome: &mut Outcome,
) {
    let api: &Api<Pod> = &Api::namespaced(client.clone(), namespace);
    let ended = in_parallel(delete.into_iter().map(|pod| async move { end(api, &pod).await })).await;
    let freed = ended.iter().all(Result::is_ok);
    ended.into_iter().for_each(|result| outcome.take(result));
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
