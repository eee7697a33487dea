//! What concerns the process itself: its log, its parent, its signals. Never knows what it serves.

use std::future::Future;
use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Why the process cannot be what it was told to be.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The filter of `--log` is not one.
    #[error("--log {filter:?} is not a tracing filter such as info or shoal_worker=debug")]
    Filter {
        /// What was given.
        filter: String,
        /// Where it goes wrong.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// A log was already there.
    #[error("the log cannot be set up twice")]
    Log,
    /// The parent ended before we could tie ourselves to it.
    #[error("--die-with-parent {wanted}: the parent is {found}")]
    Orphan {
        /// Who should be the parent.
        wanted: u32,
        /// Who is.
        found: String,
    },
    /// The system refused.
    #[error("cannot {what}")]
    System {
        /// What was asked of it.
        what: &'static str,
        /// Its answer.
        #[source]
        source: io::Error,
    },
}

/// Logs to stderr. A panic is logged by its place alone: its message may repeat what a client said.
///
/// # Errors
/// [`ProcessError::Filter`], [`ProcessError::Log`].
pub fn log(config: &Log) -> Result<(), ProcessError> {
    let filter = EnvFilter::try_new(&config.filter)
        .map_err(|source| ProcessError::Filter { filter: config.filter.clone(), source })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match config.format {
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
        LogFormat::Text => lines.try_init(),
    }
    .map_err(|_| ProcessError::Log)?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(String::new, ToString::to_string);
        tracing::error!(place, thread = std::thread::current().name(), "panicked");
    }));
    Ok(())
}

/// Ties this process to its parent: when that ends, however, this one is killed.
///
/// # Errors
/// [`ProcessError::Orphan`] when `parent` is gone already, [`ProcessError::System`] when the system refuses.
#[cfg(target_os = "linux")]
pub fn die_with(parent: u32) -> Result<(), ProcessError> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|errno| ProcessError::System { what: "ask to die with the parent", source: errno.into() })?;
    // Asked first, looked at after: a parent that ended in between is found out here.
    let found = getppid().map(rustix::process::Pid::as_raw_pid);
    if found.and_then(|pid| u32::try_from(pid).ok()) == Some(parent) {
        return Ok(());
    }
    let found = found.map_or_else(|| "outside this namespace".to_owned(), |pid| pid.to_string());
    Err(ProcessError::Orphan { wanted: parent, found })
}

/// Not on this system.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub fn die_with(_parent: u32) -> Result<(), ProcessError> {
    let source = io::Error::from(io::ErrorKind::Unsupported);
    Err(ProcessError::System { what: "ask to die with the parent", source })
}

/// Ready on the first SIGTERM or SIGINT from now on.
///
/// # Errors
/// [`ProcessError::System`] when the signals cannot be watched.
pub fn asked_to_stop() -> Result<impl Future<Output = ()>, ProcessError> {
    let watch =
        |kind| signal(kind).map_err(|source| ProcessError::System { what: "watch for the signal to stop", source });
    let (mut terminate, mut interrupt) = (watch(SignalKind::terminate())?, watch(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
