//! `targetwatch config`: checks a configuration file before the agent uses it.

use clap::Subcommand;

use super::doctor;
use super::exit::ExitState;

/// Subcommands of `config`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Validate a file as the agent does at its start, and read the files that it names; exits 0 valid, 1 with a
    /// warning, 2 invalid, 3 unknown
    Check(doctor::ConfigArguments),
}

/// Runs a subcommand.
///
/// # Errors
/// As [`doctor::check_config`].
pub fn run(command: &Command) -> anyhow::Result<ExitState> {
    match command {
        Command::Check(arguments) => doctor::check_config(arguments),
    }
}
