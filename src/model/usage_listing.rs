//! Use of a bucket that was counted by listing it, for services that do not report it.
//!
//! Only a complete listing measures a bucket, and not at a single moment. So a count has the times of its
//! beginning and its end, and a count in progress is reported as such.

use jiff::Timestamp;

use super::report::Finding;

/// What pages of a listing add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageTally {
    /// How many pages.
    pub pages: u64,
    /// Versions in these pages, including noncurrent ones. Objects if the service does not list versions.
    pub versions: u64,
    /// Delete markers, which have no size.
    pub delete_markers: u64,
    /// The sizes of the versions together, in bytes.
    pub bytes: u64,
    /// Whether versions that are not current are among it: not where listing them was refused or not known.
    pub counts_versions: bool,
}

/// A listing that came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WholeCount {
    /// What is in the bucket.
    pub tally: UsageTally,
    /// When its first page was requested.
    pub began_at: Timestamp,
    /// When its last page came.
    pub ended_at: Timestamp,
}

/// A listing that has more pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialCount {
    /// What was counted so far.
    pub tally: UsageTally,
    /// When its first page was requested.
    pub began_at: Timestamp,
}

/// What is known of a bucket's use by listing it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UsageListing {
    /// The latest count that came to its end.
    pub whole: Option<WholeCount>,
    /// The one after it, as far as it is.
    pub under_way: Option<PartialCount>,
    /// Why the latest run stopped, if that was not at its end or at the limit of its requests.
    pub failure: Option<Finding>,
    /// When the next run is due. `None` while a run is in progress.
    pub next_run_at: Option<Timestamp>,
}
