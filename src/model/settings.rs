//! Validated settings of the agent, as plain data.
//!
//! Drivers and the agent receive settings without knowing about the configuration file. `config`
//! makes them and `cli::serve` passes them on.

mod aggregate;
mod api;
mod key_manager;
mod notify;
mod shared_registry;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::export::NfsExport;
use super::mount_mode::MountMode;
use super::nfs_options::NfsOptions;
use super::report::{LockMode, Severity};
use super::target_spec::{PathKey, SpecFields, TargetSpec};

pub use aggregate::{
    AddressError, AggregateSettings, AvailableWhen, ExpectedOn, NodeAddress, PolicyError, SrvSettings,
};
pub use api::{
    ApiSettings, AuthSettings, KeystoneCredential, KeystoneSettings, Listen, MetricsDetail, MetricsSettings,
    TlsSettings,
};
pub use key_manager::KeyManagerSettings;
pub use notify::{CommandSettings, NotifySettings, WebhookSettings};
pub use shared_registry::SharedRegistrySettings;

/// Settings of mounts (`[mounts]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountSettings {
    /// Directory that contains every mount path.
    pub root: PathBuf,
    /// How NFS targets are verified.
    pub mode: MountMode,
    /// Directory that contains the private mounts of [`MountMode::Observe`].
    pub private_root: PathBuf,
    /// Whether a private mount stays after the probe.
    pub keep_private: bool,
    /// Severity of a mount in use that does not answer or cannot be used.
    pub in_use_failure: Severity,
    /// Part of the export from which mount names are derived.
    pub path_key: PathKey,
    /// Default mount options of NFS targets.
    pub nfs_options: NfsOptions,
    /// Mount options of some NFS targets. The first entry whose location matches applies.
    pub nfs_overrides: Vec<NfsOverride>,
    /// Addresses that this node uses instead of the hosts in exports, by host.
    pub address_map: BTreeMap<String, String>,
}

impl MountSettings {
    /// Returns the mount options of an export.
    #[must_use]
    pub fn options_for(&self, export: &NfsExport) -> &NfsOptions {
        let text = export.to_string();
        self.nfs_overrides
            .iter()
            .find(|entry| entry.location.matches(&text))
            .map_or(&self.nfs_options, |entry| &entry.options)
    }
}

/// Settings of the visibility of mounts to other programs (`[visibility]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VisibilitySettings {
    /// Whether the host must see what the agent mounts.
    pub host: bool,
    /// Names of the processes that should see what the agent mounts.
    pub consumers: Vec<LocationPattern>,
}

/// Mount options for the exports that a pattern matches (`[[mounts.nfs]]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NfsOverride {
    /// Pattern of the exports.
    pub location: LocationPattern,
    /// Mount options of these exports.
    pub options: NfsOptions,
}

/// Pattern of exports or of other names. `*` matches any sequence of characters, also an empty one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocationPattern(String);

impl LocationPattern {
    /// Makes a pattern from its text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Returns the text of the pattern.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reports whether the pattern matches the whole export.
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

/// Settings of probes (`[probe]`).
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeSettings {
    /// Time between two probes of an NFS target.
    pub nfs_interval: Duration,
    /// Time between two probes of an S3 target.
    pub s3_interval: Duration,
    /// Time for which the versioning and object-lock configuration of a bucket is cached.
    pub s3_facts_interval: Duration,
    /// Time between two questions of this node to a bucket that another node of the fleet watches.
    pub bucket_check_interval: Duration,
    /// Deadline of one check that waits for storage.
    pub deadline: Duration,
    /// Deadline of `mount.nfs`.
    pub mount_deadline: Duration,
    /// Number of consecutive timeouts that make a target offline. A definite error does so at once.
    pub failures_before_offline: u32,
    /// Duration above which a passed check is a warning.
    pub slow_after: Duration,
    /// Used percentage above which a target has a warning.
    pub nearly_full_percent: f64,
    /// Time to full below which a target has a warning. Zero turns the warning off.
    pub full_soon_within: Duration,
    /// Thresholds of some targets. The first entry whose location matches applies.
    pub overrides: Vec<ProbeOverride>,
    /// Settings of the canary file.
    pub canary: CanarySettings,
}

impl ProbeSettings {
    /// Returns the time to full below which the target with this export has a warning.
    #[must_use]
    pub fn full_soon_within_of(&self, export: &str) -> Duration {
        let found = self.overrides.iter().find(|entry| entry.location.matches(export));
        found.map_or(self.full_soon_within, |entry| entry.full_soon_within)
    }
}

/// Thresholds for the targets whose exports a pattern matches (`[[probe.target]]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeOverride {
    /// Pattern of the exports.
    pub location: LocationPattern,
    /// Time to full below which these targets have a warning. Zero turns the warning off.
    pub full_soon_within: Duration,
}

/// Settings of the canary file, which proves that backups can be written (`[probe.canary]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanarySettings {
    /// Whether canaries are written.
    pub enabled: bool,
    /// Time between two canaries.
    pub interval: Duration,
    /// User that writes the canary, as it writes backups.
    pub user: BackupUser,
}

/// Ids of the user that writes backups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupUser {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Origin of the user id.
    pub origin: BackupUserOrigin,
}

impl fmt::Display for BackupUser {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "uid {} gid {}", self.uid, self.gid)
    }
}

/// Origin of the id of the backup user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupUserOrigin {
    /// The configuration names it.
    Configured,
    /// It is the user `nova` of this host.
    HostUser,
    /// This host had no user `nova` when the agent read its configuration.
    Default,
}

impl fmt::Display for BackupUserOrigin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Configured => "set in [probe.canary]",
            Self::HostUser => "the user nova of this host, because [probe.canary] sets no uid",
            Self::Default => {
                "the default, because [probe.canary] sets no uid and /etc/passwd had no user nova when the agent read its configuration"
            }
        })
    }
}

