//! Record of the agent's canary objects in a bucket that it cannot list.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Memory of the canaries of one target. It survives a restart of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CanaryRecord {
    /// The canary that may remain in the bucket.
    pub leftover: Option<CanaryLeftover>,
    /// Whether the credentials read the latest canary back. If so, a refused HEAD means that the object does not
    /// exist (S3 API reference, HeadObject: 403 without `s3:ListBucket`).
    pub is_readable: bool,
    /// Whether the service stored an object whose digest was wrong.
    pub ignores_digest: bool,
}

/// A canary that may remain in a bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryLeftover {
    /// Key of the object.
    pub key: String,
    /// Requested end of the retention, in seconds since 1970. 0 without a retention.
    pub until: i64,
    /// Version, if the service named one. `None` while the answer to the PUT is missing, unless the PUT replaces an
    /// object whose version is known to be `null`.
    pub version: Option<String>,
    /// When the service accepted the PUT, by this host's clock. `None` while the answer is missing.
    pub written_at: Option<Timestamp>,
}
