//! `make demo`: one manifest, two worker processes, one streamed answer to a sum the model never saw, no process left.

use std::io::{Read as _, Write as _};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use shoal_tests::sums::Sum;
use shoal_tests::up::Up;

const PATIENCE: Duration = Duration::from_secs(60);
/// Workers go on accepting for a while after SIGTERM; nobody calls any more, so a second one ends them.
const DRAIN: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    match demo() {
        Ok(verdict) => {
            println!("{verdict}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("demo: FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Result<String> {
    let began = Instant::now();
    let shoal = std::env::current_exe()?.with_file_name("shoal");
    let names = tempfile::tempdir()?;
    let args = ["-f", "manifests/tiny-cpu.yaml", "--model-root", "."];
    println!("$ shoal up {}", args.join(" "));
    let mut up = Up::start(&shoal, names.path(), &args)?;
    let ready = up.line("ready tiny", PATIENCE)?;
    println!("{}", up.said());
    ensure!(ready.ends_with("shards=2"), "{ready:?} should tell of two shards");
    let workers = up.workers().len();
    let ready_after = began.elapsed();

    let sum = Sum::unseen(&mut rand::rng());
    let answer = ask(&up, sum)?;
    ensure!(sum.is_answered_by(&answer), "{}+{} is {}", sum.a, sum.b, sum.a + sum.b);

    up.signal(Signal::TERM)?;
    if up.ended(DRAIN).is_err() {
        up.signal(Signal::TERM)?;
    }
    let status = up.ended(PATIENCE)?;
    ensure!(status.success(), "up ended with {status}:\n{}", up.said());
    up.left_nothing(Duration::ZERO)?;
    Ok(format!(
        "demo: ok: {workers} worker processes, ready in {:.1} s, {}+{}={} is right, no process left, {:.1} s in all",
        ready_after.as_secs_f64(),
        sum.a,
        sum.b,
        sum.a + sum.b,
        began.elapsed().as_secs_f64(),
    ))
}

/// Shows the answer as it comes.
fn ask(up: &Up, sum: Sum) -> Result<String> {
    println!("$ shoal ask tiny {:?}", sum.question());
    let mut ask = up.command("ask").args(["tiny", &sum.question()]).stdout(Stdio::piped()).spawn()?;
    let mut stream = ask.stdout.take().context("stdout is piped")?;
    let (mut answer, mut bytes) = (Vec::new(), [0; 256]);
    loop {
        let count = stream.read(&mut bytes)?;
        if count == 0 {
            break;
        }
        std::io::stdout().write_all(&bytes[..count])?;
        std::io::stdout().flush()?;
        answer.extend_from_slice(&bytes[..count]);
    }
    let status = ask.wait()?;
    ensure!(status.success(), "ask ended with {status}");
    String::from_utf8(answer).context("the answer is text")
}
