//! `shoal status`: what a ModelDeployment is doing, and why; once, or whenever it changes.
//!
//! Reads only, with the caller's rights.

mod report;

use std::io::{self, Write as _};

use clap::ValueEnum;
use futures::TryStreamExt as _;
use jiff::Timestamp;
use kube::api::ListParams;
use kube::runtime::watcher;

use super::cluster::{ClusterError, Scope, Session, during};
use crate::crd::ModelDeployment;
use crate::manifest;

/// Shows what models are doing, and why.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// The ModelDeployment [default: all of the namespace, a line each]
    name: Option<String>,
    #[command(flatten)]
    scope: Scope,
    /// Say it again whenever it changes
    #[arg(short, long, requires = "name")]
    watch: bool,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// How to print something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// The whole object or list, for programs; with `--watch` one object a line.
    Json,
    /// The whole object or list, as YAML documents.
    Yaml,
}

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The watch cannot go on.
    #[error("the watch broke off")]
    Watch(#[source] Box<watcher::Error>),
    /// It is no JSON.
    #[error("cannot write the status as JSON")]
    Json(#[from] serde_json::Error),
    /// It is no YAML.
    #[error("cannot write the status as YAML: {0}")]
    Yaml(#[from] serde_yaml::Error),
    /// Standard output is closed.
    #[error("cannot write the status")]
    Output(#[from] io::Error),
}

/// Runs `shoal status`.
///
/// # Errors
/// [`StatusError`]; what was known by then has been printed.
pub async fn run(args: StatusArgs) -> Result<(), StatusError> {
    let session = Session::open(&args.scope).await?;
    let text = match &args.name {
        None => all(&session, args.output).await?,
        Some(name) if args.watch => return watch(&session, name, args.output).await,
        Some(name) => one(&session.model(name).await?, args.output)?,
    };
    Ok(io::stdout().write_all(text.as_bytes())?)
}

async fn all(session: &Session, output: Output) -> Result<String, StatusError> {
    let list = session.models().list(&ListParams::default()).await.map_err(during("list ModelDeployments"))?;
    Ok(match output {
        Output::Table => report::table(&list.items, Timestamp::now()),
        Output::Json => serde_json::to_string_pretty(&list)? + "\n",
        Output::Yaml => manifest::to_yaml(&list)?,
    })
}

fn one(model: &ModelDeployment, output: Output) -> Result<String, StatusError> {
    Ok(match output {
        Output::Table => report::report(model, Timestamp::now()),
        Output::Json => serde_json::to_string_pretty(model)? + "\n",
        Output::Yaml => manifest::to_yaml(model)?,
    })
}

/// Until the object is deleted or the caller interrupts.
async fn watch(session: &Session, name: &str, output: Output) -> Result<(), StatusError> {
    session.model(name).await?;
    let mut changes = std::pin::pin!(watcher::watch_object(session.models(), name));
    let mut said = String::new();
    while let Some(model) = changes.try_next().await.map_err(|source| StatusError::Watch(Box::new(source)))? {
        let Some(model) = model else { return Err(session.missing(name).into()) };
        let text = match output {
            Output::Table => one(&model, output)? + "\n",
            Output::Json => serde_json::to_string(&model)? + "\n",
            Output::Yaml => format!("---\n{}", manifest::to_yaml(&model)?),
        };
        // Leases of attention: metadata changes that nobody sees here are no news.
        if text != said {
            io::stdout().write_all(text.as_bytes())?;
            io::stdout().flush()?;
            said = text;
        }
    }
    Ok(())
}
