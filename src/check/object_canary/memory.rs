//! What the agent remembers of its canaries in one bucket, for buckets that it cannot list.
//!
//! A sweep finds leftovers by listing them. If the listing is refused or fails, the agent remembers its latest
//! canary. It records the key before the PUT, and key and version after it, so that they are also known after a
//! restart. It writes no further canary until the remembered one is removed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::plan::{CanaryPlan, NULL_VERSION};
use crate::check::canary::sweep::is_denial;
use crate::model::{CanaryLeftover, CanaryRecord, TargetId};
use crate::s3::{ObjectApi, S3Failure};

/// Durable copies of canary records.
#[async_trait]
pub trait CanaryStore: fmt::Debug + Send + Sync {
    /// Returns the record of a target, if there is one.
    ///
    /// # Errors
    /// A description of the failure.
    async fn load(&self, target: TargetId) -> Result<Option<CanaryRecord>, String>;

    /// Replaces the record of a target.
    ///
    /// # Errors
    /// A description of the failure.
    async fn save(&self, target: TargetId, record: CanaryRecord) -> Result<(), String>;
}

/// Memory of the canaries of one target.
#[derive(Debug, Default)]
pub struct CanaryMemory {
    /// Target and durable copy. `None` for a process that ends after one probe.
    durable: Option<(TargetId, Arc<dyn CanaryStore>)>,
    is_loaded: bool,
    record: CanaryRecord,
    /// The durable copy, if it is known.
    stored: Option<CanaryRecord>,
    /// Whether this run found that the credentials may write.
    is_permitted: bool,
}

/// State of a remembered canary.
#[derive(Debug)]
pub enum Resolved {
    /// It does not exist.
    Gone,
    /// Its requested retention has not ended.
    Locked,
    /// Its requested retention has ended, and the service reports a later end.
    LockedLonger,
    /// Its DELETE was denied.
    Undeletable(S3Failure),
    /// It may exist, with an unknown version.
    Unknown,
}

impl CanaryMemory {
    /// An empty memory with a durable copy.
    #[must_use]
    pub fn new(target: TargetId, store: Arc<dyn CanaryStore>) -> Self {
        Self { durable: Some((target, store)), ..Self::default() }
    }

    /// The canary that may remain.
    #[must_use]
    pub fn leftover(&self) -> Option<&CanaryLeftover> {
        self.record.leftover.as_ref()
    }

    /// Whether the credentials are known to be able to write: a canary of theirs may remain, or this run found that
    /// they are permitted to.
    #[must_use]
    pub fn shows_writing(&self) -> bool {
        self.is_permitted || self.leftover().is_some_and(|leftover| leftover.written_at.is_some())
    }

    /// Prepares for a run.
    pub(super) fn begin_run(&mut self) {
        self.is_permitted = false;
    }

    pub(super) fn set_permitted(&mut self, is_permitted: bool) {
        self.is_permitted = is_permitted;
    }

    /// Whether the service stored an object whose digest was wrong.
    pub(super) fn ignores_digest(&self) -> bool {
        self.record.ignores_digest
    }

    pub(super) fn found_to_ignore_digests(&mut self) {
        self.record.ignores_digest = true;
    }

    /// Remembers a canary instead of the earlier one.
    pub(super) fn remember(&mut self, leftover: CanaryLeftover) {
        self.record.leftover = Some(leftover);
    }

    /// Restores what was remembered before a canary that was not written.
    pub(super) fn restore(&mut self, before: Option<CanaryLeftover>) {
        self.record.leftover = before;
    }

    /// Notes that the service accepted the PUT of the remembered canary.
    pub(super) fn written(&mut self, version: Option<String>) {
        if let Some(leftover) = &mut self.record.leftover {
            (leftover.version, leftover.written_at) = (version, Some(Timestamp::now()));
        }
    }

    /// Forgets the canary, because none remains.
    pub(super) fn forget(&mut self) {
        self.record.leftover = None;
    }

    /// Notes whether the credentials can read canaries back.
    pub(super) fn set_readable(&mut self, is_readable: bool) {
        self.record.is_readable = is_readable;
    }

