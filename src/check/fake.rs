//! Fake buckets: one with answers of the test, and one that stores objects.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use crate::model::{LockMode, S3Location};
use crate::s3::{
    BucketApi, BucketUsage, DefaultRetention, Entries, ListedPage, ListedVersion, ObjectApi, ObjectLock, PageMarker,
    Retention, RetentionLength, S3Failure, StoredVersion, Versioning,
};

const ONE_DAY: DefaultRetention = DefaultRetention { mode: LockMode::Governance, length: RetentionLength::Days(1) };

/// Bucket that gives the answers of the test, or none.
#[derive(Debug)]
pub struct FakeBucket {
    pub head: Result<BucketUsage, S3Failure>,
    pub location: Result<(), S3Failure>,
    pub list: Result<(), S3Failure>,
    pub versioning: Result<Versioning, S3Failure>,
    pub object_lock: Result<ObjectLock, S3Failure>,
    pub silent: bool,
    /// Next pages, and the markers of the requested ones.
    pub pages: Mutex<VecDeque<Result<ListedPage, S3Failure>>>,
    pub asked: Mutex<Vec<(Entries, Option<PageMarker>)>>,
}

impl FakeBucket {
    pub fn healthy() -> Self {
        Self {
            head: Ok(BucketUsage::default()),
            location: Ok(()),
            list: Ok(()),
            versioning: Ok(Versioning::Enabled),
            object_lock: Ok(ObjectLock { enabled: Some(true), default_retention: Some(ONE_DAY) }),
            silent: false,
            pages: Mutex::default(),
            asked: Mutex::default(),
        }
    }

    pub fn location(&self) -> S3Location {
        S3Location::parse("https://s3.example.com/backups").expect("a location")
    }

    /// A healthy bucket with these pages.
    pub fn with_pages(pages: impl IntoIterator<Item = Result<ListedPage, S3Failure>>) -> Self {
        Self { pages: Mutex::new(pages.into_iter().collect()), ..Self::healthy() }
    }

    /// Markers of the requested pages.
    pub fn asked(&self) -> Vec<(Entries, Option<PageMarker>)> {
        lock(&self.asked).clone()
    }

