//! The commands of `shoal`: parse and call.
//!
//! Never decides anything.

pub mod ask;
pub mod cluster;
pub mod completions;
pub mod crds;
pub mod logs;
pub mod operator;
pub mod plan;
pub mod restart;
mod seen;
pub mod status;
pub mod up;

use clap::{Parser, Subcommand};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// `shoal ask`.
    #[error(transparent)]
    Ask(#[from] ask::AskError),
    /// `shoal completions`.
    #[error("cannot write the completions")]
    Completions(#[source] std::io::Error),
    /// `shoal crds`.
    #[error(transparent)]
    Crds(#[from] crds::CrdsError),
    /// `shoal logs`.
    #[error(transparent)]
    Logs(#[from] logs::LogsError),
    /// `shoal operator`.
    #[error(transparent)]
    Operator(#[from] operator::OperatorError),
    /// `shoal plan`.
    #[error(transparent)]
    Plan(#[from] plan::PlanError),
    /// `shoal restart`.
    #[error(transparent)]
    Restart(#[from] restart::RestartError),
    /// `shoal status`.
    #[error(transparent)]
    Status(#[from] status::StatusError),
    /// `shoal up`.
    #[error(transparent)]
    Up(#[from] up::UpCommandError),
}

/// Serve mixture-of-experts models from shards, on Kubernetes or on this machine.
#[derive(Debug, Parser)]
#[command(name = "shoal", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve manifests on this machine
    Up(up::UpArgs),
    /// Ask a served model one question
    Ask(ask::AskArgs),
    /// Show what models are doing, and why
    Status(status::StatusArgs),
    /// Show what all shards of a model say
    Logs(logs::LogsArgs),
    /// Replace every group of a model, within its rollout's budgets
    Restart(restart::RestartArgs),
    /// Print the CustomResourceDefinition
    Crds,
    /// Print completions for a shell
    Completions(completions::CompletionsArgs),
    /// Run the controller: KUBECONFIG or the pod's ServiceAccount, all namespaces
    Operator(operator::OperatorArgs),
    /// Show what would run where, and why
    Plan(plan::PlanArgs),
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// That of the command.
    pub async fn run(self) -> Result<(), CliError> {
        match self.command {
            Command::Up(args) => Ok(up::run(args).await?),
            Command::Ask(args) => Ok(ask::run(args).await?),
            Command::Status(args) => Ok(status::run(args).await?),
            Command::Logs(args) => Ok(logs::run(args).await?),
            Command::Restart(args) => Ok(restart::run(args).await?),
            Command::Crds => Ok(crds::run()?),
            Command::Completions(args) => completions::run(&args).map_err(CliError::Completions),
            Command::Operator(args) => Ok(operator::run(args).await?),
            Command::Plan(args) => Ok(plan::run(args).await?),
        }
    }
}