    /// Reads the durable copy once. Later the memory of this process is newer.
    ///
    /// # Errors
    /// A description of the failure.
    pub async fn load(&mut self, deadline: Duration) -> Result<(), String> {
        let Some((target, store)) = self.durable.as_ref().filter(|_| !self.is_loaded) else { return Ok(()) };
        let stored = bounded(deadline, store.load(*target)).await?;
        (self.is_loaded, self.stored) = (true, stored.clone());
        if let (None, Some(stored)) = (&self.record.leftover, stored) {
            self.record = stored;
        }
        Ok(())
    }

    /// Makes the memory durable.
    ///
    /// # Errors
    /// A description of the failure.
    pub async fn save(&mut self, deadline: Duration) -> Result<(), String> {
        let Some((target, store)) = &self.durable else { return Ok(()) };
        // It may be stored even if the call fails.
        self.stored = None;
        bounded(deadline, store.save(*target, self.record.clone())).await?;
        self.stored = Some(self.record.clone());
        Ok(())
    }

    /// Remembers a canary that a listing found and that remains. Makes it durable, unless it already is.
    pub(super) async fn keep(&mut self, leftover: CanaryLeftover, deadline: Duration) {
        let loaded = self.load(deadline).await;
        self.remember(leftover);
        let kept = match loaded {
            Ok(()) if self.stored.as_ref() == Some(&self.record) => Ok(()),
            Ok(()) => self.save(deadline).await,
            failed => failed,
        };
        if let Err(why) = kept {
            tracing::debug!(why, "the registry does not record a canary that remains");
        }
    }

    /// Removes the remembered canary, if there is one and it can be removed.
    ///
    /// # Errors
    /// [`S3Failure`] of a request, unless it denies the DELETE.
    pub async fn resolve(&mut self, api: &dyn ObjectApi, plan: &CanaryPlan<'_>) -> Result<Resolved, S3Failure> {
        let Some(leftover) = &self.record.leftover else { return Ok(Resolved::Gone) };
        let resolved = resolve(api, plan, leftover, self.record.is_readable).await?;
        if matches!(resolved, Resolved::Gone) {
            self.forget();
        }
        Ok(resolved)
    }
}

async fn bounded<T>(deadline: Duration, call: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let late = || format!("the registry did not answer within {} ms", deadline.as_millis());
    tokio::time::timeout(deadline, call).await.unwrap_or_else(|_| Err(late()))
}

async fn resolve(
    api: &dyn ObjectApi,
    plan: &CanaryPlan<'_>,
    leftover: &CanaryLeftover,
    is_readable: bool,
) -> Result<Resolved, S3Failure> {
    let CanaryLeftover { key, until, version, written_at } = leftover;
    let is_locked = *until > 0 && !plan.clock.is_past(*until);
    // Without an answer to its PUT, it may not exist.
    if is_locked && written_at.is_some() {
        return Ok(Resolved::Locked);
    }
    let is_missing = |failure: &S3Failure| failure.is_gone() || (is_readable && failure.is_refusal());
    let mut version = plan.version(version.clone());
    // A DELETE without the version would only add a delete marker.
    if plan.may_have_versions() && version.is_none() {
        match api.head(key, None).await {
            Ok(stored) => version = stored.version,
            Err(failure) if is_missing(&failure) => return Ok(Resolved::Gone),
            // The answer to its PUT named no version, so the bucket has none.
            Err(failure) if failure.is_refusal() && plan.versioning.is_none() && written_at.is_some() => {
                version = Some(NULL_VERSION.to_owned());
            }
            Err(failure) if failure.is_refusal() => return Ok(Resolved::Unknown),
            Err(failure) => return Err(failure),
        }
    }
    if is_locked {
        return Ok(Resolved::Locked);
    }
    let version = version.as_deref();
    let denied = match api.delete(key, version, false).await {
        Err(failure) if is_denial(&failure) => failure,
        Err(failure) if !failure.is_gone() => return Err(failure),
        _ => return Ok(Resolved::Gone),
    };
    match api.head(key, version).await {
        Ok(stored) if *until > 0 && stored.retention.is_some_and(|retention| retention.until > *until) => {
            Ok(Resolved::LockedLonger)
        }
        Err(failure) if is_missing(&failure) => Ok(Resolved::Gone),
        _ => Ok(Resolved::Undeletable(denied)),
    }
}
