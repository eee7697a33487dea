//! `shoal logs`: what all shards of a model say, one line after another, each with its group, epoch and rank.
//!
//! Reads only, with the caller's rights.

mod lines;
mod lost;

use std::collections::HashSet;
use std::io::{self, Write as _};

use clap::ValueEnum;
use futures::{AsyncBufReadExt as _, StreamExt as _, TryStreamExt as _, stream};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, LogParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::lines::{Line, Shard};
use super::cluster::{ClusterError, Scope, Session, during, or_go_on};
use crate::names::label;

/// Lines that wait to be printed; a shard that says more waits.
const WAITING: usize = 1024;
/// Shards that are asked at once.
const AT_ONCE: usize = 8;

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
    /// Only what was said within this time, such as 90s, 5m or 1h30m
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    since: Option<i64>,
    /// Only this group
    #[arg(long, value_name = "INDEX")]
    group: Option<u32>,
    /// Only this epoch of each group
    #[arg(long, value_name = "EPOCH")]
    epoch: Option<u64>,
    /// Only this rank of each group
    #[arg(long, value_name = "RANK")]
    rank: Option<u32>,
    /// Only epochs that were lost: what is left of their shards, and the last words that the operator kept in Events
    #[arg(short, long, conflicts_with = "follow")]
    previous: bool,
    /// How to print a line
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// How to print a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// `gG-eE-rR | what it said`
    Text,
    /// One object: time, pod, group, epoch, rank, text.
    Json,
}

fn seconds(text: &str) -> Result<i64, String> {
    let duration = text.parse::<SignedDuration>().ok().map(|duration| duration.as_secs()).filter(|secs| *secs > 0);
    duration.ok_or_else(|| "allowed are durations of a second and more, such as 90s, 5m or 1h30m".to_owned())
}

/// Why there are no logs.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
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
    let model = session.model(&args.name).await?;
    let pods: Api<Pod> = Api::namespaced(session.client.clone(), &session.namespace);
    if args.follow {
        return follow(&pods, &args).await;
    }
    let mut said = once(&pods, &args).await?;
    if args.previous {
        said.extend(lost::words(&session, &model, &args).await?);
        said.sort_by_key(|line| line.at);
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    said.iter().try_for_each(|line| writeln!(out, "{}", line.shown(args.output == Output::Json)))?;
    Ok(out.flush()?)
}

/// `key=value` of every label that the caller fixed.
fn selector(args: &LogsArgs) -> String {
    let model = Some(format!("{}={}", label::MODEL, args.name));
    let group = args.group.map(|index| format!("{}={index}", label::GROUP));
    let epoch = args.epoch.map(|epoch| format!("{}={epoch}", label::EPOCH));
    let rank = args.rank.map(|rank| format!("{}={rank}", label::RANK));
    [model, group, epoch, rank].into_iter().flatten().collect::<Vec<_>>().join(",")
}

fn params(args: &LogsArgs) -> LogParams {
    LogParams { tail_lines: args.tail, since_seconds: args.since, timestamps: true, ..LogParams::default() }
}

/// Everything that has been said, merged by the time at which kubelet wrote it down.
async fn once(pods: &Api<Pod>, args: &LogsArgs) -> Result<Vec<Line>, LogsError> {
    let listed = pods.list(&ListParams::default().labels(&selector(args))).await.map_err(during("list its pods"))?;
    let all: Vec<Shard> = listed.items.iter().filter_map(Shard::of).collect();
    let shards = if args.previous { lines::lost(&all) } else { all };
    let (speaking, mute): (Vec<_>, Vec<_>) = shards.into_iter().partition(|shard| shard.speaks);
    if speaking.is_empty() && !args.previous {
        eprintln!("{}: no shard has begun to speak; {} have not started", args.name, mute.len());
    }
    let params = params(args);
    let mut answers = stream::iter(&speaking)
        .map(|shard| {
            let params = &params;
            async move { (shard, pods.logs(&shard.pod, params).await) }
        })
        .buffered(AT_ONCE);
    let mut said: Vec<Line> = Vec::new();
    while let Some((shard, answer)) = answers.next().await {
        match answer {
            Ok(text) => said.extend(text.lines().map(|line| Line::stamped(shard, line))),
            Err(error) => silent(shard, &error),
        }
    }
    said.sort_by_key(|line| line.at);
    Ok(said)
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
                let Some(line): Option<Line> = line else { return Ok(()) };
                writeln!(io::stdout(), "{}", line.shown(args.output == Output::Json))?;
            }
            change = changes.next() => {
                let Some(pod) = change else { return Ok(()) };
                let shard = or_go_on(pod, "its pods")?.as_ref().and_then(Shard::of);
                if let Some(shard) = shard.filter(|shard| shard.speaks && known.insert(shard.uid.clone())) {
                    let params = LogParams { follow: true, ..params(args) };
                    readers.spawn(read(pods.clone(), shard, params, sender.clone()));
                }
            }
        }
    }
}

async fn read(pods: Api<Pod>, shard: Shard, params: LogParams, lines: mpsc::Sender<Line>) {
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
    eprintln!("{}: its log cannot be read: {error}", shard.short());
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    #[test]
    fn a_duration_is_said_as_people_say_it() {
        assert_eq!(["90s", "5m", "1h30m"].map(seconds), [Ok(90), Ok(300), Ok(5400)]);
        for bad in ["5", "0s", "-1m", "soon"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
