//! One worker process: started, watched, signalled, asked for its health and counters.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use shoal_proto::INFERENCE_SERVICE;
use tokio::process::{Child, Command};
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::Ports;
use crate::monitoring::page;

/// Between two looks at a worker that starts.
const LOOK: Duration = Duration::from_millis(30);
/// How much of a log a failure shows.
const LOG_TAIL: usize = 3000;

/// A worker process; killed when dropped.
pub struct Worker {
    /// Its rank.
    pub rank: usize,
    /// Where clients call.
    pub grpc: SocketAddr,
    /// Where its peers call.
    pub shard: SocketAddr,
    /// Where `/metrics` is.
    pub http: SocketAddr,
    health: SocketAddr,
    child: Child,
    log: PathBuf,
}

impl Worker {
    pub(super) fn launch(
        program: &Path,
        arguments: &[String],
        (host, ports): (Ipv4Addr, Ports),
        rank: usize,
        logs: &Path,
    ) -> Result<Self> {
        let log = logs.join(format!("{rank}.log"));
        let file = File::create(&log).context("a log file")?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("a log file")?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let address = |port| SocketAddr::from((host, port));
        let (grpc, shard) = (address(ports.grpc), address(ports.shard));
        let (health, http) = (address(ports.health), address(ports.http));
        Ok(Self { rank, grpc, shard, health, http, child, log })
    }

    /// Waits until the worker says that its group answers.
    ///
    /// # Errors
    /// When it ends or takes longer than `limit`; with the end of its log.
    pub async fn wait_until_ready(&mut self, limit: Duration) -> Result<()> {
        let end = tokio::time::Instant::now() + limit;
        while !self.is_ready().await {
            if let Some(status) = self.child.try_wait().context("looking after a worker")? {
                bail!("rank {} ended with {status}: {}", self.rank, self.log_tail());
            }
            if tokio::time::Instant::now() > end {
                bail!("rank {} is not ready after {limit:?}: {}", self.rank, self.log_tail());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Whether its health port says that the group answers; a stopped worker does not.
    pub async fn is_ready(&self) -> bool {
        let ask = async {
            let channel = Endpoint::from_shared(format!("http://{}", self.health)).ok()?.connect().await.ok()?;
            let mut client = HealthClient::new(channel);
            let service = INFERENCE_SERVICE.to_owned();
            let status = client.check(HealthCheckRequest { service }).await.ok()?.into_inner().status();
            Some(status == ServingStatus::Serving)
        };
        tokio::time::timeout(Duration::from_secs(2), ask).await.ok().flatten().unwrap_or(false)
    }

    /// Waits until the worker no longer says that the group answers.
    ///
    /// # Errors
    /// When it still does after `limit`.
    pub async fn wait_until_unready(&self, limit: Duration) -> Result<()> {
        let end = tokio::time::Instant::now() + limit;
        while self.is_ready().await {
            if tokio::time::Instant::now() > end {
                bail!("rank {} is still ready after {limit:?}: {}", self.rank, self.log_tail());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let id = id.with_context(|| format!("rank {} is gone", self.rank))?;
        kill_process(id, signal).with_context(|| format!("signalling rank {}", self.rank))
    }

    /// Waits for the process to end.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait().await.context("waiting for a worker")
    }

    /// Bytes of memory that the process has now: anonymous and of files.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn memory(&self) -> Result<u64> {
        Ok((self.counted("status", "RssAnon:")? + self.counted("status", "RssFile:")?) * 1024)
    }

    /// The most bytes of memory that the process has had at once since its start, code and files included.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn peak_memory(&self) -> Result<u64> {
        Ok(self.counted("status", "VmHWM:")? * 1024)
    }

    /// Bytes of files that the process has read; its own code, which the system maps, is not among them.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn bytes_read(&self) -> Result<u64> {
        self.counted("io", "rchar:")
    }

    /// The number behind `name` in a file that the system keeps about the process.
    fn counted(&self, file: &str, name: &str) -> Result<u64> {
        let id = self.child.id().with_context(|| format!("rank {} is gone", self.rank))?;
        let path = format!("/proc/{id}/{file}");
        let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let rest = text.lines().find_map(|line| line.strip_prefix(name));
        let number = rest.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        number.with_context(|| format!("no {name} in {path}"))
    }

    /// Everything that the worker has logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The end of the log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let start = log.len().saturating_sub(LOG_TAIL);
        log.chars().skip(log[..log.floor_char_boundary(start)].chars().count()).collect()
    }

    /// Waits until the log contains `text`.
    ///
    /// # Errors
    /// When it does not after `limit`.
    pub async fn wait_for_log(&self, text: &str, limit: Duration) -> Result<()> {
        let end = tokio::time::Instant::now() + limit;
        while !self.log().contains(text) {
            if tokio::time::Instant::now() > end {
                bail!("rank {} never said {text:?}: {}", self.rank, self.log_tail());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// The value of the one series on `/metrics` whose line contains `series`.
    ///
    /// # Errors
    /// When the page or the series is missing.
    pub async fn metric(&self, series: &str) -> Result<u64> {
        let page = page(self.http).await?;
        let line = page.lines().find(|line| !line.starts_with('#') && line.contains(series));
        let line = line.with_context(|| format!("no series with {series:?} in:\n{page}"))?;
        let value = line.rsplit(' ').next().unwrap_or_default();
        value.parse().with_context(|| format!("the value of {line:?}"))
    }
}
