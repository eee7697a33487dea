//! The commands of `shoal`: parse and call.
//!
//! Never decides anything.

pub mod ask;
pub mod crds;
pub mod operator;
pub mod plan;
pub mod up;

use clap::{Parser, Subcommand};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// `shoal ask`.
    #[error(transparent)]
    Ask(#[from] ask::AskError),
    /// `shoal crds`.
    #[error(transparent)]
    Crds(#[from] crds::CrdsError),
    /// `shoal operator`.
    #[error(transparent)]
    Operator(#[from] operator::OperatorError),
    /// `shoal plan`.
    #[error(transparent)]
    Plan(#[from] plan::PlanError),
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
    /// Print the CustomResourceDefinition
    Crds,
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
            Command::Crds => Ok(crds::run()?),
            Command::Operator(args) => Ok(operator::run(args).await?),
            Command::Plan(args) => Ok(plan::run(args).await?),
        }
    }
}
