use std::collections::BTreeMap;

use super::*;

struct Fixture {
    around: Surroundings,
    events: mpsc::Receiver<Event>,
    _directory: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let (sender, events) = mpsc::channel(16);
    let inherited =
        inheritable([("PATH", "/usr/bin:/bin"), ("SHOAL_THREADS", "7")].map(|(n, v)| (n.into(), v.into())).into_iter());
    let spawner = Spawner::start().unwrap();
    let around = Surroundings { spawner, inherited, logs: directory.path().to_owned(), events: sender };
    Fixture { around, events, _directory: directory }
}

fn shell(script: &str, grace: Duration) -> LocalCommand {
    LocalCommand {
        program: "/bin/sh".into(),
        args: vec!["-c".to_owned(), script.to_owned()],
        env: BTreeMap::from([("OWN".to_owned(), "pod".to_owned())]),
        grace,
        ..LocalCommand::default()
    }
}

impl Fixture {
    async fn until_ended(&mut self) -> String {
        loop {
            if let Change::Ended(text) = self.events.recv().await.unwrap().change {
                return text;
            }
        }
    }
}

#[tokio::test]
async fn a_failed_process_tells_its_code_and_its_last_lines() {
    let mut fixture = fixture();
    let command = shell("echo one; echo $OWN-$SHOAL_THREADS >&2; exit 3", Duration::from_secs(5));
    let _process = Process::start("p", &command, &fixture.around).await.unwrap();
    assert_eq!(fixture.until_ended().await, "exit code 3\n    one\n    pod-");
}

#[tokio::test]
async fn stopping_lets_a_process_drain_and_its_grace_is_limited() {
    let mut fixture = fixture();
    let drains =
        shell("trap 'echo drained; exit 0' TERM; echo up; while :; do sleep 0.02; done", Duration::from_secs(30));
    let process = Process::start("p", &drains, &fixture.around).await.unwrap();
    wait_for_log(&fixture, "p", "up").await;
    process.stop();
    assert_eq!(fixture.until_ended().await, "ended by itself\n    up\n    drained");

    let stubborn = shell("trap '' TERM; echo up; while :; do sleep 0.02; done", Duration::from_millis(50));
    let process = Process::start("q", &stubborn, &fixture.around).await.unwrap();
    wait_for_log(&fixture, "q", "up").await;
    process.stop();
    assert_eq!(fixture.until_ended().await, "killed by signal 9\n    up");
}

#[tokio::test]
async fn a_second_wish_kills_a_process_that_drains() {
    let mut fixture = fixture();
    let stubborn = shell("trap '' TERM; echo up; while :; do sleep 0.02; done", Duration::from_secs(600));
    let process = Process::start("p", &stubborn, &fixture.around).await.unwrap();
    wait_for_log(&fixture, "p", "up").await;
    process.stop();
    process.kill();
    assert_eq!(fixture.until_ended().await, "killed by signal 9\n    up");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_error() {
    let fixture = fixture();
    let command = LocalCommand { program: "/nonexistent".into(), ..shell("", Duration::ZERO) };
    let error = Process::start("p", &command, &fixture.around).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

async fn wait_for_log(fixture: &Fixture, pod: &str, line: &str) {
    let log = fixture.around.logs.join(format!("{pod}.log"));
    while !std::fs::read_to_string(&log).unwrap_or_default().contains(line) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
