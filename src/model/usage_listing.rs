//! What a bucket holds, counted by listing it, where its service does not tell.
//!
//! Only a listing that came to its end says what a bucket holds, and it is not of one moment: so a count
//! has the times of its beginning and of its end, and one that is under way is told as what it is.

use jiff::Timestamp;

use super::report::Finding;

/// What pages of a listing add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageTally {
    /// How many pages.
    pub pages: u64,
    /// Versions that they named, those that are not current too; objects where versions are not told.
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
    /// When its first page was asked for.
    pub began_at: Timestamp,
    /// When its last page came.
    pub ended_at: Timestamp,
}

/// A listing that has more pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialCount {
    /// What was counted so far.
    pub tally: UsageTally,
    /// When its first page was asked for.
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
    /// When the next run is due; `None` while one goes on.
    pub next_run_at: Option<Timestamp>,
}
