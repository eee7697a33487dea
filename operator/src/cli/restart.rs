//! `shoal restart`: every group is replaced, by a rollout like any other.

use std::io::Write as _;

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::cluster::{ClusterError, Scope, Session, during};
use crate::crd::RESTARTED_AT;

/// Replaces every group of a ModelDeployment within its rollout's budgets.
#[derive(Debug, clap::Args)]
pub struct RestartArgs {
    /// The ModelDeployment
    name: String,
    #[command(flatten)]
    scope: Scope,
}

/// Why nothing is restarted.
#[derive(Debug, thiserror::Error)]
pub enum RestartError {
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Standard output is closed.
    #[error("cannot write the answer")]
    Output(#[from] std::io::Error),
}

/// Runs `shoal restart`.
///
/// # Errors
/// [`RestartError`]; then nothing has been asked for.
pub async fn run(args: RestartArgs) -> Result<(), RestartError> {
    let RestartArgs { name, scope } = args;
    let session = Session::open(&scope).await?;
    let patch = json!({"metadata": {"annotations": {RESTARTED_AT: Timestamp::now().to_string()}}});
    let patched = session.models().patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
    match patched {
        Err(kube::Error::Api(status)) if status.is_not_found() => return Err(session.missing(&name).into()),
        answer => answer.map_err(during("annotate the ModelDeployment"))?,
    };
    let line = "restarts: its groups are replaced within the budgets of spec.rollout; watch it with shoal status";
    Ok(writeln!(std::io::stdout(), "{name} {line} {name} --watch")?)
}
