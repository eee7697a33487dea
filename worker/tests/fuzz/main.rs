//! Random spoilt inputs for everything that reads foreign bytes: no panic, no hang over a second, no memory above
//! 64 × input + 16 MiB. Compiled by `counted.sh` it is led by the edges of the code that an input reaches; otherwise it is
//! blind and counts the different answers only.
//!
//! In `cargo test` a few thousand inputs of each target. By command line, as `docs/fuzz.md` has it:
//!
//! ```text
//! fuzz --target gguf --inputs 10000000 --seed 7 [--seconds 600]
//! ```
//!
//! SIGTERM ends a run as `--seconds` does: with its record. An input that breaks a bound is written to `target/fuzz/`;
//! once it is understood it moves to `tests/fuzz/regressions/TARGET/`.

mod coverage;
mod memory;
mod mutate;
mod pool;
mod session;
mod targets;
mod texts;

use std::time::Duration;

use session::Session;
use targets::{TARGETS, place};

const SMOKE_INPUTS: u64 = 3_000;

struct Options {
    target: Option<String>,
    inputs: u64,
    seed: u64,
    /// Of each target.
    most: Duration,
    /// A loaded machine may be slow, so the smoke does not judge time.
    judges_time: bool,
}

fn options() -> Result<Options, String> {
    let mut options = Options { target: None, inputs: SMOKE_INPUTS, seed: 1, most: Duration::MAX, judges_time: false };
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        let mut number =
            || arguments.next().and_then(|value| value.parse().ok()).ok_or(format!("{flag} needs a number"));
        match flag.as_str() {
            "--inputs" => (options.inputs, options.judges_time) = (number()?, true),
            "--seed" => options.seed = number()?,
            "--seconds" => options.most = Duration::from_secs(number()?),
            "--target" => options.target = arguments.next(),
            // What test runners pass on.
            _ => {}
        }
    }
    Ok(options)
}

fn main() {
    let options = options().unwrap_or_else(|problem| panic!("{problem}"));
    // Panics are counted, and foreign ones are caught where they happen.
    std::panic::set_hook(Box::new(|_| {}));
    session::end_on_sigterm();
    let mut failed = false;
    for target in TARGETS.iter().filter(|target| options.target.as_ref().is_none_or(|name| name == target.name)) {
        let ended = Session::new(target, &options).and_then(Session::run);
        failed |= ended.is_err();
        println!("{}", ended.unwrap_or_else(|problem| problem));
    }
    place::clear();
    if failed {
        std::process::exit(1);
    }
}
