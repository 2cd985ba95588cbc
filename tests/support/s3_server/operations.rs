//! The supported S3 operations. `s3s` answers `NotImplemented` to the others.

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
    ListObjectVersionsOutput, ListObjectsInput, ListObjectsOutput, ListObjectsV2Input, ListObjectsV2Output, Object,
    ObjectLockConfiguration, ObjectLockEnabled, ObjectLockMode, ObjectLockRetainUntilDate, ObjectLockRetentionMode,
    ObjectLockRule, ObjectVersion, PutObjectInput, PutObjectOutput, PutObjectRetentionInput, PutObjectRetentionOutput,
    StreamingBlob,
};
use s3s::{Body, S3, S3Request, S3Response, S3Result, s3_error};

use super::store::{Bucket, OBJECT_MAX_BYTES, Retention, Store, Version};
use super::{LockBehaviour, RetentionMode};

/// Maximum number of keys on a page of a listing (S3 API reference, ListObjectsV2).
const LISTING_MAX_KEYS: i32 = 1000;

const OBJECT_COUNT: HeaderName = HeaderName::from_static("x-rgw-object-count");
const BYTES_USED: HeaderName = HeaderName::from_static("x-rgw-bytes-used");
const QUOTA_BUCKET_SIZE: HeaderName = HeaderName::from_static("x-rgw-quota-bucket-size");

/// Operations on a store.
#[derive(Clone)]
pub struct Operations(Arc<Shared>);

struct Shared {
    store: Mutex<Store>,
    /// Offset of the server's clock from the system's.
    clock_offset: Mutex<Duration>,
    log: Mutex<RequestLog>,
}

/// The requests so far, and the number of their connections.
#[derive(Default)]
struct RequestLog {
    requests: Vec<String>,
    connections: usize,
}

impl Operations {
    pub fn new(store: Store) -> Self {
        Self(Arc::new(Shared { store: Mutex::new(store), clock_offset: Mutex::default(), log: Mutex::default() }))
    }

    pub fn advance_clock(&self, by: Duration) {
        *lock(&self.0.clock_offset) += by;
    }

    pub fn set_lock_behaviour(&self, bucket: &str, behaviour: LockBehaviour) {
        let mut store = self.store();
        if let Some(lock) = store.bucket(bucket).ok().and_then(|bucket| bucket.fixture.object_lock.as_mut()) {
            lock.behaviour = behaviour;
        }
    }

    /// Number of versions in a bucket.
    pub fn stored_versions(&self, bucket: &str) -> u64 {
        self.store().bucket(bucket).map_or(0, |bucket| bucket.stored().0)
    }

    /// Stores an object, or deletes it if there is no content.
    pub fn put_or_delete(&self, bucket: &str, key: &str, content: Option<Bytes>) {
        let mut store = self.store();
        let Ok(bucket) = store.bucket(bucket) else { return };
        // A full bucket stays as it is.
        let _ = match content {
            Some(content) => bucket.put(key.to_owned(), content, None, self.now()).map(|_| ()),
            None => bucket.delete(key, None, false, self.now()).map(|_| ()),
        };
    }

