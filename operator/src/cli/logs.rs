//! `shoal logs`: what all shards of a model say, one line after another, each with its group, epoch and rank.
//!
//! Reads only, with the caller's rights.

mod lines;

use std::collections::HashSet;
use std::io::{self, Write as _};

use futures::{AsyncBufReadExt as _, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, LogParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::lines::{Line, Shard};
use super::cluster::{ClusterError, Scope, Session, during};
use crate::names::label;

/// Lines that wait to be printed; a shard that says more waits.
const WAITING: usize = 1024;

/// Shows what all shards of a model say, in the order in which they said it.
#[derive(Debug, clap::Args)]
pub struct LogsArgs {
    /// The ModelDeployment
    name: String,
    #[command(flatten)]
    scope: Scope,
    /// Go on with what is said from now on, by shards of later epochs too
    #[arg(short, long)]
    follow: bool,
    /// Lines of each shard, counted from the end [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    tail: Option<i64>,
    /// Only this group
    #[arg(long, value_name = "INDEX")]
    group: Option<u32>,
    /// Only this rank of each group
    #[arg(long, value_name = "RANK")]
    rank: Option<u32>,
}

/// Why there are no logs.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The watch for new shards cannot go on.
    #[error("the watch for new shards broke off")]
    Watch(#[source] Box<watcher::Error>),
    /// Standard output is closed.
    #[error("cannot write the lines")]
    Output(#[from] io::Error),
}

/// Runs `shoal logs`.
///
/// # Errors
/// [`LogsError`]. A single shard whose log cannot be read is told on standard error.
pub async fn run(args: LogsArgs) -> Result<(), LogsError> {
    let session = Session::open(&args.scope).await?;
    session.model(&args.name).await?;
    let pods: Api<Pod> = Api::namespaced(session.client.clone(), &session.namespace);
    if args.follow { follow(&pods, &args).await } else { once(&pods, &args).await }
}

/// `key=value` of every label that the caller fixed.
fn selector(args: &LogsArgs) -> String {
    let model = Some(format!("{}={}", label::MODEL, args.name));
    let group = args.group.map(|index| format!("{}={index}", label::GROUP));
    let rank = args.rank.map(|rank| format!("{}={rank}", label::RANK));
    [model, group, rank].into_iter().flatten().collect::<Vec<_>>().join(",")
}

/// Everything that has been said, merged by the time at which kubelet wrote it down.
async fn once(pods: &Api<Pod>, args: &LogsArgs) -> Result<(), LogsError> {
    let listed = pods.list(&ListParams::default().labels(&selector(args))).await.map_err(during("list its pods"))?;
    let params = LogParams { tail_lines: args.tail, timestamps: true, ..LogParams::default() };
    let mut said: Vec<Line> = Vec::new();
    for shard in listed.items.iter().filter_map(Shard::of) {
        match pods.logs(&shard.pod, &params).await {
            Ok(text) => said.extend(text.lines().map(|line| Line::stamped(&shard, line))),
            Err(error) => silent(&shard, &error),
        }
    }
    said.sort_by_key(|line| line.at);
    let mut out = io::BufWriter::new(io::stdout().lock());
    said.iter().try_for_each(|line| writeln!(out, "{line}"))?;
    Ok(out.flush()?)
}

/// Until the caller interrupts: whatever is said, as it comes, by every shard that runs or is made later.
async fn follow(pods: &Api<Pod>, args: &LogsArgs) -> Result<(), LogsError> {
    let (sender, mut lines) = mpsc::channel(WAITING);
    let mut readers = JoinSet::new();
    let mut known = HashSet::new();
    let config = watcher::Config::default().labels(&selector(args));
    let mut changes = std::pin::pin!(watcher(pods.clone(), config).default_backoff().applied_objects());
    loop {
        tokio::select! {
            line = lines.recv() => {
                let Some(line) = line else { return Ok(()) };
                writeln!(io::stdout(), "{line}")?;
            }
            change = changes.next() => {
                let Some(pod) = change else { return Ok(()) };
                let pod = pod.map_err(|source| LogsError::Watch(Box::new(source)))?;
                if let Some(shard) = Shard::of(&pod).filter(|shard| shard.speaks && known.insert(shard.uid.clone())) {
                    readers.spawn(read(pods.clone(), shard, args.tail, sender.clone()));
                }
            }
        }
    }
}

async fn read(pods: Api<Pod>, shard: Shard, tail: Option<i64>, lines: mpsc::Sender<Line>) {
    let params = LogParams { follow: true, tail_lines: tail, timestamps: true, ..LogParams::default() };
    let stream = match pods.log_stream(&shard.pod, &params).await {
        Ok(stream) => stream,
        Err(error) => return silent(&shard, &error),
    };
    let mut said = stream.lines();
    while let Ok(Some(line)) = said.try_next().await {
        if lines.send(Line::stamped(&shard, &line)).await.is_err() {
            return;
        }
    }
}

fn silent(shard: &Shard, error: &kube::Error) {
    eprintln!("{}: its log cannot be read: {error}", shard.short);
}
