//! Several models in one `up`: each under its name, and none notices what becomes of another.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use shoal_operator::local::ports;
use shoal_tests::up::kill;

use crate::{
    Fixture, PATIENCE, TINY, ask_sum, copy_broken_model, copy_model, nobody_serves, pipeline, stop, tiny_manifest,
};

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
fn two_different_models_serve_at_once_and_the_loss_of_one_never_reaches_the_other() -> Result<()> {
    let fixture = Fixture::new()?;
    let mut up = fixture.up(&[&TINY[..], &["-f", pipeline::MANIFEST]].concat())?;
    let models = ["tiny", "tiny-pipeline"];
    for name in models {
        up.said_line(&format!("ready {name} "), PATIENCE)?;
    }
    up.said_line("of this machine's ", PATIENCE)?;
    let said = up.said();
    ensure!(said.contains(" GiB for tiny, ") && said.contains(" GiB for tiny-pipeline"), "{said}");
    models.into_iter().try_for_each(|name| ask_sum(&up, name))?;

    let mut victims = Vec::new();
    for (name, other) in [(models[0], models[1]), (models[1], models[0])] {
        let ready = format!("ready {name} grpc=");
        // One name begins with the other: the pod's has four parts more.
        let dashes = name.matches('-').count() + 4;
        let is_rank_one = |pod: &str| pod.starts_with(name) && pod.ends_with("-g0-e1-r1");
        let mut workers = up.workers().into_iter();
        let victim = workers.find(|(pod, _)| is_rank_one(pod) && pod.matches('-').count() == dashes);
        let (pod, pid) = victim.with_context(|| format!("rank 1 of {name}"))?;
        kill(pid, Signal::KILL)?;
        up.line(&format!("lost {pod}: killed by signal 9"), PATIENCE)?;
        victims.push(pod);
        let end = Instant::now() + PATIENCE;
        // Meanwhile every question to the other one is answered.
        while up.said().lines().filter(|line| line.starts_with(&ready)).count() < 2 {
            ask_sum(&up, other)?;
            ensure!(Instant::now() < end, "{name} does not come back:\n{}", up.said());
        }
        ask_sum(&up, name)?;
    }
    let said = up.said();
    let lost: Vec<_> = said.lines().filter_map(|line| line.strip_prefix("lost ")?.split_once(':')).collect();
    assert_eq!(lost.iter().map(|(pod, _)| *pod).collect::<Vec<_>>(), victims);
    let again = up.workers().iter().filter(|(pod, _)| pod.contains("-e2-")).count();
    assert_eq!((up.workers().len(), again), (10, 5), "each of the two groups was formed twice");
    stop(&mut up)?;
    models.into_iter().try_for_each(|name| nobody_serves(&up, name))
}

#[test]
fn a_model_that_is_given_up_leaves_the_others_serving_and_up_ends_with_its_failure() -> Result<()> {
    let fixture = Fixture::new()?;
    let root = fixture.folder.path().join("root");
    copy_model(&root.join("models/tiny"))?;
    copy_broken_model(&root.join("models/broken"))?;
    let broken = tiny_manifest()?.replace("name: tiny", "name: broken").replace("models/tiny", "models/broken");
    let broken = fixture.file("broken.yaml", &broken)?;
    let root = root.display().to_string();
    let mut up = fixture.up(&["-f", &broken, "-f", "manifests/tiny-cpu.yaml", "--model-root", &root])?;
    up.line("gave up broken: broken does not start", PATIENCE)?;
    nobody_serves(&up, "broken")?;
    up.said_line("ready tiny ", PATIENCE)?;
    ask_sum(&up, "tiny")?;
    up.signal(Signal::TERM)?;
    let status = up.ended(PATIENCE)?;
    assert_eq!(status.code(), Some(1), "{}", up.said());
    up.line("error: broken does not start", PATIENCE)?;
    up.left_nothing(Duration::ZERO)
}
