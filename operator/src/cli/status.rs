//! `shoal status`: what a ModelDeployment is doing, and why; once, or whenever it changes.
//!
//! Reads only, with the caller's rights.

mod report;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::{self, Write as _};

use clap::ValueEnum;
use futures::StreamExt as _;
use jiff::Timestamp;
use kube::api::DynamicObject;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use self::report::Table;
use super::cluster::{ClusterError, Scope, Session, during, list, or_go_on};
use super::seen::{self, Seen};
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
        let namespace = (!args.all_namespaces).then_some(session.namespace.as_str());
        let api = seen::stored(session.client.clone(), namespace);
        let table = Table::new(args.all_namespaces);
        return if args.watch { watch_all(api, table, args.output).await } else { all(&api, table, args.output).await };
    };
    let api = seen::stored(session.client.clone(), Some(&session.namespace));
    if args.watch {
        return watch(&session, &api, name, |object| show(object, args.output, true).map(|text| (text, false))).await;
    }
    let found = api.get_opt(name).await.map_err(during("read the ModelDeployment"))?;
    let Some(object) = found else { return Err(session.missing(name).await.into()) };
    say(&show(&object, args.output, false)?)
}

fn say(text: &str) -> Result<(), StatusError> {
    let mut out = io::stdout();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

async fn all(api: &Api<DynamicObject>, mut table: Table, output: Output) -> Result<(), StatusError> {
    let list = list(api).await?;
    say(&match output {
        Output::Table => table.whole(&seen(&list.items)?, Timestamp::now()),
        Output::Json => serde_json::to_string_pretty(&list)? + "\n",
        Output::Yaml => manifest::to_yaml(&list)?,
    })
}

fn seen(objects: &[DynamicObject]) -> Result<Vec<Seen>, ClusterError> {
    objects.iter().map(Seen::of).collect()
}

/// One object; `again`: others follow, so each must be seen to end.
fn show(object: &DynamicObject, output: Output, again: bool) -> Result<String, StatusError> {
    Ok(match output {
        Output::Table => report::report(&Seen::of(object)?, Timestamp::now()) + if again { "\n" } else { "" },
        Output::Json if again => serde_json::to_string(object)? + "\n",
        Output::Json => serde_json::to_string_pretty(object)? + "\n",
        Output::Yaml => (if again { "---\n" } else { "" }).to_owned() + &manifest::to_yaml(object)?,
    })
}

/// Says what `text` makes of the object whenever that changes, until it says that it is done, the object is deleted,
/// or the caller interrupts.
pub(super) async fn watch<K>(
    session: &Session,
    api: &Api<K>,
    name: &str,
    mut text: impl FnMut(&K) -> Result<(String, bool), StatusError>,
) -> Result<(), StatusError>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let found = api.get_metadata_opt(name).await.map_err(during("read the ModelDeployment"))?;
    if found.is_none() {
        return Err(session.missing(name).await.into());
    }
    let mut changes = std::pin::pin!(watcher::watch_object(api.clone(), name).default_backoff());
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
async fn watch_all(api: Api<DynamicObject>, mut table: Table, output: Output) -> Result<(), StatusError> {
    let objects = list(&api).await?.items;
    let key = |object: &DynamicObject| (object.metadata.namespace.clone(), object.metadata.name.clone());
    let mut said: BTreeMap<_, _> = objects.iter().map(|object| (key(object), object.data["status"].clone())).collect();
    match output {
        Output::Table => say(&table.whole(&seen(&objects)?, Timestamp::now()))?,
        _ => objects.iter().try_for_each(|object| say(&show(object, output, true)?))?,
    }
    let mut changes = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
    while let Some(change) = changes.next().await {
        match or_go_on(change, "ModelDeployments")? {
            Some(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                let status = &object.data["status"];
                if said.insert(key(&object), status.clone()).is_some_and(|before| before == *status) {
                    continue;
                }
                say(&if output == Output::Table {
                    table.row(&Seen::of(&object)?, Timestamp::now())
                } else {
                    show(&object, output, true)?
                })?;
            }
            Some(watcher::Event::Delete(object)) => {
                said.remove(&key(&object));
                if output == Output::Table {
                    say(&table.gone(&Seen::of(&object)?))?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}
