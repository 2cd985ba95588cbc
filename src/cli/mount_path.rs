//! `targetwatch mount-path`: the directory of an export, and the export of a directory.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};

use super::exit::State;
use super::terminal::{plain, print};
use crate::model::mount_name::decode_directory;
use crate::model::{MountName, PathKey, SpecFields, TargetSpec};

/// What `mount-path` is asked.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub struct Arguments {
    /// Print what this mount path was derived from
    #[arg(long, value_name = "DIR")]
    decode: Option<PathBuf>,
    /// The directory that holds every mount path
    #[arg(long, global = true, value_name = "DIR", default_value = "/var/trilio/triliovault-mounts")]
    root: PathBuf,
    /// What names are derived from
    #[arg(long, global = true, value_enum, default_value_t = Key::Path)]
    path_key: Key,
    #[command(subcommand)]
    of: Option<Of>,
}

#[derive(Debug, Subcommand)]
enum Of {
    /// The mount path of an NFS export
    Nfs {
        /// host:/path
        export: String,
    },
    /// The mount path of an S3 bucket
    S3 {
        /// Where the service is; "" for AWS
        url: String,
        /// The bucket
        bucket: String,
    },
}

/// `path_key` of the configuration.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Key {
    /// The exported path
    Path,
    /// host:/path, as releases up to 4.1 did
    Export,
}

/// Prints what was asked for.
///
/// # Errors
/// When the export, or the directory, is none.
pub fn run(arguments: &Arguments) -> anyhow::Result<State> {
    let text = match (&arguments.decode, &arguments.of) {
        (Some(directory), _) => plain(&decode_directory(directory, &arguments.root)?),
        (None, Some(of)) => derive(of, arguments.path_key, &arguments.root)?,
        (None, None) => {
            anyhow::bail!("say which export: mount-path nfs EXPORT, mount-path s3 URL BUCKET, or --decode DIR")
        }
    };
    print(&format!("{text}\n"));
    Ok(State::Available)
}

fn derive(of: &Of, key: Key, root: &Path) -> anyhow::Result<String> {
    let fields = match of {
        Of::Nfs { export } => {
            SpecFields { kind: Some("nfs"), filesystem_export: Some(export), ..SpecFields::default() }
        }
        Of::S3 { url, bucket } => SpecFields {
            kind: Some("s3"),
            s3_endpoint_url: (!url.is_empty()).then_some(url),
            s3_bucket: Some(bucket),
            ..SpecFields::default()
        },
    };
    let key = match key {
        Key::Path => PathKey::Path,
        Key::Export => PathKey::Export,
    };
    Ok(MountName::derive(&TargetSpec::from_fields(fields)?, key)?.below(root).display().to_string())
}
