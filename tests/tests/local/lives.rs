//! Workers and whole `up`s that die, and models that never live.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use shoal_tests::up::kill;

use crate::{Fixture, PATIENCE, TINY, ask_sum, copy_broken_model, grpc_of, is_linux, nobody_serves, stop};

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
    if !is_linux() {
        return Ok(());
    }
    let fixture = Fixture::new()?;
    let mut up = fixture.up(&TINY)?;
    up.line("ready tiny ", PATIENCE)?;
    assert_eq!(up.workers().len(), 2);
    up.signal(Signal::KILL)?;
    up.ended(PATIENCE)?;
    up.left_nothing(PATIENCE)?;
    nobody_serves(&up, "tiny")
}

#[test]
fn a_model_whose_workers_cannot_start_is_given_up_with_their_last_words() -> Result<()> {
    let fixture = Fixture::new()?;
    let root = fixture.folder.path().join("root");
    copy_broken_model(&root.join("models/tiny"))?;
    let mut up = fixture.up(&["-f", "manifests/tiny-cpu.yaml", "--model-root", &root.display().to_string()])?;
    let status = up.ended(PATIENCE)?;
    assert_eq!(status.code(), Some(1));
    up.line("error: tiny does not start", PATIENCE)?;
    let said = up.said();
    ensure!(said.contains("exit code 1") && said.contains("model.safetensors"), "{said}");
    up.left_nothing(Duration::ZERO)
}
