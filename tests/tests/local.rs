//! `shoal up` and `shoal ask` with real workers and the tiny model on this machine.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use shoal_operator::controller::build;
use shoal_operator::controller::plan::{Revision, plan};
use shoal_operator::controller::validate::validate;
use shoal_operator::inventory::{Inventory, this_machine};
use shoal_operator::local::command::Table;
use shoal_operator::local::localize::substitute;
use shoal_operator::local::ports;
use shoal_operator::manifest;
use shoal_operator::names::{Epoch, GroupId, GroupIndex};
use shoal_tests::paths::{binary, repository};
use shoal_tests::sums::Sum;
use shoal_tests::up::{Up, kill};

/// Generous: the machine may be busy with other tests. Nothing here measures.
const PATIENCE: Duration = Duration::from_secs(90);
const TINY: [&str; 4] = ["-f", "manifests/tiny-cpu.yaml", "--model-root", "."];

struct Fixture {
    folder: tempfile::TempDir,
    shoal: PathBuf,
}

impl Fixture {
    fn new() -> Result<Self> {
        binary("shoal-worker")?;
        Ok(Self { folder: tempfile::tempdir()?, shoal: binary("shoal")? })
    }

    fn up(&self, args: &[&str]) -> Result<Up> {
        Up::start(&self.shoal, self.folder.path(), args)
    }

    fn file(&self, name: &str, text: &str) -> Result<String> {
        let path = self.folder.path().join(name);
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    }

    /// What `up` says when it refuses: it must end by itself with code 1 and leave nothing.
    fn refusal(&self, args: &[&str]) -> Result<String> {
        let mut up = self.up(args)?;
        let error = up.line("error: ", PATIENCE)?;
        let status = up.ended(PATIENCE)?;
        ensure!(status.code() == Some(1), "{args:?} ended with {status}:\n{}", up.said());
        up.left_nothing(Duration::ZERO)?;
        Ok(error)
    }
}

fn tiny_manifest() -> Result<String> {
    Ok(fs::read_to_string(repository().join("manifests/tiny-cpu.yaml"))?)
}

fn ask_sum(up: &Up, target: &str) -> Result<()> {
    let sum = Sum::unseen(&mut rand::rng());
    let output = up.ask(&[target, &sum.question()])?;
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "ask failed: {}", String::from_utf8_lossy(&output.stderr));
    ensure!(sum.is_answered_by(&answer), "{sum:?}: {answer}");
    Ok(())
}

/// `HOST:PORT` after `grpc=`.
fn grpc_of(ready: &str) -> Result<&str> {
    let address = ready.split(' ').find_map(|word| word.strip_prefix("grpc="));
    address.context("a ready line names grpc")
}

fn stop(up: &mut Up) -> Result<()> {
    up.signal(Signal::TERM)?;
    let status = up.ended(PATIENCE)?;
    ensure!(status.success(), "up ended with {status}:\n{}", up.said());
    up.left_nothing(Duration::ZERO)
}

#[test]
fn a_killed_worker_comes_back_under_a_new_epoch_at_the_same_address() -> Result<()> {
    let fixture = Fixture::new()?;
    let mut up = fixture.up(&TINY)?;
    let ready = up.line("ready tiny ", PATIENCE)?;
    ask_sum(&up, "tiny")?;
    ask_sum(&up, grpc_of(&ready)?)?;
    let said = up.said();
    for expected in ["substituted: model file:///models/tiny -> ", "substituted: image ", "not enforced: memory limit"]
    {
        ensure!(said.contains(expected), "{expected:?} should be in:\n{said}");
    }

    let (pod, pid) = up.workers().pop().context("a worker")?;
    kill(pid, Signal::KILL)?;
    let lost = up.line("lost ", PATIENCE)?;
    assert_eq!(lost, format!("lost {pod}: killed by signal 9"));
    let again = up.line("ready tiny ", PATIENCE)?;
    assert_eq!(again, ready, "the address survives the epoch");
    let pods: Vec<_> = up.workers().into_iter().map(|(pod, _)| pod).collect();
    let of_epoch = |epoch: &str| pods.iter().filter(|pod| pod.contains(epoch)).count();
    assert_eq!((of_epoch("-e1-"), of_epoch("-e2-"), pods.len()), (2, 2, 4), "{pods:?}");
    ask_sum(&up, "tiny")?;

    let refused = fixture.refusal(&TINY)?;
    assert_eq!(refused, "error: another `shoal up` already serves tiny");
    ask_sum(&up, "tiny")?;
    stop(&mut up)
}

#[test]
fn up_killed_with_sigkill_leaves_no_process() -> Result<()> {
    if !cfg!(target_os = "linux") {
        eprintln!("skipped: neither /proc nor a parent-death signal on this system");
        return Ok(());
    }
    let fixture = Fixture::new()?;
    let mut up = fixture.up(&TINY)?;
    up.line("ready tiny ", PATIENCE)?;
    assert_eq!(up.workers().len(), 2);
    up.signal(Signal::KILL)?;
    up.ended(PATIENCE)?;
    up.left_nothing(PATIENCE)?;
    let output = up.ask(&["tiny", "1+1"])?;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(said.starts_with("error: no `shoal up` of this user serves tiny"), "{said}");
    Ok(())
}

