//! Drivers: what it takes to verify one kind of target, and which checks in which order.
//!
//! A driver belongs to one target and is owned by that target's task, so its methods never run
//! at the same time. It may remember what it did (when the last canary was written, a client
//! that is costly to make); what it must not do is wait without a deadline. [`for_spec`] is the
//! one place that knows which kinds there are.

pub mod nfs;
pub mod s3;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::Semaphore;

use crate::model::report::{Finding, KindFacts, Report, Verdict};
use crate::model::settings::AgentSettings;
use crate::model::{Capacity, CheckResult, Target, TargetId, TargetSpec};
use crate::sys::{MountStatsCache, MountTableWatch, WorkerPool};

pub use crate::check::canary::ProcessRole;
pub use crate::s3::aws::ClientPool;

/// What drivers need of the host they run on; one for all targets.
#[derive(Debug)]
pub struct Host {
    /// The probe workers.
    pub workers: WorkerPool,
    /// What is mounted.
    pub mounts: MountTableWatch,
    /// The clients of buckets.
    pub buckets: Arc<ClientPool>,
    /// The turns of listings of buckets, each for one page.
    pub listing_pages: Arc<Semaphore>,
    /// What the kernel counts of mounts.
    pub mount_stats: MountStatsCache,
    /// This node's name.
    pub hostname: String,
    /// What this process is on the node: its agent, or a command beside it.
    pub role: ProcessRole,
}

impl Host {
    /// One that knows nothing of buckets and mounts yet.
    #[must_use]
    pub fn new(workers: WorkerPool, mounts: MountTableWatch, hostname: String, role: ProcessRole) -> Self {
        Self {
            workers,
            mounts,
            buckets: Arc::default(),
            listing_pages: Arc::new(Semaphore::new(s3::listing::PAGES_AT_ONCE)),
            mount_stats: MountStatsCache::default(),
            hostname,
            role,
        }
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "for tests only")]
impl Host {
    /// One on which no worker can be started.
    pub(crate) fn without_workers() -> Self {
        let settings = crate::sys::WorkerPoolSettings::new("/nonexistent".into());
        let workers = WorkerPool::new(settings, crate::sys::ChildCensus::new());
        Self::new(workers, MountTableWatch::start().expect("/proc"), "test".to_owned(), ProcessRole::Daemon)
    }
}

/// What one probe found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Probe {
    /// The checks in the order in which they ran.
    pub checks: Vec<CheckResult>,
    /// Capacity that was measured.
    pub capacity: Option<Capacity>,
    /// Facts that only this kind of target has.
    pub facts: Option<KindFacts>,
}

impl Probe {
    /// Makes the report of a probe that has just ended and took `duration`.
    #[must_use]
    pub fn into_report(self, target_id: TargetId, duration: Duration) -> Report {
        let Self { checks, capacity, facts } = self;
        let (checked_at, verdict) = (Timestamp::now(), Verdict::of(&checks));
        Report { target_id, checked_at, duration, verdict, capacity, facts, checks }
    }
}

/// Why a target was not detached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DetachError {
    /// Something on this host uses it, and its server is alive.
    #[error("something on this host uses it; `fuser -vm` on the mount path shows what")]
    Busy,
    /// It could not be done; the finding says why.
    #[error("{}", .0.message)]
    Failed(Finding),
}

/// How much a probe verifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// What is due: costly checks have intervals of their own.
    Routine,
    /// Everything, because somebody asked.
    Full,
}

/// One target's kind-specific work.
#[async_trait]
pub trait Driver: Send {
    /// Verifies the target, attaching it first where that is part of verifying it. Ends within
    /// the deadlines of the settings whatever the storage does, and is safe to drop at any await.
    async fn probe(&mut self, settings: &AgentSettings, depth: Depth) -> Probe;

    /// Time from the start of one routine probe to the next.
    fn interval(&self, settings: &AgentSettings) -> Duration;

    /// How soon the driver has something to do ahead of its interval, if it has: what it began and
    /// must wait for, without a probe being held up by it.
    fn next_due(&self) -> Option<Duration> {
        None
    }

    /// The kernel's id of what is mounted at the target's path, of whatever kind; `None` when
    /// nothing is, or the kind is not mounted. A change of it between probes is a reason to probe at
    /// once. Answers from memory.
    fn mount_id(&self, _settings: &AgentSettings) -> Option<u32> {
        None
    }

    /// Takes down what [`Self::probe`] put up on this host. Bounded like a probe. Returns a
    /// sentence when it was not done the plain way.
    ///
    /// # Errors
    /// [`DetachError`] when it is still up.
    async fn detach(&mut self, settings: &AgentSettings) -> Result<Option<String>, DetachError>;
}

/// The driver of a target.
#[must_use]
pub fn for_spec(target: &Target, host: &Arc<Host>) -> Box<dyn Driver> {
    match &target.spec {
        TargetSpec::Nfs(spec) => {
            Box::new(nfs::NfsDriver::new(target.id, spec.export.clone(), target.mount_name.clone(), host.clone()))
        }
        TargetSpec::S3(spec) => Box::new(s3::S3Driver::new(spec.location.clone(), spec.immutable, host)),
    }
}
