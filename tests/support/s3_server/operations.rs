//! The S3 operations that are served; `s3s` answers `NotImplemented` to the others.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue};
use s3s::dto::{
    BucketVersioningStatus, DefaultRetention, DeleteMarkerEntry, DeleteObjectInput, DeleteObjectOutput, ETag,
    GetBucketLocationInput, GetBucketLocationOutput, GetBucketVersioningInput, GetBucketVersioningOutput,
    GetObjectInput, GetObjectLockConfigurationInput, GetObjectLockConfigurationOutput, GetObjectOutput,
    HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListObjectVersionsInput,
    ListObjectVersionsOutput, ListObjectsV2Input, ListObjectsV2Output, Object, ObjectLockConfiguration,
    ObjectLockEnabled, ObjectLockMode, ObjectLockRetainUntilDate, ObjectLockRetentionMode, ObjectLockRule,
    ObjectVersion, PutObjectInput, PutObjectOutput, StreamingBlob,
};
use s3s::{Body, S3, S3Request, S3Response, S3Result, s3_error};

use super::store::{Bucket, OBJECT_MAX_BYTES, Retention, Store, Version};
use super::{LockConduct, RetentionMode};

/// How many keys a listing has at most (S3 API reference, ListObjectsV2).
const LISTING_MAX_KEYS: i32 = 1000;

const OBJECT_COUNT: HeaderName = HeaderName::from_static("x-rgw-object-count");
const BYTES_USED: HeaderName = HeaderName::from_static("x-rgw-bytes-used");
const QUOTA_BUCKET_SIZE: HeaderName = HeaderName::from_static("x-rgw-quota-bucket-size");

/// Operations on a store.
#[derive(Clone)]
pub struct Operations(Arc<Shared>);

struct Shared {
    store: Mutex<Store>,
    /// How far the clock of retention is ahead of the system's.
    ahead: Mutex<Duration>,
    asked: Mutex<Asked>,
}

/// What was asked.
#[derive(Default)]
struct Asked {
    requests: Vec<String>,
    connections: usize,
}

impl Operations {
    pub fn new(store: Store) -> Self {
        Self(Arc::new(Shared { store: Mutex::new(store), ahead: Mutex::new(Duration::ZERO), asked: Mutex::default() }))
    }

    pub fn advance_clock(&self, by: Duration) {
        *lock(&self.0.ahead) += by;
    }

    pub fn set_conduct(&self, bucket: &str, conduct: LockConduct) {
        let mut store = self.store();
        if let Some(lock) = store.bucket(bucket).ok().and_then(|bucket| bucket.fixture.object_lock.as_mut()) {
            lock.conduct = conduct;
        }
    }

    /// How many versions a bucket holds.
    pub fn stored_versions(&self, bucket: &str) -> u64 {
        self.store().bucket(bucket).map_or(0, |bucket| bucket.stored().0)
    }

    /// Stores an object, or hides it where there is no content.
    pub fn change(&self, bucket: &str, key: &str, content: Option<Bytes>) {
        let mut store = self.store();
        let Ok(bucket) = store.bucket(bucket) else { return };
        let _full = match content {
            Some(content) => bucket.put(key.to_owned(), content, None, self.now()).map(|_| ()),
            None => bucket.delete(key, None, false, self.now()).map(|_| ()),
        };
    }

