//! Write canaries of a bucket: when one is due, and which earlier ones may remain.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use uuid::Uuid;

use super::configuration::Configuration;
use super::input::{BucketSession, Input};
use crate::check::canary::{CanaryNames, ServiceClock, Swept, Undeleted, sweep, utc};
use crate::check::object_canary::{CanaryMemory, CanaryPlan, Resolved, object_canary};
use crate::check::{CheckLog, Checked};
use crate::driver::driver_trait::Depth;
use crate::model::report::{Finding, finding};
use crate::model::settings::S3CanarySettings;
use crate::model::{CheckName, Outcome, Reason, S3Location};
use crate::s3::{ObjectApi, S3Failure, within};

/// Section of the configuration that turns canaries off.
const SECTION: &str = "[s3.canary]";

/// Write canaries of one bucket.
pub(super) struct Canaries {
    /// The latest canary, if it was written and read back. A failed one leaves no record, so each probe tries
    /// again until one passes.
    latest: Option<WrittenObject>,
    /// When the latest canary can be removed, if it is locked.
    removable_at: Option<Instant>,
    /// Whether this process or an earlier one may have leaked a canary. False once a sweep has found none.
    may_have_leaked: bool,
    /// The canary that may still exist, for services that refuse to list it.
    memory: CanaryMemory,
    /// The service's clock at the latest probe that read it.
    clock: ServiceClock,
}

/// A canary that was written and read back.
struct WrittenObject {
    at: Instant,
    written_at: Timestamp,
    settings: S3CanarySettings,
    /// Requested retention.
    retention: Option<Duration>,
    /// Whether the service refused everything else when it was written.
    is_only_evidence: bool,
    /// Warnings of its check. They hold until the next canary.
    warnings: Vec<Finding>,
}

impl WrittenObject {
    /// Returns the time until the next canary. It is at least the retention, so that locked canaries do not accumulate.
    fn interval(&self, input: Input<'_>) -> Duration {
        input.canary_interval(&self.warnings).max(self.retention.unwrap_or_default())
    }
}

impl Default for Canaries {
    fn default() -> Self {
        Self::new(CanaryMemory::default())
    }
}

impl Canaries {
    pub(super) fn new(memory: CanaryMemory) -> Self {
        Self { latest: None, removable_at: None, may_have_leaked: true, memory, clock: ServiceClock::default() }
    }

    /// Whether canaries are written at all.
    pub(super) fn writes(&self, input: Input<'_>) -> bool {
        input.writes_nothing(input.settings.s3_canary.enabled, SECTION).is_none()
    }

    /// Whether a probe must write a canary.
    pub(super) fn is_due(&self, input: Input<'_>) -> bool {
        self.writes(input) && self.recent(input).is_none()
    }

    /// Returns the time from the latest canary to the next one.
    pub(super) fn interval(&self, input: Input<'_>) -> Duration {
        self.latest.as_ref().map_or_else(|| input.canary_interval(&[]), |latest| latest.interval(input))
    }

    /// When the latest canary can be removed, if it is locked.
    pub(super) fn removable_at(&self) -> Option<Instant> {
        self.removable_at
    }

    /// Whether a canary may have been leaked.
    pub(super) fn may_have_leaked(&self) -> bool {
        self.may_have_leaked
    }

    /// Returns the latest canary if it is recent enough.
    fn recent(&self, input: Input<'_>) -> Option<&WrittenObject> {
        let settings = &input.settings.s3_canary;
        let latest = self.latest.as_ref().filter(|_| input.depth == Depth::Routine)?;
        (latest.settings == *settings && latest.at.elapsed() < latest.interval(input)).then_some(latest)
    }

    /// Writes a canary if one is due. Returns whether it, or an earlier one, shows that these credentials can write.
    /// `in_use` is the canary of a lock proof in progress, which stays. `is_only_evidence` is whether the service
    /// refuses everything else. Then the canary is written even if the bucket could lock it, and remains as the only
    /// one.
    pub(super) async fn write_if_due<A: ObjectApi>(
        &mut self,
        session: &BucketSession<A>,
        input: Input<'_>,
        configuration: &Configuration,
        in_use: Option<Uuid>,
        is_only_evidence: bool,
        log: &mut CheckLog,
    ) -> bool {
        let BucketSession { api, names, clock, .. } = session;
        let (settings, deadline) = (&input.settings.s3_canary, input.settings.probe.deadline);
        self.clock = *clock;
        if let Some(why) = input.writes_nothing(settings.enabled, SECTION) {
            log.skip(CheckName::WriteCanary, format!("{why}: writing is not verified"));
            return false;
        }
        let is_refused = is_only_evidence && !configuration.may_be_known_later();
        let locks_by_default = configuration.locks_by_default().or(is_refused.then_some(false));
        let is_lock_unknown = locks_by_default.is_none();
        if is_lock_unknown && log.has_failure() {
            return false;
        }
        // If the bucket has a default retention, an object that is put without one stays for days.
        let retention = locks_by_default.unwrap_or(true).then_some(settings.retention);
        let rule = input.rule;
        let plan = CanaryPlan {
            names,
            versioning: configuration.versioning,
            retention,
            is_lock_unknown,
            clock: *clock,
            in_use,
            append_only: rule.is_some_and(|rule| rule.append_only),
            sends_headers: rule.is_some_and(|rule| !rule.put_headers.is_empty()),
        };
        let lock_warning = is_lock_unknown.then(|| {
            let reason = configuration.lock_unknown.unwrap_or(Reason::AccessDenied);
            unknown_lock(input.location, reason, log.detail(CheckName::ObjectLock))
        });
        let recent = self.recent(input).filter(|latest| is_lock_unknown || latest.retention == retention);
        // A canary from before the service refused everything else does not show that these credentials can still
        // write.
        if let Some(latest) = recent.filter(|latest| latest.is_only_evidence || !is_only_evidence) {
            let mut detail = format!(
                "written at {:.0}; the next one is due {} s after that",
                latest.written_at,
                latest.interval(input).as_secs()
            );
            let warnings = latest.warnings.clone();
            if self.removable_at.is_some_and(|at| at <= Instant::now()) {
                match within(deadline, remove_leftovers(api, &plan, &mut self.memory)).await {
                    Ok(_) => self.removable_at = None,
                    Err(failure) => detail = format!("{detail}; it was not removed yet: {failure}"),
                }
            }
            let checked = Checked::<()>::not_needed(detail).with_warnings(warnings).with_warnings(lock_warning);
            log.run(CheckName::WriteCanary, async { checked }).await;
            return true;
        }
        (self.latest, self.removable_at, self.may_have_leaked) = (None, None, true);
        let (mut is_clean, mut shows_writing, mut warnings) = (false, false, Vec::new());
        let memory = &mut self.memory;
        let writing = async {
            let checked = object_canary(api, input.location, &plan, memory, deadline).await;
            is_clean = checked.outcome() == Outcome::Passed && checked.findings().is_empty();
            shows_writing = match checked.outcome() {
                Outcome::Passed => true,
                Outcome::Skipped => memory.shows_writing(),
                _ => false,
            };
            warnings = checked.findings().to_vec();
            checked.with_warnings(lock_warning)
        };
        let written = log.run(CheckName::WriteCanary, writing).await;
        self.may_have_leaked = !is_clean;
        if let Some(locked) = written {
            let (at, written_at, settings) = (Instant::now(), Timestamp::now(), settings.clone());
            self.removable_at = locked.map(|until| at + clock.wait_until_past(until));
            self.latest = Some(WrittenObject { at, written_at, settings, retention, is_only_evidence, warnings });
        }
        shows_writing
    }

