//! `shoal status`: what a ModelDeployment is doing, and why; once, or whenever it changes.
//!
//! Reads only, with the caller's rights.

mod report;

use std::collections::BTreeMap;
use std::io::{self, Write as _};

use clap::ValueEnum;
use futures::StreamExt as _;
use jiff::Timestamp;
use kube::Api;
use kube::runtime::{WatchStreamExt as _, watcher};

use self::report::Table;
use super::cluster::{ClusterError, Scope, Session, list, or_go_on};
use crate::crd::ModelDeployment;
use crate::manifest;

/// Shows what models are doing, and why.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// The ModelDeployment [default: all of the namespace, a line each]
    name: Option<String>,
    #[command(flatten)]
    scope: Scope,
    /// The models of all namespaces
    #[arg(short = 'A', long, conflicts_with_all = ["name", "namespace"])]
    all_namespaces: bool,
    /// Say it again whenever it changes
    #[arg(short, long)]
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
    let Some(name) = &args.name else {
        let api = if args.all_namespaces { Api::all(session.client.clone()) } else { session.models() };
        let table = Table::new(args.all_namespaces);
        return if args.watch { watch_all(api, table, args.output).await } else { all(&api, table, args.output).await };
    };
    if args.watch {
        return watch(&session, name, |model| show(model, args.output, true).map(|text| (text, false))).await;
    }
    say(&show(&session.model(name).await?, args.output, false)?)
}

fn say(text: &str) -> Result<(), StatusError> {
    let mut out = io::stdout();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

async fn all(api: &Api<ModelDeployment>, mut table: Table, output: Output) -> Result<(), StatusError> {
    let list = list(api).await?;
    say(&match output {
        Output::Table => table.whole(&list.items, Timestamp::now()),
        Output::Json => serde_json::to_string_pretty(&list)? + "\n",
        Output::Yaml => manifest::to_yaml(&list)?,
    })
}

/// One object; `again`: others follow, so each must be seen to end.
fn show(model: &ModelDeployment, output: Output, again: bool) -> Result<String, StatusError> {
    Ok(match output {
        Output::Table => report::report(model, Timestamp::now()) + if again { "\n" } else { "" },
        Output::Json if again => serde_json::to_string(model)? + "\n",
        Output::Json => serde_json::to_string_pretty(model)? + "\n",
        Output::Yaml => (if again { "---\n" } else { "" }).to_owned() + &manifest::to_yaml(model)?,
    })
}

/// Says what `text` makes of the object whenever that changes, until it says that it is done, the object is deleted,
/// or the caller interrupts.
pub(super) async fn watch(
    session: &Session,
    name: &str,
    mut text: impl FnMut(&ModelDeployment) -> Result<(String, bool), StatusError>,
) -> Result<(), StatusError> {
    session.model(name).await?;
    let mut changes = std::pin::pin!(watcher::watch_object(session.models(), name).default_backoff());
    let mut said = String::new();
    while let Some(change) = changes.next().await {
        let Some(model) = or_go_on(change, "the ModelDeployment")? else { continue };
        let Some(model) = model else { return Err(session.missing(name).await.into()) };
        let (text, done) = text(&model)?;
        // Changes that nobody sees here are no news.
        if text != said {
            say(&text)?;
            said = text;
        }
        if done {
            break;
        }
    }
    Ok(())
}

/// A line whenever a model changes, until the caller interrupts.
async fn watch_all(api: Api<ModelDeployment>, mut table: Table, output: Output) -> Result<(), StatusError> {
    let models = list(&api).await?.items;
    let key = |model: &ModelDeployment| (model.metadata.namespace.clone(), model.metadata.name.clone());
    let mut said: BTreeMap<_, _> = models.iter().map(|model| (key(model), model.status.clone())).collect();
    match output {
        Output::Table => say(&table.whole(&models, Timestamp::now()))?,
        _ => models.iter().try_for_each(|model| say(&show(model, output, true)?))?,
    }
    let mut changes = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
    while let Some(change) = changes.next().await {
        match or_go_on(change, "ModelDeployments")? {
            Some(watcher::Event::Apply(model) | watcher::Event::InitApply(model)) => {
                if said.insert(key(&model), model.status.clone()).is_some_and(|before| before == model.status) {
                    continue;
                }
                say(&if output == Output::Table {
                    table.row(&model, Timestamp::now())
                } else {
                    show(&model, output, true)?
                })?;
            }
            Some(watcher::Event::Delete(model)) => {
                said.remove(&key(&model));
                if output == Output::Table {
                    say(&table.gone(&model))?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}
