//! Random spoilt inputs for everything that reads foreign bytes: no panic, no hang over a second, no memory above
//! 64 × input + 16 MiB. Blind to coverage; it counts the different answers instead.
//!
//! In `cargo test` a few thousand inputs of each target. By command line:
//!
//! ```text
//! cargo test --release -p shoal-worker --test fuzz -- --target gguf --inputs 10000000 --seed 1
//! ```
//!
//! An input that breaks a bound is written to `target/fuzz/`; once it is understood it moves to `tests/fuzz/regressions/`.

mod memory;
mod mutate;
mod targets;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use mutate::Random;
use targets::{TARGETS, Target};

const SMOKE_INPUTS: u64 = 3_000;
const SLOWEST: Duration = Duration::from_secs(1);
const FREE_BYTES: usize = 16 << 20;

struct Options {
    target: Option<String>,
    inputs: u64,
    seed: u64,
    /// A loaded machine may be slow, so the smoke does not judge time.
    judges_time: bool,
}

fn options() -> Result<Options, String> {
    let mut options = Options { target: None, inputs: SMOKE_INPUTS, seed: 1, judges_time: false };
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        let mut number =
            || arguments.next().and_then(|value| value.parse().ok()).ok_or(format!("{flag} needs a number"));
        match flag.as_str() {
            "--inputs" => (options.inputs, options.judges_time) = (number()?, true),
            "--seed" => options.seed = number()?,
            "--target" => options.target = arguments.next(),
            // What test runners pass on.
            _ => {}
        }
    }
    Ok(options)
}

#[derive(Default)]
struct Record {
    inputs: u64,
    accepted: u64,
    /// Answers with their numbers and names taken out.
    answers: BTreeSet<String>,
    slowest: Duration,
    /// Most bytes above the input's size times 64.
    most_bytes: usize,
}

fn shape(answer: &str) -> String {
    answer.chars().filter(|c| c.is_ascii_alphabetic() || *c == ' ').take(60).collect()
}

fn run(target: &Target, input: &[u8], judges_time: bool, record: &mut Record) -> Result<(), String> {
    let began = Instant::now();
    memory::begin();
    let answer = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let bytes = memory::peak();
    let took = began.elapsed();
    record.inputs += 1;
    record.slowest = record.slowest.max(took);
    record.most_bytes = record.most_bytes.max(bytes.saturating_sub(64 * input.len()));
    match answer {
        Err(_) => return Err("it panicked".to_owned()),
        Ok(Ok(())) => record.accepted += 1,
        Ok(Err(problem)) => {
            record.answers.insert(shape(&problem));
        }
    }
    if bytes > 64 * input.len() + FREE_BYTES {
        return Err(format!("it took {bytes} bytes for {} of input", input.len()));
    }
    if judges_time && took > SLOWEST {
        return Err(format!("it took {took:?}"));
    }
    Ok(())
}

fn keep(target: &Target, input: &[u8]) -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/fuzz");
    let path = directory.join(format!("{}-{}", target.name, &blake3::hash(input).to_hex()[..16]));
    match std::fs::create_dir_all(&directory).and_then(|()| std::fs::write(&path, input)) {
        Ok(()) => path.display().to_string(),
        Err(error) => format!("nowhere: {error}"),
    }
}

fn fuzz(target: &Target, options: &Options) -> Result<Record, String> {
    let mut record = Record::default();
    let mut corpus = (target.corpus)();
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/regressions").join(target.name);
    for entry in std::fs::read_dir(kept).into_iter().flatten().flatten() {
        corpus.push(std::fs::read(entry.path()).map_err(|error| error.to_string())?);
    }
    let mut random = Random::new(options.seed, target.name);
    let broke = |input: &[u8], problem: String| format!("{}: {problem}; kept in {}", target.name, keep(target, input));
    for input in &corpus {
        run(target, input, options.judges_time, &mut record).map_err(|problem| broke(input, problem))?;
    }
    for _ in 0..options.inputs {
        let input = mutate::spoil(&corpus, &mut random);
        run(target, &input, options.judges_time, &mut record).map_err(|problem| broke(&input, problem))?;
    }
    Ok(record)
}

fn main() {
    let options = options().unwrap_or_else(|problem| panic!("{problem}"));
    // Panics are counted, and foreign ones are caught where they happen.
    std::panic::set_hook(Box::new(|_| {}));
    let mut failed = false;
    for target in TARGETS.iter().filter(|target| options.target.as_ref().is_none_or(|name| name == target.name)) {
        let began = Instant::now();
        match fuzz(target, &options) {
            Ok(Record { inputs, accepted, answers, slowest, most_bytes }) => println!(
                "{}: seed {}, {inputs} inputs in {:.0?}, {accepted} accepted, {} different answers, slowest {slowest:.1?}, \
                 at most {most_bytes} bytes above 64 × input",
                target.name,
                options.seed,
                began.elapsed(),
                answers.len()
            ),
            Err(problem) => {
                println!("{problem}");
                failed = true;
            }
        }
    }
    if failed {
        std::process::exit(1);
    }
}
