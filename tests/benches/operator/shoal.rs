//! The operator: the release binary under its chart's ServiceAccount, with its published intervals.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use shoal_operator::crd::ModelDeployment;
use shoal_tests::cluster::Cluster;
use shoal_tests::cluster::audit::Mark;
use shoal_tests::cluster::install::{Install, Mode};
use shoal_tests::cluster::tools::kubectl;
use shoal_tests::paths::repository;
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;

use crate::served::{NAMESPACE, clean, create, model, served, until_gone};
use crate::{groups, table};

/// Peak of resident memory in MiB, and seconds of processor time, of a process.
pub(crate) fn cost(pid: u32) -> Result<(f64, f64)> {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let status = std::fs::read_to_string(folder.join("status"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("a peak")?;
    let kib: f64 = peak.trim().trim_end_matches(" kB").parse()?;
    let stat = std::fs::read_to_string(folder.join("stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // Fields 14 and 15 of proc(5): user and system time, in ticks of 10 ms.
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok((kib / 1024.0, ticks / 100.0))
}

/// An operator for all namespaces.
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
}

static INSTALL: OnceCell<Install> = OnceCell::const_new();

async fn install() -> Result<&'static Install> {
    let new = async || {
        kubectl(&["create", "namespace", "shoal-system"]).await?;
        Install::new("shoal-system", Mode::Cluster).await
    };
    INSTALL.get_or_try_init(new).await
}

impl Running {
    pub(crate) async fn start() -> Result<Self> {
        let cluster = Cluster::get().await?;
        let kubeconfig = install().await?.kubeconfig(cluster).await?;
        let binary = repository().join("target/release/shoal");
        ensure!(binary.exists(), "no {}: `make bench-operator` builds it", binary.display());
        let log = cluster.run_folder().join("logs/operator-bench.log");
        let child = Command::new(binary)
            .arg("operator")
            .env("KUBECONFIG", kubeconfig)
            .env("POD_NAMESPACE", "shoal-system")
            .env("SHOAL_HTTP", "127.0.0.1:18081")
            .env("RUST_LOG", "info,shoal_operator=debug")
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(&log)?)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self { child, log })
    }

    /// As [`Self::start`], and waits until it leads and knows everything.
    pub(crate) async fn start_and_watch() -> Result<Self> {
        let running = Self::start().await?;
        let began = Instant::now();
        while !std::fs::read_to_string(&running.log)?.contains("\"message\":\"watching\"") {
            ensure!(began.elapsed() < Duration::from_secs(60), "it does not lead");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(running)
    }

    /// Ends it and gives its lease back.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())).context("it runs")?;
        kill_process(pid, Signal::TERM)?;
        self.child.wait().await.map(drop).map_err(Into::into)
    }

    /// Peak of resident memory in MiB, and seconds of processor time.
    pub(crate) fn cost(&self) -> Result<(f64, f64)> {
        cost(self.child.id().context("it runs")?)
    }

    fn passes(&self) -> Result<usize> {
        Ok(std::fs::read_to_string(&self.log)?.matches("\"message\":\"pass\"").count())
    }

    /// Waits until it has looked at `count` objects.
    pub(crate) async fn until_looked_at(&self, count: usize) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(300);
        loop {
            let log = std::fs::read_to_string(&self.log)?;
            let passes = log.lines().filter(|line| line.contains("\"message\":\"pass\""));
            let name = |line: &'_ str| line.split("\"name\":\"").nth(1)?.split('"').next().map(ToOwned::to_owned);
            let seen: BTreeSet<String> = passes.filter_map(name).collect();
            if seen.len() >= count {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "only {} of {count} objects were looked at", seen.len());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn until_passes(&self, count: usize) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(120);
        while self.passes()? < count {
            ensure!(Instant::now() < deadline, "only {} of {count} passes", self.passes()?);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

/// What the operator has written since `mark`, beside its lease.
pub(crate) async fn writes(mark: Mark) -> Result<usize> {
    let mut writes = Cluster::get().await?.audit().writes_since(mark, &install().await?.user())?;
    writes.retain(|call| call.resource != "leases");
    Ok(writes.len())
}

/// What the operator has asked since `mark`, by verb and resource, most often first.
pub(crate) async fn print_calls(mark: Mark) -> Result<()> {
    let user = install().await?.user();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for call in Cluster::get().await?.audit().calls_since(mark, &user)? {
        *counts.entry(format!("{} {}", call.verb, call.resource)).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().map(|(call, count)| (count, call)).collect();
    counts.sort_by(|a, b| b.cmp(a));
    let words: Vec<String> = counts.iter().map(|(count, call)| format!("{count} × {call}")).collect();
    println!("calls: {}", words.join(", "));
    Ok(())
}

pub(crate) async fn many_objects() -> Result<()> {
    let cluster = Cluster::get().await?;
    let client = cluster.client();
    let began_at = cluster.audit().mark()?;
    let operator = Running::start_and_watch().await?;
    let wanted = (0..groups()).map(|number| model(&format!("m{number}"), 1)).collect::<Result<Vec<_>>>()?;
    let began = Instant::now();
    create(&client, &wanted).await?;
    served(&client, 2 * groups(), groups()).await?;
    table::shoal("objects of one group of 2", began.elapsed().as_secs_f64(), "s");
    print_calls(began_at).await?;
    let (memory, processor) = operator.cost()?;
    table::shoal("memory then, peak", memory, "MiB");
    table::shoal("processor time then", processor, "s");
    // Settled, and looked at a hundred times.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let models: Api<ModelDeployment> = Api::namespaced(client.clone(), NAMESPACE);
    let mark = cluster.audit().mark()?;
    for round in 0..100 {
        let before = operator.passes()?;
        let touch = Patch::Merge(json!({"metadata": {"annotations": {"touched": round.to_string()}}}));
        models.patch("m0", &PatchParams::default(), &touch).await?;
        operator.until_passes(before + 1).await?;
    }
    print_calls(mark).await?;
    table::shoal("writes of 100 passes over a settled object", writes(mark).await? as f64, "");
    operator.stop().await?;
    let began = Instant::now();
    let operator = Running::start().await?;
    operator.until_looked_at(groups()).await?;
    table::shoal("restart: every object looked at", began.elapsed().as_secs_f64(), "s");
    table::shoal("writes of that restart", writes(mark).await? as f64, "");
    table::shoal("memory after the restart, peak", operator.cost()?.0, "MiB");
    operator.stop().await?;
    clean(&client).await
}

pub(crate) async fn one_object() -> Result<()> {
    let client = Cluster::get().await?.client();
    let operator = Running::start_and_watch().await?;
    let began_at = Cluster::get().await?.audit().mark()?;
    let began = Instant::now();
    create(&client, &[model("m0", groups())?]).await?;
    served(&client, 2 * groups(), 1).await?;
    table::shoal("one object of groups of 2", began.elapsed().as_secs_f64(), "s");
    print_calls(began_at).await?;
    table::shoal("processor time for it", operator.cost()?.1, "s");
    let models: Api<ModelDeployment> = Api::namespaced(client.clone(), NAMESPACE);
    let began_at = Cluster::get().await?.audit().mark()?;
    let began = Instant::now();
    models.patch("m0", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 0}}))).await?;
    table::shoal("scale to 0", until_gone(&client, began).await?, "s");
    print_calls(began_at).await?;
    operator.stop().await?;
    clean(&client).await
}

pub(crate) async fn ten_pods() -> Result<()> {
    let client = Cluster::get().await?.client();
    let operator = Running::start_and_watch().await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let mut times = Vec::new();
    for round in 0..21 {
        let name = format!("ten{round}");
        let ours = ListParams::default().labels(&format!("{}={name}", shoal_operator::names::label::MODEL));
        let began = Instant::now();
        create(&client, &[model(&name, 5)?]).await?;
        while pods.list_metadata(&ours).await?.items.len() < 10 {
            ensure!(began.elapsed() < Duration::from_secs(60), "no ten pods");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The first warms up; the next begins when this one has come to rest.
        if round > 0 {
            times.push(began.elapsed().as_secs_f64());
        }
        served(&client, 10 * (round + 1), round + 1).await?;
    }
    times.sort_by(f64::total_cmp);
    table::shoal("10 pods, create to pods created, p95 of 20", times[18], "s");
    operator.stop().await?;
    clean(&client).await
}
