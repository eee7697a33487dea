//! One target and its inputs, one after the other, each judged.

use std::collections::HashSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use super::Options;
use super::coverage::Coverage;
use super::memory;
use super::pool::{Made, Pool};
use super::targets::Target;

const SLOWEST: Duration = Duration::from_secs(1);
const FREE_BYTES: usize = 16 << 20;
/// Inputs that one thread reads.
const SLICE: u64 = 50_000;
const BETWEEN_LINES: Duration = Duration::from_secs(20);
/// Beyond this an input is dear, and seldom spoilt further: most of the time would go into few of them.
const DEAR_BYTES: usize = 1 << 19;

static ENOUGH: AtomicBool = AtomicBool::new(false);

/// From here on SIGTERM ends a run with its record.
pub(crate) fn end_on_sigterm() {
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("should build: a runtime of one thread");
        runtime.block_on(async {
            let mut signals = signal(SignalKind::terminate()).expect("should be allowed: a handler of SIGTERM");
            signals.recv().await;
        });
        ENOUGH.store(true, Ordering::Relaxed);
    });
}

#[derive(Default)]
struct Record {
    inputs: u64,
    accepted: u64,
    /// Hashes of answers with their numbers and names taken out.
    answers: HashSet<u64>,
    slowest: Duration,
    /// Most bytes above the input's size times 64.
    most_bytes: usize,
}

/// What one input came to.
struct Outcome {
    /// `None` when it panicked.
    answer: Option<Result<(), String>>,
    bytes: usize,
    took: Duration,
}

/// A run of one target.
pub(crate) struct Session<'a> {
    target: &'a Target,
    options: &'a Options,
    pool: Pool,
    coverage: Coverage,
    record: Record,
    began: Instant,
}

impl<'a> Session<'a> {
    /// Reads the corpus and what once broke a bound.
    pub(crate) fn new(target: &'a Target, options: &'a Options) -> Result<Self, String> {
        let mut seeds = (target.corpus)();
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/regressions").join(target.name);
        for entry in std::fs::read_dir(kept).into_iter().flatten().flatten() {
            seeds.push(std::fs::read(entry.path()).map_err(|error| error.to_string())?);
        }
        let pool = Pool::new(seeds, options.seed, target.name);
        let (coverage, record) = (Coverage::new(), Record::default());
        Ok(Self { target, options, pool, coverage, record, began: Instant::now() })
    }

    /// Until enough inputs were read, or the time is over; the line that records it, or the bound that was broken.
    pub(crate) fn run(mut self) -> Result<String, String> {
        self.coverage.take();
        for seed in 0..self.pool.seeds() {
            let made = self.pool.seed(seed);
            self.feed(&made)?;
            if self.options.judges_time
                && let Some(Err(problem)) = self.read(&made.input).answer
            {
                eprintln!("{}: input {seed} of the corpus: {problem}", self.target.name);
            }
        }
        let mut told = Instant::now();
        while !self.is_over() {
            // What foreign code keeps per thread goes with it; the tokenizers crate keeps a cache for each vocabulary.
            let slice = std::thread::scope(|scope| scope.spawn(|| self.slice()).join());
            slice.unwrap_or_else(|_| Err("the driver panicked".to_owned()))?;
            if told.elapsed() > BETWEEN_LINES {
                told = Instant::now();
                eprintln!("{self}");
            }
        }
        if self.options.judges_time {
            self.coverage.write(&directory().join("edges"), self.target.name).map_err(|error| error.to_string())?;
        }
        Ok(self.to_string())
    }

    fn is_over(&self) -> bool {
        self.record.inputs >= self.options.inputs
            || self.began.elapsed() > self.options.most
            || ENOUGH.load(Ordering::Relaxed)
    }

    fn slice(&mut self) -> Result<(), String> {
        for _ in 0..SLICE.min(self.options.inputs.saturating_sub(self.record.inputs)) {
            if ENOUGH.load(Ordering::Relaxed) {
                break;
            }
            let made = self.pool.make();
            self.feed(&made)?;
        }
        Ok(())
    }

    fn feed(&mut self, made: &Made) -> Result<(), String> {
        let input = made.input.as_slice();
        let mut outcome = self.read(input);
        let dear = outcome.bytes > DEAR_BYTES;
        if self.coverage.take() > 0 || made.is_seed() {
            self.pool.keep(made, dear);
        }
        // A core that somebody else had is no hang; a hang comes again.
        for _ in 0..2 {
            if self.options.judges_time && outcome.took > SLOWEST {
                outcome.took = outcome.took.min(self.read(input).took);
            }
        }
        self.judge(input, outcome).map_err(|problem| {
            format!("{}: seed {}, {problem}; kept in {}", self.target.name, self.options.seed, self.save(input))
        })
    }

    fn read(&self, input: &[u8]) -> Outcome {
        let began = Instant::now();
        memory::begin();
        let answer = catch_unwind(AssertUnwindSafe(|| (self.target.run)(input)));
        let bytes = memory::peak();
        Outcome { answer: answer.ok(), bytes, took: began.elapsed() }
    }

    fn judge(&mut self, input: &[u8], outcome: Outcome) -> Result<(), String> {
        let Outcome { answer, bytes, took } = outcome;
        let record = &mut self.record;
        record.inputs += 1;
        record.slowest = record.slowest.max(took);
        record.most_bytes = record.most_bytes.max(bytes.saturating_sub(64 * input.len()));
        match answer {
            None => return Err("it panicked".to_owned()),
            Some(Ok(())) => record.accepted += 1,
            Some(Err(problem)) => {
                record.answers.insert(shape(&problem));
            }
        }
        if bytes > 64 * input.len() + FREE_BYTES {
            return Err(format!("it took {bytes} bytes for {} of input", input.len()));
        }
        if self.options.judges_time && took > SLOWEST {
            return Err(format!("it took {took:?}"));
        }
        Ok(())
    }

    fn save(&self, input: &[u8]) -> String {
        let path = directory().join(format!("{}-{}", self.target.name, &blake3::hash(input).to_hex()[..16]));
        match std::fs::create_dir_all(directory()).and_then(|()| std::fs::write(&path, input)) {
            Ok(()) => path.display().to_string(),
            Err(error) => format!("nowhere: {error}"),
        }
    }
}

fn directory() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/fuzz")
}

/// The words of an answer, as a number.
fn shape(answer: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    for byte in answer.bytes().filter(|byte| byte.is_ascii_alphabetic() || *byte == b' ').take(60) {
        byte.hash(&mut hasher);
    }
    hasher.finish()
}

impl fmt::Display for Session<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record { inputs, accepted, answers, slowest, most_bytes } = &self.record;
        let (name, seed, took) = (self.target.name, self.options.seed, self.began.elapsed());
        write!(f, "{name}: seed {seed}, {inputs} inputs in {took:.0?}, {accepted} accepted, ")?;
        write!(f, "{} different answers, slowest {slowest:.1?}, ", answers.len())?;
        write!(f, "at most {most_bytes} bytes above 64 × input, ")?;
        write!(f, "{} inputs began it, {} were kept, {}", self.pool.seeds(), self.pool.kept(), self.coverage)
    }
}
