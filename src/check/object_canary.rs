//! `write_canary` of a bucket: an object is written, read back, compared and deleted.
//!
//! Its key is as long as those of backups ([`super::canary::key`]). In a bucket with versions the agent
//! deletes that version, so nothing remains, not even a delete marker. Leftovers of earlier canaries are
//! removed first.
//!
//! A bucket with a default retention would lock the canary for days, like a backup. There the canary gets
//! an explicit retention of seconds, which overrides the default. The agent verifies that, and a later run
//! deletes the canary. If the service locked it for longer, no further one is written.
//!
//! Credentials that may not list cannot find leftovers. The process then remembers its latest canary and removes
//! it by key and version ([`Leftover`]). It writes no further one until the remembered one is gone.

use std::time::Duration;

use uuid::Uuid;

use super::Checked;
use super::bucket::not_passed;
use super::canary::{CANARY_BYTES, CanaryKey, CanaryKind, CanaryNames, ServiceClock, content, exceeds, sweep};
use crate::model::report::Finding;
use crate::model::{LockMode, Reason, S3Location};
use crate::s3::{ObjectApi, Retention, S3Failure, within};

/// Largest number of locked canaries of a target on this node. No further one is written beside them.
pub const LOCKED_MAX: usize = 4;

/// Likewise for write canaries, so that a lock proof need not wait for them.
pub const LOCKED_BY_WRITING_MAX: usize = LOCKED_MAX - 1;

/// How a canary is written.
#[derive(Debug, Clone)]
pub struct CanaryPlan<'a> {
    /// Names of this node's canaries.
    pub names: &'a CanaryNames,
    /// Whether the bucket has or had versions.
    pub versioned: bool,
    /// Retention of the canary. `None` if the bucket does not lock new objects by default.
    pub retention: Option<Duration>,
    /// The service's clock.
    pub clock: ServiceClock,
    /// Canary of a lock proof in progress, which stays.
    pub in_use: Option<Uuid>,
}

/// A canary of this process that may still exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    key: CanaryKey,
    /// Version, if the service named one. Unknown as well while the answer to its PUT is missing.
    version: Option<String>,
}

impl Leftover {
    /// Deletes the canary.
    ///
    /// # Errors
    /// [`S3Failure`] of the DELETE, unless the object does not exist.
    pub async fn remove(&self, api: &dyn ObjectApi, names: &CanaryNames) -> Result<(), S3Failure> {
        match api.delete(&names.text(&self.key), self.version.as_deref(), false).await {
            Err(failure) if !failure.is_gone() => Err(failure),
            _ => Ok(()),
        }
    }
}

