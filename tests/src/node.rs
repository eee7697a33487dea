//! What a test can do on the real node beside what kubectl can: ask a model as a stranger would, follow
//! its logs, and kill a process.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::StreamExt as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};

use crate::paths::{binary, repository};

/// Asks the model at `address` (`HOST:PORT`, cluster DNS names included) through `tests/python/ask.py`, which knows
/// only gRPC reflection; the whole text of the answer.
///
/// # Errors
/// When Python's packages are missing, the server cannot be reached, or the stream ends in `failed`.
pub async fn ask(address: &str, prompt: &str) -> Result<String> {
    let python = repository().join("target/venv/bin/python");
    let mut command = Command::new(&python);
    command.arg(repository().join("tests/python/ask.py")).args([address, prompt]).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(60), command.output()).await;
    let output = output.context("the client hangs")?;
    let output = output.with_context(|| format!("{} did not start: run `make test` once", python.display()))?;
    if !output.status.success() {
        bail!("asking {address}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Sends SIGKILL to the processes named `program` of the pod with this UID, as the kernel's out-of-memory killer would.
///
/// # Errors
/// When there is none.
pub fn kill_in_pod(uid: &str, program: &str) -> Result<()> {
    let victims = processes_of(uid, program)?;
    if victims.is_empty() {
        bail!("no process {program} in pod {uid}");
    }
    for pid in victims {
        kill_process(pid, Signal::KILL)?;
    }
    Ok(())
}

/// The kubelet puts every container below a control group that is named after its pod's UID.
fn processes_of(uid: &str, program: &str) -> Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let folder = entry?.path();
        let pid = folder.file_name().and_then(|name| name.to_str()?.parse().ok()).and_then(Pid::from_raw);
        // A process that ends meanwhile is not the one that is looked for.
        let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default();
        if let Some(pid) = pid
            && read("comm").trim() == program
            && read("cgroup").contains(&format!("pod{uid}"))
        {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Every TCP port of `ip` that takes a connection.
pub async fn open_ports(ip: IpAddr) -> BTreeSet<u16> {
    const AT_ONCE: usize = 256;
    const LATE: Duration = Duration::from_secs(2);
    let knock = |port| async move {
        let open = tokio::time::timeout(LATE, TcpStream::connect((ip, port))).await.is_ok_and(|stream| stream.is_ok());
        open.then_some(port)
    };
    futures::stream::iter(1..=u16::MAX)
        .map(knock)
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await
}

/// The ports in the table of listeners of `docs/security.md`.
///
/// # Errors
/// When the page is missing.
pub fn documented_ports() -> Result<BTreeSet<u16>> {
    let page = fs::read_to_string(repository().join("docs/security.md"))?;
    Ok(page.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse().ok()).collect())
}

/// A running command of `shoal` that goes on by itself, such as `logs --follow`; ends with the test.
#[derive(Debug)]
pub struct Following {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    seen: Vec<String>,
}

impl Following {
    /// Follows every shard of `model`, also those that are made later.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(model: &str, namespace: &str) -> Result<Self> {
        Self::command(&["logs", model, "-n", namespace, "--follow"])
    }

    /// Follows what `shoal ARGS` prints.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn command(args: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary("shoal")?);
        command.args(args).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("shoal did not start")?;
        let lines = BufReader::new(child.stdout.take().context("standard output was piped")?).lines();
        Ok(Self { _child: child, lines, seen: Vec::new() })
    }

    /// Waits for a line that begins with `start`; one that was there already counts.
    ///
    /// # Errors
    /// When none comes in time.
    pub async fn line(&mut self, start: &str) -> Result<()> {
        self.line_that(start, |line| line.starts_with(start)).await
    }

    /// Waits for a line of which `holds` is true; one that was there already counts.
    ///
    /// # Errors
    /// When none comes in time.
    pub async fn line_that(&mut self, what: &str, holds: impl Fn(&str) -> bool) -> Result<()> {
        while !self.seen.iter().any(|line| holds(line)) {
            let next = tokio::time::timeout(Duration::from_secs(30), self.lines.next_line()).await;
            let next = next.with_context(|| format!("no line {what:?} after {:?}", self.seen))??;
            self.seen.push(next.context("shoal ended by itself")?);
        }
        Ok(())
    }
}
