//! Usage of a bucket as counted by a listing, for services that do not report the usage.
//!
//! Only a complete listing measures a bucket, and it takes time. So a count has the times of its beginning and its end,
//! and a count in progress is reported separately.

use jiff::Timestamp;

use super::report::check_result::Finding;

/// Sums over pages of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageTally {
    /// Number of pages.
    pub pages: u64,
    /// Versions in these pages, including noncurrent ones. Objects if the service does not list versions.
    pub versions: u64,
    /// Delete markers, which have no size.
    pub delete_markers: u64,
    /// Total size of the versions, in bytes.
    pub bytes: u64,
    /// Whether noncurrent versions are counted. The service may refuse or not implement listing them.
    pub counts_versions: bool,
}

/// Result of a complete listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WholeCount {
    /// Content of the bucket.
    pub tally: UsageTally,
    /// When its first page was requested.
    pub began_at: Timestamp,
    /// When its last page was received.
    pub ended_at: Timestamp,
}

/// Result of an incomplete listing so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialCount {
    /// Sums so far.
    pub tally: UsageTally,
    /// When its first page was requested.
    pub began_at: Timestamp,
}

/// State of the listing of a bucket.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UsageListing {
    /// Result of the latest complete listing.
    pub whole: Option<WholeCount>,
    /// Result so far of the listing in progress.
    pub under_way: Option<PartialCount>,
    /// Why the latest run failed. `None` if it ended at the last page or at its limit of requests.
    pub failure: Option<Finding>,
    /// When the next run is due. `None` while a run is in progress, and if another node lists the bucket.
    pub next_run_at: Option<Timestamp>,
    /// The node of the fleet that counted `whole`. `None`: this one.
    pub node: Option<String>,
}
