//! `shoal completions`: what a shell needs to complete the commands.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::Cli;

/// Prints completions for a shell, such as `source <(shoal completions bash)`.
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Runs `shoal completions`.
///
/// # Errors
/// When standard output is closed.
pub fn run(args: &CompletionsArgs) -> std::io::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "shoal", &mut text);
    std::io::Write::write_all(&mut std::io::stdout(), &text)
}
