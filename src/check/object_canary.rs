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
//! Some operators grant credentials that may write but not delete, to protect backups. Writing is verified, and the
//! canary remains. In a bucket without versions the next run overwrites it. In other buckets the next run only reads it
//! back.

mod findings;
pub mod memory;

use std::time::Duration;

use uuid::Uuid;

use super::Checked;
use super::bucket::not_passed;
use super::canary::sweep::is_denial;
use super::canary::{
    CANARY_BYTES, CanaryKind, CanaryNames, ProcessRole, ServiceClock, Swept, Undeleted, content, exceeds, is_content,
    sweep,
};
use super::lock_proof::steps::LONGER_RETENTION;
use crate::model::report::{Finding, finding};
use crate::model::{CanaryLeftover, LockMode, Reason, S3Location};
use crate::s3::{ObjectApi, Retention, S3Failure, Versioning, within};
use findings::{kept, not_deleted, overlong, refused, still_locked, too_many, undeletable, unknown, unlisted};
use findings::{unrecorded, unremovable};
pub use memory::{CanaryMemory, CanaryStore, Resolved};

/// Largest number of canaries of a target on this node. At this number no further canary is written.
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
        Self { names, versioning: None, retention: None, clock, in_use: None, append_only: false, sends_headers: false }
    }

    /// Whether the bucket has or may have versions.
    #[must_use]
    pub fn may_have_versions(&self) -> bool {
        self.versioning != Some(Versioning::Off)
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
        return Checked::skipped(finding!(
            Reason::ClockSkewed,
            "{location} has a default retention, so a canary needs a retention of its own, and none is written: {why}"
        ));
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
    let until = plan.retention.map(|retention| plan.clock.end_of(retention));
    let key = match &earlier.kept {
        // A PUT would add a version, or be refused because of the lock.
        Some(kept) if plan.may_have_versions() || kept.leftover.until > 0 => {
            return read_back(api, location, plan, kept, deadline).await.with_warnings(warning);
        }
        Some(kept) => kept.leftover.key.clone(),
        None => plan.names.text(&plan.names.new_key(CanaryKind::Write, until.unwrap_or_default())),
    };
    let new = CanaryLeftover { key, until: until.unwrap_or_default(), version: None, written_at: None };
    let before = memory.leftover().cloned();
    memory.remember(new.clone());
    if listed.is_err()
        && let Err(why) = memory.save(deadline).await
    {
        memory.restore(before);
        return Checked::skipped(unrecorded(&why, location)).with_warnings(warning);
    }
    let mut step = Request::Put;
    let written = within(deadline, write(api, plan, &new.key, until, memory, &mut step)).await;
    // Only a refusal shows that nothing was stored.
    if step == Request::Put && written.as_ref().is_err_and(S3Failure::is_refusal) {
        memory.restore(before);
    }
    if listed.is_err()
        && let Err(why) = memory.save(deadline).await
    {
        tracing::warn!(why, "the registry still has the record of an earlier canary");
    }
    let Earlier { remark, latest, .. } = earlier;
    let checked = match written {
        Ok(Written::Removed) => {
            Checked::passed(latest).detail(format!("wrote, read back and deleted {CANARY_BYTES} bytes{remark}"))
        }
        Ok(Written::Kept(denied)) => {
            let finding = (!plan.append_only).then(|| not_deleted(location, &denied, plan));
            let expected = if plan.append_only { " (append_only)" } else { "" };
            Checked::passed(latest).with_warnings(finding).detail(format!(
                "wrote and read back {CANARY_BYTES} bytes; deleting them was refused{expected}, so they remain{remark}"
            ))
        }
        Ok(Written::Locked) => Checked::passed(until).detail(format!(
            "wrote and read back {CANARY_BYTES} bytes, which are locked for a few seconds and deleted after that{remark}"
        )),
        Ok(Written::LockedLonger) => Checked::passed(latest).with_warnings([overlong(location, &new.key)]),
        Ok(Written::Differs) => Checked::failed(differs(location)),
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
        if plan.names.role() == ProcessRole::OneShot {
            try_delete(api, location, plan, deadline).await?;
        }
        return Ok(Earlier::default());
    };
    let finding = match within(deadline, memory.resolve(api, plan)).await {
        Ok(Resolved::Gone) => return Ok(Earlier::default()),
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

/// Tests the permission to delete with an object that does not exist. A command whose credentials may neither list nor
/// delete would leave a canary at each run, so it writes none.
async fn try_delete(
    api: &dyn ObjectApi,
    location: &S3Location,
    plan: &CanaryPlan<'_>,
    deadline: Duration,
) -> Result<(), NotWritten> {
    let key = plan.names.text(&plan.names.new_key(CanaryKind::Write, 0));
    // Without a version, it would add a delete marker.
    let version = plan.may_have_versions().then_some(NULL_VERSION);
    match within(deadline, async { api.delete(&key, version, false).await }).await {
        Err(denied) if denied.is_refusal() => Err(Box::new(Checked::skipped(unremovable(&denied, location, plan)))),
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
        Err(failure) => refused(Request::ReadEarlier, &failure, location, plan),
    }
}

/// The request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    /// DELETE of an earlier canary.
    DeleteEarlier,
    /// GET of an earlier canary.
    ReadEarlier,
    Put,
    Get,
    /// HEAD, for the retention of a locked canary.
    Head,
    Delete,
}

impl Request {
    /// Describes the request, and those that passed before it.
    fn describe(self) -> &'static str {
        match self {
            Self::DeleteEarlier => "the DELETE of an earlier canary",
            Self::ReadEarlier => "the GET of an earlier canary",
            Self::Put => "the PUT of a canary",
            Self::Get => "the GET of a canary, after its PUT passed,",
            Self::Head => "the HEAD of a canary, after its PUT and GET passed,",
            Self::Delete => "the DELETE of a canary, after its PUT and GET passed,",
        }
    }
}

