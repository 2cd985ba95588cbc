//! Facts of a report that only one kind of target has.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;

use super::lock_proof::LockProofState;
use crate::model::mount_mode::MountMode;
use crate::model::usage_listing::UsageListing;

/// Facts that only one kind of target has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KindFacts {
    /// Facts about an NFS target.
    Nfs {
        /// How it was verified.
        mode: MountMode,
        /// Facts about the mount through which it was verified, if there is one.
        mount: Option<Box<MountFacts>>,
        /// The mount of another program at the mount path, if this agent only observes that path.
        in_use: Option<Box<InUseFacts>>,
    },
    /// Facts about the bucket of an S3 target.
    S3(Box<BucketFacts>),
}

impl KindFacts {
    /// How an NFS target was verified, and its mount. `None` for other kinds.
    #[must_use]
    pub fn nfs(&self) -> Option<(MountMode, Option<&MountFacts>)> {
        match self {
            Self::Nfs { mode, mount, .. } => Some((*mode, mount.as_deref())),
            Self::S3(_) => None,
        }
    }

    /// The mount of another program at the mount path of the target.
    #[must_use]
    pub fn in_use(&self) -> Option<&InUseFacts> {
        match self {
            Self::Nfs { in_use, .. } => in_use.as_deref(),
            Self::S3(bucket) => bucket.in_use.as_deref(),
        }
    }

    /// The bucket of an S3 target. `None` for other kinds.
    #[must_use]
    pub fn bucket(&self) -> Option<&BucketFacts> {
        match self {
            Self::Nfs { .. } => None,
            Self::S3(bucket) => Some(bucket),
        }
    }
}

/// Facts about a mount as the kernel reports them, which may differ from the requested options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountFacts {
    /// Options in force in the mount table: those of the mount, then those of its file system.
    pub options: String,
    /// Address of the server.
    pub server_address: Option<IpAddr>,
    /// NFS version, such as `3` or `4.2`.
    pub nfs_version: Option<String>,
    /// Whether a call waits without limit for a server that does not answer.
    pub is_hard: bool,
    /// NFS traffic, if the kernel reports it.
    pub traffic: Option<MountTraffic>,
    /// Programs that should see the mount, if that was verified.
    pub viewers: Vec<MountViewer>,
}

/// Facts about a mount that another program made at the mount path of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InUseFacts {
    /// Source of the mount, such as an export or the name of a FUSE program.
    pub source: String,
    /// Type of the file system, such as `nfs4` or `fuse.s3fs`.
    pub fs_type: String,
    /// Options in force, as in [`MountFacts::options`].
    pub options: String,
    /// When this agent process first saw the mount. It may be older.
    pub first_seen_at: Timestamp,
}

/// Name of the viewer that stands for all programs of the host.
pub const HOST_VIEWER: &str = "host";

/// A program that should see a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountViewer {
    /// [`HOST_VIEWER`], or a name of `[visibility] consumers`.
    pub name: String,
    /// Whether all its verified processes see the mount.
    pub sees_it: bool,
}

impl MountFacts {
    /// Parses the options of the mount and of its file system in the mount table (`fs/proc_namespace.c`,
    /// and `nfs_show_mount_options` in `fs/nfs/super.c`). Each has its own `ro` or `rw`. The mount is
    /// read-only if either of them is.
    #[must_use]
    pub fn from_options(mount: &str, file_system: &str) -> Self {
        let all = || mount.split(',').chain(file_system.split(','));
        let access = if all().any(|option| option == "ro") { "ro" } else { "rw" };
        let others = all().filter(|option| !matches!(*option, "ro" | "rw" | ""));
        let options = std::iter::once(access).chain(others).collect::<Vec<_>>().join(",");
        let value = |key: &str| file_system.split(',').find_map(|option| option.strip_prefix(key)?.strip_prefix('='));
        Self {
            server_address: value("addr").and_then(|address| address.parse().ok()),
            nfs_version: value("vers").map(str::to_owned),
            is_hard: file_system.split(',').any(|option| option == "hard"),
            options,
            traffic: None,
            viewers: Vec::new(),
        }
    }
}

