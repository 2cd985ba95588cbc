//! S3: the few calls that the agent makes, as a trait.
//!
//! Checks speak to [`BucketApi`], and those that write to [`ObjectApi`], and are tested against a
//! fake of it; [`aws`] is the one
//! implementation and the only module that names the SDK. Answers are facts in our own words, and a
//! failure is an [`S3Failure`]: a closed set, so that every code a service may send ends as a
//! reason and a sentence, never as an unread error text.

pub mod aws;
pub mod certificate;
pub mod failure;
pub mod objects;
pub mod pages;
mod remedy;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::model::LockMode;

pub use failure::S3Failure;
pub use objects::{ListedVersion, ObjectApi, Retention, StoredVersion};
pub use pages::{Entries, ListedPage, PageMarker};

/// What the service tells about a bucket when asked whether it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BucketUsage {
    /// Bytes that the bucket holds, all versions (`X-RGW-Bytes-Used`).
    pub used_bytes: Option<u64>,
    /// Objects that the bucket holds (`X-RGW-Object-Count`).
    pub object_count: Option<u64>,
    /// The bucket's quota in bytes (`X-RGW-Quota-Bucket-Size`); none where there is no limit.
    pub quota_bytes: Option<u64>,
    /// How far the service's clock is ahead of this host's (`Date`), in seconds.
    pub clock_ahead_seconds: Option<i64>,
}

/// Whether a bucket keeps versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versioning {
    /// Every overwritten or deleted object is kept.
    Enabled,
    /// Versions were kept once.
    Suspended,
    /// Never switched on.
    Off,
}

/// A bucket's object-lock configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectLock {
    /// Whether object lock is enabled.
    pub enabled: bool,
    /// The retention that a new object gets by itself.
    pub default_retention: Option<DefaultRetention>,
}

/// The retention that a new object gets by itself, such as `GOVERNANCE 30 days`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultRetention {
    /// How strictly it is kept.
    pub mode: LockMode,
    /// For how long.
    pub length: RetentionLength,
}

/// The length of a default retention, in the unit in which it was configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetentionLength {
    /// Days.
    Days(u32),
    /// Years.
    Years(u32),
}

impl DefaultRetention {
    /// How long it is, a year being 365 days.
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

/// The calls made on one bucket. None of them changes anything.
#[async_trait]
pub trait BucketApi: Send + Sync {
    /// HEAD bucket: it exists and the credentials reach it; with what the service tells of its use.
    async fn head_bucket(&self) -> Result<BucketUsage, S3Failure>;

    /// GET bucket location. Unlike an answer to HEAD, a refusal of it has a body that says why.
    async fn bucket_location(&self) -> Result<(), S3Failure>;

    /// GET of a list that ends at its first object below a prefix: what a policy for a prefix allows.
    async fn list_below(&self, prefix: &str) -> Result<(), S3Failure>;

    /// GET bucket versioning.
    async fn versioning(&self) -> Result<Versioning, S3Failure>;

    /// GET object-lock configuration; `enabled` is false when the bucket has none.
    async fn object_lock(&self) -> Result<ObjectLock, S3Failure>;

    /// GET of a page of a listing of the whole bucket, the one that begins after `after`, or the first.
    async fn page(&self, entries: Entries, after: Option<&PageMarker>) -> Result<ListedPage, S3Failure>;
}

/// A call, bounded: [`S3Failure::TimedOut`] at the deadline.
///
/// # Errors
/// [`S3Failure`] of the call, or that it did not answer in time.
pub async fn within<T>(deadline: Duration, call: impl Future<Output = Result<T, S3Failure>>) -> Result<T, S3Failure> {
    tokio::time::timeout(deadline, call).await.unwrap_or(Err(S3Failure::TimedOut(deadline)))
}
