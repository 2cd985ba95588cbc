//! Settings: what configuration is able to ask for, already validated.
//!
//! Plain data, so that drivers and the agent can be given settings without knowing that there is
//! a file. `config` makes them, `cli::serve` hands them out.

mod api;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::report::MountMode;
use super::{LockMode, NfsExport, NfsOptions, PathKey, TargetSpec};

pub use api::{ApiSettings, AuthSettings, KeystoneCredential, KeystoneSettings, Listen, TlsSettings};

/// How targets are mounted (`[mounts]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountSettings {
    /// The directory that holds every mount path.
    pub root: PathBuf,
    /// Whether NFS targets are mounted or verified over the wire.
    pub mode: MountMode,
    /// What mount names are derived from.
    pub path_key: PathKey,
    /// Mount options of NFS targets.
    pub nfs_options: NfsOptions,
    /// Mount options for some NFS targets only; the first whose location matches wins.
    pub nfs_overrides: Vec<NfsOverride>,
    /// Hosts that this node reaches by another address.
    pub address_map: BTreeMap<String, String>,
}

impl MountSettings {
    /// The mount options of an export.
    #[must_use]
    pub fn options_for(&self, export: &NfsExport) -> &NfsOptions {
        let text = export.to_string();
        self.nfs_overrides
            .iter()
            .find(|entry| entry.location.matches(&text))
            .map_or(&self.nfs_options, |entry| &entry.options)
    }
}

/// Mount options for the exports that a pattern matches (`[[mounts.nfs]]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NfsOverride {
    /// Which exports.
    pub location: LocationPattern,
    /// Their mount options.
    pub options: NfsOptions,
}

/// A pattern for exports in which `*` stands for any run of characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocationPattern(String);

impl LocationPattern {
    /// A pattern.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Whether the pattern matches the whole export.
    #[must_use]
    pub fn matches(&self, export: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = export.strip_prefix(first) else {
            return false;
        };
        let mut last = None;
        for part in parts {
            if let Some(previous) = last.replace(part) {
                let Some(at) = rest.find(previous) else {
                    return false;
                };
                rest = &rest[at + str::len(previous)..];
            }
        }
        last.map_or(rest.is_empty(), |tail| rest.ends_with(tail))
    }
}

/// How targets are probed (`[probe]`).
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeSettings {
    /// Time from one probe of an NFS target to the next.
    pub nfs_interval: Duration,
    /// Time from one probe of an S3 target to the next.
    pub s3_interval: Duration,
    /// For how long what was read of a bucket's versioning and object lock is not read again.
    pub s3_facts_interval: Duration,
    /// The longest that one check may wait for storage.
    pub deadline: Duration,
    /// The longest that `mount.nfs` may take.
    pub mount_deadline: Duration,
    /// How many timeouts in a row make a target offline; a definite error does at once.
    pub failures_before_offline: u32,
    /// A passing check that took longer is a warning.
    pub slow_after: Duration,
    /// Use above this percentage is a warning.
    pub nearly_full_percent: f64,
    /// The canary file.
    pub canary: CanarySettings,
}

/// The file that proves that backups can be written (`[probe.canary]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanarySettings {
    /// Whether it is written at all.
    pub enabled: bool,
    /// Time from one canary to the next.
    pub interval: Duration,
    /// The user who writes backups.
    pub uid: u32,
    /// That user's group.
    pub gid: u32,
}

/// Credentials and addressing for the buckets that a pattern matches (`[[s3.credentials]]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3AccessRule {
    /// Which buckets, matched against the export.
    pub location: LocationPattern,
    /// Where the credentials come from.
    pub source: S3CredentialSource,
    /// The region to sign for.
    pub region: Option<String>,
    /// Certificate authorities to trust beside the system's, a PEM file.
    pub ca_bundle: Option<PathBuf>,
    /// How the bucket is named in a request.
    pub addressing: S3Addressing,
    /// Whether nothing is to be written to the bucket, since nobody writes backups to it from here.
    pub read_only: bool,
}

/// Where S3 credentials come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum S3CredentialSource {
    /// The AWS default chain: environment, shared files, instance metadata.
    DefaultChain,
    /// A profile of the shared configuration files.
    Profile(String),
    /// Two files, each holding one value.
    Files {
        /// The access key id.
        access_key_id: PathBuf,
        /// The secret access key.
        secret_access_key: PathBuf,
    },
}

/// How the bucket is named in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum S3Addressing {
    /// `https://host/bucket/key`.
    #[default]
    Path,
    /// `https://bucket.host/key`.
    Virtual,
}

