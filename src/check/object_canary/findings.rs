//! Findings of the write canary.

use super::kept::Kept;
use super::plan::CanaryPlan;
use super::write::{CanaryStep, Permission};
use crate::check::checked::Checked;
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
        "{location}: a canary was not deleted although its retention has ended ({failure}), so no further canary is written and writing is not verified: {}, or {APPEND_ONLY}; {key} remains until then",
        permission(failure, || "grant the credentials s3:DeleteObjectVersion".to_owned())
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
        denied.reason(),
        "{location}: {} was refused ({denied}), so backups can be written, and that they are stored intact is not verified: {}",
        CanaryStep::Get.describe(),
        permission(denied, || format!("grant the credentials s3:GetObject below {}", plan.names.folder()))
    )
}

/// An earlier canary can be neither read nor deleted, nor overwritten without adding a version.
pub(super) fn neither_read_nor_deleted(
    location: &S3Location,
    kept: &Kept,
    unread: &S3Failure,
    plan: &CanaryPlan<'_>,
) -> Finding {
    let grant =
        || format!("grant the credentials s3:GetObject or {} below {}", delete_action(plan), plan.names.folder());
    finding!(
        unread.reason(),
        "{location}: writing was verified{}, and reading and deleting that canary were refused ({unread}), so no further one is written while it remains: {}; {}",
        kept.since(),
        permission(unread, grant),
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
    let grant = || format!("grant the credentials {} below {}", delete_action(plan), plan.names.folder());
    finding!(
        denied.reason(),
        "{location}: writing was verified, and deleting the canary was refused ({denied}): {}, or {APPEND_ONLY}",
        permission(denied, grant)
    )
}

/// An earlier canary was read back, cannot be deleted, and cannot be overwritten without adding a version.
pub(super) fn kept(location: &S3Location, kept: &Kept, plan: &CanaryPlan<'_>) -> Finding {
    let grant = || format!("grant the credentials {}", delete_action(plan));
    finding!(
        kept.denied.reason(),
        "{location}: writing was verified{}, and deleting that canary was refused ({}), so no further canary is written while it remains: {}, or {APPEND_ONLY}; {}",
        kept.since(),
        kept.denied,
        permission(&kept.denied, grant),
        kept.leftover.key
    )
}

/// The listing of canaries was refused or failed.
pub(super) fn unlisted(failure: &S3Failure, location: &S3Location, plan: &CanaryPlan<'_>) -> Finding {
    if !failure.is_missing_permission() {
        return finding!(
            failure.reason_of_one_request(),
            "{location}: the listing of canaries failed ({failure}), so canaries that a crash may have leaked are not found. Writing a canary needs no listing: {}",
            permission(failure, String::new)
        );
    }
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
        failure.reason_of_one_request(),
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
    if !denied.is_missing_permission() {
        return finding!(
            denied.reason_of_one_request(),
            "{location}: the listing of canaries failed ({denied}), so no later run would find a canary that this command left, and none is stored; {shown}: {}, or read the report of the agent, which remembers its canary",
            permission(denied, String::new)
        );
    }
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

/// Whether a request may have been refused because the retention of its canary, which ends at `until`, was over.
/// Services refuse it in the same way as a missing permission.
pub(super) fn is_late(failure: &S3Failure, until: Option<i64>, plan: &CanaryPlan<'_>) -> bool {
    failure.reason() == Reason::AccessDenied && until.is_some_and(|until| plan.clock.may_be_past(until))
}

pub(super) fn nearly_over<T>(location: &S3Location, failure: &S3Failure) -> Checked<T> {
    Checked::timed_out(finding!(
        Reason::ResponseTimedOut,
        "{location}: the service refused a canary ({failure}) whose requested retention was nearly over: look at the load of the service, or raise [s3.canary] retention"
    ))
}

/// The PUT of a canary failed. `until` is the end of its retention, and `without_retention` shows whether the service
/// would accept a PUT without one.
pub(super) fn put_refused(
    failure: &S3Failure,
    until: Option<i64>,
    without_retention: &Permission,
    location: &S3Location,
    plan: &CanaryPlan<'_>,
) -> Checked<Option<i64>> {
    let may_write = until.is_some() && without_retention.is_granted();
    // Then a missing permission concerns every PUT.
    let may_not_write = failure.is_missing_permission() && matches!(without_retention, Permission::Refused(_));
    let is_unspecific = plan.is_lock_unknown && (failure.is_about_the_put() || may_write);
    if until.is_some() && is_unspecific && !may_not_write {
        return Checked::skipped(retention_refused(location, failure));
    }
    if is_late(failure, until, plan) {
        return nearly_over(location, failure);
    }
    if until.is_some() && (failure.refuses_the_retention() || may_write) {
        let shown = if may_write { ", although a multipart upload without a retention is permitted" } else { "" };
        return Checked::skipped(finding!(
            Reason::LockUnverifiable,
            "{location} has a default retention, and the PUT of a canary with a short retention was refused for that retention ({failure}){shown}, so writing is not verified: grant the credentials s3:PutObjectRetention and s3:GetObjectRetention, or, {LONGER_RETENTION}"
        ));
    }
    refused(CanaryStep::Put, failure, location, plan)
}

/// A request of a canary failed.
pub(super) fn refused<T>(
    request: CanaryStep,
    failure: &S3Failure,
    location: &S3Location,
    plan: &CanaryPlan<'_>,
) -> Checked<T> {
    let what = format!("{location}: {}", request.describe());
    let header = match (request, failure, plan.sends_headers) {
        (CanaryStep::Put, S3Failure::Service { status: 400 | 403, .. }, false) => {
            "; a policy of the bucket may also demand a header with each object, such as x-amz-server-side-encryption: set put_headers in the [[s3.credentials]] entry"
        }
        (CanaryStep::Put, S3Failure::Service { status: 400 | 403, .. }, true) => {
            "; the service may also refuse a header of put_headers in the [[s3.credentials]] entry, or demand another one"
        }
        _ => "",
    };
    let longer = match (request, plan.retention) {
        (CanaryStep::Put, Some(_)) => format!("; {LONGER_RETENTION}"),
        _ => String::new(),
    };
    if failure.reason() != Reason::AccessDenied || failure.has_expired_credentials() {
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
        "{what} was refused ({failure}): grant the credentials s3:PutObject, s3:GetObject, s3:DeleteObject{delete}{retain} below {}; if this host writes no backups, set read_only = true in the [[s3.credentials]] entry{longer}{header}{}",
        plan.names.folder(),
        failure.region_hint()
    ))
}

/// Setting for credentials that must not delete.
const APPEND_ONLY: &str = "set append_only = true in the [[s3.credentials]] entry if they must not delete";

/// Returns `grant` if a permission is missing. Otherwise says where to look for the cause.
fn permission(failure: &S3Failure, grant: impl FnOnce() -> String) -> String {
    match failure.reason() {
        Reason::AccessDenied => grant(),
        Reason::ServerError | Reason::Throttled | Reason::ResponseTimedOut | Reason::ConnectionBroken => {
            "check the logs of the service and of any proxy in front of it".to_owned()
        }
        Reason::RequestRefused => "look up the code in the service's documentation".to_owned(),
        _ => "check whether the service's version supports this request, or whether a proxy refuses it".to_owned(),
    }
}

fn delete_action(plan: &CanaryPlan<'_>) -> &'static str {
    if plan.may_have_versions() { "s3:DeleteObject and s3:DeleteObjectVersion" } else { "s3:DeleteObject" }
}
