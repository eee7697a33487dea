//! A pipeline under `up`: the words of one process, through its first stage alone, also after a stage came back.

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use shoal_tests::sums::Sum;
use shoal_tests::up::{Up, kill};

use crate::{Fixture, PATIENCE, answer, is_linux, proc_strings, refused, stop, tiny_manifest};

pub(crate) const MANIFEST: &str = "manifests/tiny-pipeline-cpu.yaml";
const STAGES: usize = 3;
/// More than there are stages: the address takes turns among those that it leads to.
const QUESTIONS: usize = 2 * STAGES;

/// The stages of the group's formation `epoch`, by rank.
fn stages(up: &mut Up, epoch: u64) -> Result<Vec<(String, u32)>> {
    let of_group = |pod: &str| pod.starts_with("tiny-pipeline-") && pod.contains(&format!("-g0-e{epoch}-"));
    let mut stages: Vec<_> = up.workers().into_iter().filter(|(pod, _)| of_group(pod)).collect();
    stages.sort();
    ensure!(stages.len() == STAGES, "{stages:?}");
    Ok(stages)
}

/// Every stage, asked where it listens itself.
fn only_the_first_takes_requests(up: &mut Up, epoch: u64) -> Result<()> {
    for (rank, (_, pid)) in stages(up, epoch)?.into_iter().enumerate() {
        let started = proc_strings(pid, "cmdline")?;
        let own = started.iter().skip_while(|arg| *arg != "--listen").nth(1).context("a worker listens")?;
        if rank == 0 {
            answer(up, own, "What is 1+1?")?;
            continue;
        }
        let said = refused(up, own)?;
        let wanted = format!("this is stage {rank} of a pipeline of {STAGES}; only rank 0 of the group takes requests");
        ensure!(said.contains("FailedPrecondition") && said.contains(&wanted), "rank {rank}: {said}");
    }
    Ok(())
}

#[test]
fn a_pipeline_says_what_one_process_says_and_only_its_first_stage_is_asked_also_after_a_loss() -> Result<()> {
    if !is_linux() {
        return Ok(());
    }
    let fixture = Fixture::new()?;
    let alone = tiny_manifest()?.replace("name: tiny", "name: alone").replace("shards: 2", "shards: 1");
    let alone = fixture.file("alone.yaml", &alone)?;
    let mut up = fixture.up(&["-f", MANIFEST, "-f", &alone, "--model-root", "."])?;
    let ready = up.said_line("ready tiny-pipeline ", PATIENCE)?;
    ensure!(ready.ends_with(" shards=3"), "{ready}");
    up.said_line("ready alone ", PATIENCE)?;
    let mut answers = Vec::new();
    for _ in 0..QUESTIONS {
        let sum = Sum::unseen(&mut rand::rng());
        let said = answer(&up, "tiny-pipeline", &sum.question())?;
        ensure!(sum.is_answered_by(&said), "{sum:?}: {said}");
        assert_eq!(said, answer(&up, "alone", &sum.question())?, "one process says something else");
        answers.push((sum, said));
    }
    only_the_first_takes_requests(&mut up, 1)?;

    let (pod, pid) = stages(&mut up, 1)?.swap_remove(1);
    kill(pid, Signal::KILL)?;
    assert_eq!(up.line("lost ", PATIENCE)?, format!("lost {pod}: killed by signal 9"));
    assert_eq!(up.line("ready tiny-pipeline ", PATIENCE)?, ready, "the address survives the epoch");
    for (sum, said) in answers {
        assert_eq!(
            answer(&up, "tiny-pipeline", &sum.question())?,
            said,
            "the group that came back says something else"
        );
    }
    only_the_first_takes_requests(&mut up, 2)?;
    stop(&mut up)
}
