//! Drivers: each verifies one kind of target, with its checks in a planned order.
//!
//! A driver belongs to one target and is owned by that target's task, so its methods never run
//! at the same time. It may keep state, such as the time of the last canary or a client that is
//! expensive to create. It never waits without a deadline. Only [`for_spec`] and [`contacted_host`] list
//! the kinds.

pub mod nfs;
pub mod s3;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::check::capacity::full_soon;
use crate::key_manager::KeyManager;
use crate::model::report::{Finding, KindFacts, Report, Verdict};
use crate::model::settings::{AgentSettings, KeyManagerSettings};
use crate::model::{Capacity, CheckName, CheckResult, Outcome, Reason, Target, TargetSpec, UsageHistory};
use crate::sys::{ConsumerWatch, HostMounts, MountStatsCache, MountTableWatch, WorkerPool};

pub use crate::check::canary::ProcessRole;
pub use crate::check::mount_host::{mount_helper_version, mount_root_exists};
pub use crate::check::object_canary::CanaryStore;
pub use crate::check::own_mounts::OwnMounts;
pub use crate::check::tcp_reachable::addresses_of;
pub use crate::s3::aws::ClientPool;
pub use crate::sys::worker::PoolStats;
pub use nfs::PrivateMount;

/// Resources of this host that all drivers share.
#[derive(Debug)]
pub struct Host {
    /// The probe workers.
    pub workers: WorkerPool,
    /// The mount table.
    pub mounts: MountTableWatch,
    /// The mount table of the host, if it has another one.
    pub host_mounts: HostMounts,
    /// The processes that should see the mounts.
    pub consumers: ConsumerWatch,
    /// The mounts that the agent made below the mount root.
    pub own_mounts: OwnMounts,
    /// The private mounts that this process made ([`crate::model::MountMode::Observe`]).
    pub private_mounts: OwnMounts,
    /// The key manager, with the secrets that were read.
    pub key_manager: KeyManager,
    /// The S3 clients.
    pub buckets: Arc<ClientPool>,
    /// Permits of bucket listings. Each permit is for one page.
    pub listing_pages: Arc<Semaphore>,
    /// NFS counters of the kernel.
    pub mount_stats: MountStatsCache,
    /// This node's name.
    pub hostname: String,
    /// Whether this process is the daemon or a one-shot command.
    pub role: ProcessRole,
    /// Durable records of canaries. `None` for a process that ends after one probe.
    pub canaries: Option<Arc<dyn CanaryStore>>,
}

impl Host {
    /// A host without S3 clients and without counters.
    #[must_use]
    pub fn new(workers: WorkerPool, mounts: MountTableWatch, hostname: String, role: ProcessRole) -> Self {
        Self {
            workers,
            mounts,
            host_mounts: HostMounts::default(),
            consumers: ConsumerWatch::default(),
            own_mounts: OwnMounts::default(),
            private_mounts: OwnMounts::default(),
            key_manager: KeyManager::default(),
            buckets: Arc::default(),
            listing_pages: Arc::new(Semaphore::new(s3::listing::PAGES_AT_ONCE)),
            mount_stats: MountStatsCache::default(),
            hostname,
            role,
            canaries: None,
        }
    }

    /// The same host with durable records of canaries.
    #[must_use]
    pub fn with_canary_store(self, store: Arc<dyn CanaryStore>) -> Self {
        Self { canaries: Some(store), ..self }
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "for tests only")]
impl Host {
    /// A host on which no worker can be started.
    pub(crate) fn without_workers() -> Self {
        let settings = crate::sys::WorkerPoolSettings::new("/nonexistent".into());
        let workers = WorkerPool::new(settings, crate::sys::ChildCensus::new());
        Self::new(workers, MountTableWatch::start().expect("/proc"), "test".to_owned(), ProcessRole::Daemon)
    }
}

/// Result of one probe.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Probe {
    /// One result for each check of the plan, in its order.
    pub checks: Vec<CheckResult>,
    /// Measured capacity, if the check `capacity` got an answer.
    pub capacity: Option<Capacity>,
    /// Facts that only this kind of target has.
    pub facts: Option<KindFacts>,
}

