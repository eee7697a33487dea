//! The flags of `shoal-worker bench`, and what they ask for once they are checked.

use std::num::NonZeroUsize;

use clap::Parser as _;
use shoal_proto::placement::Placement;

use crate::config::{Config, ConfigError, Numerics};
use crate::limits;

/// Measures how fast a prompt is read and an answer written
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "shoal-worker bench")]
pub struct BenchArgs {
    /// A directory in Hugging Face layout or a GGUF file; no tokenizer is needed
    #[arg(long, value_name = "FILE")]
    pub model: String,
    /// The kernels: auto or cpu
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub backend: String,
    /// Tokens of every prompt
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub prefill: u32,
    /// Tokens of every answer after its first one
    #[arg(long, value_name = "M", default_value_t = 64)]
    pub decode: u32,
    /// Sequences at once; each number is measured by itself
    #[arg(long, value_name = "B,…", value_delimiter = ',', default_value = "1")]
    pub batch: Vec<u32>,
    /// Context that the cache is made for; without it, prompt and answer
    #[arg(long, value_name = "C", alias = "context-tokens")]
    pub context: Option<u32>,
    /// Threads that compute, of all shards together; without it, the cores of this host
    #[arg(long, value_name = "T")]
    pub threads: Option<u32>,
    /// Shards that hold the model together, all of them in this process
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub shards: u32,
    /// Along what the shards divide the model
    #[arg(long, value_enum, default_value = "experts", ignore_case = true)]
    pub strategy: Strategy,
    /// What may be rounded
    #[arg(long, value_enum, default_value = "exact")]
    pub numerics: Numerics,
    /// Tokens computed in one step
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub step_tokens: u32,
    /// Of the tokens
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// Print JSON: an object, or a list of them for several batches
    #[arg(long)]
    pub json: bool,
}

/// Along what a model is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Strategy {
    /// Every shard has the dense part and some experts.
    Experts,
    /// Every shard has some layers.
    Pipeline,
}

impl Strategy {
    /// As manifests spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Experts => "Experts",
            Self::Pipeline => "Pipeline",
        }
    }
}

/// What to measure; every value is within its limits.
#[derive(Debug, Clone)]
pub struct Bench {
    /// Tokens of every prompt.
    pub prefill: u32,
    /// Tokens of every answer after its first one.
    pub decode: u32,
    /// Sequences at once, one measurement each.
    pub batches: Vec<u32>,
    /// Along what the shards divide the model.
    pub strategy: Strategy,
    /// Of all shards together.
    pub threads: NonZeroUsize,
    /// Of the tokens.
    pub seed: u64,
    /// Most likely tokens to keep of every answer, 0 to 20.
    pub top_logprobs: u32,
    /// A worker's arguments by rank, without those that hold addresses.
    shards: Vec<Vec<String>>,
    placement: Placement,
}

impl BenchArgs {
    /// Reads flags, without the program's name and `bench`.
    ///
    /// # Errors
    /// What was wrong and what is allowed.
    pub fn parse_from_words(words: impl IntoIterator<Item = String>) -> Result<Self, ConfigError> {
        let name = std::iter::once("shoal-worker bench".to_owned());
        Ok(Self::try_parse_from(name.chain(words))?)
    }

    /// Checks the flags against the limits and one another.
    ///
    /// # Errors
    /// The flag, what was wrong and what is allowed.
    pub fn check(&self) -> Result<Bench, ConfigError> {
        limits::SIZE.check(self.shards)?;
        limits::BENCH_PREFILL.check(self.prefill)?;
        limits::BENCH_DECODE.check(self.decode)?;
        limits::BENCH_BATCHES.check_count(self.batch.len())?;
        self.batch.iter().try_for_each(|&batch| limits::BENCH_BATCH.check(batch))?;
        let threads = self.threads()?;
        let needed = self.prefill + self.decode + 1;
        let context = self.context.unwrap_or(needed);
        limits::CONTEXT_TOKENS.check(context)?;
        if context < needed {
            let found = format!("of {context} tokens is less than a prompt of {} and its answer", self.prefill);
            let allowed = format!("allowed: at least {needed}");
            return Err(ConfigError::Refused { flag: "--context", found, allowed });
        }
        let size = self.shards as usize;
        let placement = match self.strategy {
            Strategy::Experts => Placement::undecided(size)?,
            Strategy::Pipeline => Placement::undecided_pipeline(size)?,
        };
        let bench = Bench {
            prefill: self.prefill,
            decode: self.decode,
            batches: self.batch.clone(),
            strategy: self.strategy,
            threads,
            seed: self.seed,
            top_logprobs: 0,
            shards: (0..size).map(|rank| self.worker(rank, threads, context)).collect(),
            placement,
        };
        // Whatever else a worker would refuse is refused before a port is looked for.
        for rank in 0..size {
            bench.config(rank, &vec!["127.0.0.1:1".to_owned(); size])?;
        }
        Ok(bench)
    }

    fn threads(&self) -> Result<NonZeroUsize, ConfigError> {
        let Some(threads) = self.threads else {
            return Ok(std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN));
        };
        limits::THREADS.check(threads)?;
        Ok(NonZeroUsize::new(threads as usize).unwrap_or(NonZeroUsize::MIN))
    }

    fn worker(&self, rank: usize, threads: NonZeroUsize, context: u32) -> Vec<String> {
        let batch = self.batch.iter().copied().max().unwrap_or(1);
        // Who owns the odd sequence is decided by rank, and every shard has room for it.
        let sequences = batch.div_ceil(self.shards) * self.shards;
        let numerics = clap::ValueEnum::to_possible_value(&self.numerics).map(|value| value.get_name().to_owned());
        vec![
            format!("--model={}", self.model),
            "--model-name=bench".to_owned(),
            format!("--backend={}", self.backend),
            format!("--context-tokens={context}"),
            format!("--max-concurrent-sequences={sequences}"),
            format!("--queue={batch}"),
            format!("--step-tokens={}", self.step_tokens),
            format!("--threads={}", (threads.get() / self.shards as usize).max(1)),
            format!("--numerics={}", numerics.unwrap_or_default()),
            format!("--rank={rank}"),
            format!("--size={}", self.shards),
        ]
    }
}

impl Bench {
    /// How many shards hold the model.
    #[must_use]
    pub fn size(&self) -> usize {
        self.shards.len()
    }

    /// What the worker of `rank` is, once every shard has its address on loopback.
    pub(super) fn config(&self, rank: usize, peers: &[String]) -> Result<Config, ConfigError> {
        let mut words = self.shards[rank].clone();
        if peers.len() > 1 {
            words.extend([
                format!("--shard-listen={}", peers[rank]),
                format!("--peers={}", peers.join(",")),
                format!("--placement={}", self.placement.to_base64()),
            ]);
        }
        Config::from_args(words, &|_| None)
    }
}
