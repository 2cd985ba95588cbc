//! `write_canary` of a bucket: an object is written, read back, compared and deleted.
//!
//! Its key is as long as the keys of backups ([`super::canary::key`]). In a bucket with versions the agent
//! deletes the version that it wrote, so nothing remains, not even a delete marker. Leftovers of earlier canaries are
//! removed first.
//!
//! A bucket with a default retention would lock the canary for days, like a backup. There the canary gets
//! an explicit retention of seconds, which overrides the default. The agent verifies that, and a later run
//! deletes the canary. If the service locked it for longer, no further canary is written.
//!
//! Credentials that may not list cannot find leftovers. The agent then remembers its latest canary, also across
//! restarts, and removes it by key and version ([`memory`]).
//!
//! If it is unknown whether the bucket locks new objects by default, the canary gets that short retention too. If the
//! service answers that the bucket has no object lock, the canary is written without one.
//!
//! Some operators grant credentials that may write but not delete, to protect backups. Writing is verified, and the
//! canary remains. In a bucket without versions the next run overwrites it. In other buckets the next run only reads it
//! back. If the credentials may not read either, only writing is verified, which is a warning.

mod findings;
pub mod memory;
mod write;

use std::time::Duration;

use uuid::Uuid;

use super::Checked;
use super::bucket::not_passed;
use super::canary::sweep::REMOVED_MAX;
use super::canary::{
    CANARY_BYTES, CanaryKind, CanaryNames, ProcessRole, ServiceClock, Swept, Undeleted, is_content, sweep,
};
use super::lock_proof::steps::LONGER_RETENTION;
use crate::model::report::{Finding, finding};
use crate::model::{CanaryLeftover, Reason, S3Location};
use crate::s3::{ObjectApi, S3Failure, StoredVersion, Versioning, within};
use findings::without_clock;
use findings::{kept, neither_read_nor_deleted, not_deleted, not_read, overlong, refused, retention_refused};
use findings::{still_locked, too_many, undeletable, unknown, unlisted, unrecorded, unremovable};
pub use memory::{CanaryMemory, CanaryStore, Resolved};
use write::{End, Request, Written, denies_reading, write};

/// Number of canaries of a target on this node at which no further write canary is written. A lock proof may add one, so
/// at most five remain.
pub const LOCKED_MAX: usize = 4;

/// Largest number of locked write canaries of a target on this node. It leaves room for the canary of a lock proof.
pub const LOCKED_BY_WRITING_MAX: usize = LOCKED_MAX - 1;

/// Version ID of an object that was written while versioning was off or suspended (S3 user guide, "Working with
/// objects in a versioning-suspended bucket"). A DELETE without it adds a delete marker there.
pub const NULL_VERSION: &str = "null";

/// How a canary is written.
#[derive(Debug, Clone)]
pub struct CanaryPlan<'a> {
    /// Names of this node's canaries.
    pub names: &'a CanaryNames,
    /// Versioning of the bucket. `None` if it is not known.
    pub versioning: Option<Versioning>,
    /// Retention of the canary. `None` if the bucket does not lock new objects by default.
    pub retention: Option<Duration>,
    /// Whether it is unknown if the bucket locks new objects by default.
    pub is_lock_unknown: bool,
    /// The service's clock.
    pub clock: ServiceClock,
    /// Canary of a lock proof in progress, which stays.
    pub in_use: Option<Uuid>,
    /// Whether the credentials are expected not to be allowed to delete.
    pub append_only: bool,
    /// Whether PUTs have headers of the configuration.
    pub sends_headers: bool,
}

impl<'a> CanaryPlan<'a> {
    /// A plan for a bucket whose configuration is not known.
    #[must_use]
    pub fn new(names: &'a CanaryNames, clock: ServiceClock) -> Self {
        Self {
            names,
            versioning: None,
            retention: None,
            is_lock_unknown: false,
            clock,
            in_use: None,
            append_only: false,
            sends_headers: false,
        }
    }

    /// Whether the bucket has or may have versions.
    #[must_use]
    pub fn may_have_versions(&self) -> bool {
        self.versioning != Some(Versioning::Off)
    }

    /// Whether a PUT may add a version to an earlier canary instead of replacing it. In a bucket with versions, the answer
    /// to the PUT of the earlier canary named one.
    fn adds_version_to(&self, earlier: &CanaryLeftover) -> bool {
        let has_version = earlier.version.as_ref().is_some_and(|version| version != NULL_VERSION);
        let is_known = self.versioning.is_some() || (self.retention.is_some() && !self.is_lock_unknown);
        let is_unanswered = earlier.written_at.is_none() && earlier.version.is_none();
        self.may_have_versions() && (has_version || is_known || is_unanswered)
    }