impl Probe {
    /// The result of a probe that panicked. After a defect of the agent the previous verdict must not stay in force.
    pub(crate) fn panicked() -> Self {
        let finding = Finding::new(
            Reason::AgentError,
            "the probe panicked, which is a defect of the agent: report it with the source line from the agent's log",
        );
        // Every plan begins with this check.
        let check = CheckResult::new(CheckName::Reachable, Outcome::Failed, vec![finding], Duration::ZERO);
        Self { checks: vec![check], ..Self::default() }
    }
}

/// Probes a target once and returns the report. A driver that panics is replaced by a new one. The probe adds its
/// result to the usage history of the target.
///
/// Dropping the future is safe.
pub async fn probe_once(
    driver: &mut Box<dyn Driver>,
    target: &Target,
    host: &Arc<Host>,
    settings: &AgentSettings,
    depth: Depth,
    usage: &mut UsageHistory,
) -> Report {
    let began = Instant::now();
    let probe = AssertUnwindSafe(driver.probe(settings, depth)).catch_unwind().await.unwrap_or_else(|_| {
        *driver = for_spec(target, host);
        Probe::panicked()
    });
    let checked_at = Timestamp::now();
    let (probe, time_to_full) = with_forecast(probe, &target.spec.export(), settings, checked_at, usage);
    let Probe { checks, capacity, facts } = probe;
    let (duration, verdict) = (began.elapsed(), Verdict::of(&checks));
    Report { target_id: target.id, checked_at, duration, verdict, capacity, time_to_full, facts, checks }
}

/// Detaches a target. A driver that panics is replaced by a new one.
///
/// # Errors
/// [`DetachError`] when the target is still attached, or after a panic.
pub async fn detach(
    driver: &mut Box<dyn Driver>,
    target: &Target,
    host: &Arc<Host>,
    settings: &AgentSettings,
) -> Result<Option<String>, DetachError> {
    AssertUnwindSafe(driver.detach(settings)).catch_unwind().await.unwrap_or_else(|_| {
        *driver = for_spec(target, host);
        Err(DetachError::Failed(Finding::new(
            Reason::AgentError,
            "its removal panicked, which is a defect of the agent: report it with the source line from the agent's log",
        )))
    })
}

/// Adds the measured use to the history. Returns the time to full, and the probe with a warning if that is too short.
fn with_forecast(
    mut probe: Probe,
    export: &str,
    settings: &AgentSettings,
    at: Timestamp,
    usage: &mut UsageHistory,
) -> (Probe, Option<Duration>) {
    let Some(capacity) = &probe.capacity else { return (probe, None) };
    usage.add(at, capacity);
    let time_to_full = usage.time_to_full(capacity);
    let within = settings.probe.full_soon_within_of(export);
    if let Some(warning) = time_to_full.and_then(|time| full_soon(time, within)) {
        let with_warning = |result: CheckResult| match result.check {
            CheckName::Capacity => result.with_warning(warning.clone()),
            _ => result,
        };
        probe.checks = probe.checks.into_iter().map(with_warning).collect();
    }
    (probe, time_to_full)
}

/// Why a target could not be detached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DetachError {
    /// A process on this host uses the mount, and the server is alive.
    #[error("a process on this host uses it: find it with `fuser -vm` on the mount path")]
    Busy,
    /// Detaching failed.
    #[error("{}", .0.message)]
    Failed(Finding),
}

/// How much a probe verifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Checks that are due. Expensive checks have their own intervals.
    Routine,
    /// Every check, for a requested probe.
    Full,
}

/// Kind-specific work for one target.
#[async_trait]
pub trait Driver: Send {
    /// Verifies the target. A kind that is attached to the host, such as a mount, is attached first. Ends within the
    /// deadlines of the settings whatever the storage does. Dropping the future at any await is safe.
    async fn probe(&mut self, settings: &AgentSettings, depth: Depth) -> Probe;

    /// Time from the start of one routine probe to the next.
    fn interval(&self, settings: &AgentSettings) -> Duration;

    /// Time between two canaries, which prove that backups can be written. `None` if it writes none.
    fn canary_interval(&self, _settings: &AgentSettings) -> Option<Duration> {
        None
    }

    /// Time until the driver must continue work that it began, such as a lock proof. `None` if the
    /// next routine probe is soon enough.
    fn next_due(&self) -> Option<Duration> {
        None
    }

