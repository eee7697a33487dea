//! `shoal up`: the pods that the operator would make run as processes of this machine.
//!
//! The same validate, plan, rollout and build as in a cluster, with the process table as what is observed. The only
//! place that turns pods into processes is [`localize`]. Never outlives its processes, nor they it.

pub mod address;
pub mod command;
pub mod directory;
mod expand;
pub mod forwarder;
pub mod localize;
pub mod model;
pub mod ports;
pub mod probes;
pub mod process;
pub mod share;
mod spawner;
pub mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::sleep;

use self::directory::RunDirectory;
use self::model::{Model, ModelError, Notice, Site, Wanted};
use self::process::{Event, Surroundings};
use self::spawner::Spawner;

/// More than all pods can say while one is being started.
const EVENTS: usize = 256;

/// Why `up` ended, beside being told to.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// A model cannot be served.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An address for something that is not served.
    #[error("--publish {name}/{port} names no port of a model; ports: {known}")]
    Publish {
        /// The model named.
        name: String,
        /// The port named.
        port: String,
        /// What could have been named.
        known: String,
    },
    /// The run directory, the spawner or the signals.
    #[error("cannot prepare")]
    Prepare(#[source] io::Error),
    /// Standard output is closed.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
}

/// What `up` is asked for, with everything that comes from the environment.
#[derive(Debug)]
pub struct Request {
    /// The executable that stands for the worker's image.
    pub worker: PathBuf,
    /// Where model paths begin.
    pub model_root: Option<PathBuf>,
    /// Chosen addresses, by (model, name of the Service's port).
    pub publish: BTreeMap<(String, String), SocketAddr>,
    /// The folder of names.
    pub names: PathBuf,
    /// Where the run directory is made.
    pub temporary: PathBuf,
    /// Cores of this machine.
    pub cores: u64,
    /// What workers inherit.
    pub inherited: Vec<(std::ffi::OsString, std::ffi::OsString)>,
}

/// Serves all of `wanted` until SIGINT or SIGTERM; a second signal kills what drains. A model that cannot be served is
/// given up, and the others serve on.
///
/// # Errors
/// [`UpError`], of the first model that was given up too; no process is left then either.
pub async fn up(wanted: Vec<Wanted>, request: Request) -> Result<(), UpError> {
    let mut signals = Signals::new().map_err(UpError::Prepare)?;
    let mut directory = RunDirectory::create(&request.temporary).map_err(UpError::Prepare)?;
    let (sender, mut events) = mpsc::channel(EVENTS);
    let around = Surroundings {
        spawner: Spawner::start().map_err(UpError::Prepare)?,
        inherited: request.inherited.clone(),
        logs: directory.path().to_owned(),
        events: sender,
    };
    let site = Site {
        worker: request.worker.clone(),
        model_root: request.model_root.clone(),
        volumes: directory.path().join("volumes"),
        threads: share::threads(&wanted, request.cores),
        around,
    };
    let mut models = open(wanted, &request).await?;
    say_substitutions(&models, &site)?;
    say(&format!("logs {}", directory.path().display()))?;

    let served = serve(&mut models, &site, &mut events, &mut signals).await;
    if served.is_err() {
        directory.keep();
    }
    stop(&mut models, &mut events, &mut signals).await;
    if directory.is_kept() {
        eprintln!("logs are kept in {}", directory.path().display());
    }
    served
}

async fn open(wanted: Vec<Wanted>, request: &Request) -> Result<Vec<Model>, UpError> {
    let mut published = request.publish.clone();
    let mut models = Vec::new();
    for one in wanted {
        let name = one.revision.spec.owner.name.to_string();
        let own: BTreeMap<_, _> = published.extract_if(.., |(model, _), _| *model == name).collect();
        let own: BTreeMap<String, _> = own.into_iter().map(|((_, port), address)| (port, address)).collect();
        let model = Model::open(one, &request.names, &own).await?;
        let unknown = own.into_keys().find(|port| !model.ports().any(|known| known == port));
        models.push(model);
        if let Some(port) = unknown {
            return Err(unknown_port(&models, name, port));
        }
    }
    match published.into_keys().next() {
        Some((name, port)) => Err(unknown_port(&models, name, port)),
        None => Ok(models),
    }
}

fn unknown_port(models: &[Model], name: String, port: String) -> UpError {
    let known = models.iter().flat_map(|model| model.ports().map(move |port| format!("{}/{port}", model.name())));
    UpError::Publish { name, port, known: known.collect::<Vec<_>>().join(", ") }
}

/// Localizes one group of every model before anything starts: what is refused is refused here.
fn say_substitutions(models: &[Model], site: &Site) -> Result<(), UpError> {
    let mut lines = BTreeSet::new();
    for model in models {
        for command in model.rehearse(site)? {
            lines.extend(command.substituted.iter().map(|line| format!("substituted: {line}")));
            lines.extend(command.not_enforced.iter().map(|line| format!("not enforced: {line}")));
        }
    }
    lines.iter().try_for_each(|line| say(line))
}

/// Serves until it is told to end, or no model is left.
async fn serve(
    models: &mut [Model],
    site: &Site,
    events: &mut mpsc::Receiver<Event>,
    signals: &mut Signals,
) -> Result<(), UpError> {
    let has_others = models.len() > 1;
    let mut first_failure: Option<ModelError> = None;
    loop {
        let mut again: Option<Timestamp> = None;
        for model in models.iter_mut().filter(|model| !model.is_given_up()) {
            match model.pass(site, Timestamp::now()).await {
                Ok((notices, look_again)) => {
                    tell(&notices)?;
                    again = again.into_iter().chain(look_again).min();
                }
                Err(error) => {
                    model.give_up();
                    if has_others {
                        eprintln!("gave up {}: {}", model.name(), with_sources(&error));
                    }
                    first_failure.get_or_insert(error);
                }
            }
        }
        if models.iter().all(Model::is_given_up) {
            break;
        }
        tokio::select! {
            event = events.recv() => if let Some(event) = event { apply(models, &event)?; },
            () = until(again) => {}
            () = signals.any() => break,
        }
    }
    first_failure.map_or(Ok(()), |error| Err(error.into()))
}

fn with_sources(error: &dyn Error) -> String {
    let sources = std::iter::successors(error.source(), |source| (*source).source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

fn apply(models: &mut [Model], event: &Event) -> Result<(), UpError> {
    let now = Timestamp::now();
    let notices = models.iter_mut().find_map(|model| model.apply(event, now));
    tell(&notices.unwrap_or_default())
}

async fn stop(models: &mut [Model], events: &mut mpsc::Receiver<Event>, signals: &mut Signals) {
    models.iter_mut().for_each(Model::stop);
    while !models.iter().all(Model::is_stopped) {
        tokio::select! {
            Some(event) = events.recv() => {
                // Whatever there is to say about a stopped process was asked for.
                models.iter_mut().find_map(|model| model.apply(&event, Timestamp::now()));
            }
            () = signals.any() => models.iter_mut().for_each(Model::kill),
        }
    }
}

async fn until(at: Option<Timestamp>) {
    match at {
        Some(at) => sleep(Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default()).await,
        None => std::future::pending().await,
    }
}

fn tell(notices: &[Notice]) -> Result<(), UpError> {
    for notice in notices {
        match notice {
            Notice::Ready(line) => say(line)?,
            Notice::Progress(line) => eprintln!("{line}"),
        }
    }
    Ok(())
}

/// One line on standard output, at once: scripts wait for it.
pub(crate) fn say(line: &str) -> Result<(), UpError> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(UpError::Output)
}

/// The signals that end `up`.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
