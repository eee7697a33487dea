//! One pod as a child process: started, probed, logged, stopped.
//!
//! Never decides that a pod should exist; it reports what happens to it as [`Event`]s.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::process::Child;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::command::LocalCommand;
use super::probes::{self, Probes, Verdict};
use super::spawner::Spawner;

/// Tells a worker whose child it must be, so that it dies with it.
const DIE_WITH_PARENT: &str = "SHOAL_DIE_WITH_PARENT";
/// Belongs to Shoal: of the surroundings nothing with this prefix reaches a worker.
const OWN_PREFIX: &str = "SHOAL_";
/// How much of a log's end is shown, as kubelet does with FallbackToLogsOnError.
const TAIL_BYTES: u64 = 2048;
const TAIL_LINES: usize = 10;

/// What happened to the pod of that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The pod.
    pub pod: String,
    /// What happened.
    pub change: Change,
}

/// What happened to a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Its readiness probe succeeds.
    Ready,
    /// It fails, or the process is being stopped.
    NotReady,
    /// The process is gone; the text says how it ended, with the last lines of its log.
    Ended(String),
}

/// How much a process may still do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Run,
    Drain,
    Die,
}

/// What every process of this `up` shares.
#[derive(Debug)]
pub struct Surroundings {
    /// Starts children from a thread that lasts.
    pub spawner: Spawner,
    /// What workers inherit of this process's variables.
    pub inherited: Vec<(OsString, OsString)>,
    /// One log per pod.
    pub logs: PathBuf,
    /// Where events go.
    pub events: mpsc::Sender<Event>,
}

/// The variables of this process that a worker may see: all but Shoal's own.
pub fn inheritable(variables: impl Iterator<Item = (OsString, OsString)>) -> Vec<(OsString, OsString)> {
    variables.filter(|(name, _)| !name.to_string_lossy().starts_with(OWN_PREFIX)).collect()
}

/// A running pod. Dropping it kills the process.
#[derive(Debug)]
pub struct Process {
    wish: watch::Sender<Wish>,
    pid: u32,
}

impl Process {
    /// Starts `command` as pod `name`.
    ///
    /// # Errors
    /// When a volume's directory, the log or the process cannot be made.
    pub async fn start(name: &str, command: &LocalCommand, around: &Surroundings) -> io::Result<Self> {
        for directory in &command.directories {
            std::fs::create_dir_all(directory)?;
        }
        let log = around.logs.join(format!("{name}.log"));
        let child = around.spawner.spawn(prepare(command, around, &log)?).await?;
        let pid = child.id().unwrap_or_default();
        let (wish, wishes) = watch::channel(Wish::Run);
        let watched = Watched { name: name.to_owned(), log, grace: command.grace, events: around.events.clone() };
        tokio::spawn(watched.supervise(child, command.probes.clone(), wishes));
        Ok(Self { wish, pid })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// SIGTERM, then SIGKILL after the pod's grace period.
    pub fn stop(&self) {
        self.wish.send_if_modified(|wish| std::mem::replace(wish, Wish::Drain) == Wish::Run);
    }

    /// SIGKILL.
    pub fn kill(&self) {
        self.wish.send_replace(Wish::Die);
    }
}

fn prepare(command: &LocalCommand, around: &Surroundings, log: &Path) -> io::Result<std::process::Command> {
    let log = File::options().create(true).append(true).open(log)?;
    let mut process = std::process::Command::new(&command.program);
    process
        .args(&command.args)
        .env_clear()
        .envs(around.inherited.iter().map(|(name, value)| (name, value)))
        .envs(&command.env)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C on the terminal is for `up`, which then drains its workers.
        .process_group(0);
    if cfg!(target_os = "linux") {
        process.env(DIE_WITH_PARENT, std::process::id().to_string());
    }
    Ok(process)
}

/// What the task of one process knows.
struct Watched {
    name: String,
    log: PathBuf,
    grace: Duration,
    events: mpsc::Sender<Event>,
}

impl Watched {
    async fn supervise(self, mut child: Child, probes: Probes, mut wishes: watch::Receiver<Wish>) {
        let (sender, mut verdicts) = mpsc::channel(4);
        let probing = AbortOnDropHandle::new(tokio::spawn(async move { probes::run(&probes, &sender).await }));
        let verdict = loop {
            tokio::select! {
                status = child.wait() => return self.ended(status, None).await,
                Some(verdict) = verdicts.recv() => match verdict {
                    Verdict::Ready => self.report(Change::Ready).await,
                    Verdict::NotReady => self.report(Change::NotReady).await,
                    Verdict::Dead(reason) => break Some(reason),
                },
                _ = wishes.changed() => break None,
            }
        };
        drop(probing);
        self.report(Change::NotReady).await;
        let status = self.terminate(&mut child, &mut wishes).await;
        self.ended(status, verdict).await;
    }

    async fn terminate(&self, child: &mut Child, wishes: &mut watch::Receiver<Wish>) -> io::Result<ExitStatus> {
        if *wishes.borrow() != Wish::Die {
            signal(child, Signal::TERM);
            let impatient = async {
                // A dropped handle is as good as a wish to die.
                let _ = wishes.wait_for(|wish| *wish == Wish::Die).await;
            };
            tokio::select! {
                status = timeout(self.grace, child.wait()) => if let Ok(status) = status { return status },
                () = impatient => {}
            }
        }
        signal(child, Signal::KILL);
        child.wait().await
    }

    async fn ended(&self, status: io::Result<ExitStatus>, verdict: Option<String>) {
        let how = match status {
            Ok(status) => describe(status),
            Err(error) => format!("lost: {error}"),
        };
        let verdict = verdict.map(|reason| format!("{reason}; ")).unwrap_or_default();
        self.report(Change::Ended(format!("{verdict}{how}{}", tail(&self.log)))).await;
    }

    async fn report(&self, change: Change) {
        // Nobody listens once `up` itself is going.
        let _ = self.events.send(Event { pod: self.name.clone(), change }).await;
    }
}

/// Signals a child that has not been waited for, so that its id cannot belong to anyone else.
fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
        // It may have ended in this moment; `wait` tells.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "ended by itself".to_owned(),
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// The last lines of a log, indented, each on a line of its own; empty when there are none.
fn tail(log: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].iter().map(|line| format!("\n    {line}")).collect()
}

#[cfg(test)]
mod tests;
