//! Kinds of targets on the command line: how `target create`, `check` and `mount-path` describe one.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::metadata::metadata_entry;
use super::scope::ScopeOptions;
use crate::api::wire::NewTarget;
use crate::model::{S3Endpoint, S3Location, SpecFields, TargetKind, TargetSpec};

/// Arguments of `target create`.
#[derive(Debug, Subcommand)]
pub enum NewTargetArguments {
    /// An NFS export
    Nfs {
        /// host:/path
        export: String,
        /// Mount options, as in nfs(5) [default: those of the configuration]
        #[arg(long, value_name = "OPTIONS")]
        nfs_mount_opts: Option<String>,
        /// How it is verified: kernel, observe or none [default: as configured]
        #[arg(long, value_name = "MODE")]
        mount_mode: Option<String>,
        /// Options of every kind.
        #[command(flatten)]
        common: NewTargetOptions,
    },
    /// An S3 bucket
    S3 {
        /// URL of the service [default: AWS]
        #[arg(long, value_name = "URL")]
        endpoint: Option<String>,
        /// Name of the bucket
        #[arg(long)]
        bucket: String,
        /// Require that the bucket protects backups by object lock
        #[arg(long)]
        immutable: bool,
        /// URL of the secret that contains its credentials
        #[arg(long, value_name = "URL")]
        secret_ref: Option<String>,
        /// Options of every kind.
        #[command(flatten)]
        common: NewTargetOptions,
    },
}

/// Options of every kind.
#[derive(Debug, Args)]
pub struct NewTargetOptions {
    /// Name of its target type [default: the export]
    #[arg(long, value_name = "TYPE")]
    name: Option<String>,
    /// Make it the default target
    #[arg(long)]
    default: bool,
    /// Do not make it the default target, even if there is no other
    #[arg(long, conflicts_with = "default")]
    no_default: bool,
    /// Metadata entry; may be repeated
    #[arg(long = "metadata", value_name = "KEY=VALUE", value_parser = metadata_entry)]
    metadata: Vec<(String, String)>,
    /// Nodes on which it is expected [default: all nodes].
    #[command(flatten)]
    scope: ScopeOptions,
}

impl NewTargetArguments {
    /// Returns the request.
    pub(super) fn into_body(self) -> NewTarget {
        let (specific, NewTargetOptions { name, default, no_default, metadata, scope }) = match self {
            Self::Nfs { export, nfs_mount_opts, mount_mode, common } => {
                let specific = NewTarget {
                    kind: Some(TargetKind::Nfs.to_string()),
                    filesystem_export: Some(export),
                    nfs_mount_opts,
                    mount_mode,
                    ..NewTarget::default()
                };
                (specific, common)
            }
            Self::S3 { endpoint, bucket, immutable, secret_ref, common } => {
                let specific = NewTarget {
                    kind: Some(TargetKind::S3.to_string()),
                    s3_endpoint_url: endpoint,
                    s3_bucket: Some(bucket),
                    immutable: Some(immutable),
                    secret_ref,
                    ..NewTarget::default()
                };
                (specific, common)
            }
        };
        NewTarget {
            btt_name: name,
            is_default: (default || no_default).then_some(default),
            metadata: metadata.into_iter().collect(),
            scope: scope.into_request(),
            ..specific
        }
    }
}

/// Arguments of `check` that describe a target.
#[derive(Debug, Subcommand)]
pub enum CheckArguments {
    /// Probe an NFS export, without a daemon
    Nfs {
        /// host:/path
        export: String,
        /// Verify the export over the wire without mounting it
        #[arg(long)]
        no_mount: bool,
        /// Options of every kind.
        #[command(flatten)]
        options: CheckOptions,
    },
    /// Probe an S3 bucket, without a daemon
    S3 {
        /// URL/BUCKET, or the name of a bucket of AWS
        location: String,
        /// Require object lock
        #[arg(long)]
        immutable: bool,
        /// Options of every kind.
        #[command(flatten)]
        options: CheckOptions,
    },
}

/// Options of `check` for every kind.
#[derive(Debug, Args)]
pub struct CheckOptions {
    /// Configuration file [default: /etc/targetwatch/config.toml if it exists]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Whether a mounted kind is verified over the wire instead.
    #[arg(skip)]
    pub(super) no_mount: bool,
}