/// Credentials and addressing of the buckets that a pattern matches (`[[s3.credentials]]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3AccessRule {
    /// Pattern of the exports of these buckets.
    pub location: LocationPattern,
    /// Source of the credentials.
    pub source: S3CredentialSource,
    /// Region for which requests are signed.
    pub region: Option<String>,
    /// PEM file of certificate authorities that are trusted in addition to those of the system.
    pub ca_bundle: Option<PathBuf>,
    /// Addressing style of requests.
    pub addressing: S3Addressing,
    /// Whether the agent writes nothing to the bucket, because this node writes no backups to it.
    pub read_only: bool,
    /// Whether the credentials are expected to be allowed to write but not to delete.
    pub append_only: bool,
    /// Headers that the agent sends with every object that it writes, by name in lower case.
    pub put_headers: Arc<BTreeMap<String, String>>,
}

/// Source of S3 credentials.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum S3CredentialSource {
    /// Default chain of AWS: environment, shared files, instance metadata.
    DefaultChain,
    /// Profile of the shared configuration files of AWS.
    Profile(String),
    /// Two files with one value each.
    Files {
        /// File of the access key id.
        access_key_id: PathBuf,
        /// File of the secret access key.
        secret_access_key: PathBuf,
    },
}

/// Addressing style of S3 requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum S3Addressing {
    /// `https://host/bucket/key`.
    #[default]
    Path,
    /// `https://bucket.host/key`.
    Virtual,
}

/// Settings of the canary object, which proves that backups can be written (`[s3.canary]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3CanarySettings {
    /// Whether canaries are written.
    pub enabled: bool,
    /// Time between two canaries.
    pub interval: Duration,
    /// Prefix of the keys of canaries. It ends with `/`.
    pub prefix: String,
    /// Lock of a canary. It replaces a longer default retention of the bucket. At least as long as
    /// `[s3.lock_proof] min_canary_retention`.
    pub retention: Duration,
}

/// Settings of the proof that an object lock is enforced (`[s3.lock_proof]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockProofSettings {
    /// Whether object locks are proved.
    pub enabled: bool,
    /// Time between two proofs of one target.
    pub interval: Duration,
    /// Lock mode of the canary in a bucket without default retention. `None` means governance. In a bucket
    /// with default retention, the mode of that retention applies.
    pub mode: Option<LockMode>,
    /// Whether a lock that the agent's credentials can bypass makes a target offline.
    pub strict: bool,
    /// Shortest default retention that does not cause a warning.
    pub min_retention: Duration,
}

/// Settings of listings, which measure buckets whose service does not report the usage (`[s3.listing]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3ListingSettings {
    /// Whether buckets are listed.
    pub enabled: bool,
    /// Time between the end of one run and the next run.
    pub interval: Duration,
    /// Largest number of requests in one run. The next run continues where this one stopped.
    pub requests_max: u32,
}

/// Target that the configuration declares (`[[target]]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredTarget {
    /// Storage of the target.
    pub spec: TargetSpec,
    /// The given fields that a client may change. They are also applied to a target that exists already.
    pub changes: SpecFields,
    /// Name of the first target type. Without it, the export is the name.
    pub type_name: Option<String>,
    /// Whether the target becomes the default target. With `None` it becomes the default only if there is no default.
    pub is_default: Option<bool>,
    /// Metadata of the target.
    pub metadata: BTreeMap<String, String>,
}

/// Settings of the agent. A reload of the configuration replaces them as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentSettings {
    /// Settings of mounts.
    pub mounts: MountSettings,
    /// Settings of the visibility of mounts.
    pub visibility: VisibilitySettings,
    /// Settings of probes.
    pub probe: ProbeSettings,
    /// Access to buckets. The first rule that matches applies.
    pub s3_access: Vec<S3AccessRule>,
    /// Key manager that contains the credentials of buckets. `None` if it is not used.
    pub key_manager: Option<KeyManagerSettings>,
    /// Settings of the canary object.
    pub s3_canary: S3CanarySettings,
    /// Settings of lock proofs.
    pub lock_proof: LockProofSettings,
    /// Settings of listings.
    pub s3_listing: S3ListingSettings,
}

#[cfg(test)]
impl AgentSettings {
    /// Settings that mount nothing, look for no credentials, and probe rarely.
    pub(crate) fn quiet() -> Self {
        let long = Duration::from_hours(1);
        Self {
            mounts: MountSettings {
                root: "/nonexistent/mounts".into(),
                mode: MountMode::None,
                private_root: "/nonexistent/private".into(),
                keep_private: false,
                in_use_failure: Severity::Warning,
                path_key: PathKey::Path,
                nfs_options: NfsOptions::parse("nfsvers=3,port=1,mountport=1").expect("options"),
                nfs_overrides: Vec::new(),
                address_map: [].into(),
            },
            visibility: VisibilitySettings { host: true, consumers: Vec::new() },
            probe: ProbeSettings {
                nfs_interval: long,
                s3_interval: long,
                s3_facts_interval: long,
                bucket_check_interval: long,
                deadline: Duration::from_secs(2),
                mount_deadline: Duration::from_secs(2),
                failures_before_offline: 2,
                slow_after: long,
                nearly_full_percent: 90.0,
                full_soon_within: Duration::from_secs(72 * 3600),
                overrides: Vec::new(),
                canary: CanarySettings {
                    enabled: false,
                    interval: long,
                    user: BackupUser { uid: 0, gid: 0, origin: BackupUserOrigin::Configured },
                },
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
                append_only: false,
                put_headers: Arc::default(),
            }],
            key_manager: None,
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
    fn star_in_location_pattern_matches_any_characters() {
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
