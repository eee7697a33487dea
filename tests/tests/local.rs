//! `shoal up` and `shoal ask` with real workers and the tiny model on this machine.

#[path = "local/arguments.rs"]
mod arguments;
#[path = "local/lives.rs"]
mod lives;
#[path = "local/pipeline.rs"]
mod pipeline;
#[path = "local/refusals.rs"]
mod refusals;
#[path = "local/several.rs"]
mod several;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use shoal_tests::paths::{binary, repository};
use shoal_tests::sums::Sum;
use shoal_tests::up::Up;

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

/// What `shoal ask` prints; it must succeed.
fn answer(up: &Up, target: &str, question: &str) -> Result<String> {
    let output = up.ask(&[target, question])?;
    ensure!(output.status.success(), "{target}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Why `shoal ask` gets no answer; it must fail.
fn refused(up: &Up, target: &str) -> Result<String> {
    let output = up.ask(&[target, "What is 1+1?"])?;
    ensure!(output.status.code() == Some(1), "{target} answers: {}", String::from_utf8_lossy(&output.stdout));
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

fn nobody_serves(up: &Up, name: &str) -> Result<()> {
    let said = refused(up, name)?;
    ensure!(said.starts_with(&format!("error: no `shoal up` of this user serves {name}")), "{said}");
    Ok(())
}

fn ask_sum(up: &Up, target: &str) -> Result<()> {
    let sum = Sum::unseen(&mut rand::rng());
    let answer = answer(up, target, &sum.question())?;
    ensure!(sum.is_answered_by(&answer), "{target}: {sum:?}: {answer}");
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

/// The strings of `/proc/PID/FILE`, each of which ends with a zero byte.
fn proc_strings(pid: u32, file: &str) -> Result<Vec<String>> {
    let bytes = fs::read(format!("/proc/{pid}/{file}"))?;
    let strings = bytes.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned());
    Ok(strings.filter(|text| !text.is_empty()).collect())
}

/// Whether the processes of workers can be looked at and die with their parent here; if not, it is said.
fn is_linux() -> bool {
    if !cfg!(target_os = "linux") {
        eprintln!("skipped: neither /proc nor a parent-death signal on this system");
    }
    cfg!(target_os = "linux")
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

/// A copy of the model whose weights end in the middle.
fn copy_broken_model(to: &Path) -> Result<()> {
    copy_model(to)?;
    let weights = to.join("model.safetensors");
    let whole = fs::read(&weights)?;
    Ok(fs::write(&weights, &whole[..whole.len() / 2])?)
}