/// Writes a canary. `deadline` bounds the removal of leftovers, and again the canary itself. `leftover` is the
/// canary of the previous call that may still exist, and afterwards that of this call. Returns the latest locked
/// canary, which may be of an earlier run.
pub async fn object_canary(
    api: &dyn ObjectApi,
    location: &S3Location,
    plan: &CanaryPlan<'_>,
    leftover: &mut Option<Leftover>,
    deadline: Duration,
) -> Checked<Option<CanaryKey>> {
    let mut warning = None;
    let mut remark = String::new();
    let mut latest = None;
    if let (Some(why), Some(_)) = (plan.clock.implausible(), plan.retention) {
        return Checked::skipped(Finding::new(
            Reason::ClockSkewed,
            format!(
                "{location} has a default retention, so a canary needs a retention of its own, and none is written: {why}"
            ),
        ));
    }
    match within(deadline, sweep(api, plan.names, plan.versioned, plan.clock, plan.in_use)).await {
        Ok(swept) => {
            let overlong = swept.overlong.as_ref().map(|key| overlong(location, key));
            let undeletable = swept.undeletable.as_ref().map(|(key, failure)| undeletable(location, key, failure));
            let mut findings = overlong.into_iter().chain(undeletable).filter(|_| plan.retention.is_some());
            if let Some(finding) = findings.next() {
                return Checked::skipped(finding).with_warnings(findings);
            }
            if let Some(failure) = &swept.refused {
                return refused("DELETE", failure, location, plan);
            }
            let locked = swept.locked.len();
            if plan.retention.is_some() && locked >= LOCKED_BY_WRITING_MAX {
                return Checked::skipped(still_locked(location, locked));
            }
            *leftover = None;
            latest = swept.locked.iter().copied().filter(|key| plan.names.is_own(key)).max_by_key(|key| key.until);
            if swept.removed > 0 {
                remark = format!("; leftover canaries removed: {}", swept.removed);
            }
        }
        // Backups can be written without listing them, but a canary that a crash leaks is not found then.
        Err(failure) if failure.is_refusal() => {
            if let Some(remembered) = leftover.as_ref() {
                match within(deadline, resolve(api, plan, remembered)).await {
                    Ok(Resolved::Gone) => *leftover = None,
                    Ok(Resolved::Locked) => {
                        return Checked::skipped(still_locked(location, 1))
                            .with_warnings([unlisted(&failure, location, plan)]);
                    }
                    Ok(Resolved::Unknown) => return Checked::skipped(unlisted(&failure, location, plan)),
                    Err(failure) => return refused("DELETE", &failure, location, plan),
                }
            }
            warning = Some(unlisted(&failure, location, plan));
        }
        Err(failure) => return not_passed(&failure, location),
    }
    let until = plan.retention.map(|retention| plan.clock.end_of(retention));
    let key = plan.names.new_key(CanaryKind::Write, until.unwrap_or_default());
    let retention = until.map(|until| Retention { mode: LockMode::Governance, until });
    let mut step = "PUT";
    let written = within(deadline, write(api, plan, &key, retention, leftover, &mut step)).await;
    match written {
        Ok(Written::Removed) => {
            let detail = format!("wrote, read back and deleted {CANARY_BYTES} bytes{remark}");
            Checked::passed(latest).with_warnings(warning).detail(detail)
        }
        Ok(Written::Locked) => {
            let detail = format!(
                "wrote and read back {CANARY_BYTES} bytes, which are locked for some seconds and deleted after that{remark}"
            );
            Checked::passed(Some(key)).with_warnings(warning).detail(detail)
        }
        Ok(Written::LockedLonger) => {
            Checked::passed(latest).with_warnings([overlong(location, &plan.names.text(&key))]).with_warnings(warning)
        }
        Ok(Written::Differs) => Checked::failed(Finding::new(
            Reason::CanaryMismatch,
            format!(
                "{location}: a canary that was read back differs from what was written: do not trust this storage before it and all proxies to it are examined"
            ),
        )),
        // A service refuses a retention that has ended on arrival like one that needs a permission.
        Err(failure)
            if failure.reason() == Reason::AccessDenied && until.is_some_and(|until| plan.clock.may_be_past(until)) =>
        {
            Checked::timed_out(Finding::new(
                Reason::ResponseTimedOut,
                format!(
                    "{location}: the service refused a canary ({failure}) whose requested retention was nearly over: look at the load of the service, or raise [s3.canary] retention"
                ),
            ))
        }
        Err(failure) => refused(step, &failure, location, plan),
    }
}

/// State of a remembered canary.
enum Resolved {
    Gone,
    Locked,
    /// It may exist, with an unknown version.
    Unknown,
}

/// Removes a remembered canary where listing is refused.
async fn resolve(api: &dyn ObjectApi, plan: &CanaryPlan<'_>, remembered: &Leftover) -> Result<Resolved, S3Failure> {
    if remembered.key.until > 0 && !plan.clock.is_past(remembered.key.until) {
        return Ok(Resolved::Locked);
    }
    // A DELETE without the version would only add a delete marker.
    if plan.versioned && remembered.version.is_none() {
        let is_gone = api.head(&plan.names.text(&remembered.key), None).await.is_err_and(|failure| failure.is_gone());
        return Ok(if is_gone { Resolved::Gone } else { Resolved::Unknown });
    }
    remembered.remove(api, plan.names).await?;
    Ok(Resolved::Gone)
}

enum Written {
    Removed,
    Locked,
    LockedLonger,
    Differs,
}

async fn write(
    api: &dyn ObjectApi,
    plan: &CanaryPlan<'_>,
    key: &CanaryKey,
    retention: Option<Retention>,
    leftover: &mut Option<Leftover>,
    step: &mut &'static str,
) -> Result<Written, S3Failure> {
    let (text, content) = (plan.names.text(key), content(key.id));
    let remembered = leftover.insert(Leftover { key: *key, version: None });
    match api.put(&text, content.clone(), retention).await {
        Ok(version) => remembered.version = version,
        Err(failure) => {
            // Only a refusal tells that nothing was stored.
            if failure.is_refusal() {
                *leftover = None;
            }
            return Err(failure);
        }
    }
    let remembered = remembered.clone();
    let version = remembered.version.as_deref();
    *step = "GET";
    let mut back = api.get(&text, version).await;
    // A part of the service may not know the object yet. It is lost only if it is missing twice.
    if back.as_ref().is_err_and(S3Failure::is_gone) {
        back = api.get(&text, version).await;
    }
    let is_same = match back {
        Ok(back) => back == content,
        Err(failure) if failure.is_gone() => false,
        Err(failure) => {
            if retention.is_none() && remembered.remove(api, plan.names).await.is_ok() {
                *leftover = None;
            }
            return Err(failure);
        }
    };
    *step = "HEAD";
    let locked = match retention {
        Some(asked) => {
            let stored = api.head(&text, version).await?;
            let left = stored.modified.map(|modified| asked.until.saturating_sub(modified));
            let is_longer = left.zip(plan.retention).is_some_and(|(left, retention)| exceeds(left, retention));
            Some(stored.retention == Some(asked) && !is_longer)
        }
        None => None,
    };
    if locked.is_none() {
        *step = "DELETE";
        api.delete(&text, version, false).await?;
        *leftover = None;
    }
    Ok(match (is_same, locked) {
        (false, _) => Written::Differs,
        (true, None) => Written::Removed,
        (true, Some(true)) => Written::Locked,
        (true, Some(false)) => Written::LockedLonger,
    })
}

