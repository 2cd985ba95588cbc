//! Findings of the write canary.

use super::earlier::Kept;
use super::{CanaryPlan, Request};
use crate::check::Checked;
use crate::check::lock_proof::steps::LONGER_RETENTION;
use crate::model::report::{Finding, finding};
use crate::model::{Reason, S3Location};
use crate::s3::S3Failure;

pub(super) fn still_locked(location: &S3Location, count: usize) -> Finding {
    let canaries = if count == 1 { "1 earlier canary is".to_owned() } else { format!("{count} earlier canaries are") };
    finding!(
        Reason::CanaryLocked,
        "{location}: {canaries} still locked for a few seconds, and no further canary is written until then"
    )
}

pub(super) fn overlong(location: &S3Location, key: &str) -> Finding {
    finding!(
        Reason::CanaryLocked,
        "{location} has a default retention and locked a canary for longer than the requested seconds, so no further canary is written and writing is not verified: {key} remains until the service allows its deletion"
    )
}

pub(super) fn undeletable(location: &S3Location, key: &str, failure: &S3Failure) -> Finding {
    finding!(
        Reason::CanaryLocked,
        "{location}: a canary was not deleted although its retention has ended ({failure}), so no further canary is written and writing is not verified: grant the credentials s3:DeleteObjectVersion, or set append_only = true in the [[s3.credentials]] entry if they must not delete; {key} remains until then"
    )
}

/// The canaries of this host reached their limit.
pub(super) fn too_many(location: &S3Location, count: usize, plan: &CanaryPlan<'_>) -> Finding {
    finding!(
        Reason::AccessDenied,
        "{location}: {count} canaries of other commands on this host exist, so no further canary is written and writing is not verified: if these credentials may not delete, grant them {}, or remove the objects below {}",
        delete_action(plan),
        plan.names.folder()
    )
}

/// A canary was written, and its GET was denied.
pub(super) fn not_read(location: &S3Location, denied: &S3Failure, plan: &CanaryPlan<'_>) -> Finding {
    finding!(
        Reason::AccessDenied,
        "{location}: {} was refused ({denied}), so backups can be written, and that they are stored intact is not verified: grant the credentials s3:GetObject below {}",
        Request::Get.describe(),
        plan.names.folder()
    )
}

/// An earlier canary can be neither read nor deleted, nor overwritten without adding a version.
pub(super) fn neither_read_nor_deleted(
    location: &S3Location,
    kept: &Kept,
    unread: &S3Failure,
    plan: &CanaryPlan<'_>,
) -> Finding {
    finding!(
        Reason::AccessDenied,
        "{location}: writing was verified{}, and reading and deleting that canary were refused ({unread}), so no further one is written while it remains: grant the credentials s3:GetObject or {} below {}; {}",
        kept.since(),
        delete_action(plan),
        plan.names.folder(),
        kept.leftover.key
    )
}

/// No canary is locked without a plausible clock of the service.
pub(super) fn without_clock(why: &str, location: &S3Location, plan: &CanaryPlan<'_>) -> Finding {
    let has = if plan.is_lock_unknown { "may have" } else { "has" };
    finding!(
        Reason::ClockSkewed,
        "{location} {has} a default retention, so a canary needs a retention of its own, and none is written: {why}"
    )
}

/// It is unknown whether the bucket locks new objects by default, and the service refused a canary with a retention.
pub(super) fn retention_refused(location: &S3Location, failure: &S3Failure) -> Finding {
    finding!(
        failure.reason(),
        "{location} may have a default retention, and the PUT of a canary with a short retention was refused ({failure}). Without one it could be locked for days, so none is written and writing is not verified"
    )
}

/// A canary was written and read back, and its DELETE was denied.
pub(super) fn not_deleted(location: &S3Location, denied: &S3Failure, plan: &CanaryPlan<'_>) -> Finding {
    finding!(
        Reason::AccessDenied,
        "{location}: writing was verified, and deleting the canary was refused ({denied}): grant the credentials {} below {}, or set append_only = true in the [[s3.credentials]] entry if they must not delete",
        delete_action(plan),
        plan.names.folder()
    )
}

/// An earlier canary was read back, cannot be deleted, and cannot be overwritten without adding a version.
pub(super) fn kept(location: &S3Location, kept: &Kept, plan: &CanaryPlan<'_>) -> Finding {
    finding!(
        Reason::AccessDenied,
        "{location}: writing was verified{}, and deleting that canary was refused ({}), so no further canary is written while it remains: grant the credentials {}, or set append_only = true in the [[s3.credentials]] entry if they must not delete; {}",
        kept.since(),
        kept.denied,
        delete_action(plan),
        kept.leftover.key
    )
}

pub(super) fn unlisted(failure: &S3Failure, location: &S3Location, plan: &CanaryPlan<'_>) -> Finding {
    let action = if plan.may_have_versions() { "s3:ListBucketVersions" } else { "s3:ListBucket" };
    finding!(
        failure.reason(),
        "{location}: canaries that a crash may have leaked cannot be listed ({failure}): grant the credentials {action} below {}",
        plan.names.folder()
    )
}

/// It is unknown whether an earlier canary exists, and which version it has.
pub(super) fn unknown(failure: &S3Failure, location: &S3Location, key: &str, is_granted: bool) -> Finding {
    let shown = if is_granted { PERMITTED } else { "writing is not verified" };
    finding!(
        failure.reason(),
        "{location}: the service did not answer the PUT of a canary, and refuses to say whether the object exists ({failure}), so no further canary is written; {shown}: grant the credentials s3:GetObject and s3:ListBucketVersions, or remove {key} and grant s3:ListBucket"
    )
}

