//! The worker as a process: arguments, exit codes, signals, its parent.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/v3-plain");
const ANYWHERE: [&str; 4] = ["--listen", "127.0.0.1:0", "--health-listen", "127.0.0.1:0"];

fn worker() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal-worker"));
    command.args(ANYWHERE).arg("--threads=1").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Exit code and stderr of a worker that ends by itself.
fn ended(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().expect("the worker should start");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Reads the log until a line contains `part`; panics when the log ends before.
fn wait_for_line(child: &mut Child, part: &str) -> String {
    let mut log = BufReader::new(child.stderr.take().expect("stderr should be piped"));
    let mut seen = String::new();
    loop {
        let before = seen.len();
        assert!(log.read_line(&mut seen).is_ok_and(|bytes| bytes > 0), "no {part} in\n{seen}");
        if seen[before..].contains(part) {
            let line = seen[before..].to_owned();
            // Somebody has to read on, or the worker would wait for its log.
            std::thread::spawn(move || log.read_to_end(&mut Vec::new()));
            return line;
        }
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

#[rstest]
#[case(&["--model", "/m", "--turbo"], "--turbo")]
#[case(&["--model", "/m", "--shard-listen", "0.0.0.0:1"], "--insecure-shard-traffic")]
#[case(&["--model", "s3://bucket/x"], "--model s3://bucket/x")]
fn wrong_arguments_end_with_2_and_name_the_flag(#[case] args: &[&str], #[case] part: &str) {
    let (code, text) = ended(worker().args(args));
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains(part), "{text}");
}

#[test]
fn a_missing_model_ends_with_1_and_names_the_file() {
    let (code, text) = ended(worker().args(["--model", "/nowhere/model"]));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.lines().last().unwrap().contains("/nowhere/model/config.json"), "{text}");
}

#[test]
fn a_missing_certificate_ends_with_1_and_names_the_file() {
    let placement = shoal_proto::placement::Placement::even(8, 2).unwrap().to_base64();
    let shard = ["--size=2", "--peers=a:1,b:2", "--shard-listen=127.0.0.1:0", "--shard-tls=/nowhere/keys"];
    let (code, text) = ended(worker().args(["--model", FIXTURE, "--placement", &placement]).args(shard));
    assert_eq!(code, Some(1), "{text}");
    let end =
        "--shard-tls cannot be honoured: /nowhere/keys/tls.crt cannot be read: No such file or directory (os error 2)";
    assert!(text.trim_end().ends_with(end), "{text}");
}

#[test]
fn a_tokenizer_that_is_no_utf8_ends_with_1_and_names_the_file() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("tokenizer.json"), b"{\"\xff\"}").unwrap();
    let (code, text) = ended(worker().arg("--model").arg(directory.path()));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("tokenizer.json is not usable: not UTF-8 at byte 2"), "{text}");
}

#[test]
fn a_port_in_use_ends_with_1_and_names_the_flag() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, text) = ended(worker().args(["--model", FIXTURE, "--http", &address]));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&format!("--http {address} cannot be listened on: Address already in use")), "{text}");
}

#[test]
fn a_worker_that_is_asked_to_stop_drains_and_ends_with_0() {
    let mut child = worker().args(["--model", FIXTURE]).spawn().unwrap();
    wait_for_line(&mut child, "\"ready\":true");
    kill_process(pid(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[cfg(target_os = "linux")]
#[test]
fn a_worker_dies_with_its_parent_and_refuses_a_strange_one() {
    let (code, text) = ended(worker().args(["--model", FIXTURE, "--die-with-parent", "1"]));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("--die-with-parent 1: the parent is"), "{text}");

    let line = "SHOAL_DIE_WITH_PARENT=$$ \"$0\" \"$@\" & echo pid=$! >&2; wait";
    let mut shell = Command::new("sh")
        .args(["-c", line, env!("CARGO_BIN_EXE_shoal-worker"), "--model", FIXTURE, "--threads=1"])
        .args(ANYWHERE)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let told = wait_for_line(&mut shell, "pid=");
    let worker = told.trim().strip_prefix("pid=").unwrap().parse().ok().and_then(Pid::from_raw).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(test_kill_process(worker).is_ok(), "the worker ended before its parent");
    kill_process(pid(&shell), Signal::KILL).unwrap();
    shell.wait().unwrap();
    let begun = Instant::now();
    while test_kill_process(worker).is_ok() && !is_zombie(worker) {
        assert!(begun.elapsed() < Duration::from_secs(10), "the worker outlives its parent");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Killed, and nobody has asked for its exit code yet.
#[cfg(target_os = "linux")]
fn is_zombie(pid: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_pid())).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && line.contains('Z'))
}
