//! Usage of a bucket as its listings counted it, on the wire.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::timestamp::timestamp;
use crate::model;
use crate::model::usage_listing::{PartialCount, UsageTally, WholeCount};

/// Usage of a bucket as its listings counted it, for services that do not report the usage of a bucket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UsageListing {
    /// The latest complete count. `used_bytes` is its `bytes`.
    pub counted: Option<UsageCount>,
    /// The listing in progress. `null` when there is none.
    pub under_way: Option<UsageCount>,
    /// Time of the next listing. `null` during a listing, and if another node lists the bucket.
    pub next_run_at: Option<String>,
    /// Node of the fleet that counted it. `null` if it is this one.
    #[serde(default)]
    pub node: Option<String>,
}

/// Sum of the pages of a listing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UsageCount {
    /// Size of all versions, in bytes.
    pub bytes: u64,
    /// Number of versions, or of objects when `counts_versions` is false.
    pub versions: u64,
    /// Number of delete markers.
    pub delete_markers: u64,
    /// Whether noncurrent versions are included. False when the service refuses to list them.
    pub counts_versions: bool,
    /// Number of pages.
    pub pages: u64,
    /// Time of the request for the first page.
    pub began_at: String,
    /// Time of the last page. `null` before it.
    pub ended_at: Option<String>,
}

impl From<&model::UsageListing> for UsageListing {
    fn from(listing: &model::UsageListing) -> Self {
        Self {
            counted: listing.whole.map(UsageCount::from),
            under_way: listing.under_way.map(UsageCount::from),
            next_run_at: listing.next_run_at.map(timestamp),
            node: listing.node.clone(),
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