fn still_locked(location: &S3Location, count: usize) -> Finding {
    let canaries = if count == 1 { "1 earlier canary is".to_owned() } else { format!("{count} earlier canaries are") };
    Finding::new(
        Reason::CanaryLocked,
        format!("{location}: {canaries} still locked for some seconds, and no further one is written until then"),
    )
}

fn overlong(location: &S3Location, key: &str) -> Finding {
    Finding::new(
        Reason::CanaryLocked,
        format!(
            "{location} has a default retention and locked a canary for longer than the requested seconds, so no further one is written and writing is not verified: {key} remains until the service allows its deletion"
        ),
    )
}

fn undeletable(location: &S3Location, key: &str, failure: &S3Failure) -> Finding {
    Finding::new(
        Reason::CanaryLocked,
        format!(
            "{location}: a canary was not deleted although its retention has ended ({failure}), so no further one is written and writing is not verified: grant the credentials s3:DeleteObjectVersion; {key} remains until then"
        ),
    )
}

fn unlisted(failure: &S3Failure, location: &S3Location, plan: &CanaryPlan<'_>) -> Finding {
    let action = if plan.versioned { "s3:ListBucketVersions" } else { "s3:ListBucket" };
    Finding::new(
        failure.reason(),
        format!(
            "{location}: canaries that a crash may have leaked cannot be listed ({failure}): grant the credentials {action} below {}",
            plan.names.folder()
        ),
    )
}

