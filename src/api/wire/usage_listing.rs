//! What listing a bucket found, on the wire.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::timestamp::timestamp;
use crate::model;
use crate::model::usage_listing::{PartialCount, UsageTally, WholeCount};

/// What is in a bucket, counted by listing it, where its service does not tell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UsageListing {
    /// The latest count that came to its end: `used_bytes` is its `bytes`.
    pub counted: Option<UsageCount>,
    /// The count after it, as far as it is; `null` when there is none.
    pub under_way: Option<UsageCount>,
    /// When the next run is due; `null` while one goes on.
    pub next_run_at: Option<String>,
}

/// What pages of a listing add up to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UsageCount {
    /// The sizes of all versions together.
    pub bytes: u64,
    /// How many versions; objects where `counts_versions` is false.
    pub versions: u64,
    /// How many delete markers.
    pub delete_markers: u64,
    /// Whether versions that are not current are among it; false where listing them is refused.
    pub counts_versions: bool,
    /// How many pages it took so far.
    pub pages: u64,
    /// When the first page was asked for.
    pub began_at: String,
    /// When the last page came; `null` before that.
    pub ended_at: Option<String>,
}

impl From<&model::UsageListing> for UsageListing {
    fn from(listing: &model::UsageListing) -> Self {
        Self {
            counted: listing.whole.map(UsageCount::from),
            under_way: listing.under_way.map(UsageCount::from),
            next_run_at: listing.next_run_at.map(timestamp),
        }
    }
}

impl From<WholeCount> for UsageCount {
    fn from(WholeCount { tally, began_at, ended_at }: WholeCount) -> Self {
        Self { ended_at: Some(timestamp(ended_at)), ..Self::from(PartialCount { tally, began_at }) }
    }
}

impl From<PartialCount> for UsageCount {
    fn from(PartialCount { tally, began_at }: PartialCount) -> Self {
        let UsageTally { pages, versions, delete_markers, bytes, counts_versions } = tally;
        let began_at = timestamp(began_at);
        Self { bytes, versions, delete_markers, counts_versions, pages, began_at, ended_at: None }
    }
}
