//! What is known of a bucket's configuration, and since when.
//!
//! Versioning and object lock change rarely, so a routine probe does not ask for them each time: it judges
//! what was read before, and says when that was. They are read anew at an interval, when somebody asks, after
//! a probe that found something wrong, with other credentials, and before a canary is put: a default
//! retention that nobody knows of would lock it for days.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::check::canary::ServiceClock;
use crate::model::settings::S3AccessRule;
use crate::s3::{ObjectLock, Versioning};

/// The configuration of a bucket as it was read.
#[derive(Debug, Clone)]
pub(super) struct KeptFacts {
    pub(super) lock: ObjectLock,
    pub(super) versions: Versioning,
    /// When it was read.
    pub(super) read_at: Timestamp,
    since: Instant,
    /// By which rule and with whose credentials.
    rule: Option<S3AccessRule>,
    access_key_id: String,
}

impl KeptFacts {
    /// What was read, which was begun at `read_at`.
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

    /// Whether it need not be read again yet.
    pub(super) fn is_good_for(&self, rule: Option<&S3AccessRule>, access_key_id: &str, interval: Duration) -> bool {
        self.rule.as_ref() == rule && self.access_key_id == access_key_id && self.since.elapsed() < interval
    }
}

/// What a probe learnt of a bucket before it writes to it.
pub(super) struct Learnt {
    pub(super) clock: ServiceClock,
    pub(super) lock: Option<ObjectLock>,
    pub(super) versions: Option<Versioning>,
}

impl Learnt {
    /// Whether the bucket has or had versions, as far as it is known.
    pub(super) fn is_versioned(&self) -> bool {
        self.versions != Some(Versioning::Off)
    }

    /// Whether what is written without a retention is locked all the same, if that is known.
    pub(super) fn locks_by_default(&self) -> Option<bool> {
        self.lock.as_ref().map(|lock| lock.enabled && lock.default_retention.is_some())
    }
}
