//! What workers are started with, beside what they get in a cluster.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use shoal_operator::controller::build;
use shoal_operator::controller::plan::{Revision, plan};
use shoal_operator::controller::validate::validate;
use shoal_operator::inventory::{Inventory, this_machine};
use shoal_operator::local::command::Table;
use shoal_operator::local::localize::substitute;
use shoal_operator::manifest;
use shoal_operator::names::{Epoch, GroupId, GroupIndex};
use shoal_tests::paths::{binary, repository};

use crate::{Fixture, PATIENCE, TINY, is_linux, proc_strings, stop, tiny_manifest};

/// What the operator would make of the manifest, put through the table of substitutions with the ports that the worker
/// has, must be what the worker was started with.
#[test]
fn a_worker_gets_here_what_it_gets_in_a_cluster_apart_from_the_table() -> Result<()> {
    if !is_linux() {
        return Ok(());
    }
    let fixture = Fixture::new()?;
    let mut up = fixture.up(&TINY)?;
    up.line("ready tiny ", PATIENCE)?;
    let workers = up.workers();
    let started: Vec<Vec<String>> =
        workers.iter().map(|(_, pid)| proc_strings(*pid, "cmdline")).collect::<Result<_>>()?;

    let object = manifest::read(&[repository().join("manifests/tiny-cpu.yaml")])?.remove(0);
    let spec = validate(&object)?;
    let plan = plan(&spec, &Inventory::Nodes(vec![this_machine()]));
    let revision = Revision::decide(&spec, &plan, "image").context("tiny is planned")?;
    let pods = build::group(&revision, GroupId { index: GroupIndex(0), epoch: Epoch::FIRST }).pods;
    let mut table = Table {
        worker: binary("shoal-worker")?.canonicalize()?,
        model_root: Some(repository().canonicalize()?),
        ..Table::default()
    };
    for ((pod, _), args) in workers.iter().zip(&started) {
        for (flag, port) in
            [("--listen", 50051), ("--http", 8080), ("--health-listen", 50052), ("--shard-listen", 50053)]
        {
            let at = args.iter().position(|arg| arg == flag).context(flag)?;
            let address: SocketAddr = args[at + 1].parse()?;
            ensure!(address.ip().is_loopback(), "{flag} {address}");
            table.ports.insert((pod.clone(), port), address.port());
        }
    }
    for ((pod, (_, pid)), args) in pods.iter().zip(&workers).zip(&started) {
        let command = substitute(pod, &table)?;
        assert_eq!(args[0], command.program.display().to_string());
        assert_eq!(args[1..], command.args);
        let environment = proc_strings(*pid, "environ")?;
        for (name, value) in &command.env {
            ensure!(environment.contains(&format!("{name}={value}")), "{name}={value} is in {environment:?}");
        }
        let own: Vec<_> = environment.iter().filter(|variable| variable.starts_with("SHOAL_")).collect();
        ensure!(own.len() == 1 && own[0].starts_with("SHOAL_DIE_WITH_PARENT="), "{own:?}");
    }
    stop(&mut up)
}

/// Of the manifest alone a worker would compute on the one core that a cluster sets aside for it.
#[test]
fn a_worker_whose_manifest_asks_for_no_cpu_computes_on_its_share_of_this_machine() -> Result<()> {
    if !is_linux() {
        return Ok(());
    }
    let fixture = Fixture::new()?;
    let manifest = tiny_manifest()?;
    let (without, pod) = manifest.split_once("  pod:\n").context("the sample asks for CPU last")?;
    ensure!(pod.contains("cpu"), "{pod}");
    let file = fixture.file("free.yaml", &without.replace("shards: 2", "shards: 1"))?;
    let mut up = fixture.up(&["-f", &file, "--model-root", "."])?;
    up.line("ready tiny ", PATIENCE)?;
    let cores = this_machine().cpu_millis / 1000;
    let (_, pid) = up.workers().pop().context("a worker")?;
    let started = proc_strings(pid, "cmdline")?;
    let threads = started.iter().skip_while(|arg| *arg != "--threads").nth(1);
    assert_eq!(threads, Some(&cores.to_string()), "{started:?}");
    let said = up.said();
    ensure!(said.contains(&format!("substituted: --threads 1 -> {cores}: ")), "{said}");
    stop(&mut up)
}
