//! `targetwatch registry`: backs up and restores the registry of this host. It reads the configuration and the
//! registry's file, and needs no daemon.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::exit::ExitState;
use super::terminal::print;
use crate::config;
use crate::model::RegistryUrl;
use crate::registry::{self, OpenError};

/// Subcommands of `registry`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Copy the registry to a new file; the agent may run meanwhile
    Backup {
        /// The new file, readable only by its owner
        file: PathBuf,
        /// Replace the file if it exists
        #[arg(long)]
        overwrite: bool,
        /// Where the registry is
        #[command(flatten)]
        configuration: ConfigurationArguments,
    },
    /// Replace the registry by a backup; the agent must be stopped
    Restore {
        /// A file that `registry backup` wrote
        file: PathBuf,
        /// Where the registry is
        #[command(flatten)]
        configuration: ConfigurationArguments,
    },
    /// Start from what the registry contains although acknowledged changes are missing; the agent must be stopped
    AcceptLoss {
        /// Where the registry is
        #[command(flatten)]
        configuration: ConfigurationArguments,
    },
}

/// Where the registry is.
#[derive(Debug, Args)]
pub struct ConfigurationArguments {
    /// Configuration file of the agent [default: /etc/targetwatch/config.toml if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigurationArguments {
    fn registry_url(&self) -> anyhow::Result<RegistryUrl> {
        Ok(config::load(self.config.as_deref())?.registry_url)
    }
}

/// Returns the file of the registry.
fn file_of(url: &RegistryUrl) -> anyhow::Result<&Path> {
    registry::file(url).with_context(|| format!("registry {url}: this store has no file, use the tools of the store"))
}

/// Runs a subcommand.
///
/// # Errors
/// When the configuration, the registry or the backup cannot be used.
pub fn run(command: &Command) -> anyhow::Result<ExitState> {
    let text = match command {
        Command::Backup { file, overwrite, configuration } => {
            let url = configuration.registry_url()?;
            let backed_up = registry::backup(file_of(&url)?, file, *overwrite)?;
            if let Some(warning) = backed_up.warning {
                eprintln!("targetwatch: {warning}");
            }
            format!("{} copied to {}\n", backed_up.content, file.display())
        }
        Command::Restore { file, configuration } => {
            let url = configuration.registry_url()?;
            let restored = registry::restore(file_of(&url)?, file)?;
            let replaced = restored.replaced.map(|path| format!("the replaced registry is {}\n", path.display()));
            let replaced = replaced.unwrap_or_default();
            format!("{} restored from {} to {url}\n{replaced}", restored.content, file.display())
        }
        Command::AcceptLoss { configuration } => {
            let url = configuration.registry_url()?;
            let (content, accepted) = registry::accept_loss(file_of(&url)?)?;
            let loss = match accepted {
                // Without the advice in its message, which has just been followed.
                Some(OpenError::ChangesLost { found, expected, .. }) => {
                    format!("accepted the loss: {found}, expected {expected}")
                }
                _ => "no acknowledged change is missing".to_owned(),
            };
            format!("{loss}\nthe registry {url} contains {content}\n")
        }
    };
    print(&text);
    Ok(ExitState::Available)
}