    /// Waits until the latest report is outdated, for example because the target was unmounted. Returns at once if it
    /// already is. The default never returns: for most kinds, this host does not notice changes. Dropping the future is
    /// safe.
    async fn outdated(&mut self, _settings: &AgentSettings) {
        std::future::pending().await
    }

    /// Whether something is attached at the target's path on this host. Answers from memory.
    fn is_attached(&self, _settings: &AgentSettings) -> bool {
        false
    }

    /// Undoes what [`Self::probe`] did on this host and in the storage: unmounts, and removes canaries. Bounded like a
    /// probe. Returns a remark if a plain unmount was not enough or if something remains.
    ///
    /// # Errors
    /// [`DetachError`] when the target is still attached.
    async fn detach(&mut self, settings: &AgentSettings) -> Result<Option<String>, DetachError>;
}

/// Creates the driver of a target.
#[must_use]
pub fn for_spec(target: &Target, host: &Arc<Host>) -> Box<dyn Driver> {
    match &target.spec {
        TargetSpec::Nfs(spec) => {
            Box::new(nfs::NfsDriver::new(target.id, spec.clone(), target.mount_name.clone(), host.clone()))
        }
        TargetSpec::S3(spec) => Box::new(s3::S3Driver::new(target.id, spec.clone(), target.mount_name.clone(), host)),
    }
}

/// Logs in to the key manager as the agent does. Returns its address.
///
/// # Errors
/// The sentence that says why no secret could be read.
pub async fn verify_key_manager(settings: &KeyManagerSettings) -> Result<String, String> {
    KeyManager::verify(settings).await.map_err(|error| error.to_string())
}

/// Returns the host to which this node connects for a target: the server, or a proxy in front of it. It is a name or an
/// IP address without brackets. May read files, so the caller bounds the wait.
///
/// # Errors
/// Why there is none, such as an unsupported proxy.
pub async fn contacted_host(spec: &TargetSpec, settings: &AgentSettings) -> Result<String, String> {
    match spec {
        TargetSpec::Nfs(spec) => Ok(nfs::contacted_host(&spec.export, settings)),
        TargetSpec::S3(spec) => s3::contacted_host(&spec.location, settings).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Status;
    use crate::model::settings::{LocationPattern, ProbeOverride};

    #[test]
    fn target_that_is_full_soon_has_a_warning_in_its_capacity_check() {
        let mut settings = AgentSettings::quiet();
        let (mut usage, mut reports) = (UsageHistory::default(), Vec::new());
        // A percent more is used every hour. At hour 50 half is left.
        for hour in (0..=50).chain([50]) {
            let capacity = Capacity::from_bucket(Some(hour), Some(100));
            let names = [CheckName::Reachable, CheckName::Capacity];
            let checks = names.map(|name| CheckResult::new(name, Outcome::Passed, Vec::new(), Duration::ZERO));
            let probe = Probe { checks: checks.to_vec(), capacity: Some(capacity), facts: None };
            let at = Timestamp::from_second(i64::try_from(hour).expect("small") * 3600).expect("a time");
            reports.push(with_forecast(probe, "nas:/a", &settings, at, &mut usage));
            if hour == 50 {
                let pattern = LocationPattern::new("nas:/*");
                let within = Duration::from_secs(3600);
                let entry = ProbeOverride { location: pattern, full_soon_within: within };
                settings.probe.overrides.push(entry);
            }
        }
        let reasons = |at: usize| -> Vec<Vec<Reason>> {
            let findings = reports[at].0.checks.iter().map(CheckResult::findings);
            findings.map(|findings| findings.iter().map(|finding| finding.reason).collect()).collect()
        };
        assert_eq!((reports[0].1, reasons(0)), (None, vec![vec![], vec![]]));
        let in_50_hours = Some(50 * 3600);
        assert_eq!(reports[50].1.map(|time| time.as_secs()), in_50_hours);
        assert_eq!(reasons(50), [vec![], vec![Reason::FullSoon]]);
        assert_eq!(Verdict::of(&reports[50].0.checks).status(), Status::Available);
        // The threshold of this target is an hour.
        assert_eq!((reports[51].1.map(|time| time.as_secs()), reasons(51)), (in_50_hours, vec![vec![], vec![]]));
    }
}
