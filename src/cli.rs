//! The command line: one file per subcommand.
//!
//! `serve` is the daemon; `check nfs`, `check s3` and `mount-path` need none; the rest ask it over
//! HTTP ([`client`]). Tables are for people: they fit the terminal, have colour only on one, and
//! every command that prints one has `--json`. Exit codes are those of monitoring plugins
//! ([`exit`]). Text that comes from a server is never written raw to a terminal ([`terminal`]).

pub mod check;
pub mod client;
pub mod exit;
pub mod log;
pub mod mount_path;
pub mod render;
pub mod runtime;
pub mod serve;
pub mod status;
pub mod target;
pub mod target_type;
pub mod terminal;
pub mod token;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use exit::State;
use terminal::print;

/// Node agent that mounts, verifies and measures backup targets.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    access: client::Access,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent
    Serve {
        /// The configuration file [default: /etc/targetwatch/config.toml, if there is one]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Probe now, check by check; exits 0 available, 1 with a warning, 2 offline, 3 unknown
    #[command(subcommand)]
    Check(check::Command),
    /// Show all targets; exits 0 available, 1 with a warning, 2 offline, 3 unknown
    Status(status::Arguments),
    /// List, show, create, change, check and delete targets
    #[command(subcommand)]
    Target(target::Command),
    /// List, show, create, change and delete target types, and say whose they are
    #[command(subcommand)]
    Type(target_type::Command),
    /// Derive the mount path of an export, or what a mount path was derived from
    MountPath(mount_path::Arguments),
    /// Write completions for a shell to standard output
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Parses the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let Cli { access, command } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors, and go to standard output.
            let state = if error.use_stderr() { State::Unknown } else { State::Available };
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
        Command::MountPath(arguments) => mount_path::run(&arguments),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "targetwatch", &mut script);
            print(&String::from_utf8_lossy(&script));
            Ok(State::Available)
        }
    };
    match outcome {
        Ok(state) => state.into(),
        Err(error) => {
            eprintln!("targetwatch: {}", terminal::told(&error));
            State::Unknown.into()
        }
    }
}
