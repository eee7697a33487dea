//! `shoal restart`: every group is replaced, by a rollout like any other; with `--watch` until that is done.

use std::io::Write as _;

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::cluster::{ClusterError, Scope, Session, during};
use super::status::{self, StatusError};
use crate::crd::{ModelDeployment, ModelDeploymentStatus, RESTARTED_AT};

/// Replaces every group of a ModelDeployment within its rollout's budgets.
#[derive(Debug, clap::Args)]
pub struct RestartArgs {
    /// The ModelDeployment
    name: String,
    #[command(flatten)]
    scope: Scope,
    /// Say how far it is until every group is a new one; fails when it cannot go on by itself
    #[arg(short, long)]
    watch: bool,
}

/// Why nothing is restarted, or the restart does not end.
#[derive(Debug, thiserror::Error)]
pub enum RestartError {
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The watch.
    #[error(transparent)]
    Watch(#[from] StatusError),
    /// The rollout waits for somebody.
    #[error("the restart of {name} is stalled: {reason}: {message}")]
    Stalled {
        /// The ModelDeployment.
        name: String,
        /// Reason of the condition Stalled.
        reason: String,
        /// Its message.
        message: String,
    },
    /// Standard output is closed.
    #[error("cannot write the answer")]
    Output(#[from] std::io::Error),
}

/// Runs `shoal restart`.
///
/// # Errors
/// [`RestartError`]; unless it is about the watch, nothing has been asked for.
pub async fn run(args: RestartArgs) -> Result<(), RestartError> {
    let RestartArgs { name, scope, watch } = args;
    let session = Session::open(&scope).await?;
    let before = session.model(&name).await?;
    let patch = json!({"metadata": {"annotations": {RESTARTED_AT: Timestamp::now().to_string()}}});
    let patched = session.models().patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
    match patched {
        Err(kube::Error::Api(status)) if status.is_not_found() => return Err(session.missing(&name).await.into()),
        answer => answer.map_err(during("annotate the ModelDeployment"))?,
    };
    if watch {
        return follow(&session, &name, target(&before)).await;
    }
    let line = "restarts: its groups are replaced within the budgets of spec.rollout; watch it with shoal status";
    Ok(writeln!(std::io::stdout(), "{name} {line} {name} --watch")?)
}

/// How far a restart is.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Under(String),
    Stalled { reason: String, message: String },
    Done(String),
}

/// Until every group is one of a revision other than `old`, which was the target when the restart was asked for.
async fn follow(session: &Session, name: &str, old: Option<String>) -> Result<(), RestartError> {
    let mut stalled = None;
    status::watch(session, &session.models(), name, |model: &ModelDeployment| {
        Ok(match progress(model, old.as_deref()) {
            Progress::Under(how) => (format!("{name}: {how}\n"), false),
            Progress::Done(how) => (format!("{name}: restarted; {how}\n"), true),
            Progress::Stalled { reason, message } => {
                stalled = Some((reason, message));
                (String::new(), true)
            }
        })
    })
    .await?;
    let name = name.to_owned();
    stalled.map_or(Ok(()), |(reason, message)| Err(RestartError::Stalled { name, reason, message }))
}

/// The hash of the revision that new groups get.
fn target(model: &ModelDeployment) -> Option<String> {
    let revisions = model.status.iter().flat_map(|status| &status.revisions);
    revisions.into_iter().find(|revision| revision.target).map(|revision| revision.hash.clone())
}

/// Before the operator has looked at the annotation the target is still `old`; a spec that it refuses has none.
fn progress(model: &ModelDeployment, old: Option<&str>) -> Progress {
    let unseen = ModelDeploymentStatus::default();
    let status = model.status.as_ref().unwrap_or(&unseen);
    let find = |kind: &str| status.conditions.iter().find(|c| c.type_ == kind && c.status == "True");
    let target = target(model);
    if target.is_some() && target.as_deref() == old {
        return Progress::Under("the operator has not looked at it yet".to_owned());
    }
    if let Some(stalled) = find("Stalled") {
        return Progress::Stalled { reason: stalled.reason.clone(), message: stalled.message.clone() };
    }
    if let Some(ready) = find("Ready").filter(|_| target.is_some()) {
        return Progress::Done(ready.message.clone());
    }
    let why = status.conditions.iter().find(|c| c.type_ == "Ready");
    Progress::Under(why.map_or_else(String::new, |ready| format!("{}: {}", ready.reason, ready.message)))
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use serde_json::Value;

    use super::*;

    fn model(target: &str, conditions: &[(&str, &str)]) -> ModelDeployment {
        let conditions = conditions.iter().map(|(kind, status)| {
            json!({"type": kind, "status": status, "reason": "Why", "message": "how", "lastTransitionTime": "2026-01-01T00:00:00Z"})
        });
        serde_json::from_value(json!({
            "apiVersion": "inference.shoal.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": "tiny"},
            "spec": {"model": {"source": "file:///models/tiny"}},
            "status": {
                "groupsReady": "", "replicas": 0, "availableGroups": 0, "updatedGroups": 0, "selector": "",
                "revisions": [{"hash": target, "target": true, "image": "", "shards": 1, "spec": ""}],
                "conditions": conditions.collect::<Vec<Value>>(),
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_restart_is_done_when_the_model_is_ready_with_another_target() {
        let ready = model("old", &[("Ready", "True")]);
        let unseen = Progress::Under("the operator has not looked at it yet".to_owned());
        assert_eq!(progress(&ready, Some("old")), unseen);
        assert_eq!(progress(&model("new", &[("Ready", "False")]), Some("old")), Progress::Under("Why: how".to_owned()));
        let stalled = Progress::Stalled { reason: "Why".to_owned(), message: "how".to_owned() };
        assert_eq!(progress(&model("new", &[("Ready", "False"), ("Stalled", "True")]), Some("old")), stalled);
        assert_eq!(progress(&model("new", &[("Ready", "True")]), Some("old")), Progress::Done("how".to_owned()));
        assert_eq!(progress(&model("new", &[("Ready", "True")]), None), Progress::Done("how".to_owned()));
    }
}