/// The object that proves that backups can be written (`[s3.canary]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3CanarySettings {
    /// Whether it is written at all.
    pub enabled: bool,
    /// Time from one canary to the next.
    pub interval: Duration,
    /// What the keys of canaries begin with; ends with `/`.
    pub prefix: String,
    /// How long a canary is locked, at most, where it would otherwise be locked for longer.
    pub retention: Duration,
}

/// The proof that an object lock is enforced (`[s3.lock_proof]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockProofSettings {
    /// Whether it is done at all.
    pub enabled: bool,
    /// Time from one proof to the next.
    pub interval: Duration,
    /// The mode that it is locked in where the bucket has no default retention, whose mode comes first;
    /// none is governance.
    pub mode: Option<LockMode>,
    /// Whether a lock that these credentials can bypass makes a target offline.
    pub strict: bool,
    /// A default retention that is shorter is a warning.
    pub min_retention: Duration,
}

/// Counting what a bucket holds by listing it, where its service does not tell (`[s3.listing]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3ListingSettings {
    /// Whether it is done at all.
    pub enabled: bool,
    /// Time from one run to the next.
    pub interval: Duration,
    /// How many requests a run sends at most; the next one goes on where it stopped.
    pub requests_max: u32,
}

/// A target that the configuration declares (`[[target]]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredTarget {
    /// Its storage.
    pub spec: TargetSpec,
    /// The name of its first target type; the export if none.
    pub type_name: Option<String>,
    /// Whether it is the default target.
    pub is_default: bool,
    /// Notes about it.
    pub metadata: BTreeMap<String, String>,
}

/// Everything that probing needs to know; replaced as a whole when the configuration is read
/// again.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentSettings {
    /// How targets are mounted.
    pub mounts: MountSettings,
    /// How targets are probed.
    pub probe: ProbeSettings,
    /// Access to buckets; the first rule that matches wins.
    pub s3_access: Vec<S3AccessRule>,
    /// The canary object.
    pub s3_canary: S3CanarySettings,
    /// The proof of object locks.
    pub lock_proof: LockProofSettings,
    /// The listing of buckets whose use is not told.
    pub s3_listing: S3ListingSettings,
}

#[cfg(test)]
impl AgentSettings {
    /// Nothing is mounted, no credentials are looked for, and no probe disturbs.
    pub(crate) fn quiet() -> Self {
        let long = Duration::from_hours(1);
        Self {
            mounts: MountSettings {
                root: "/nonexistent/mounts".into(),
                mode: MountMode::None,
                path_key: PathKey::Path,
                nfs_options: NfsOptions::parse("nfsvers=3,port=1,mountport=1").expect("options"),
                nfs_overrides: Vec::new(),
                address_map: [].into(),
            },
            probe: ProbeSettings {
                nfs_interval: long,
                s3_interval: long,
                s3_facts_interval: long,
                deadline: Duration::from_secs(2),
                mount_deadline: Duration::from_secs(2),
                failures_before_offline: 2,
                slow_after: long,
                nearly_full_percent: 90.0,
                canary: CanarySettings { enabled: false, interval: long, uid: 0, gid: 0 },
            },
            s3_access: vec![S3AccessRule {
                location: LocationPattern::new("*"),
                source: S3CredentialSource::Files {
                    access_key_id: "/nonexistent/id".into(),
                    secret_access_key: "/nonexistent/secret".into(),
                },
                region: None,
                ca_bundle: None,
                addressing: S3Addressing::Path,
                read_only: true,
            }],
            s3_canary: S3CanarySettings {
                enabled: false,
                interval: long,
                prefix: "canary/".to_owned(),
                retention: long,
            },
            lock_proof: LockProofSettings {
                enabled: false,
                interval: long,
                mode: None,
                strict: false,
                min_retention: Duration::ZERO,
            },
            s3_listing: S3ListingSettings { enabled: false, interval: long, requests_max: 1 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        for (pattern, export, expected) in [
            ("*", "anything", true),
            ("nas:/a", "nas:/a", true),
            ("nas:/a", "nas:/ab", false),
            ("ceph.example/*", "ceph.example/bucket", true),
            ("ceph.example/*", "other.example/bucket", false),
            ("*:/backups/*", "10.0.0.1:/backups/x", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxc", false),
            ("ab*ba", "aba", false),
            ("*x", "axbx", true),
        ] {
            assert_eq!(LocationPattern::new(pattern).matches(export), expected, "{pattern} on {export}");
        }
    }
}
