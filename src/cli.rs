//! Command line, with one file for each subcommand.
//!
//! `serve` runs the daemon. `check nfs`, `check s3`, `doctor`, `config`, `mount-path`, `registry` and `fleet` need no
//! daemon. All other commands send HTTP requests to the daemon ([`client`]). Tables fit the width of the terminal and
//! are coloured only on a terminal. Every command that prints a table has `--json`, and `-f` and `-c` for scripts
//! ([`output`]). Exit codes follow the convention of monitoring plugins ([`exit`]). Control, invisible and
//! bidirectional characters in texts of a server are escaped ([`terminal`]).

pub mod aggregate;
pub mod check;
pub mod client;
mod columns;
pub mod config;
pub mod doctor;
pub mod exit;
pub mod fleet;
pub mod fleet_member;
pub mod kind;
pub mod log;
pub mod manual;
mod metadata;
pub mod mount_path;
pub mod output;
mod plain_text;
pub mod registry;
pub mod render;
pub mod running_agent;
pub mod runtime;
pub mod scope;
mod select;
pub mod serve;
mod signals;
pub mod status;
pub mod target;
pub mod target_type;
pub mod terminal;
pub mod token;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args as _, CommandFactory, FromArgMatches as _, Parser, Subcommand};

use exit::ExitState;
use terminal::print;

use crate::model::TargetKind;
use crate::sys::node::LONG_VERSION;

/// Node agent that mounts, verifies and measures backup targets.
#[derive(Debug, Parser)]
#[command(version, long_version = LONG_VERSION, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    access: client::ConnectionOptions,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent
    Serve {
        /// Configuration file [default: /etc/targetwatch/config.toml if it exists]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Run an aggregator: poll the agents of many nodes, and answer with one status for each target
    Aggregate {
        /// Configuration file
        #[arg(long, value_name = "FILE", default_value = aggregate::DEFAULT_PATH)]
        config: PathBuf,
    },
    /// Probe now and print every check; exits 0 available, 1 with a warning, 2 offline, 3 unknown
    #[command(subcommand)]
    Check(check::Command),
    /// Show all targets; exits 0 available, 1 with a warning, 2 offline, 3 unknown
    Status(status::Arguments),
    /// List, show, create, change, check and delete targets
    #[command(subcommand)]
    Target(target::Command),
    /// List, show, create, change and delete target types, and set their visibility
    #[command(subcommand)]
    Type(target_type::Command),
    /// Check what the agent needs on this host, and say what to do; exits 0 well, 1 with a warning, 2 failed, 3 unknown
    Doctor(doctor::Arguments),
    /// Check a configuration file
    #[command(subcommand)]
    Config(config::Command),
    /// Back up and restore the registry of this host
    #[command(subcommand)]
    Registry(registry::Command),
    /// Let this node join the registry that all nodes share
    #[command(subcommand)]
    Fleet(fleet::Command),
    /// Convert an export to its mount path, or back
    MountPath(mount_path::Arguments),
    /// Print shell completions
    Completions {
        /// Name of the shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages, for packages
    #[command(hide = true)]
    Manual {
        /// Existing directory for the pages
        directory: PathBuf,
    },
}

/// Returns the definition of the command line. The help of commands that need no agent does not list the options of the
/// connection to it, which every command accepts.
fn definition() -> clap::Command {
    let hide = |command: clap::Command| {
        let options = client::ConnectionOptions::augment_args(clap::Command::default());
        command.args(options.get_arguments().cloned().map(|option| option.hide(true)))
    };
    let local = ["serve", "aggregate", "doctor", "config", "registry", "fleet", "mount-path", "completions", "manual"];
    let cli = local.into_iter().fold(Cli::command(), |cli, name| cli.mut_subcommand(name, hide));
    let kinds = TargetKind::ALL.iter();
    cli.mut_subcommand("check", |check| kinds.fold(check, |check, kind| check.mut_subcommand(kind.as_str(), hide)))
}

/// Parses the command line and runs the command.
#[must_use]
pub fn main() -> ExitCode {
    let parsed = definition().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let Cli { access, command } = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are not errors. They go to standard output.
            let state = if error.use_stderr() { ExitState::Unknown } else { ExitState::Available };
            let _ = error.print();
            return state.into();
        }
    };
    let outcome = match command {
        Command::Serve { config } => return serve::run(config.as_deref()),
        Command::Aggregate { config } => return aggregate::run(&config),
        Command::Check(command) => check::run(access, command),
        Command::Status(arguments) => status::run(access, &arguments),
        Command::Target(command) => target::run(access, command),
        Command::Type(command) => target_type::run(access, command),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Config(command) => config::run(&command),
        Command::Registry(command) => registry::run(&command),
        Command::Fleet(command) => fleet::run(&command),
        Command::MountPath(arguments) => mount_path::run(&arguments),
        Command::Manual { directory } => manual::run(definition(), &directory),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut definition(), "targetwatch", &mut script);
            print(&String::from_utf8_lossy(&script));
            Ok(ExitState::Available)
        }
    };
    match outcome {
        Ok(state) => state.into(),
        Err(error) => {
            eprintln!("targetwatch: {}", terminal::error_chain(&error));
            ExitState::Unknown.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_lists_options_of_the_connection_only_for_commands_that_use_it() {
        let kinds: Vec<[&str; 2]> = TargetKind::ALL.iter().map(|kind| ["check", kind.as_str()]).collect();
        let of_kinds = kinds.iter().map(|command| (&command[..], false));
        let others = [
            (&["status"][..], true),
            (&["check", "all"], true),
            (&["registry"], false),
            (&["doctor"], false),
            (&["config", "check"], false),
        ];
        for (command, uses_agent) in others.into_iter().chain(of_kinds) {
            let line = |arguments: &[&'static str]| [&["targetwatch"], command, arguments].concat();
            let help = definition().try_get_matches_from(line(&["--help"])).expect_err("help").to_string();
            assert_eq!(help.contains("--api"), uses_agent, "{help}");
        }
        let script = ["targetwatch", "registry", "--api", "unix:/x", "backup", "/tmp/x"];
        definition().try_get_matches_from(script).expect("scripts may give an option that has no effect");
    }
}
