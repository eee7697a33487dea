//! The worker's process: parse, wire, serve until asked to stop.
//!
//! With `bench` as its first word it measures instead. Ends with 0 after a drain, 1 when something failed, 2 for wrong arguments.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use shoal_worker::bench::{self, BenchArgs};
use shoal_worker::config::{Config, ConfigError, Log, LogFormat};
use shoal_worker::serve::{self, Bound};
use shoal_worker::{launch, process};

fn main() -> ExitCode {
    let started = Instant::now();
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some("bench") {
        return ended(BenchArgs::parse_from_words(words).map_err(Into::into).and_then(|args| measure(&args, started)));
    }
    ended(serve_until_stopped())
}

fn serve_until_stopped() -> anyhow::Result<()> {
    let config = Config::of_this_process()?;
    prepare(&config)?.block_on(work(config))
}

/// The first line of an error is what `kubectl describe` shows of a lost pod.
fn ended(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    let wrong = match error.downcast::<ConfigError>() {
        Ok(ConfigError::Usage(usage)) => usage.exit(),
        Ok(wrong) => wrong,
        Err(error) => {
            eprintln!("shoal-worker: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    eprintln!("shoal-worker: {wrong}");
    ExitCode::from(2)
}

/// Measures and prints what `bench` asks for.
fn measure(args: &BenchArgs, started: Instant) -> anyhow::Result<()> {
    let bench = args.check()?;
    process::log(&Log { filter: "warn".to_owned(), format: LogFormat::Text })?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    let runs = runtime.block_on(bench::run(&bench, started))?;
    let figures: Vec<bench::Figures> = runs.into_iter().map(|run| run.figures).collect();
    if args.json {
        println!("{}", bench::json(&figures)?)
    } else {
        print!("{}", bench::table(&figures))
    }
    // The engines stop with the process: nobody waits for their answers any more.
    runtime.shutdown_background();
    Ok(())
}

fn prepare(config: &Config) -> anyhow::Result<tokio::runtime::Runtime> {
    process::log(&config.log)?;
    if let Some(parent) = config.die_with_parent {
        process::die_with(parent)?;
    }
    tokio::runtime::Runtime::new().context("cannot start the async runtime")
}

async fn work(config: Config) -> anyhow::Result<()> {
    let stop = process::asked_to_stop()?;
    let bound = Bound::bind(&config.listen).await?;
    let at = bound.addresses().context("cannot read back the addresses")?;
    tracing::info!(model = config.model_name, rank = config.group.rank, epoch = config.group.epoch, ?at, "listening");
    let config = Arc::new(config);
    let start = {
        let config = Arc::clone(&config);
        move || launch::engine(&config).map_err(Into::into)
    };
    serve::run(config, bound, start, stop).await?;
    tracing::info!("stopped");
    Ok(())
}