    /// A canary that replaces an earlier one without versions. If its PUT is not answered, the next run may replace it
    /// again.
    fn replacement_of(&self, earlier: &CanaryLeftover) -> CanaryLeftover {
        let version = self.may_have_versions().then(|| NULL_VERSION.to_owned());
        CanaryLeftover { version, written_at: None, ..earlier.clone() }
    }

    /// A canary that is not written yet.
    fn new_canary(&self, until: Option<i64>, is_listed: bool) -> CanaryLeftover {
        let until = until.unwrap_or_default();
        let key = if is_listed { self.names.new_key(CanaryKind::Write, until) } else { self.names.unlisted_key() };
        CanaryLeftover { key: self.names.text(&key), until, version: None, written_at: None }
    }

    /// Returns the version to address an object with. `named` is the version that the service named.
    #[must_use]
    pub fn version(&self, named: Option<String>) -> Option<String> {
        named.or_else(|| (self.versioning == Some(Versioning::Suspended)).then(|| NULL_VERSION.to_owned()))
    }
}

/// An earlier canary that these credentials may not delete.
struct Kept {
    leftover: CanaryLeftover,
    denied: S3Failure,
}

impl Kept {
    /// Returns when it was written, as part of a sentence.
    fn since(&self) -> String {
        self.leftover.written_at.map(|at| format!(" at {at:.0}")).unwrap_or_default()
    }
}

/// Writes a canary. `deadline` bounds the removal of leftovers, and then also the canary itself. The fact is the end of
/// the retention of the latest locked canary, in seconds since 1970. That canary may be from an earlier run.
pub async fn object_canary(
    api: &dyn ObjectApi,
    location: &S3Location,
    plan: &CanaryPlan<'_>,
    memory: &mut CanaryMemory,
    deadline: Duration,
) -> Checked<Option<i64>> {
    if let (Some(why), Some(_)) = (plan.clock.implausible(), plan.retention) {
        return Checked::skipped(without_clock(&why, location, plan));
    }
    let sweeping = sweep(api, plan.names, plan.may_have_versions(), plan.clock, plan.in_use);
    let (listed, earlier) = match within(deadline, sweeping).await {
        Ok(swept) => (Ok(()), after_sweep(swept, location, plan, memory)),
        // Backups can be written without listing them.
        Err(failure) if failure.is_refusal() => {
            let earlier = after_refused_listing(api, location, plan, memory, &failure, deadline).await;
            (Err(failure), earlier)
        }
        Err(failure) => return not_passed(&failure, location),
    };
    let warning = listed.as_ref().err().filter(|_| !plan.append_only).map(|failure| unlisted(failure, location, plan));
    let earlier = match earlier {
        Ok(earlier) => earlier,
        Err(checked) => return (*checked).with_warnings(warning),
    };
    let mut canary = match &earlier.kept {
        // A PUT would add a version, or be refused because of the lock.
        Some(kept) if plan.adds_version_to(&kept.leftover) || kept.leftover.until > 0 => {
            return read_back(api, location, plan, kept, deadline).await.with_warnings(warning);
        }
        Some(kept) => plan.replacement_of(&kept.leftover),
        None => plan.new_canary(plan.retention.map(|retention| plan.clock.end_of(retention)), listed.is_ok()),
    };
    let (written, step) = loop {
        let (written, step) = match attempt(api, plan, &canary, memory, listed.is_err(), deadline).await {
            Ok(attempted) => attempted,
            Err(why) => return Checked::skipped(unrecorded(&why, location)).with_warnings(warning),
        };
        let has_no_lock = step == Request::Put && written.as_ref().is_err_and(S3Failure::denies_object_lock);
        if !(has_no_lock && plan.is_lock_unknown && canary.until > 0) {
            break (written, step);
        }
        canary = plan.new_canary(None, listed.is_ok());
    };
    let until = (canary.until > 0).then_some(canary.until);
    let Earlier { remark, latest, .. } = earlier;
    let checked = match written {
        Ok(Written { end, unread }) => {
            let unread = unread.map(|denied| not_read(location, &denied, plan));
            let wrote = if unread.is_some() { "wrote" } else { "wrote and read back" };
            let checked = match end {
                End::Removed if unread.is_some() => {
                    Checked::passed(latest).detail(format!("wrote and deleted {CANARY_BYTES} bytes{remark}"))
                }
                End::Removed => {
                    Checked::passed(latest).detail(format!("wrote, read back and deleted {CANARY_BYTES} bytes{remark}"))
                }
                End::Kept(denied) => {
                    let finding = (!plan.append_only).then(|| not_deleted(location, &denied, plan));
                    let expected = if plan.append_only { " (append_only)" } else { "" };
                    Checked::passed(latest).with_warnings(finding).detail(format!(
                        "{wrote} {CANARY_BYTES} bytes; deleting them was refused{expected}, so they remain{remark}"
                    ))
                }
                End::Locked => Checked::passed(until).detail(format!(
                    "{wrote} {CANARY_BYTES} bytes, which are locked for a few seconds and deleted after that{remark}"
                )),
                End::LockedLonger => Checked::passed(latest).with_warnings([overlong(location, &canary.key)]),
                End::Differs => Checked::failed(differs(location)),
            };
            checked.with_warnings(unread)
        }
        Err(failure)
            if step == Request::Put && until.is_some() && plan.is_lock_unknown && failure.is_about_the_put() =>
        {
            Checked::skipped(retention_refused(location, &failure))
        }
        // If a retention has ended on arrival, services refuse it in the same way as a missing permission.
        Err(failure)
            if failure.reason() == Reason::AccessDenied && until.is_some_and(|until| plan.clock.may_be_past(until)) =>
        {
            return Checked::timed_out(finding!(
                Reason::ResponseTimedOut,
                "{location}: the service refused a canary ({failure}) whose requested retention was nearly over: look at the load of the service, or raise [s3.canary] retention"
            ));
        }
        Err(failure) if step == Request::Put && until.is_some() && failure.refuses_the_retention() => {
            Checked::skipped(finding!(
                Reason::LockUnverifiable,
                "{location} has a default retention, and the PUT of a canary with a short retention was refused for that retention ({failure}), so writing is not verified: grant the credentials s3:PutObjectRetention and s3:GetObjectRetention, or, {LONGER_RETENTION}"
            ))
        }
        Err(failure) => return refused(step, &failure, location, plan),
    };
    checked.with_warnings(warning)
}

