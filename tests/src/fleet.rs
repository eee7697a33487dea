//! Fleets of real `shoal-worker` processes on loopback: one group, real sockets, real signals.
//!
//! Every fleet has a loopback address of its own (127.x.y.z), so that fixed ports never meet. Nothing outlives it:
//! dropping a fleet kills its workers, and a worker dies with this process.

pub mod ask;
pub mod bits;
pub mod fixture;
pub mod proxy;
pub mod stranger;
pub mod synthetic;
mod worker;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use shoal_proto::placement::Placement;
use shoal_proto::shard::Strategy;
use tempfile::TempDir;

use crate::paths::binary;

pub use worker::Worker;

/// How long a fleet may take to answer its first token.
const START: Duration = Duration::from_secs(90);

/// What to start; begin with [`Spec::new`].
#[derive(Debug, Clone)]
pub struct Spec {
    /// Of each rank, so that a test can give one rank other weights.
    models: Vec<PathBuf>,
    /// Of each rank, so that a test can send one rank into another time.
    epochs: Vec<u64>,
    /// `--fault` of each rank.
    faults: Vec<Option<String>>,
    /// (from, to, through): where a rank finds another one.
    routes: Vec<(usize, usize, SocketAddr)>,
    placement: Placement,
    flags: Vec<String>,
    /// Of one rank each.
    own_flags: Vec<(usize, String)>,
    /// `None`: the worker that was built beside this test.
    program: Option<PathBuf>,
}

impl Spec {
    /// One group that serves `model` under `placement`, a thread each, with exact numerics.
    #[must_use]
    pub fn new(model: impl Into<PathBuf>, placement: Placement) -> Self {
        let size = placement.size();
        Self {
            models: vec![model.into(); size],
            epochs: vec![1; size],
            faults: vec![None; size],
            routes: vec![],
            placement,
            flags: vec![],
            own_flags: vec![],
            program: None,
        }
    }

    /// Adds flags to every worker; the last of two equal ones wins nothing: give each once.
    #[must_use]
    pub fn with(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|&flag| flag.to_owned()));
        self
    }

    /// Adds flags to one worker.
    #[must_use]
    pub fn with_of(mut self, rank: usize, flags: &[&str]) -> Self {
        self.own_flags.extend(flags.iter().map(|&flag| (rank, flag.to_owned())));
        self
    }

    /// Starts another build of the worker.
    #[must_use]
    pub fn with_program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// Orders a fault of one rank.
    #[must_use]
    pub fn with_fault(mut self, rank: usize, fault: &str) -> Self {
        self.faults[rank] = Some(fault.to_owned());
        self
    }

    /// Lets rank `from` call rank `to` through another address.
    #[must_use]
    pub fn with_route(mut self, from: usize, to: usize, through: SocketAddr) -> Self {
        self.routes.push((from, to, through));
        self
    }

    /// Gives one rank another model.
    #[must_use]
    pub fn with_model(mut self, rank: usize, model: impl Into<PathBuf>) -> Self {
        self.models[rank] = model.into();
        self
    }

    /// Puts one rank into another epoch.
    #[must_use]
    pub fn with_epoch(mut self, rank: usize, epoch: u64) -> Self {
        self.epochs[rank] = epoch;
        self
    }

    fn arguments(&self, rank: usize, host: Ipv4Addr) -> Vec<String> {
        let size = self.placement.size();
        let ports = Ports::of(rank);
        let mut arguments: Vec<String> = vec![
            format!("--model={}", self.models[rank].display()),
            "--model-name=fixture".into(),
            format!("--listen={host}:{}", ports.grpc),
            format!("--http={host}:{}", ports.http),
            format!("--health-listen={host}:{}", ports.health),
            "--threads=1".into(),
            "--log-format=text".into(),
            format!("--die-with-parent={}", std::process::id()),
        ];
        if size > 1 {
            let mut peers: Vec<String> = (0..size).map(|rank| format!("{host}:{}", Ports::of(rank).shard)).collect();
            for (_, to, through) in self.routes.iter().filter(|(from, ..)| *from == rank) {
                peers[*to] = through.to_string();
            }
            arguments.extend([
                format!("--shard-listen={host}:{}", ports.shard),
                format!("--rank={rank}"),
                format!("--size={size}"),
                format!("--peers={}", peers.join(",")),
                format!("--epoch={}", self.epochs[rank]),
                format!("--placement={}", self.placement.to_base64()),
            ]);
        }
        arguments.extend(self.flags.iter().cloned());
        arguments.extend(self.own_flags.iter().filter(|(own, _)| *own == rank).map(|(_, flag)| flag.clone()));
        arguments.extend(self.faults[rank].iter().map(|fault| format!("--fault={fault}")));
        arguments
    }
}