impl CheckArguments {
    /// Returns the target and the options.
    ///
    /// # Errors
    /// When the export or the bucket is not valid for a new target.
    pub(super) fn into_spec(self) -> anyhow::Result<(TargetSpec, CheckOptions)> {
        let (fields, options) = match self {
            Self::Nfs { export, no_mount, options } => (nfs(&export), CheckOptions { no_mount, ..options }),
            Self::S3 { location, immutable, options } => {
                let location = S3Location::parse(&location)?;
                let fields = s3(location.endpoint().map(S3Endpoint::url), location.bucket());
                (SpecFields { immutable: Some(immutable), ..fields }, options)
            }
        };
        let spec = parsed(&fields)?;
        spec.check_new().map_err(|error| error.problem)?;
        Ok((spec, options))
    }
}

/// Arguments of `mount-path`.
#[derive(Debug, Subcommand)]
pub enum MountPathArguments {
    /// Print the mount path of an NFS export
    Nfs {
        /// host:/path
        export: String,
    },
    /// Print the mount path of an S3 bucket
    S3 {
        /// URL of the service; "" for AWS
        url: String,
        /// Name of the bucket
        bucket: String,
    },
}

impl MountPathArguments {
    /// Returns the target.
    ///
    /// # Errors
    /// When the export, the URL or the bucket is not valid.
    pub(super) fn spec(&self) -> anyhow::Result<TargetSpec> {
        let fields = match self {
            Self::Nfs { export } => nfs(export),
            Self::S3 { url, bucket } => s3(Some(url.clone()).filter(|url| !url.is_empty()), bucket),
        };
        parsed(&fields)
    }
}

fn nfs(export: &str) -> SpecFields {
    let kind = Some(TargetKind::Nfs.to_string());
    SpecFields { kind, filesystem_export: Some(export.to_owned()), ..SpecFields::default() }
}

fn s3(endpoint: Option<String>, bucket: &str) -> SpecFields {
    let kind = Some(TargetKind::S3.to_string());
    SpecFields { kind, s3_endpoint_url: endpoint, s3_bucket: Some(bucket.to_owned()), ..SpecFields::default() }
}

/// Parses the fields. An error does not name the field, because it is an argument here.
fn parsed(fields: &SpecFields) -> anyhow::Result<TargetSpec> {
    Ok(TargetSpec::from_fields(fields).map_err(|error| error.problem)?)
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;

    use super::*;

    #[test]
    fn default_is_sent_only_when_it_is_given() {
        for (flag, is_default) in [(None, None), (Some("--default"), Some(true)), (Some("--no-default"), Some(false))] {
            let command = NewTargetArguments::augment_subcommands(clap::Command::new("create"));
            let matches = command.get_matches_from(["create", "nfs", "nas:/b"].into_iter().chain(flag));
            let arguments = NewTargetArguments::from_arg_matches(&matches).expect("valid");
            assert_eq!(arguments.into_body().is_default, is_default, "{flag:?}");
        }
    }

    #[test]
    fn check_refuses_an_export_that_no_new_target_may_have() {
        for (export, problem) in [("nfs://h/a", "nfs://h/a"), ("h:/a,h:/b", "h:/a,h:/b"), ("nas", "host:/path")] {
            let command = CheckArguments::augment_subcommands(clap::Command::new("check"));
            let matches = command.get_matches_from(["check", "nfs", export]);
            let arguments = CheckArguments::from_arg_matches(&matches).expect("valid");
            let error = arguments.into_spec().expect_err(export).to_string();
            assert!(error.contains(problem) && !error.contains("filesystem_export"), "{error}");
        }
    }

    #[test]
    fn every_kind_has_its_subcommands() {
        for kind in TargetKind::ALL {
            for parent in [
                NewTargetArguments::augment_subcommands(clap::Command::new("create")),
                CheckArguments::augment_subcommands(clap::Command::new("check")),
                MountPathArguments::augment_subcommands(clap::Command::new("mount-path")),
            ] {
                assert!(parent.find_subcommand(kind.as_str()).is_some(), "{} {kind}", parent.get_name());
            }
        }
    }
}