/// Writes one canary. With `must_record`, records it before and after its PUT. Returns the result and the latest
/// request.
///
/// # Errors
/// Why the canary was not recorded. Then it is not written.
async fn attempt(
    api: &dyn ObjectApi,
    plan: &CanaryPlan<'_>,
    canary: &CanaryLeftover,
    memory: &mut CanaryMemory,
    must_record: bool,
    deadline: Duration,
) -> Result<(Result<Written, S3Failure>, Request), String> {
    let before = memory.leftover().cloned();
    memory.remember(canary.clone());
    if must_record && let Err(why) = memory.save(deadline).await {
        memory.restore(before);
        return Err(why);
    }
    let mut step = Request::Put;
    let written = within(deadline, write(api, plan, canary, memory, &mut step)).await;
    if step == Request::Put && written.as_ref().is_err_and(S3Failure::stored_nothing) {
        memory.restore(before);
    }
    if must_record && let Err(why) = memory.save(deadline).await {
        tracing::warn!(why, "the registry still has the record of an earlier canary");
    }
    Ok((written, step))
}

/// What is known of earlier canaries before the next one is written.
#[derive(Default)]
struct Earlier {
    /// A canary that these credentials may not delete. It is overwritten or read back instead of writing a new one.
    kept: Option<Kept>,
    /// End of the retention of the latest locked canary of this process.
    latest: Option<i64>,
    remark: String,
}

/// Result of the check if no further canary is written. Boxed, because it is large.
type NotWritten = Box<Checked<Option<i64>>>;

fn after_sweep(
    swept: Swept,
    location: &S3Location,
    plan: &CanaryPlan<'_>,
    memory: &mut CanaryMemory,
) -> Result<Earlier, NotWritten> {
    if plan.retention.is_some() {
        let overlong = swept.overlong.as_ref().map(|key| overlong(location, key));
        let left = swept.undeletable.as_ref().filter(|_| !plan.append_only);
        let undeletable = left.map(|left| undeletable(location, &plan.names.text(&left.key), &left.failure));
        let mut findings = overlong.into_iter().chain(undeletable);
        if let Some(finding) = findings.next() {
            return Err(Box::new(Checked::skipped(finding).with_warnings(findings)));
        }
    }
    let (locked, remaining) = (swept.locked.len(), swept.locked.len() + swept.unlocked);
    if plan.retention.is_some() && locked >= LOCKED_BY_WRITING_MAX {
        return Err(Box::new(Checked::skipped(still_locked(location, locked))));
    }
    memory.forget();
    let of_lock = swept.undeletable.filter(|_| plan.retention.is_some());
    let kept = of_lock.or(swept.refused.filter(|kept| plan.names.is_own(&kept.key) || remaining >= LOCKED_MAX));
    if kept.is_none() && remaining >= LOCKED_MAX {
        return Err(Box::new(Checked::skipped(too_many(location, remaining, plan))));
    }
    let kept = kept.map(|Undeleted { key, version, modified, failure }| Kept {
        leftover: CanaryLeftover { key: plan.names.text(&key), until: key.until, version, written_at: modified },
        denied: failure,
    });
    let own = swept.locked.iter().filter(|key| plan.names.is_own(key));
    let latest = own.map(|key| key.until).max();
    let remark =
        if swept.removed > 0 { format!("; leftover canaries removed: {}", swept.removed) } else { String::new() };
    Ok(Earlier { kept, latest, remark })
}