    /// Records a request, which may be the first one of its connection.
    pub fn record_request(&self, request: String, is_first: bool) {
        let mut log = lock(&self.0.log);
        log.requests.push(request);
        log.connections += usize::from(is_first);
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<String> {
        lock(&self.0.log).requests.clone()
    }

    /// Number of connections with at least one request.
    pub fn connections(&self) -> usize {
        lock(&self.0.log).connections
    }

    /// The time by the server's clock.
    pub fn now(&self) -> SystemTime {
        SystemTime::now() + *lock(&self.0.clock_offset)
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
        if lock.behaviour == LockBehaviour::ConfigurationDenied {
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

    async fn list_objects(&self, request: S3Request<ListObjectsInput>) -> S3Result<S3Response<ListObjectsOutput>> {
        let listed = self.list_objects_v2(request.map_input(ListObjectsV2Input::from)).await?;
        Ok(listed.map_output(|listed| ListObjectsOutput {
            contents: listed.contents,
            is_truncated: listed.is_truncated,
            max_keys: listed.max_keys,
            name: listed.name,
            prefix: listed.prefix,
            ..ListObjectsOutput::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        if input.delimiter.is_some() {
            return Err(s3_error!(NotImplemented, "listings with a delimiter are not supported"));
        }
        let limit = input.max_keys.unwrap_or(LISTING_MAX_KEYS).clamp(0, LISTING_MAX_KEYS);
        let prefix = input.prefix.as_deref().unwrap_or_default();
        // The token is the last key of the previous page.
        let after = input.continuation_token.as_deref().or(input.start_after.as_deref()).unwrap_or_default();
        let mut store = self.store();
        let bucket = store.bucket(&input.bucket)?;
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
            name: Some(input.bucket),
            prefix: input.prefix,
            continuation_token: input.continuation_token,
            start_after: input.start_after,
            ..Default::default()
        }))
    }

    async fn list_object_versions(
        &self,
        request: S3Request<ListObjectVersionsInput>,
    ) -> S3Result<S3Response<ListObjectVersionsOutput>> {
        let input = request.input;
        if input.delimiter.is_some() {
            return Err(s3_error!(NotImplemented, "listings with a delimiter are not supported"));
        }
        let limit = input.max_keys.unwrap_or(LISTING_MAX_KEYS).clamp(0, LISTING_MAX_KEYS);
        let prefix = input.prefix.as_deref().unwrap_or_default();
        let mut store = self.store();
        let bucket = store.bucket(&input.bucket)?;
        let limit = bucket.page_limit(limit);
        let (key_marker, version_id_marker) = (input.key_marker.as_deref(), input.version_id_marker.as_deref());
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
            name: Some(input.bucket),
            prefix: input.prefix,
            ..Default::default()
        }))
    }

    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = request.input;
        let retention = retention(input.object_lock_mode.as_ref(), input.object_lock_retain_until_date)?;
        let content = read(input.body).await?;
        let mut store = self.store();
        let bucket = store.bucket(&input.bucket)?;
        let version = bucket.put(input.key, content, retention, self.now())?;
        let version_id = bucket.is_versioned().then(|| version.id.clone());
        Ok(S3Response::new(PutObjectOutput { e_tag: Some(entity_tag(&version)), version_id, ..Default::default() }))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        if input.range.is_some() {
            return Err(s3_error!(NotImplemented, "ranges are not supported"));
        }
        let mut store = self.store();
        let bucket = store.bucket(&input.bucket)?;
        let version = bucket.get(&input.key, input.version_id.as_deref())?;
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
        let input = request.input;
        let mut store = self.store();
        let bucket = store.bucket(&input.bucket)?;
        let version = bucket.get(&input.key, input.version_id.as_deref())?;
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
        let input = request.input;
        let bypass = input.bypass_governance_retention.unwrap_or_default();
        let mut store = self.store();
        let bucket = store.bucket(&input.bucket)?;
        let deletion = bucket.delete(&input.key, input.version_id.as_deref(), bypass, self.now())?;
        Ok(S3Response::new(DeleteObjectOutput {
            delete_marker: deletion.is_marker.then_some(true),
            version_id: deletion.version,
            ..Default::default()
        }))
    }

    async fn put_object_retention(
        &self,
        request: S3Request<PutObjectRetentionInput>,
    ) -> S3Result<S3Response<PutObjectRetentionOutput>> {
        let input = request.input;
        let (mode, until) =
            input.retention.map(|element| (element.mode, element.retain_until_date)).unwrap_or_default();
        let mode = mode.map(|mode| ObjectLockMode::from(mode.as_str().to_owned()));
        let retention = retention(mode.as_ref(), until)?;
        let bypass = input.bypass_governance_retention.unwrap_or_default();
        let mut store = self.store();
        let bucket = store.bucket(&input.bucket)?;
        bucket.change_retention(&input.key, input.version_id.as_deref(), retention, bypass, self.now())?;
        Ok(S3Response::new(PutObjectRetentionOutput::default()))
    }
}

/// The usage that Ceph reports to the owner of a bucket. A quota of −1 means no limit.
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

/// The retention that a PUT requests.
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

/// The ETag, which is opaque to clients (RFC 9110 §8.8.3). A version never changes, so its id and time identify it.
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
            return Err(s3_error!(EntityTooLarge, "an object has at most {OBJECT_MAX_BYTES} bytes"));
        }
        content.extend_from_slice(&part);
    }
    Ok(content.freeze())
}
