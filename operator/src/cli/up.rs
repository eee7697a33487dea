//! `shoal up`: manifests to processes of this machine.
//!
//! Never decides anything: reads arguments and environment, plans, and hands over to [`crate::local`].

mod publish;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::plan::describe;
use crate::controller::plan::{Revision, plan};
use crate::controller::validate::{Rejection, validate};
use crate::crd::ModelDeployment;
use crate::inventory::this_machine;
use crate::local::model::Wanted;
use crate::local::share::Share;
use crate::local::{self, Request, UpError, address, process};
use crate::manifest::{self, ManifestError};

/// The worker image of manifests that name none; never pulled here, only named.
const DEFAULT_IMAGE: &str = "localhost/shoal-worker:dev";

/// Runs the pods that the operator would make as processes of this machine.
#[derive(Debug, clap::Args)]
pub struct UpArgs {
    /// Manifest with one or more ModelDeployments; may be repeated
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Where the model paths of manifests begin: file:///P is DIR/P, a claim C is DIR/C
    #[arg(long, value_name = "DIR")]
    model_root: Option<PathBuf>,
    /// The worker [default: shoal-worker beside this executable]
    #[arg(long, env = "SHOAL_WORKER_BINARY", value_name = "FILE")]
    worker_binary: Option<PathBuf>,
    /// Listen for a model's Service there, such as tiny/grpc=127.0.0.1:50051; may be repeated [default: a free port]
    #[arg(long, value_name = "NAME/PORT=ADDR", value_parser = publish::parse)]
    publish: Vec<((String, String), SocketAddr)>,
}

/// Why `up` did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum UpCommandError {
    /// A manifest cannot be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// `--publish` says two things.
    #[error(transparent)]
    Publish(#[from] publish::PublishError),
    /// Both would answer at one name.
    #[error("two manifests have the name {0}")]
    SameName(String),
    /// It started.
    #[error(transparent)]
    Up(#[from] UpError),
    /// The spec says no.
    #[error("{name}")]
    Rejected {
        /// The model.
        name: String,
        /// Why.
        #[source]
        source: Rejection,
    },
    /// The planner says no.
    #[error("{name}: no plan: {message}")]
    NoPlan {
        /// The model.
        name: String,
        /// Why.
        message: String,
    },
    /// A folder or program that was named is not there.
    #[error("{what} {}", .path.display())]
    Missing {
        /// What it was for.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
}

/// Runs `shoal up` until it is told to stop.
///
/// # Errors
/// [`UpCommandError`]; no process is left then either.
pub async fn run(args: UpArgs) -> Result<(), UpCommandError> {
    let models = manifest::read(&args.files)?;
    let publish = publish::collect(args.publish)?;
    different_names(&models)?;
    let worker = worker(args.worker_binary)?;
    let model_root = args.model_root.map(|root| found("model root", &root)).transpose()?;
    let machine = this_machine();
    let cores = machine.cpu_millis / 1000;
    let mut share = Share::new(machine);
    let wanted = models.iter().map(|model| decide(model, &mut share)).collect::<Result<Vec<_>, _>>()?;
    if wanted.len() > 1 {
        local::say(&share.account())?;
    }
    let request = Request {
        worker,
        model_root,
        publish,
        names: address::folder(),
        temporary: std::env::temp_dir(),
        cores,
        inherited: process::inheritable(std::env::vars_os()),
    };
    Ok(local::up(wanted, request).await?)
}

/// Namespaces are of a cluster; `ask` knows a model by its name alone.
fn different_names(models: &[ModelDeployment]) -> Result<(), UpCommandError> {
    let mut names = BTreeSet::new();
    let twice = models.iter().filter_map(|model| model.metadata.name.as_ref()).find(|name| !names.insert(*name));
    twice.map_or(Ok(()), |name| Err(UpCommandError::SameName(name.clone())))
}

/// Validates and plans one model against what those before it left, and says what was planned.
fn decide(model: &ModelDeployment, share: &mut Share) -> Result<Wanted, UpCommandError> {
    let name = model.metadata.name.clone().unwrap_or_default();
    let rejected = |source| UpCommandError::Rejected { name: name.clone(), source };
    let spec = validate(model).map_err(rejected)?;
    let plan = plan(&spec, &share.left());
    let accepted = spec.supported();
    local::say(describe(&name, accepted.clone(), &plan).trim())?;
    accepted.map_err(rejected)?;
    let Some(revision) = Revision::decide(&spec, &plan, DEFAULT_IMAGE) else {
        let account = if share.is_shared() { format!("; {}", share.account()) } else { String::new() };
        return Err(UpCommandError::NoPlan { name, message: plan.verdict.message + &account });
    };
    let wanted = Wanted { revision, replicas: spec.replicas, rollout: spec.rollout, recovery: spec.recovery };
    share.take(&wanted).map_err(|no_room| UpCommandError::NoPlan { name, message: no_room.to_string() })?;
    Ok(wanted)
}

/// Beside this executable, unless it was named.
fn worker(named: Option<PathBuf>) -> Result<PathBuf, UpCommandError> {
    let beside = || {
        let own = std::env::current_exe()?;
        Ok(own.with_file_name("shoal-worker"))
    };
    let path = named.map_or_else(beside, Ok);
    let path =
        path.map_err(|source| UpCommandError::Missing { what: "worker", path: "shoal-worker".into(), source })?;
    found("worker", &path)
}

fn found(what: &'static str, path: &Path) -> Result<PathBuf, UpCommandError> {
    path.canonicalize().map_err(|source| UpCommandError::Missing { what, path: path.to_owned(), source })
}
