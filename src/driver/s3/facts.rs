//! Cache of a bucket's configuration.
//!
//! Versioning and object lock change rarely, so a routine probe does not read them. It judges what was
//! read before, and its detail says when that was. They are read again at an interval, for a requested
//! probe, after a probe with a failure, with other credentials, and before a canary is put. An unknown
//! default retention would lock the canary for days.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::check::canary::ServiceClock;
use crate::model::settings::S3AccessRule;
use crate::s3::{ObjectLock, Versioning};

/// Configuration of a bucket as it was read.
#[derive(Debug, Clone)]
pub(super) struct KeptFacts {
    pub(super) lock: ObjectLock,
    pub(super) versions: Versioning,
    /// When it was read.
    pub(super) read_at: Timestamp,
    since: Instant,
    /// Access rule and credentials with which it was read.
    rule: Option<S3AccessRule>,
    access_key_id: String,
}

impl KeptFacts {
    /// Keeps a configuration. `read_at` is the time at which reading it began.
    pub(super) fn new(
        lock: ObjectLock,
        versions: Versioning,
        read_at: Timestamp,
        rule: Option<&S3AccessRule>,
        access_key_id: &str,
    ) -> Self {
        let since = Instant::now();
        Self { lock, versions, read_at, since, rule: rule.cloned(), access_key_id: access_key_id.to_owned() }
    }

    /// Whether the configuration is recent enough to be used without reading it again.
    pub(super) fn is_good_for(&self, rule: Option<&S3AccessRule>, access_key_id: &str, interval: Duration) -> bool {
        self.rule.as_ref() == rule && self.access_key_id == access_key_id && self.since.elapsed() < interval
    }
}

/// What a probe found about a bucket before it writes to it.
pub(super) struct Learnt {
    pub(super) clock: ServiceClock,
    pub(super) lock: Option<ObjectLock>,
    pub(super) versions: Option<Versioning>,
}

impl Learnt {
    /// Whether the bucket has or had versions, as far as known.
    pub(super) fn is_versioned(&self) -> bool {
        self.versions != Some(Versioning::Off)
    }

    /// Whether the bucket locks objects that are put without a retention. `None` if unknown.
    pub(super) fn locks_by_default(&self) -> Option<bool> {
        self.lock.as_ref().map(|lock| lock.enabled && lock.default_retention.is_some())
    }
}
