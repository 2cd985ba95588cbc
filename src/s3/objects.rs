//! The calls that write: on canaries of our own, and on nothing else.

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use super::S3Failure;
use crate::model::LockMode;

/// Until when, and how strictly, one version is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How strictly.
    pub mode: LockMode,
    /// Its end, in seconds since 1970.
    pub until: i64,
}

/// What the service tells of one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoredVersion {
    /// Until when it is kept.
    pub retention: Option<Retention>,
    /// When it was stored, by the storage's own clock, in seconds since 1970.
    pub modified: Option<i64>,
}

/// One version in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedVersion {
    /// The object's key.
    pub key: String,
    /// The version; none in a bucket that never kept versions.
    pub version: Option<String>,
    /// When it was made, by the service's clock.
    pub modified: Option<Timestamp>,
}

/// The calls made on the objects of one bucket. Without a version each means the object itself.
#[async_trait]
pub trait ObjectApi: Send + Sync {
    /// PUT of an object, locked if that is asked for. Gives its version, if it has one.
    async fn put(&self, key: &str, content: Bytes, retention: Option<Retention>) -> Result<Option<String>, S3Failure>;

    /// GET of an object.
    async fn get(&self, key: &str, version: Option<&str>) -> Result<Bytes, S3Failure>;

    /// HEAD of an object: it is there, and what the service tells of it.
    async fn head(&self, key: &str, version: Option<&str>) -> Result<StoredVersion, S3Failure>;

    /// DELETE of a version. Gives the service's clock (`Date`) at its answer, in seconds since 1970.
    async fn delete(&self, key: &str, version: Option<&str>, bypass_governance: bool)
    -> Result<Option<i64>, S3Failure>;

    /// The first `limit` versions, or objects where `versioned` is false, whose keys begin so;
    /// delete markers are versions too.
    async fn list(&self, prefix: &str, versioned: bool, limit: u16) -> Result<Vec<ListedVersion>, S3Failure>;
}
