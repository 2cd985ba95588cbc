//! `targetwatch mount-path`: converts between exports and mount paths.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::exit::ExitState;
use super::kind::MountPathArguments;
use super::terminal::{escape_invisible, print};
use crate::model::mount_name::decode_directory;
use crate::model::{MountName, PathKey};

/// Arguments of `mount-path`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub struct Arguments {
    /// Print the text from which this mount path was derived
    #[arg(long, value_name = "DIR")]
    decode: Option<PathBuf>,
    /// Directory that contains every mount path
    #[arg(long, global = true, value_name = "DIR", default_value = "/var/trilio/triliovault-mounts")]
    root: PathBuf,
    /// Part of the export from which the mount path is derived
    #[arg(long, global = true, value_enum, default_value_t = Key::Path)]
    path_key: Key,
    #[command(subcommand)]
    storage: Option<MountPathArguments>,
}

/// Values of `path_key` in the configuration.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Key {
    /// The exported path
    Path,
    /// host:/path, as in releases up to 4.1
    Export,
}

/// Prints the mount path or the text that it was derived from.
///
/// # Errors
/// When the export or the directory is not valid.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitState> {
    let text = match (&arguments.decode, &arguments.storage) {
        (Some(directory), _) => escape_invisible(&decode_directory(directory, &arguments.root)?),
        (None, Some(storage)) => derive(storage, arguments.path_key, &arguments.root)?,
        (None, None) => {
            anyhow::bail!(
                "missing argument. Use mount-path nfs EXPORT, mount-path s3 URL BUCKET, or mount-path --decode DIR"
            )
        }
    };
    print(&format!("{text}\n"));
    Ok(ExitState::Available)
}

fn derive(storage: &MountPathArguments, key: Key, root: &Path) -> anyhow::Result<String> {
    let key = match key {
        Key::Path => PathKey::Path,
        Key::Export => PathKey::Export,
    };
    Ok(MountName::derive(&storage.spec()?, key)?.below(root).display().to_string())
}