/// Where a rank listens on its fleet's address; below the ports that the system gives to clients.
#[derive(Debug, Clone, Copy)]
struct Ports {
    grpc: u16,
    http: u16,
    health: u16,
    shard: u16,
}

impl Ports {
    fn of(rank: usize) -> Self {
        let base = 20_000 + 10 * u16::try_from(rank).expect("should fit: at most 64 ranks");
        Self { grpc: base, http: base + 1, health: base + 2, shard: base + 3 }
    }
}

/// The workers of one group, by rank.
pub struct Fleet {
    /// By rank.
    pub workers: Vec<Worker>,
    strategy: Strategy,
    _logs: TempDir,
}

impl Fleet {
    /// Starts every worker and waits until all are ready.
    ///
    /// # Errors
    /// When a worker ends or is not ready in time; with the ends of the logs.
    pub async fn start(spec: &Spec) -> Result<Self> {
        let mut fleet = Self::launch(spec)?;
        for worker in &mut fleet.workers {
            worker.wait_until_ready(START).await?;
        }
        Ok(fleet)
    }

    /// Starts every worker and waits for none.
    ///
    /// # Errors
    /// When a process cannot be started.
    pub fn launch(spec: &Spec) -> Result<Self> {
        let logs = tempfile::tempdir().context("a folder for logs")?;
        let host = next_host();
        let program = spec.program.clone().map_or_else(|| binary("shoal-worker"), Ok)?;
        let launch = |rank| {
            let arguments = spec.arguments(rank, host);
            Worker::launch(&program, &arguments, (host, Ports::of(rank)), rank, logs.path())
        };
        let workers = (0..spec.placement.size()).map(launch).collect::<Result<_>>()?;
        Ok(Self { workers, strategy: spec.placement.strategy(), _logs: logs })
    }

    /// The workers that take requests: all of them, or the first stage of a pipeline.
    #[must_use]
    pub fn doors(&self) -> &[Worker] {
        if self.strategy == Strategy::Pipeline { &self.workers[..1] } else { &self.workers }
    }

    /// Sends a signal to one worker.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, rank: usize, signal: Signal) -> Result<()> {
        self.workers[rank].signal(signal)
    }

    /// Waits until every worker has ended by itself with success.
    ///
    /// # Errors
    /// When one is still there after `limit`, or ended badly; with the end of its log.
    pub async fn wait_until_gone(&mut self, limit: Duration) -> Result<()> {
        let end = tokio::time::Instant::now() + limit;
        for worker in &mut self.workers {
            let status = tokio::time::timeout_at(end, worker.wait()).await;
            let log = worker.log_tail();
            let status = status.with_context(|| format!("rank {} did not end in time: {log}", worker.rank))??;
            ensure!(status.success(), "rank {} ended with {status}: {log}", worker.rank);
        }
        Ok(())
    }

    /// Adds up a counter over the workers; `series` is a part of its line, such as `place="remote"`.
    ///
    /// # Errors
    /// When a worker shows no such counter.
    pub async fn sum(&self, series: &str) -> Result<u64> {
        let mut sum = 0;
        for worker in &self.workers {
            sum += worker.metric(series).await?;
        }
        Ok(sum)
    }
}

/// 127.64.0.0/10 holds one address per fleet: 14 bits of this process, 8 bits of the fleet.
fn next_host() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let fleet = NEXT.fetch_add(1, Ordering::Relaxed) % 254 + 1;
    let process = std::process::id() % (1 << 14);
    Ipv4Addr::from((127 << 24) | (64 << 16) | (process << 8) | fleet)
}
