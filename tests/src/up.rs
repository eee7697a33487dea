//! A running `shoal up`, with names of its own, whose workers are known by their process ids.
//!
//! Never outlives the test: dropping it kills `up`, and its workers die with it.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::paths::repository;

/// Between two looks at something that changes by itself.
const LOOK: Duration = Duration::from_millis(20);

/// A running `shoal up`.
#[derive(Debug)]
pub struct Up {
    shoal: PathBuf,
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    names: PathBuf,
}

impl Up {
    /// Starts `shoal up` in the repository's root; its names are written under `names`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(shoal: &Path, names: &Path, args: &[&str]) -> Result<Self> {
        let mut child = Command::new(shoal)
            .arg("up")
            .args(args)
            .current_dir(repository())
            .env("XDG_RUNTIME_DIR", names)
            // What a killed `up` leaves there goes with the test.
            .env("TMPDIR", names)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} up", shoal.display()))?;
        let (sender, lines) = channel();
        read_lines(child.stdout.take().context("stdout is piped")?, sender.clone());
        read_lines(child.stderr.take().context("stderr is piped")?, sender);
        Ok(Self { shoal: shoal.to_owned(), child, lines, seen: Vec::new(), names: names.to_owned() })
    }

    /// The next line that begins with `start`, of either stream.
    ///
    /// # Errors
    /// When `up` ends or says nothing of the kind in time; the error holds all it said.
    pub fn line(&mut self, start: &str, within: Duration) -> Result<String> {
        let end = Instant::now() + within;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.starts_with(start) {
                        return Ok(line);
                    }
                }
                Err(RecvTimeoutError::Timeout) => bail!("no line {start:?} within {within:?}:\n{}", self.said()),
                Err(RecvTimeoutError::Disconnected) => bail!("ended without a line {start:?}:\n{}", self.said()),
            }
        }
    }

    /// The first line that begins with `start` of all that it has said or will say.
    ///
    /// # Errors
    /// As [`Self::line`].
    pub fn said_line(&mut self, start: &str, within: Duration) -> Result<String> {
        match self.said().lines().find(|line| line.starts_with(start)) {
            Some(line) => Ok(line.to_owned()),
            None => self.line(start, within),
        }
    }

    /// Everything it has said so far.
    pub fn said(&mut self) -> String {
        self.seen.extend(self.lines.try_iter());
        self.seen.join("\n")
    }

    /// The processes it said it started, by pod name.
    pub fn workers(&mut self) -> Vec<(String, u32)> {
        let said = self.said();
        let started = said.lines().filter_map(|line| line.strip_prefix("started ")?.split_once(" pid="));
        started.filter_map(|(pod, pid)| Some((pod.to_owned(), pid.parse().ok()?))).collect()
    }

    /// `shoal ask` beside it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn ask(&self, args: &[&str]) -> Result<Output> {
        self.command("ask").args(args).output().context("shoal ask")
    }

    /// A command that finds the names of this `up`.
    #[must_use]
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(&self.shoal);
        command.arg(name).current_dir(repository()).env("XDG_RUNTIME_DIR", &self.names);
        command
    }

    /// Sends `up` itself a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.child.id(), signal)
    }

    /// Waits for `up` to end by itself.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn ended(&mut self, within: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + within;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(LOOK);
        }
        bail!("up did not end within {within:?}:\n{}", self.said())
    }

    /// Waits until none of the processes it started is left.
    ///
    /// # Errors
    /// When some are left; they are named.
    pub fn left_nothing(&mut self, within: Duration) -> Result<()> {
        let end = Instant::now() + within;
        loop {
            let left: BTreeSet<_> = self.workers().into_iter().filter(|(_, pid)| is_running(*pid)).collect();
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("left running: {left:?}");
            }
            thread::sleep(LOOK);
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Signals a process by its id.
///
/// # Errors
/// When there is none.
pub fn kill(pid: u32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(pid.cast_signed()).context("a process id")?;
    kill_process(pid, signal).with_context(|| format!("kill {}", pid.as_raw_pid()))
}

/// Whether a process does anything still: a zombie that nobody has waited for does not.
fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some(None | Some('Z' | 'X')))
}

fn read_lines(stream: impl Read + Send + 'static, lines: Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
}
