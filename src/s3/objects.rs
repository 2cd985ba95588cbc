//! Calls on objects. The agent writes and deletes only its own canaries.

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use super::failure::S3Failure;
use crate::model::LockMode;

/// Retention of one version: its lock mode and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Lock mode.
    pub mode: LockMode,
    /// End of the retention, in seconds since 1970.
    pub until: i64,
}

/// Metadata of one version, from HEAD object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoredVersion {
    /// Version ID, if the service named one.
    pub version: Option<String>,
    /// Retention, if the version is locked.
    pub retention: Option<Retention>,
    /// When the version was stored, by the service's clock, in seconds since 1970.
    pub modified: Option<i64>,
}

/// One version in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedVersion {
    /// Key of the object.
    pub key: String,
    /// Version ID. None in a bucket that was never versioned.
    pub version: Option<String>,
    /// Time of the last change, by the service's clock.
    pub modified: Option<Timestamp>,
}

/// Calls on the objects of one bucket. Without a version, a call concerns the current object.
#[async_trait]
pub trait ObjectApi: Send + Sync {
    /// PUT object, with the headers of the configuration. The object is locked if a retention is given. Returns the
    /// version ID if the bucket is versioned.
    async fn put(&self, key: &str, content: Bytes, retention: Option<Retention>) -> Result<Option<String>, S3Failure>;

    /// Like [`Self::put`], with a digest that does not match the content. Services check the permission first, then
    /// refuse the digest, and store nothing (S3 API reference, `BadDigest`). A service that does not check digests
    /// stores the object.
    async fn put_with_wrong_digest(
        &self,
        key: &str,
        content: Bytes,
        retention: Option<Retention>,
    ) -> Result<Option<String>, S3Failure>;

    /// Starts a multipart upload of an object, with the headers of the configuration. The object would be locked if a
    /// retention is given. Returns the ID of the upload. It needs the same permission as a PUT (S3 API reference,
    /// `CreateMultipartUpload`), and stores no object.
    async fn create_upload(&self, key: &str, retention: Option<Retention>) -> Result<String, S3Failure>;

    /// Uploads the only part of a multipart upload. It becomes an object only when the upload is completed.
    async fn upload_part(&self, key: &str, upload: &str, content: Bytes) -> Result<(), S3Failure>;

    /// Ends a multipart upload without storing an object.
    async fn abort_upload(&self, key: &str, upload: &str) -> Result<(), S3Failure>;

    /// Lists the IDs of multipart uploads of an object that have not ended.
    async fn uploads(&self, key: &str) -> Result<Vec<String>, S3Failure>;

    /// GET object.
    async fn get(&self, key: &str, version: Option<&str>) -> Result<Bytes, S3Failure>;

    /// HEAD object: proves that it exists. Returns its metadata.
    async fn head(&self, key: &str, version: Option<&str>) -> Result<StoredVersion, S3Failure>;

    /// DELETE object. Returns the service's time (`Date`) of the answer, in seconds since 1970.
    async fn delete(&self, key: &str, version: Option<&str>, bypass_governance: bool)
    -> Result<Option<i64>, S3Failure>;

    /// PUT object retention: replaces the retention of a version, or removes it. Returns the service's time
    /// (`Date`) of the answer, in seconds since 1970.
    async fn put_retention(
        &self,
        key: &str,
        version: Option<&str>,
        retention: Option<Retention>,
        bypass_governance: bool,
    ) -> Result<Option<i64>, S3Failure>;

    /// Lists the first `limit` versions below a prefix, delete markers included. Lists objects instead if
    /// `versioned` is false.
    async fn list(&self, prefix: &str, versioned: bool, limit: u16) -> Result<Vec<ListedVersion>, S3Failure>;
}