/// NFS traffic of a mount between this host and the server, by all processes of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountTraffic {
    /// Average time from a request to its answer. `None` if no request was completed.
    pub round_trip: Option<Duration>,
    /// Period of that average: since the last probe, or since it was mounted.
    pub round_trip_over: Duration,
    /// Number of requests that were answered or abandoned, since it was mounted.
    pub requests: u64,
    /// Sum of the times from a request to its answer, since it was mounted.
    pub round_trips: Duration,
    /// Number of requests that were sent again, since it was mounted.
    pub retransmissions: u64,
    /// Number of requests without an answer within `timeo` and all `retrans` retransmissions, since it was mounted. A
    /// soft mount abandons such a request.
    pub major_timeouts: u64,
    /// When it was mounted. The kernel reports its age in whole seconds, so this is up to a second late.
    pub mounted_at: Timestamp,
    /// Bytes read from the server, since it was mounted.
    pub bytes_read: u64,
    /// Bytes written to the server, since it was mounted.
    pub bytes_written: u64,
}

/// Facts about a bucket that the report and the target's metadata show.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BucketFacts {
    /// Whether versioning is enabled. `None` if unknown.
    pub versioning: Option<bool>,
    /// Whether an object-lock configuration is in force. `None` if unknown.
    pub object_lock: Option<bool>,
    /// Default retention as text, such as `GOVERNANCE 30 days`.
    pub default_retention: Option<String>,
    /// Length of the default retention. A year counts as 365 days.
    pub default_retention_length: Option<Duration>,
    /// When versioning and object lock were read. Not every probe reads them.
    pub configuration_read_at: Option<Timestamp>,
    /// Number of objects in the bucket, if the service reports it or a listing counted them.
    pub object_count: Option<u64>,
    /// State of the usage listing. `None` if the bucket is not listed.
    pub usage_listing: Option<UsageListing>,
    /// State of the lock proof.
    pub lock_proof: LockProofState,
    /// Number of requests to the service.
    pub requests: Option<RequestCount>,
    /// Offset of the service's clock from this host's, in seconds. Positive if it is ahead. `None` if unknown.
    pub clock_ahead_seconds: Option<i64>,
    /// When the credentials expire. `None` if they do not, or if there are none.
    pub credentials_expire_at: Option<Timestamp>,
    /// Which certificate that the service presents ends first. `None` if that is not known, or without TLS.
    pub certificate_end: Option<CertificateEnd>,
    /// When this node last asked the bucket itself and got an answer. `None` if the latest probe got none.
    pub asked_at: Option<Timestamp>,
    /// The node of the fleet that asks the bucket at each interval, while this one asks more rarely. `None`: this one.
    pub watched_by: Option<String>,
    /// The mount of the bucket that another program made at the mount path, such as a FUSE file system.
    pub in_use: Option<Box<InUseFacts>>,
}

/// End of the certificate of a chain that ends first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateEnd {
    /// When it ends (`notAfter`).
    pub at: Timestamp,
    /// Its subject, shortened.
    pub subject: String,
    /// Its position in the chain. 1 is the certificate of the server itself.
    pub position: usize,
    /// Number of certificates in the chain.
    pub of: usize,
}

/// Number of requests that this agent sent for a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestCount {
    /// During the probe.
    pub this_probe: u64,
    /// In the hour before the end of the probe, or since the agent's start.
    pub last_hour: u64,
    /// Since the agent's start.
    pub total: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_facts_are_parsed_from_the_options_in_force() {
        let facts = MountFacts::from_options(
            "ro,relatime",
            "rw,vers=3,rsize=131072,hard,nolock,mountaddr=10.0.0.9,mountvers=3,clientaddr=10.0.0.8,addr=fd00::1",
        );
        assert_eq!((facts.server_address, facts.nfs_version.as_deref()), ("fd00::1".parse().ok(), Some("3")));
        assert!(facts.is_hard && facts.options.starts_with("ro,relatime,vers=3,"), "{facts:?}");
        let facts = MountFacts::from_options("rw", "rw,vers=4.2,softerr,addr=nonsense");
        assert_eq!((facts.server_address, facts.nfs_version.as_deref(), facts.is_hard), (None, Some("4.2"), false));
    }
}
