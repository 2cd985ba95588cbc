//! Buckets, objects and versions in memory, and the rules of retention.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use s3s::dto::Timestamp;
use s3s::{S3Error, S3Result, s3_error};
use uuid::Uuid;

use super::{BucketFixture, LockBehaviour, RetentionMode};

/// Maximum size of an object, in bytes.
pub const OBJECT_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Maximum number of versions in a bucket, including delete markers.
const VERSIONS_MAX: usize = 10_000;

/// The version id of objects in a bucket without versioning.
const NULL_VERSION: &str = "null";

const SECONDS_PER_DAY: u64 = 24 * 60 * 60;

/// All buckets by name.
pub struct Store {
    buckets: BTreeMap<String, Bucket>,
}

/// A bucket and the versions of each key, oldest first.
pub struct Bucket {
    /// Its configuration.
    pub fixture: BucketFixture,
    objects: BTreeMap<String, Vec<Version>>,
}

/// One version of an object.
#[derive(Debug, Clone)]
pub struct Version {
    /// The version id.
    pub id: String,
    /// The time of its PUT.
    pub modified: SystemTime,
    /// Its object lock, if it has one.
    pub retention: Option<Retention>,
    /// Its bytes, or `None` in a delete marker.
    pub content: Option<Bytes>,
}

/// The object lock of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// Whether a client may end it early.
    pub mode: RetentionMode,
    /// The end of the lock.
    pub until: Timestamp,
}

/// The result of a DELETE.
pub struct Deletion {
    /// The version that was removed, or the delete marker that was created.
    pub version: Option<String>,
    /// Whether `version` is a delete marker.
    pub is_marker: bool,
}

impl Store {
    pub fn new(buckets: Vec<BucketFixture>) -> Self {
        let bucket = |fixture: BucketFixture| (fixture.name.clone(), Bucket { fixture, objects: BTreeMap::new() });
        Self { buckets: buckets.into_iter().map(bucket).collect() }
    }

    /// # Errors
    /// `NoSuchBucket`.
    pub fn bucket(&mut self, name: &str) -> S3Result<&mut Bucket> {
        self.buckets.get_mut(name).ok_or_else(|| s3_error!(NoSuchBucket, "The specified bucket does not exist."))
    }
}

impl Bucket {
    /// Whether each PUT creates a version.
    pub fn is_versioned(&self) -> bool {
        self.fixture.versioning || self.fixture.object_lock.is_some()
    }

    /// Stores an object and returns its version. Without a retention it gets the default retention of the bucket.
    ///
    /// # Errors
    /// `InvalidRequest` for a retention in a bucket without object lock, `InvalidArgument` for one in the past.
    pub fn put(
        &mut self,
        key: String,
        content: Bytes,
        retention: Option<Retention>,
        modified: SystemTime,
    ) -> S3Result<Version> {
        let retention = match (retention, self.fixture.object_lock) {
            (Some(_), None) => return Err(s3_error!(InvalidRequest, "bucket object lock not configured")),
            (Some(requested), Some(_)) if requested.until <= modified.into() => {
                return Err(s3_error!(InvalidArgument, "the retain until date must be in the future"));
            }
            (Some(requested), Some(lock)) if lock.behaviour != LockBehaviour::DefaultRetentionOnly => Some(requested),
            (_, lock) => lock.and_then(|lock| lock.default_retention).map(|default| Retention {
                mode: default.mode,
                until: (modified + Duration::from_secs(u64::from(default.days) * SECONDS_PER_DAY)).into(),
            }),
        };
        let version = Version { id: self.new_version_id(), modified, retention, content: Some(content) };
        self.add(key, version.clone())?;
        Ok(version)
    }

    /// The version of an object with this id, or the current version.
    ///
    /// # Errors
    /// `NoSuchKey`, also if the current version is a delete marker. `NoSuchVersion`. `MethodNotAllowed` for the id of
    /// a delete marker.
    pub fn get(&self, key: &str, id: Option<&str>) -> S3Result<&Version> {
        let versions = self.objects.get(key).map(Vec::as_slice).unwrap_or_default();
        match id {
            None => versions.last().filter(|found| found.content.is_some()).ok_or_else(no_such_key),
            Some(id) => match versions.iter().find(|found| found.id == id) {
                None => Err(s3_error!(NoSuchVersion, "The specified version does not exist.")),
                Some(marker) if marker.content.is_none() => {
                    Err(s3_error!(MethodNotAllowed, "The specified version is a delete marker."))
                }
                Some(found) => Ok(found),
            },
        }
    }

    /// Removes the version with this id. Without an id, deletes the object, which keeps the versions of a versioned
    /// bucket.
    ///
    /// # Errors
    /// `AccessDenied` while the version is locked. `bypass_governance` has no effect in COMPLIANCE mode.
    pub fn delete(
        &mut self,
        key: &str,
        id: Option<&str>,
        bypass_governance: bool,
        now: SystemTime,
    ) -> S3Result<Deletion> {
        let Some(id) = id else { return self.delete_current(key, now) };
        let Some(versions) = self.objects.get_mut(key) else { return Ok(Deletion::nothing(id)) };
        let Some(at) = versions.iter().position(|version| version.id == id) else { return Ok(Deletion::nothing(id)) };
        let is_locked = versions[at].retention.as_ref().is_some_and(|retention| {
            let may_end_early = retention.mode == RetentionMode::Governance && bypass_governance;
            retention.until > now.into() && !may_end_early
        });
        let is_enforced = self.fixture.object_lock.is_some_and(|lock| lock.behaviour != LockBehaviour::NotEnforced);
        if is_locked && is_enforced {
            return Err(s3_error!(AccessDenied, "forbidden by object lock"));
        }
        let removed = versions.remove(at);
        if versions.is_empty() {
            self.objects.remove(key);
        }
        Ok(Deletion { version: Some(removed.id), is_marker: removed.content.is_none() })
    }

