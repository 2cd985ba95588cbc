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
use super::canary::sweep::is_denial;
use super::canary::{CANARY_BYTES, CanaryKey, CanaryKind, CanaryNames, ServiceClock, content, exceeds, sweep};
use super::lock_proof::steps::LONGER_RETENTION;
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
                return refused(Request::DeleteEarlier, failure, location, plan);
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
                    Ok(Resolved::LockedLonger) => {
                        return Checked::skipped(overlong(location, &plan.names.text(&remembered.key)))
                            .with_warnings([unlisted(&failure, location, plan)]);
                    }
                    Ok(Resolved::Undeletable(denied)) => {
                        let key = plan.names.text(&remembered.key);
                        return Checked::skipped(undeletable(location, &key, &denied))
                            .with_warnings([unlisted(&failure, location, plan)]);
                    }
                    Ok(Resolved::Unknown) => return Checked::skipped(unlisted(&failure, location, plan)),
                    Err(failure) => return refused(Request::DeleteEarlier, &failure, location, plan),
                }
            }
            warning = Some(unlisted(&failure, location, plan));
        }
        Err(failure) => return not_passed(&failure, location),
    }
    let until = plan.retention.map(|retention| plan.clock.end_of(retention));
    let key = plan.names.new_key(CanaryKind::Write, until.unwrap_or_default());
    let retention = until.map(|until| Retention { mode: LockMode::Governance, until });
    let mut step = Request::Put;
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
        Err(failure) if step == Request::Put && until.is_some() && failure.may_refuse_the_retention() => {
            Checked::skipped(Finding::new(
                Reason::LockUnverifiable,
                format!(
                    "{location} has a default retention, and the PUT of a canary with a short retention was refused ({failure}), so writing is not verified: {LONGER_RETENTION}; else look up the code in the service's documentation"
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
    /// Its requested retention has ended, and the service reports a later end.
    LockedLonger,
    /// Its retention has ended, and its DELETE was denied.
    Undeletable(S3Failure),
    /// It may exist, with an unknown version.
    Unknown,
}

/// Removes a remembered canary where listing is refused.
async fn resolve(api: &dyn ObjectApi, plan: &CanaryPlan<'_>, remembered: &Leftover) -> Result<Resolved, S3Failure> {
    if remembered.key.until > 0 && !plan.clock.is_past(remembered.key.until) {
        return Ok(Resolved::Locked);
    }
    let (text, version) = (plan.names.text(&remembered.key), remembered.version.as_deref());
    // A DELETE without the version would only add a delete marker.
    if plan.versioned && version.is_none() {
        let is_gone = api.head(&text, None).await.is_err_and(|failure| failure.is_gone());
        return Ok(if is_gone { Resolved::Gone } else { Resolved::Unknown });
    }
    let denied = match remembered.remove(api, plan.names).await {
        Err(failure) if remembered.key.until > 0 && is_denial(&failure) => failure,
        removed => return removed.map(|()| Resolved::Gone),
    };
    let retention = api.head(&text, version).await.ok().and_then(|stored| stored.retention);
    let is_longer = retention.is_some_and(|retention| retention.until > remembered.key.until);
    Ok(if is_longer { Resolved::LockedLonger } else { Resolved::Undeletable(denied) })
}

/// Request that a failure ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    /// DELETE of an earlier canary.
    DeleteEarlier,
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
            Self::Put => "the PUT of a canary",
            Self::Get => "the GET of a canary, after its PUT passed,",
            Self::Head => "the HEAD of a canary, after its PUT and GET passed,",
            Self::Delete => "the DELETE of a canary, after its PUT and GET passed,",
        }
    }
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
    step: &mut Request,
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
    *step = Request::Get;
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
    *step = Request::Head;
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
        *step = Request::Delete;
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

fn refused<T>(request: Request, failure: &S3Failure, location: &S3Location, plan: &CanaryPlan<'_>) -> Checked<T> {
    let what = format!("{location}: {}", request.describe());
    if failure.reason() != Reason::AccessDenied {
        let finding = failure.finding_of(&format!("{what} failed"));
        return if failure.is_timeout() { Checked::timed_out(finding) } else { Checked::failed(finding) };
    }
    let delete = if plan.versioned { ", s3:DeleteObjectVersion" } else { "" };
    let (retain, longer) = match plan.retention {
        Some(_) => (", s3:PutObjectRetention and s3:GetObjectRetention", format!("; {LONGER_RETENTION}")),
        None => ("", String::new()),
    };
    Checked::failed(Finding::new(
        Reason::AccessDenied,
        format!(
            "{what} was refused ({failure}): grant the credentials s3:PutObject, s3:GetObject, s3:DeleteObject{delete}{retain} below {}; if this host writes no backups, set read_only = true in the [[s3.credentials]] entry{longer}",
            plan.names.folder()
        ),
    ))
}

#[cfg(test)]
mod tests;