/// What the operator would make of the manifest, put through the table of substitutions with the ports that the worker
/// has, must be what the worker was started with.
#[test]
fn a_worker_gets_here_what_it_gets_in_a_cluster_apart_from_the_table() -> Result<()> {
    if !cfg!(target_os = "linux") {
        eprintln!("skipped: neither /proc nor a parent-death signal on this system");
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

/// The strings of `/proc/PID/FILE`, each of which ends with a zero byte.
fn proc_strings(pid: u32, file: &str) -> Result<Vec<String>> {
    let bytes = fs::read(format!("/proc/{pid}/{file}"))?;
    let strings = bytes.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned());
    Ok(strings.filter(|text| !text.is_empty()).collect())
}

#[test]
fn several_manifests_are_served_at_once_each_under_its_name() -> Result<()> {
    let fixture = Fixture::new()?;
    let one = |name: &str| tiny_manifest().map(|text| text.replace("name: tiny", &format!("name: {name}")));
    let both = fixture.file("both.yaml", &format!("{}---\n{}", one("left")?, one("right")?))?;
    let third = fixture.file("third.yaml", &one("third")?.replace("shards: 2", "shards: 1"))?;
    let port = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free()?));
    let publish = format!("third/grpc={port}");
    let mut up = fixture.up(&["-f", &both, "-f", &third, "--model-root", ".", "--publish", &publish])?;
    for _ in 0..3 {
        up.line("ready ", PATIENCE)?;
    }
    ensure!(up.said().contains(&format!("ready third grpc={port} ")), "{}", up.said());
    ["left", "right", "third"].into_iter().try_for_each(|name| ask_sum(&up, name))?;
    stop(&mut up)
}

#[test]
fn what_cannot_be_served_is_refused_before_anything_starts() -> Result<()> {
    let fixture = Fixture::new()?;
    let tiny = tiny_manifest()?;
    let good = fixture.file("good.yaml", &tiny)?;
    let unknown = fixture.file("unknown.yaml", &tiny.replace("  hardware:", "  hardwear: 1\n  hardware:"))?;
    let other_namespace = fixture.file("other.yaml", &tiny.replace("name: tiny", "name: tiny\n  namespace: other"))?;
    let garbage = fixture.file("garbage.yaml", "spec: [")?;
    let empty = tempfile::tempdir()?;
    let empty = empty.path().display().to_string();
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let publish = format!("tiny/grpc={}", taken.local_addr()?);
    let cases: [(&[&str], &str); 9] = [
        (&["-f", "/nonexistent.yaml"], "cannot read /nonexistent.yaml: No such file"),
        (&["-f", &garbage], "garbage.yaml is not YAML"),
        (&["-f", &unknown], "unknown field \"spec.hardwear\""),
        (&["-f", &good, "-f", &good], "tiny is given twice"),
        (&["-f", &good, "-f", &other_namespace], "two manifests have the name tiny"),
        (&["-f", &good, "--model-root", &empty], "file:///models/tiny is "),
        (&["-f", &good, "--model-root", ".", "--publish", &publish], "cannot listen on 127.0.0.1:"),
        (&["-f", &good, "--model-root", ".", "--publish", "tiny/x=127.0.0.1:0"], "ports: tiny/grpc, tiny/http"),
        (&["-f", "manifests/deepseek-r1-cuda.yaml"], "not supported yet"),
    ];
    for (args, expected) in cases {
        let error = fixture.refusal(args)?;
        ensure!(error.contains(expected), "{args:?}: {expected:?} should be in {error:?}");
    }
    Ok(())
}

#[test]
fn a_model_whose_workers_cannot_start_is_given_up_with_their_last_words() -> Result<()> {
    let fixture = Fixture::new()?;
    let root = fixture.folder.path().join("root");
    copy_model(&root.join("models/tiny"))?;
    let weights = root.join("models/tiny/model.safetensors");
    let whole = fs::read(&weights)?;
    fs::write(&weights, &whole[..whole.len() / 2])?;
    let mut up = fixture.up(&["-f", "manifests/tiny-cpu.yaml", "--model-root", &root.display().to_string()])?;
    let status = up.ended(PATIENCE)?;
    assert_eq!(status.code(), Some(1));
    up.line("error: tiny does not start", PATIENCE)?;
    let said = up.said();
    ensure!(said.contains("exit code 1") && said.contains("model.safetensors"), "{said}");
    up.left_nothing(Duration::ZERO)
}

fn copy_model(to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(repository().join("models/tiny"))? {
        let from = entry?.path();
        if from.is_file() {
            fs::copy(&from, to.join(from.file_name().context("a file has a name")?))?;
        }
    }
    Ok(())
}
