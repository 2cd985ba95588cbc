//! Calls on a bucket that change nothing, and their answers.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use super::failure::S3Failure;
use super::pages::{Entries, ListedPage, PageMarker};
use crate::model::LockMode;

/// Usage of a bucket, as its service reports it in the answer to HEAD bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BucketUsage {
    /// Size of all versions in the bucket, in bytes (`X-RGW-Bytes-Used`).
    pub used_bytes: Option<u64>,
    /// Size that no bucket can have (negative, or at least 2^63 bytes), if the service reports such a size instead of
    /// `used_bytes`.
    pub impossible_bytes: Option<i128>,
    /// Number of objects in the bucket (`X-RGW-Object-Count`).
    pub object_count: Option<u64>,
    /// Quota of the bucket, in bytes (`X-RGW-Quota-Bucket-Size`). None without a limit.
    pub quota_bytes: Option<u64>,
    /// Offset of the service's clock (`Date`) from this host's, in seconds. Positive if it is ahead.
    pub clock_ahead_seconds: Option<i64>,
}

/// Versioning status of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versioning {
    /// The service keeps every overwritten or deleted object.
    Enabled,
    /// Versioning was enabled before. Existing versions remain.
    Suspended,
    /// Versioning was never enabled.
    Off,
}

/// Object-lock configuration of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectLock {
    /// Whether object lock is enabled. `None` if the service does not support this configuration, so that it locks
    /// nothing.
    pub enabled: Option<bool>,
    /// Retention that a new object gets if the PUT does not request one.
    pub default_retention: Option<DefaultRetention>,
}

impl ObjectLock {
    /// Returns whether object lock is known to be enabled.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled == Some(true)
    }
}

/// Default retention of new objects, such as `GOVERNANCE 30 days`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultRetention {
    /// Lock mode.
    pub mode: LockMode,
    /// Length of the retention.
    pub length: RetentionLength,
}

/// Length of a default retention, in its configured unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetentionLength {
    /// Days.
    Days(u32),
    /// Years.
    Years(u32),
}

impl DefaultRetention {
    /// Returns the length as a duration. A year counts as 365 days.
    #[must_use]
    pub fn duration(self) -> Duration {
        let days = match self.length {
            RetentionLength::Days(days) => u64::from(days),
            RetentionLength::Years(years) => u64::from(years) * 365,
        };
        Duration::from_secs(days * 24 * 3600)
    }
}

impl fmt::Display for DefaultRetention {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, unit) = match self.length {
            RetentionLength::Days(days) => (days, "day"),
            RetentionLength::Years(years) => (years, "year"),
        };
        write!(formatter, "{} {count} {unit}{}", self.mode, if count == 1 { "" } else { "s" })
    }
}

/// Calls on one bucket that change nothing.
#[async_trait]
pub trait BucketApi: Send + Sync {
    /// HEAD bucket: proves that the bucket exists and that the credentials may use it. Returns its usage.
    async fn head_bucket(&self) -> Result<BucketUsage, S3Failure>;

    /// GET bucket location. Unlike a refused HEAD, a refusal has a body with an error code.
    async fn bucket_location(&self) -> Result<(), S3Failure>;

    /// Lists at most one object below a prefix. A policy that is limited to the prefix allows this call.
    async fn list_below(&self, prefix: &str) -> Result<(), S3Failure>;

    /// GET bucket versioning.
    async fn versioning(&self) -> Result<Versioning, S3Failure>;

    /// GET object-lock configuration. `enabled` is false if the bucket has none.
    async fn object_lock(&self) -> Result<ObjectLock, S3Failure>;

    /// Returns the page of a listing of the whole bucket that follows `after`, or the first page.
    async fn page(&self, entries: Entries, after: Option<&PageMarker>) -> Result<ListedPage, S3Failure>;
}