enum Written {
    Removed,
    /// Its DELETE was denied.
    Kept(S3Failure),
    Locked,
    LockedLonger,
    Differs,
}

/// Writes the remembered canary, and updates the memory.
async fn write(
    api: &dyn ObjectApi,
    plan: &CanaryPlan<'_>,
    key: &str,
    until: Option<i64>,
    memory: &mut CanaryMemory,
    step: &mut Request,
) -> Result<Written, S3Failure> {
    // New content for each PUT, because a canary may be overwritten.
    let content = content(Uuid::new_v4());
    let retention = until.map(|until| Retention { mode: LockMode::Governance, until });
    let version = plan.version(api.put(key, content.clone(), retention).await?);
    memory.written(version.clone());
    let version = version.as_deref();
    *step = Request::Get;
    let mut back = api.get(key, version).await;
    // Not every part of the service may know the object yet. It counts as lost only if it is missing twice.
    if back.as_ref().is_err_and(S3Failure::is_gone) {
        back = api.get(key, version).await;
    }
    memory.set_readable(back.is_ok());
    let is_same = match back {
        Ok(back) => back == content,
        Err(failure) if failure.is_gone() => false,
        Err(failure) => {
            if retention.is_none() && api.delete(key, version, false).await.is_ok() {
                memory.forget();
            }
            return Err(failure);
        }
    };
    *step = Request::Head;
    let locked = match retention {
        Some(asked) => {
            let stored = api.head(key, version).await?;
            let left = stored.modified.map(|modified| asked.until.saturating_sub(modified));
            let is_longer = left.zip(plan.retention).is_some_and(|(left, retention)| exceeds(left, retention));
            Some(stored.retention == Some(asked) && !is_longer)
        }
        None => None,
    };
    let mut denied = None;
    if locked.is_none() {
        *step = Request::Delete;
        match api.delete(key, version, false).await {
            Err(failure) if is_denial(&failure) => denied = Some(failure),
            Err(failure) if !failure.is_gone() => return Err(failure),
            _ => memory.forget(),
        }
    }
    Ok(match (is_same, locked, denied) {
        (false, ..) => Written::Differs,
        (true, None, None) => Written::Removed,
        (true, None, Some(denied)) => Written::Kept(denied),
        (true, Some(true), _) => Written::Locked,
        (true, Some(false), _) => Written::LockedLonger,
    })
}

fn differs(location: &S3Location) -> Finding {
    finding!(
        Reason::CanaryMismatch,
        "{location}: a canary that was read back differs from what was written: do not trust this storage before it and all proxies to it are examined"
    )
}

#[cfg(test)]
mod tests;