    /// Notes a request, which may be the first one of its connection.
    pub fn note(&self, request: String, is_first: bool) {
        let mut asked = lock(&self.0.asked);
        asked.requests.push(request);
        asked.connections += usize::from(is_first);
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<String> {
        lock(&self.0.asked).requests.clone()
    }

    /// How many connections have had a request.
    pub fn connections(&self) -> usize {
        lock(&self.0.asked).connections
    }

    /// The time, as far as it was let pass.
    pub fn now(&self) -> SystemTime {
        SystemTime::now() + *lock(&self.0.ahead)
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        lock(&self.0.store)
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait::async_trait]
impl S3 for Operations {
    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        let headers = usage_headers(self.store().bucket(&request.input.bucket)?);
        Ok(S3Response::with_headers(HeadBucketOutput::default(), headers))
    }

    async fn get_bucket_location(
        &self,
        request: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.store().bucket(&request.input.bucket)?;
        Ok(S3Response::new(GetBucketLocationOutput::default()))
    }

    async fn get_bucket_versioning(
        &self,
        request: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        let is_versioned = self.store().bucket(&request.input.bucket)?.is_versioned();
        let status = is_versioned.then(|| BucketVersioningStatus::from_static(BucketVersioningStatus::ENABLED));
        Ok(S3Response::new(GetBucketVersioningOutput { status, ..Default::default() }))
    }

    async fn get_object_lock_configuration(
        &self,
        request: S3Request<GetObjectLockConfigurationInput>,
    ) -> S3Result<S3Response<GetObjectLockConfigurationOutput>> {
        let Some(lock) = self.store().bucket(&request.input.bucket)?.fixture.object_lock else {
            return Err(s3_error!(
                ObjectLockConfigurationNotFoundError,
                "Object Lock configuration does not exist for this bucket"
            ));
        };
        if lock.conduct == LockConduct::Untold {
            return Err(s3_error!(AccessDenied, "s3:GetBucketObjectLockConfiguration"));
        }
        let rule = lock.default_retention.map(|retention| ObjectLockRule {
            default_retention: Some(DefaultRetention {
                days: Some(retention.days.into()),
                mode: Some(ObjectLockRetentionMode::from_static(mode_name(retention.mode))),
                years: None,
            }),
        });
        let enabled = Some(ObjectLockEnabled::from_static(ObjectLockEnabled::ENABLED));
        Ok(S3Response::new(GetObjectLockConfigurationOutput {
            object_lock_configuration: Some(ObjectLockConfiguration { object_lock_enabled: enabled, rule }),
        }))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let asked = request.input;
        if asked.delimiter.is_some() {
            return Err(s3_error!(NotImplemented, "a listing with delimiter is not served"));
        }
        let limit = asked.max_keys.unwrap_or(LISTING_MAX_KEYS).clamp(0, LISTING_MAX_KEYS);
        let prefix = asked.prefix.as_deref().unwrap_or_default();
        // The token is the last key of the listing before.
        let after = asked.continuation_token.as_deref().or(asked.start_after.as_deref()).unwrap_or_default();
        let mut store = self.store();
        let bucket = store.bucket(&asked.bucket)?;
        let limit = bucket.page_limit(limit);
        let mut found = bucket.current().filter(|(key, ..)| key.starts_with(prefix) && *key > after);
        let contents: Vec<Object> = found.by_ref().take(limit.unsigned_abs() as usize).map(listed).collect();
        let is_truncated = limit > 0 && found.next().is_some();
        let last = contents.last().and_then(|object| object.key.clone());
        Ok(S3Response::new(ListObjectsV2Output {
            key_count: i32::try_from(contents.len()).ok(),
            contents: Some(contents),
            is_truncated: Some(is_truncated),
            next_continuation_token: last.filter(|_| is_truncated),
            max_keys: Some(limit),
            name: Some(asked.bucket),
            prefix: asked.prefix,
            continuation_token: asked.continuation_token,
            start_after: asked.start_after,
            ..Default::default()
        }))
    }

    async fn list_object_versions(
        &self,
        request: S3Request<ListObjectVersionsInput>,
    ) -> S3Result<S3Response<ListObjectVersionsOutput>> {
        let asked = request.input;
        if asked.delimiter.is_some() {
            return Err(s3_error!(NotImplemented, "a listing with delimiter is not served"));
        }
        let limit = asked.max_keys.unwrap_or(LISTING_MAX_KEYS).clamp(0, LISTING_MAX_KEYS);
        let prefix = asked.prefix.as_deref().unwrap_or_default();
        let mut store = self.store();
        let bucket = store.bucket(&asked.bucket)?;
        let limit = bucket.page_limit(limit);
        let (key_marker, version_id_marker) = (asked.key_marker.as_deref(), asked.version_id_marker.as_deref());
        let mut found = bucket.versions_after(key_marker, version_id_marker).filter(|(key, _)| key.starts_with(prefix));
        let (mut versions, mut markers, mut last) = (Vec::new(), Vec::new(), None);
        for (key, version) in found.by_ref().take(limit.unsigned_abs() as usize) {
            last = Some((key.to_owned(), version.id.clone()));
            let (key, id, modified) = (key.to_owned(), version.id.clone(), version.modified.into());
            match &version.content {
                Some(content) => versions.push(ObjectVersion {
                    key: Some(key),
                    version_id: Some(id),
                    last_modified: Some(modified),
                    size: i64::try_from(content.len()).ok(),
                    e_tag: Some(entity_tag(version)),
                    ..Default::default()
                }),
                None => markers.push(DeleteMarkerEntry {
                    key: Some(key),
                    version_id: Some(id),
                    last_modified: Some(modified),
                    ..Default::default()
                }),
            }
        }
        let is_truncated = limit > 0 && found.next().is_some();
        let (next_key_marker, next_version_id_marker) = last.filter(|_| is_truncated).unzip();
        Ok(S3Response::new(ListObjectVersionsOutput {
            versions: Some(versions),
            delete_markers: Some(markers),
            is_truncated: Some(is_truncated),
            next_key_marker,
            next_version_id_marker,
            max_keys: Some(limit),
            name: Some(asked.bucket),
            prefix: asked.prefix,
            ..Default::default()
        }))
    }

    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let asked = request.input;
        let retention = retention(asked.object_lock_mode.as_ref(), asked.object_lock_retain_until_date)?;
        let content = read(asked.body).await?;
        let mut store = self.store();
        let bucket = store.bucket(&asked.bucket)?;
        let version = bucket.put(asked.key, content, retention, self.now())?;
        let version_id = bucket.is_versioned().then(|| version.id.clone());
        Ok(S3Response::new(PutObjectOutput { e_tag: Some(entity_tag(&version)), version_id, ..Default::default() }))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let asked = request.input;
        if asked.range.is_some() {
            return Err(s3_error!(NotImplemented, "parts of an object are not served"));
        }
        let mut store = self.store();
        let bucket = store.bucket(&asked.bucket)?;
        let version = bucket.get(&asked.key, asked.version_id.as_deref())?;
        let content = version.content.clone().unwrap_or_default();
        Ok(S3Response::new(GetObjectOutput {
            content_length: i64::try_from(content.len()).ok(),
            body: Some(StreamingBlob::from(Body::from(content))),
            e_tag: Some(entity_tag(version)),
            last_modified: Some(version.modified.into()),
            object_lock_mode: version.retention.as_ref().map(lock_mode),
            object_lock_retain_until_date: version.retention.as_ref().map(|retention| retention.until.clone()),
            version_id: bucket.is_versioned().then(|| version.id.clone()),
            ..Default::default()
        }))
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let asked = request.input;
        let mut store = self.store();
        let bucket = store.bucket(&asked.bucket)?;
        let version = bucket.get(&asked.key, asked.version_id.as_deref())?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: version.content.as_ref().and_then(|content| i64::try_from(content.len()).ok()),
            e_tag: Some(entity_tag(version)),
            last_modified: Some(version.modified.into()),
            object_lock_mode: version.retention.as_ref().map(lock_mode),
            object_lock_retain_until_date: version.retention.as_ref().map(|retention| retention.until.clone()),
            version_id: bucket.is_versioned().then(|| version.id.clone()),
            ..Default::default()
        }))
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let asked = request.input;
        let bypass = asked.bypass_governance_retention.unwrap_or_default();
        let mut store = self.store();
        let done = store.bucket(&asked.bucket)?.delete(&asked.key, asked.version_id.as_deref(), bypass, self.now())?;
        Ok(S3Response::new(DeleteObjectOutput {
            delete_marker: done.is_marker.then_some(true),
            version_id: done.version,
            ..Default::default()
        }))
    }
}