fn refused<T>(step: &str, failure: &S3Failure, location: &S3Location, plan: &CanaryPlan<'_>) -> Checked<T> {
    if failure.reason() != Reason::AccessDenied {
        return not_passed(failure, location);
    }
    let delete = if plan.versioned { ", s3:DeleteObjectVersion" } else { "" };
    let retain = if plan.retention.is_some() { ", s3:PutObjectRetention and s3:GetObjectRetention" } else { "" };
    Checked::failed(Finding::new(
        Reason::AccessDenied,
        format!(
            "{location}: the {step} of a canary was refused ({failure}): grant the credentials s3:PutObject, s3:GetObject, s3:DeleteObject{delete}{retain} below {}; if this host writes no backups, set read_only = true in the [[s3.credentials]] entry",
            plan.names.folder()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::canary::ProcessRole;
    use crate::check::fake::{FakeBucket, FakeObjects};
    use crate::model::Outcome;

    async fn written(api: &FakeObjects) -> Checked<Option<CanaryKey>> {
        retained(api, None).await
    }

    async fn retained(api: &FakeObjects, retention: Option<Duration>) -> Checked<Option<CanaryKey>> {
        by_clock(api, retention, ServiceClock::new(Some(0))).await
    }

    async fn by_clock(
        api: &FakeObjects,
        retention: Option<Duration>,
        clock: ServiceClock,
    ) -> Checked<Option<CanaryKey>> {
        let names = CanaryNames::new("canary/", "node-7", "s3/backups", ProcessRole::Daemon, Uuid::new_v4());
        let plan = CanaryPlan { names: &names, versioned: false, retention, clock, in_use: None };
        object_canary(api, &FakeBucket::healthy().location(), &plan, &mut None, Duration::from_secs(5)).await
    }

    #[tokio::test]
    async fn canary_fails_when_read_back_differs_or_is_missing() {
        let well = FakeObjects::default();
        assert_eq!(written(&well).await.outcome(), Outcome::Passed);
        let garbling = FakeObjects { garbles: true, ..FakeObjects::default() };
        let losing = FakeObjects { loses: true, ..FakeObjects::default() };
        for wrong in [&garbling, &losing] {
            let checked = written(wrong).await;
            assert_eq!((checked.outcome(), checked.reason()), (Outcome::Failed, Some(Reason::CanaryMismatch)));
        }
        for api in [well, garbling, losing] {
            assert_eq!(api.keys(), Vec::<String>::new());
        }
    }

    #[tokio::test]
    async fn refused_canary_times_out_when_its_retention_may_have_ended() {
        let api = FakeObjects { refuses_put: true, ..FakeObjects::default() };
        for (seconds, outcome, reason) in
            [(1, Outcome::TimedOut, Reason::ResponseTimedOut), (60, Outcome::Failed, Reason::AccessDenied)]
        {
            let checked = retained(&api, Some(Duration::from_secs(seconds))).await;
            assert_eq!((checked.outcome(), checked.reason()), (outcome, Some(reason)), "{seconds} s");
        }
    }

    #[tokio::test]
    async fn canary_is_not_locked_when_the_clock_is_unknown_or_wrong() {
        let api = FakeObjects::default();
        for (ahead, retention, outcome) in [
            (None, Some(60), Outcome::Skipped),
            (Some(901), Some(60), Outcome::Skipped),
            (Some(-901), Some(60), Outcome::Skipped),
            (None, None, Outcome::Passed),
            (Some(-901), None, Outcome::Passed),
        ] {
            let retention = retention.map(Duration::from_secs);
            let checked = by_clock(&api, retention, ServiceClock::new(ahead)).await;
            assert_eq!(checked.outcome(), outcome, "{ahead:?} {retention:?}: {checked:?}");
            assert_eq!(api.keys(), Vec::<String>::new());
        }
    }

    #[tokio::test]
    async fn canary_is_locked_too_long_when_the_storage_clock_lags() {
        for (is_behind, reason) in [(0, None), (1, None), (10, Some(Reason::CanaryLocked))] {
            let api = FakeObjects { is_behind, ..FakeObjects::default() };
            let checked = retained(&api, Some(Duration::from_secs(60))).await;
            assert_eq!((checked.outcome(), checked.reason()), (Outcome::Passed, reason), "{is_behind} s");
        }
    }

    #[tokio::test]
    async fn canary_is_lost_only_when_it_is_missing_twice() {
        for (times, outcome) in [(1, Outcome::Passed), (2, Outcome::Failed)] {
            let missing = S3Failure::service(404, Some("NoSuchKey"), None);
            let api = FakeObjects {
                next_gets: vec![missing; times].into_iter().collect::<std::collections::VecDeque<_>>().into(),
                ..FakeObjects::default()
            };
            assert_eq!(written(&api).await.outcome(), outcome, "{times}");
        }
    }

    #[tokio::test]
    async fn overlong_and_undeletable_canaries_are_both_reported() {
        let api = FakeObjects { refuses_delete: true, ..FakeObjects::default() };
        let before = CanaryNames::new("canary/", "node-7", "s3/backups", ProcessRole::Daemon, Uuid::new_v4());
        let ended = before.new_key(CanaryKind::Write, ServiceClock::default().now() - 60);
        let locked = Retention { mode: LockMode::Governance, until: ServiceClock::default().now() + 3600 };
        api.keep(&before.text(&ended));
        api.keep_locked(&before.text(&CanaryKey { id: Uuid::new_v4(), ..ended }), Some(locked));
        let checked = retained(&api, Some(Duration::from_secs(60))).await;
        assert_eq!((checked.outcome(), checked.findings().len()), (Outcome::Skipped, 2), "{checked:?}");
    }

    #[tokio::test]
    async fn canary_locked_for_too_long_without_the_right_to_list_has_both_warnings() {
        let api = FakeObjects { refuses_list: true, locks_longer: 3600, ..FakeObjects::default() };
        let checked = retained(&api, Some(Duration::from_secs(60))).await;
        let reasons: Vec<Reason> = checked.findings().iter().map(|finding| finding.reason).collect();
        assert_eq!(reasons, [Reason::CanaryLocked, Reason::AccessDenied]);
    }

    #[tokio::test]
    async fn write_canaries_leave_room_for_a_lock_proof() {
        let api = FakeObjects::default();
        for put in 1..=LOCKED_MAX {
            let checked = retained(&api, Some(Duration::from_secs(60))).await;
            let is_put = put <= LOCKED_BY_WRITING_MAX;
            assert_eq!(checked.outcome(), if is_put { Outcome::Passed } else { Outcome::Skipped }, "{put}");
            assert_eq!(api.keys().len(), put.min(LOCKED_BY_WRITING_MAX));
        }
    }

    #[tokio::test]
    async fn undeletable_canary_names_the_permission_and_does_not_accuse_the_service() {
        let api = FakeObjects { refuses_delete: true, ..FakeObjects::default() };
        let before = CanaryNames::new("canary/", "node-7", "s3/backups", ProcessRole::Daemon, Uuid::new_v4());
        api.keep(&before.text(&before.new_key(CanaryKind::Write, ServiceClock::default().now() - 60)));
        let checked = retained(&api, Some(Duration::from_secs(60))).await;
        assert_eq!((checked.outcome(), checked.reason()), (Outcome::Skipped, Some(Reason::CanaryLocked)));
        let message = checked.finding().map(|finding| finding.message.clone()).unwrap_or_default();
        assert!(message.contains("s3:DeleteObjectVersion") && !message.contains("for longer"), "{message}");
    }

    #[tokio::test]
    async fn one_canary_remains_when_credentials_may_write_and_not_delete() {
        let api = FakeObjects { refuses_delete: true, ..FakeObjects::default() };
        for _ in 0..3 {
            let checked = written(&api).await;
            assert_eq!((checked.outcome(), checked.reason()), (Outcome::Failed, Some(Reason::AccessDenied)));
            assert!(checked.finding().is_some_and(|finding| finding.message.contains("s3:DeleteObject")));
            assert_eq!(api.keys().len(), 1, "{:?}", api.keys());
        }
    }

    #[tokio::test]
    async fn canary_passes_with_a_warning_when_listing_is_refused() {
        let api = FakeObjects { refuses_list: true, ..FakeObjects::default() };
        let checked = written(&api).await;
        assert_eq!((checked.outcome(), checked.reason()), (Outcome::Passed, Some(Reason::AccessDenied)));
        assert!(checked.finding().is_some_and(|finding| finding.message.contains("s3:ListBucket below canary/")));
    }

    #[tokio::test]
    async fn sweep_removes_a_bounded_number_and_only_canaries() {
        let api = FakeObjects::default();
        let before = CanaryNames::new("canary/", "node-7", "s3/backups", ProcessRole::Daemon, Uuid::new_v4());
        let backup = format!("{}backup", before.folder());
        api.keep(&backup);
        for _ in 0..40 {
            api.keep(&before.text(&before.new_key(CanaryKind::Write, 0)));
        }
        let mut remaining = Vec::new();
        for _ in 0..4 {
            assert_eq!(written(&api).await.outcome(), Outcome::Passed);
            remaining.push(api.keys().len());
        }
        assert_eq!(remaining, [25, 9, 1, 1]);
        assert_eq!(api.keys(), [backup]);
    }

    /// Number of canaries after each of four runs of one process, without the permission to list.
    async fn counts(api: &FakeObjects, versioned: bool, retention: Option<Duration>) -> Vec<usize> {
        let names = CanaryNames::new("canary/", "node-7", "s3/backups", ProcessRole::Daemon, Uuid::new_v4());
        let clock = ServiceClock::new(Some(0));
        let plan = CanaryPlan { names: &names, versioned, retention, clock, in_use: None };
        let (mut leftover, mut counts) = (None, Vec::new());
        for _ in 0..4 {
            let location = FakeBucket::healthy().location();
            object_canary(api, &location, &plan, &mut leftover, Duration::from_secs(5)).await;
            counts.push(api.keys().len());
        }
        counts
    }

    #[tokio::test]
    async fn one_canary_remains_when_listing_and_another_permission_are_refused() {
        let unlisted = || FakeObjects { refuses_list: true, ..FakeObjects::default() };
        let write_only = FakeObjects { refuses_get: true, refuses_delete: true, ..unlisted() };
        let not_readable = FakeObjects { refuses_get: true, ..unlisted() };
        let not_deletable = FakeObjects { refuses_delete: true, ..unlisted() };
        let stores_and_fails = FakeObjects { stores_and_fails: true, ..unlisted() };
        for versioned in [false, true] {
            assert_eq!(counts(&write_only, versioned, None).await, [1; 4], "{versioned}");
            assert_eq!(counts(&not_readable, versioned, None).await, [0; 4], "{versioned}");
            assert_eq!(counts(&not_deletable, versioned, None).await, [1; 4], "{versioned}");
            assert_eq!(counts(&unlisted(), versioned, None).await, [0; 4], "{versioned}");
            assert_eq!(counts(&stores_and_fails, versioned, None).await, [1; 4], "{versioned}");
            for api in [&write_only, &not_deletable, &stores_and_fails] {
                api.clear();
            }
        }
        assert_eq!(counts(&unlisted(), true, Some(Duration::from_secs(60))).await, [1; 4], "locked by default");
    }
}