/// A command stores no canary in a bucket with versions that it may not list. `is_granted` is whether the service
/// permits writing.
pub(super) fn not_stored(
    denied: &S3Failure,
    location: &S3Location,
    plan: &CanaryPlan<'_>,
    is_granted: bool,
) -> Finding {
    let shown = if is_granted { PERMITTED } else { "writing is not verified" };
    finding!(
        denied.reason(),
        "{location}: these credentials may not list versions ({denied}), so no later run would find a canary that this command left, and none is stored; {shown}: grant them s3:ListBucketVersions below {}, or read the report of the agent, which remembers its canary",
        plan.names.folder()
    )
}

/// The registry cannot record a canary in a bucket that cannot be listed.
pub(super) fn unrecorded(why: &str, location: &S3Location) -> Finding {
    finding!(
        Reason::AgentError,
        "{location}: a canary in a bucket that cannot be listed must be recorded in the registry before it is written, and that failed ({why}), so none is written and writing is not verified: look at the disk of the registry"
    )
}

/// What a PUT with a wrong digest shows.
const PERMITTED: &str =
    "the service permits these credentials to write, and that objects are stored intact is not verified";

pub(super) fn differs(location: &S3Location) -> Finding {
    finding!(
        Reason::CanaryMismatch,
        "{location}: a canary that was read back differs from what was written: do not trust this storage before it and all proxies to it are examined"
    )
}

/// Whether a request may have been refused because the retention of its canary, which ends at `until`, was over. Services
/// refuse it in the same way as a missing permission.
pub(super) fn is_late(failure: &S3Failure, until: Option<i64>, plan: &CanaryPlan<'_>) -> bool {
    failure.reason() == Reason::AccessDenied && until.is_some_and(|until| plan.clock.may_be_past(until))
}

pub(super) fn nearly_over<T>(location: &S3Location, failure: &S3Failure) -> Checked<T> {
    Checked::timed_out(finding!(
        Reason::ResponseTimedOut,
        "{location}: the service refused a canary ({failure}) whose requested retention was nearly over: look at the load of the service, or raise [s3.canary] retention"
    ))
}

/// The PUT of a canary failed. `until` is the end of its retention.
pub(super) fn put_refused(
    failure: &S3Failure,
    until: Option<i64>,
    location: &S3Location,
    plan: &CanaryPlan<'_>,
) -> Checked<Option<i64>> {
    if until.is_some() && plan.is_lock_unknown && failure.is_about_the_put() {
        return Checked::skipped(retention_refused(location, failure));
    }
    if is_late(failure, until, plan) {
        return nearly_over(location, failure);
    }
    if until.is_some() && failure.refuses_the_retention() {
        return Checked::skipped(finding!(
            Reason::LockUnverifiable,
            "{location} has a default retention, and the PUT of a canary with a short retention was refused for that retention ({failure}), so writing is not verified: grant the credentials s3:PutObjectRetention and s3:GetObjectRetention, or, {LONGER_RETENTION}"
        ));
    }
    refused(Request::Put, failure, location, plan)
}

/// A request of a canary failed.
pub(super) fn refused<T>(
    request: Request,
    failure: &S3Failure,
    location: &S3Location,
    plan: &CanaryPlan<'_>,
) -> Checked<T> {
    let what = format!("{location}: {}", request.describe());
    let header = match (request, failure, plan.sends_headers) {
        (Request::Put, S3Failure::Service { status: 400 | 403, .. }, false) => {
            "; a policy of the bucket may also demand a header with each object, such as x-amz-server-side-encryption: set put_headers in the [[s3.credentials]] entry"
        }
        (Request::Put, S3Failure::Service { status: 400 | 403, .. }, true) => {
            "; the service may also refuse a header of put_headers in the [[s3.credentials]] entry, or demand another one"
        }
        _ => "",
    };
    let longer = match (request, plan.retention) {
        (Request::Put, Some(_)) => format!("; {LONGER_RETENTION}"),
        _ => String::new(),
    };
    if failure.reason() != Reason::AccessDenied {
        let mut finding = failure.finding_of(&format!("{what} failed"));
        if finding.reason == Reason::RequestRefused {
            finding.message.push_str(header);
            finding.message.push_str(&longer);
        }
        return if failure.is_timeout() { Checked::timed_out(finding) } else { Checked::failed(finding) };
    }
    let delete = if plan.may_have_versions() { ", s3:DeleteObjectVersion" } else { "" };
    let retain = if plan.retention.is_some() { ", s3:PutObjectRetention and s3:GetObjectRetention" } else { "" };
    Checked::failed(finding!(
        Reason::AccessDenied,
        "{what} was refused ({failure}): grant the credentials s3:PutObject, s3:GetObject, s3:DeleteObject{delete}{retain} below {}; if this host writes no backups, set read_only = true in the [[s3.credentials]] entry{longer}{header}",
        plan.names.folder()
    ))
}

fn delete_action(plan: &CanaryPlan<'_>) -> &'static str {
    if plan.may_have_versions() { "s3:DeleteObject and s3:DeleteObjectVersion" } else { "s3:DeleteObject" }
}
