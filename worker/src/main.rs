//! The worker's process: parse, wire, serve until asked to stop.
//!
//! Ends with 0 after a drain, 1 when something failed, 2 for wrong arguments.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use shoal_worker::config::{Config, ConfigError};
use shoal_worker::serve::{self, Bound};
use shoal_worker::{launch, process};

fn main() -> ExitCode {
    let config = match Config::of_this_process() {
        Ok(config) => config,
        Err(ConfigError::Usage(usage)) => usage.exit(),
        Err(error) => {
            eprintln!("shoal-worker: {error}");
            return ExitCode::from(2);
        }
    };
    match prepare(&config).and_then(|runtime| runtime.block_on(work(config))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The first line is what `kubectl describe` shows of a lost pod.
            eprintln!("shoal-worker: {error:#}");
            ExitCode::FAILURE
        }
    }
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
