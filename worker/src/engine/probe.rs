//! The first token of an epoch: readiness means that the whole group has answered one. Never retries.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::request::{Event, Request, SamplingParams, Submission};
use crate::shards::group::Group;

/// How often the group is looked at until it is complete.
const LOOK: Duration = Duration::from_millis(20);

/// Waits for every peer, generates one token through the group, and declares it ready.
pub(super) async fn probe(group: Arc<Group>, submissions: mpsc::WeakSender<Submission>, token: u32) {
    while !group.is_complete() {
        if group.lost().is_some() || group.leave().is_cancelled() {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
    let Some(submissions) = submissions.upgrade() else { return };
    let (events, mut answer) = mpsc::channel(4);
    let request = Request {
        id: "probe".into(),
        prompt: vec![token],
        max_tokens: 1,
        sampling: SamplingParams::default(),
        top_logprobs: 0,
        eos: vec![],
        deadline: None,
        priority: i32::MAX,
        tenant: String::new(),
        script: None,
    };
    if submissions.send(Submission { request, events }).await.is_err() {
        return;
    }
    drop(submissions);
    let begun = answer.recv().await;
    let first = if matches!(begun, Some(Event::Began { .. })) { answer.recv().await } else { begun };
    match first {
        Some(Event::Token(_)) => {
            tracing::info!(epoch = group.identity().epoch, "the group has answered its first token");
            group.set_ready();
        }
        Some(Event::Failed(failure)) => group.fail(&format!("the first token failed: {}", failure.message)),
        Some(Event::Began { .. } | Event::Finished(_)) | None => group.fail("the first token never came"),
    }
}
