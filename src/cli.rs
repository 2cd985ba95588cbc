//! Command line, with one file for each subcommand.
//!
//! `serve` runs the daemon. `check nfs`, `check s3`, `mount-path` and `registry` need no daemon. All other
//! commands send HTTP requests to the daemon ([`client`]). Tables fit the width of the terminal and are
//! coloured only on a terminal. Every command that prints a table has `--json`, and `-f` and `-c` for scripts
//! ([`output`]). Exit codes follow the convention of monitoring plugins ([`exit`]). Control, invisible and
//! bidirectional characters in texts of a server are escaped ([`terminal`]).

pub mod check;
pub mod client;
mod columns;
pub mod exit;
pub mod kind;
pub mod log;
pub mod mount_path;
pub mod output;
pub mod registry;
pub mod render;
pub mod runtime;
mod select;
pub mod serve;
pub mod status;
pub mod target;
pub mod target_type;
pub mod terminal;
pub mod token;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use exit::ExitState;
use terminal::print;

/// Node agent that mounts, verifies and measures backup targets.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
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
    /// Back up and restore the registry of this host
    #[command(subcommand)]
    Registry(registry::Command),
    /// Convert an export to its mount path, or back
    MountPath(mount_path::Arguments),
    /// Print shell completions
    Completions {
        /// Name of the shell
        shell: clap_complete::Shell,
    },
}

/// Parses the command line and runs the command.
#[must_use]
pub fn main() -> ExitCode {
    let Cli { access, command } = match Cli::try_parse() {
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
        Command::Check(command) => check::run(access, command),
        Command::Status(arguments) => status::run(access, &arguments),
        Command::Target(command) => target::run(access, command),
        Command::Type(command) => target_type::run(access, command),
        Command::Registry(command) => registry::run(&command),
        Command::MountPath(arguments) => mount_path::run(&arguments),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "targetwatch", &mut script);
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
