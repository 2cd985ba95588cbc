//! Configuration of a bucket, and its cache.
//!
//! Versioning and object lock change rarely, so a routine probe does not read them. It checks the configuration that
//! was read before, and its detail says when. They are read again at an interval, for a requested probe, after a probe
//! with a failure, with other credentials, and before a canary is put.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::model::Reason;
use crate::model::settings::S3AccessRule;
use crate::s3::{ObjectLock, Versioning};

/// Configuration of a bucket. `None` is unknown.
#[derive(Debug, Clone)]
pub(super) struct Configuration {
    pub(super) lock: Option<ObjectLock>,
    /// Why the lock of an ordinary target is unknown.
    pub(super) lock_unknown: Option<Reason>,
    pub(super) versioning: Option<Versioning>,
    /// When it was read.
    pub(super) read_at: Timestamp,
}

impl Configuration {
    /// Whether nothing can be locked: object lock is known to be absent, or versioning, which it needs, to be off.
    pub(super) fn cannot_lock(&self) -> bool {
        self.lock.as_ref().is_some_and(|lock| !lock.is_enabled())
            || self.versioning.is_some_and(|versioning| versioning != Versioning::Enabled)
    }

    /// Whether the lock is unknown only because of trouble of the service, which usually ends.
    pub(super) fn may_be_known_later(&self) -> bool {
        matches!(
            self.lock_unknown,
            Some(Reason::ServerError | Reason::Throttled | Reason::ResponseTimedOut | Reason::ConnectionBroken)
        )
    }

    /// Returns it as text, for nodes that compare it.
    pub(super) fn digest(&self) -> String {
        let lock = self.lock.as_ref().map(|lock| (lock.enabled, lock.default_retention.map(|it| it.to_string())));
        format!("{:?} {lock:?}", self.versioning)
    }

    /// Whether the bucket locks objects that are put without a retention. `None` if unknown.
    pub(super) fn locks_by_default(&self) -> Option<bool> {
        let locks = self.lock.as_ref().map(|lock| lock.is_enabled() && lock.default_retention.is_some());
        locks.or_else(|| self.cannot_lock().then_some(false))
    }
}

/// A configuration that is completely known.
#[derive(Debug)]
pub(super) struct KeptConfiguration {
    pub(super) lock: ObjectLock,
    pub(super) versioning: Versioning,
    pub(super) read_at: Timestamp,
    since: Instant,
    /// Access rule and credentials with which it was read.
    rule: Option<S3AccessRule>,
    access_key_id: String,
}

impl KeptConfiguration {
    /// Keeps a configuration, unless a part of it is unknown.
    pub(super) fn new(read: &Configuration, rule: Option<&S3AccessRule>, access_key_id: &str) -> Option<Self> {
        Some(Self {
            lock: read.lock.clone()?,
            versioning: read.versioning?,
            read_at: read.read_at,
            since: Instant::now(),
            rule: rule.cloned(),
            access_key_id: access_key_id.to_owned(),
        })
    }

    /// Whether the configuration is recent enough to be used without reading it again.
    pub(super) fn is_usable(&self, rule: Option<&S3AccessRule>, access_key_id: &str, interval: Duration) -> bool {
        self.rule.as_ref() == rule && self.access_key_id == access_key_id && self.since.elapsed() < interval
    }
}