    /// Removes all canaries of this node, because an interrupted probe may have leaked any of them. Returns a
    /// remark if one remains.
    ///
    /// # Errors
    /// [`S3Failure`] when they cannot be listed or removed.
    pub(super) async fn remove_all(
        &mut self,
        api: &dyn ObjectApi,
        names: &CanaryNames,
        location: &S3Location,
        deadline: Duration,
    ) -> Result<Option<String>, S3Failure> {
        // In a bucket that never had versions, the only version of an object has an id too.
        let plan = CanaryPlan::new(names, self.clock);
        if let Err(why) = self.memory.load(deadline).await {
            tracing::debug!(why, "the record of a canary was not read");
        }
        let why = match remove_leftovers(api, &plan, &mut self.memory).await? {
            Leftovers::Listed(swept) => remaining(&swept, names),
            Leftovers::Remembered { key, until, resolved } => still_there(&key, until, resolved),
        };
        Ok(why.map(|why| format!("a canary in {location} {why}, and it must be removed manually")))
    }
}

/// Leftover canaries after their removal.
enum Leftovers {
    Listed(Box<Swept>),
    /// They cannot be listed.
    Remembered {
        key: String,
        until: i64,
        resolved: Resolved,
    },
}

/// Removes leftover canaries, or the remembered one if they cannot be listed.
async fn remove_leftovers(
    api: &dyn ObjectApi,
    plan: &CanaryPlan<'_>,
    memory: &mut CanaryMemory,
) -> Result<Leftovers, S3Failure> {
    match sweep(api, plan.names, plan.may_have_versions(), plan.clock, plan.in_use).await {
        Err(failure) if failure.may_concern_one_request() => {
            let Some(leftover) = memory.leftover() else { return Err(failure) };
            let (key, until) = (leftover.key.clone(), leftover.until);
            let resolved = memory.resolve(api, plan).await?;
            Ok(Leftovers::Remembered { key, until, resolved })
        }
        swept => swept.map(|swept| Leftovers::Listed(Box::new(swept))),
    }
}

/// Warning when the default retention is unknown for this reason. `why` is the detail of the check `object_lock`: the
/// failure and its remedy.
fn unknown_lock(location: &S3Location, reason: Reason, why: Option<&str>) -> Finding {
    let why = why.map_or_else(|| format!("{location}: the object lock is unknown"), str::to_owned);
    finding!(
        reason,
        "{why}. Until the service reports whether it locks new objects by default, canaries get a short retention"
    )
}

/// Describes what a sweep could not remove.
fn remaining(swept: &Swept, names: &CanaryNames) -> Option<String> {
    if let Some(key) = &swept.overlong {
        return Some(overlong(key));
    }
    if let Some(Undeleted { key, failure, .. }) = swept.undeletable.as_ref().or(swept.refused.as_ref()) {
        return Some(undeleted(&names.text(key), failure));
    }
    swept.locked.iter().map(|key| key.until).max().map(locked)
}

/// Describes why a remembered canary remains.
fn still_there(key: &str, until: i64, resolved: Resolved) -> Option<String> {
    match resolved {
        Resolved::Gone => None,
        Resolved::Locked => Some(locked(until)),
        Resolved::LockedLonger => Some(overlong(key)),
        Resolved::Undeletable(failure) => Some(undeleted(key, &failure)),
        Resolved::Unknown => Some(format!("may remain: {key}")),
    }
}

fn locked(until: i64) -> String {
    format!("is locked until {}", utc(until))
}

fn overlong(key: &str) -> String {
    format!("is locked for longer than requested: {key}")
}

fn undeleted(key: &str, failure: &S3Failure) -> String {
    format!("was not deleted ({failure}): {key}")
}