/// Tries to remove the remembered canary of a bucket that cannot be listed.
async fn after_refused_listing(
    api: &dyn ObjectApi,
    location: &S3Location,
    plan: &CanaryPlan<'_>,
    memory: &mut CanaryMemory,
    refused_listing: &S3Failure,
    deadline: Duration,
) -> Result<Earlier, NotWritten> {
    if let Err(why) = memory.load(deadline).await {
        return Err(Box::new(Checked::skipped(unrecorded(&why, location))));
    }
    let Some(leftover) = memory.leftover().cloned() else {
        remove_late(api, location, plan, deadline).await?;
        return Ok(Earlier::default());
    };
    let finding = match within(deadline, memory.resolve(api, plan)).await {
        Ok(Resolved::Gone) => {
            remove_late(api, location, plan, deadline).await?;
            return Ok(Earlier::default());
        }
        Ok(Resolved::Undeletable(denied)) if leftover.until == 0 || plan.append_only => {
            return Ok(Earlier { kept: Some(Kept { leftover, denied }), ..Earlier::default() });
        }
        Ok(Resolved::Locked) => still_locked(location, 1),
        Ok(Resolved::LockedLonger) => overlong(location, &leftover.key),
        Ok(Resolved::Undeletable(denied)) => undeletable(location, &leftover.key, &denied),
        Ok(Resolved::Unknown) => unknown(refused_listing, location, &leftover.key),
        Err(failure) => return Err(Box::new(refused(Request::DeleteEarlier, &failure, location, plan))),
    };
    Err(Box::new(Checked::skipped(finding)))
}

/// Removes canaries of the agent that PUTs of earlier runs stored late. A command has a new key, so it only tries to
/// delete an object that does not exist. If that is refused, the command writes no canary, because each run would leave
/// one more.
async fn remove_late(
    api: &dyn ObjectApi,
    location: &S3Location,
    plan: &CanaryPlan<'_>,
    deadline: Duration,
) -> Result<(), NotWritten> {
    let is_command = plan.names.role() == ProcessRole::OneShot;
    let key = plan.names.text(&plan.names.unlisted_key());
    let removing = async {
        for _ in 0..REMOVED_MAX {
            if is_command || !plan.may_have_versions() {
                break;
            }
            let Ok(StoredVersion { version: Some(version), .. }) = api.head(&key, None).await else { break };
            api.delete(&key, Some(&version), false).await?;
        }
        // Without a version, it would add a delete marker.
        api.delete(&key, plan.may_have_versions().then_some(NULL_VERSION), false).await
    };
    match within(deadline, removing).await {
        Err(denied) if is_command && denied.is_refusal() => {
            Err(Box::new(Checked::skipped(unremovable(&denied, location, plan))))
        }
        // The DELETE of the canary reports other failures.
        _ => Ok(()),
    }
}

/// Reads back an earlier canary that can neither be deleted nor overwritten.
async fn read_back(
    api: &dyn ObjectApi,
    location: &S3Location,
    plan: &CanaryPlan<'_>,
    earlier: &Kept,
    deadline: Duration,
) -> Checked<Option<i64>> {
    let CanaryLeftover { key, version, .. } = &earlier.leftover;
    let version = plan.version(version.clone());
    let reading = async { api.get(key, version.as_deref()).await };
    match within(deadline, reading).await {
        Ok(content) if is_content(&content) && plan.append_only => Checked::not_needed(format!(
            "a canary that was written{} was read back; deleting it was refused (append_only), so no further canary is written while it remains: {key}",
            earlier.since()
        )),
        Ok(content) if is_content(&content) => Checked::skipped(kept(location, earlier, plan)),
        Ok(_) => Checked::failed(differs(location)),
        Err(failure) if denies_reading(&failure) && earlier.leftover.written_at.is_some() => {
            Checked::skipped(neither_read_nor_deleted(location, earlier, &failure, plan))
        }
        Err(failure) => refused(Request::ReadEarlier, &failure, location, plan),
    }
}

fn differs(location: &S3Location) -> Finding {
    finding!(
        Reason::CanaryMismatch,
        "{location}: a canary that was read back differs from what was written: do not trust this storage before it and all proxies to it are examined"
    )
}

#[cfg(test)]
mod tests;