    async fn answer<T: Clone>(&self, answer: &Result<T, S3Failure>) -> Result<T, S3Failure> {
        if self.silent {
            std::future::pending::<()>().await;
        }
        answer.clone()
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl BucketApi for FakeBucket {
    async fn head_bucket(&self) -> Result<BucketUsage, S3Failure> {
        self.answer(&self.head).await
    }

    async fn bucket_location(&self) -> Result<(), S3Failure> {
        self.answer(&self.location).await
    }

    async fn list_below(&self, _: &str) -> Result<(), S3Failure> {
        self.answer(&self.list).await
    }

    async fn versioning(&self) -> Result<Versioning, S3Failure> {
        self.answer(&self.versioning).await
    }

    async fn object_lock(&self) -> Result<ObjectLock, S3Failure> {
        self.answer(&self.object_lock).await
    }

    async fn page(&self, entries: Entries, after: Option<&PageMarker>) -> Result<ListedPage, S3Failure> {
        lock(&self.asked).push((entries, after.cloned()));
        let next = lock(&self.pages).pop_front();
        match next {
            Some(page) if !self.silent => page,
            _ => std::future::pending().await,
        }
    }
}

/// Bucket that stores objects, with faults on demand.
#[derive(Debug, Default)]
pub struct FakeObjects {
    pub objects: Mutex<Vec<(String, Bytes, Option<Retention>)>>,
    /// Whether a PUT of the same key adds an object instead of replacing it.
    pub versioned: bool,
    pub garbles: bool,
    pub loses: bool,
    pub refuses_put: bool,
    /// Refuses HEAD as well, as services do.
    pub refuses_get: bool,
    /// Stores an object whose digest is wrong.
    pub ignores_digest: bool,
    /// Stores an object and answers 500.
    pub stores_and_fails: bool,
    /// Answers 500 to a PUT, and stores the object at [`FakeObjects::apply_late`].
    pub is_late: bool,
    pub late: Mutex<Vec<(String, Bytes, Option<Retention>)>>,
    /// Content that a late PUT stores after the next PUT.
    pub overwritten_once: Mutex<Option<Bytes>>,
    /// Stores objects without the requested retention.
    pub ignores_retention: bool,
    pub refuses_delete: bool,
    pub refuses_list: bool,
    /// Failure of each start of a multipart upload.
    pub upload_failure: Option<S3Failure>,
    /// Failure of each part of a multipart upload.
    pub part_failure: Option<S3Failure>,
    /// Refuses each PUT and upload without a retention.
    pub demands_retention: bool,
    pub refuses_abort: bool,
    /// Multipart uploads: keys and IDs.
    pub unfinished: Mutex<Vec<(String, String)>>,
    /// Number of started uploads.
    pub uploads_started: AtomicUsize,
    /// Answers a listing of versions with 501.
    pub lists_no_versions: bool,
    /// Answers no request.
    pub is_silent: bool,
    /// Failure of each listing.
    pub list_failure: Option<S3Failure>,
    /// Failure of each listing of versions.
    pub versions_failure: Option<S3Failure>,
    /// Accepted changes of a retention, each with or without bypass.
    pub weakened_by: Vec<(Weakening, bool)>,
    /// Number of seconds that it locks longer than requested.
    pub locks_longer: i64,
    /// Number of seconds that the clock of its storage is behind.
    pub is_behind: i64,
    /// Whether it returns no version ID.
    pub names_no_version: bool,
    /// Number of PUTs.
    pub puts: AtomicUsize,
    /// Version of each DELETE.
    pub deleted: Mutex<Vec<Option<String>>>,
    /// Failures of the next PUTs, GETs and DELETEs.
    pub next_puts: Mutex<VecDeque<S3Failure>>,
    pub next_gets: Mutex<VecDeque<S3Failure>>,
    /// Failures of the next PUTs with a wrong digest.
    pub next_trials: Mutex<VecDeque<S3Failure>>,
    pub next_deletes: Mutex<VecDeque<S3Failure>>,
}

impl FakeObjects {
    pub fn keys(&self) -> Vec<String> {
        self.locked().iter().map(|(key, ..)| key.clone()).collect()
    }

    pub fn puts(&self) -> usize {
        self.puts.load(Ordering::Relaxed)
    }

    /// Version of each DELETE.
    pub fn deleted(&self) -> Vec<Option<String>> {
        lock(&self.deleted).clone()
    }

    /// Stores the objects of the PUTs that were answered with 500.
    pub fn apply_late(&self) {
        let late = std::mem::take(&mut *lock(&self.late));
        self.locked().extend(late);
    }

    pub fn clear(&self) {
        self.locked().clear();
    }

    pub fn keep(&self, key: &str) {
        self.keep_locked(key, None);
    }

    pub fn keep_locked(&self, key: &str, retention: Option<Retention>) {
        self.locked().push((key.to_owned(), Bytes::new(), retention));
    }

    /// Retention of the latest object.
    pub fn latest(&self) -> Option<Retention> {
        self.locked().last().and_then(|(.., retention)| *retention)
    }

    /// Ends every retention.
    pub fn unlock(&self) {
        self.locked().iter_mut().for_each(|(.., retention)| *retention = None);
    }

    /// Waits forever if the service is silent.
    async fn answers(&self) {
        if self.is_silent {
            std::future::pending::<()>().await;
        }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Vec<(String, Bytes, Option<Retention>)>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a change weakens a retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weakening {
    Shorter,
    Removed,
    OtherMode,
}

fn denied() -> S3Failure {
    S3Failure::service(403, Some("AccessDenied"), None)
}

#[async_trait]
impl ObjectApi for FakeObjects {
    async fn put(&self, key: &str, content: Bytes, asked: Option<Retention>) -> Result<Option<String>, S3Failure> {
        self.answers().await;
        self.puts.fetch_add(1, Ordering::Relaxed);
        if self.refuses_put || (self.demands_retention && asked.is_none()) {
            return Err(denied());
        }
        if let Some(failure) = lock(&self.next_puts).pop_front() {
            return Err(failure);
        }
        if self.is_late {
            lock(&self.late).push((key.to_owned(), content, asked));
            return Err(S3Failure::service(500, Some("InternalError"), None));
        }
        let asked = asked.filter(|_| !self.ignores_retention);
        let content = if self.garbles { content.slice(1..) } else { content };
        let content = lock(&self.overwritten_once).take().unwrap_or(content);
        if !self.versioned {
            self.locked().retain(|(known, ..)| known != key);
        }
        if !self.loses {
            let retention = asked.map(|asked| Retention { until: asked.until + self.locks_longer, ..asked });
            self.locked().push((key.to_owned(), content, retention));
        }
        if self.stores_and_fails {
            return Err(S3Failure::service(500, Some("InternalError"), None));
        }
        Ok((!self.names_no_version).then(|| "1".to_owned()))
    }

    async fn put_with_wrong_digest(
        &self,
        key: &str,
        content: Bytes,
        asked: Option<Retention>,
    ) -> Result<Option<String>, S3Failure> {
        if self.ignores_digest {
            return self.put(key, content, asked).await;
        }
        if let Some(failure) = lock(&self.next_trials).pop_front() {
            return Err(failure);
        }
        let is_denied = self.refuses_put || (self.demands_retention && asked.is_none());
        Err(if is_denied { denied() } else { S3Failure::service(400, Some("BadDigest"), None) })
    }

    async fn create_upload(&self, key: &str, retention: Option<Retention>) -> Result<String, S3Failure> {
        if self.demands_retention && retention.is_none() {
            return Err(denied());
        }
        if let Some(failure) = self.upload_failure.clone().or(self.refuses_put.then(denied)) {
            return Err(failure);
        }
        let upload = self.uploads_started.fetch_add(1, Ordering::Relaxed).to_string();
        lock(&self.unfinished).push((key.to_owned(), upload.clone()));
        Ok(upload)
    }

    async fn upload_part(&self, key: &str, upload: &str, _: Bytes) -> Result<(), S3Failure> {
        assert!(lock(&self.unfinished).iter().any(|(known, id)| known == key && id == upload), "{key} {upload}");
        self.part_failure.clone().map_or(Ok(()), Err)
    }

    async fn abort_upload(&self, key: &str, upload: &str) -> Result<(), S3Failure> {
        if self.refuses_abort {
            return Err(denied());
        }
        lock(&self.unfinished).retain(|(known, id)| known != key || id != upload);
        Ok(())
    }

    async fn uploads(&self, key: &str) -> Result<Vec<String>, S3Failure> {
        if self.refuses_list {
            return Err(denied());
        }
        let unfinished = lock(&self.unfinished);
        Ok(unfinished.iter().filter(|(known, _)| known == key).map(|(_, upload)| upload.clone()).collect())
    }

    async fn get(&self, key: &str, _: Option<&str>) -> Result<Bytes, S3Failure> {
        if self.refuses_get {
            return Err(denied());
        }
        if let Some(failure) = self.next_gets.lock().unwrap_or_else(PoisonError::into_inner).pop_front() {
            return Err(failure);
        }
        let found = self.locked().iter().find(|(known, ..)| known == key).map(|(_, content, _)| content.clone());
        found.ok_or_else(|| S3Failure::service(404, Some("NoSuchKey"), None))
    }

    async fn head(&self, key: &str, _: Option<&str>) -> Result<StoredVersion, S3Failure> {
        self.answers().await;
        if self.refuses_get {
            return Err(denied());
        }
        let found = self.locked().iter().find(|(known, ..)| known == key).map(|(.., retention)| *retention);
        // Without the right to list, a service does not say that an object does not exist.
        let missing = || if self.refuses_list { denied() } else { S3Failure::service(404, None, None) };
        let retention = found.ok_or_else(missing)?;
        Ok(StoredVersion {
            version: Some("1".to_owned()),
            retention,
            modified: Some(Timestamp::now().as_second() - self.is_behind),
        })
    }

    async fn delete(&self, key: &str, version: Option<&str>, _: bool) -> Result<Option<i64>, S3Failure> {
        self.answers().await;
        lock(&self.deleted).push(version.map(str::to_owned));
        if let Some(failure) = self.next_deletes.lock().unwrap_or_else(PoisonError::into_inner).pop_front() {
            return Err(failure);
        }
        let now = Timestamp::now().as_second();
        let is_locked = |retention: &Option<Retention>| retention.is_some_and(|retention| retention.until > now);
        if self.refuses_delete || self.locked().iter().any(|(known, _, kept)| known == key && is_locked(kept)) {
            return Err(denied());
        }
        self.locked().retain(|(known, ..)| known != key);
        Ok(None)
    }

    async fn put_retention(
        &self,
        key: &str,
        _: Option<&str>,
        retention: Option<Retention>,
        bypass: bool,
    ) -> Result<Option<i64>, S3Failure> {
        let mut objects = self.locked();
        let (.., kept) = objects.iter_mut().find(|(known, ..)| known == key).expect("an object");
        let weakening = match (*kept, retention) {
            (Some(old), Some(new)) if new.mode != old.mode => Weakening::OtherMode,
            (_, Some(_)) => Weakening::Shorter,
            (_, None) => Weakening::Removed,
        };
        if !self.weakened_by.contains(&(weakening, bypass)) {
            return Err(denied());
        }
        *kept = retention;
        Ok(None)
    }

    async fn list(&self, prefix: &str, versioned: bool, limit: u16) -> Result<Vec<ListedVersion>, S3Failure> {
        self.answers().await;
        if self.refuses_list {
            return Err(denied());
        }
        if let Some(failure) = self.list_failure.as_ref().or(self.versions_failure.as_ref().filter(|_| versioned)) {
            return Err(failure.clone());
        }
        if versioned && self.lists_no_versions {
            return Err(S3Failure::service(501, Some("NotImplemented"), None));
        }
        let found = self.keys().into_iter().filter(|key| key.starts_with(prefix)).take(limit.into());
        let version = (versioned && self.versioned).then(|| "1".to_owned());
        let listed = |key| ListedVersion { key, version: version.clone(), modified: Some(Timestamp::now()) };
        Ok(found.map(listed).collect())
    }
}