    /// Replaces the retention of a version, or removes it.
    ///
    /// # Errors
    /// `AccessDenied` for a weaker retention while the version is locked. `bypass_governance` has no effect in
    /// COMPLIANCE mode.
    pub fn change_retention(
        &mut self,
        key: &str,
        id: Option<&str>,
        retention: Option<Retention>,
        bypass_governance: bool,
        now: SystemTime,
    ) -> S3Result<()> {
        let behaviour = self.fixture.object_lock.map(|lock| lock.behaviour).unwrap_or_default();
        let versions = self.objects.get_mut(key).map(Vec::as_mut_slice).unwrap_or_default();
        let found = versions.iter_mut().find(|version| id.is_none_or(|id| version.id == id));
        let version = found.ok_or_else(no_such_key)?;
        if let Some(old) = version.retention.as_ref().filter(|old| old.until > now.into()) {
            let is_weaker = retention.as_ref().is_none_or(|new| {
                new.until < old.until || (old.mode, new.mode) == (RetentionMode::Compliance, RetentionMode::Governance)
            });
            let may_weaken = old.mode == RetentionMode::Governance && bypass_governance;
            if is_weaker && !may_weaken && behaviour != LockBehaviour::Weakenable {
                return Err(s3_error!(AccessDenied, "forbidden by object lock"));
            }
        }
        version.retention = retention;
        Ok(())
    }

    fn delete_current(&mut self, key: &str, now: SystemTime) -> S3Result<Deletion> {
        if !self.is_versioned() {
            self.objects.remove(key);
            return Ok(Deletion { version: None, is_marker: false });
        }
        let id = self.new_version_id();
        let marker = Version { id: id.clone(), modified: now, retention: None, content: None };
        self.add(key.to_owned(), marker)?;
        Ok(Deletion { version: Some(id), is_marker: true })
    }

    /// Maximum number of entries on a page of a listing, for the number that the client requested.
    pub fn page_limit(&self, requested: i32) -> i32 {
        self.fixture.page_max.map_or(requested, |most| requested.min(most.into()))
    }

    /// Keys in order with their current versions, as in a listing of objects.
    pub fn current(&self) -> impl Iterator<Item = (&str, &Version, usize)> {
        self.objects.iter().filter_map(|(key, versions)| {
            let version = versions.last()?;
            Some((key.as_str(), version, version.content.as_ref()?.len()))
        })
    }

    /// All versions including delete markers: keys in order, and the latest version of each key first.
    pub fn versions(&self) -> impl Iterator<Item = (&str, &Version)> {
        self.objects.iter().flat_map(|(key, versions)| versions.iter().rev().map(|version| (key.as_str(), version)))
    }

    /// The versions in a listing after a version of a key, or after all versions of the key (S3 API reference,
    /// ListObjectVersions).
    pub fn versions_after(&self, key: Option<&str>, id: Option<&str>) -> impl Iterator<Item = (&str, &Version)> {
        let mut is_after = id.is_none();
        self.versions().filter(move |(found, version)| match key.map(|key| (*found).cmp(key)) {
            None | Some(Ordering::Greater) => true,
            Some(Ordering::Less) => false,
            Some(Ordering::Equal) => {
                let is_listed = is_after && id.is_some();
                is_after |= id == Some(&version.id);
                is_listed
            }
        })
    }

    /// Number and size of the stored versions, in bytes.
    pub fn stored(&self) -> (u64, u64) {
        let contents = self.objects.values().flatten().filter_map(|version| version.content.as_ref());
        contents.fold((0, 0), |(count, bytes), content| (count + 1, bytes + content.len() as u64))
    }

    fn new_version_id(&self) -> String {
        if self.is_versioned() { Uuid::new_v4().simple().to_string() } else { NULL_VERSION.to_owned() }
    }

    fn add(&mut self, key: String, version: Version) -> S3Result<()> {
        if self.objects.values().map(Vec::len).sum::<usize>() >= VERSIONS_MAX {
            return Err(s3_error!(SlowDown, "this bucket is in memory and holds at most {VERSIONS_MAX} versions"));
        }
        let is_versioned = self.is_versioned();
        let versions = self.objects.entry(key).or_default();
        if !is_versioned {
            versions.clear();
        }
        versions.push(version);
        Ok(())
    }
}

impl Deletion {
    /// Deleting a missing version succeeds (S3 API reference, DeleteObject).
    fn nothing(id: &str) -> Self {
        Self { version: Some(id.to_owned()), is_marker: false }
    }
}

fn no_such_key() -> S3Error {
    s3_error!(NoSuchKey, "The specified key does not exist.")
}
