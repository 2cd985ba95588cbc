//! Drivers: each verifies one kind of target, with its checks in a planned order.
//!
//! A driver belongs to one target and is owned by that target's task, so its methods never run
//! at the same time. It may keep state, such as the time of the last canary or a client that is
//! expensive to create. It never waits without a deadline. Only [`for_spec`] and [`contacted_host`] list
//! the kinds.

mod driver_trait;
mod host;
pub mod nfs;
pub mod s3;
mod shared_facts;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use jiff::Timestamp;
use tokio::time::Instant;

use crate::check::capacity::full_soon;
use crate::key_manager::KeyManager;
use crate::model::report::{Finding, Report, Verdict};
use crate::model::settings::{AgentSettings, KeyManagerSettings};
use crate::model::{CheckName, CheckResult, Reason, Target, TargetSpec, UsageHistory};

pub use crate::check::canary::ProcessRole;
pub use crate::check::mount_host::{mount_helper_version, mount_root_exists};
pub use crate::check::object_canary::CanaryStore;
pub use crate::check::own_mounts::OwnMounts;
pub use crate::check::tcp_reachable::addresses_of;
pub use crate::s3::aws::ClientPool;
pub use crate::sys::worker::PoolStats;
pub use driver_trait::{Depth, DetachError, Driver, Probe};
pub use host::Host;
pub use nfs::PrivateMount;
pub use shared_facts::{FactBoard, FactCount, FactKey, FactKind, FactQuestion, FactRole, FleetPace, SharedFact, Turn};

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
    use crate::model::settings::{LocationPattern, ProbeOverride};
    use crate::model::{Capacity, Outcome, Status};

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