/// What Ceph tells the owner of a bucket; a quota of −1 is no limit.
fn usage_headers(bucket: &Bucket) -> HeaderMap {
    let Some(usage) = bucket.fixture.usage else { return HeaderMap::new() };
    let (count, bytes) = bucket.stored();
    let quota = usage.quota_bytes.map_or_else(|| HeaderValue::from(-1), HeaderValue::from);
    HeaderMap::from_iter([
        (OBJECT_COUNT, HeaderValue::from(usage.object_count + count)),
        (BYTES_USED, HeaderValue::from(usage.used_bytes + bytes)),
        (QUOTA_BUCKET_SIZE, quota),
    ])
}

fn listed((key, version, length): (&str, &Version, usize)) -> Object {
    Object {
        key: Some(key.to_owned()),
        size: i64::try_from(length).ok(),
        e_tag: Some(entity_tag(version)),
        last_modified: Some(version.modified.into()),
        ..Default::default()
    }
}

/// The retention that a PUT asks for.
fn retention(mode: Option<&ObjectLockMode>, until: Option<ObjectLockRetainUntilDate>) -> S3Result<Option<Retention>> {
    let (mode, until) = match (mode, until) {
        (None, None) => return Ok(None),
        (Some(mode), Some(until)) => (mode, until),
        _ => return Err(s3_error!(InvalidArgument, "object lock mode and retain until date go together")),
    };
    let mode = match mode.as_str() {
        ObjectLockMode::COMPLIANCE => RetentionMode::Compliance,
        ObjectLockMode::GOVERNANCE => RetentionMode::Governance,
        _ => return Err(s3_error!(InvalidArgument, "object lock mode is neither COMPLIANCE nor GOVERNANCE")),
    };
    Ok(Some(Retention { mode, until }))
}

fn mode_name(mode: RetentionMode) -> &'static str {
    match mode {
        RetentionMode::Compliance => ObjectLockMode::COMPLIANCE,
        RetentionMode::Governance => ObjectLockMode::GOVERNANCE,
    }
}

fn lock_mode(retention: &Retention) -> ObjectLockMode {
    ObjectLockMode::from_static(mode_name(retention.mode))
}

/// Opaque to clients (RFC 9110 §8.8.3); a version never changes, so its id will do.
fn entity_tag(version: &Version) -> ETag {
    let nanoseconds = version.modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    ETag::Strong(format!("{}-{nanoseconds:x}", version.id))
}

async fn read(body: Option<StreamingBlob>) -> S3Result<Bytes> {
    let mut content = BytesMut::new();
    let Some(mut body) = body else { return Ok(content.freeze()) };
    while let Some(part) = body.next().await {
        let part = part.map_err(|error| s3_error!(IncompleteBody, "{error}"))?;
        if content.len() + part.len() > OBJECT_MAX_BYTES {
            return Err(s3_error!(EntityTooLarge, "objects of up to {OBJECT_MAX_BYTES} bytes are kept"));
        }
        content.extend_from_slice(&part);
    }
    Ok(content.freeze())
}
