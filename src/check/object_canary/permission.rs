//! Whether these credentials may write, without storing an object.
//!
//! If every further canary would remain, the agent sends a PUT with a wrong digest. S3 services check the permission
//! and the quota first, then refuse the digest, and store nothing. A service that does not check digests stores the
//! object. That is remembered, so that only one such object remains.
//!
//! If the service refuses a canary with a retention, the agent uploads a part of a multipart upload without one, and
//! aborts the upload. That shows whether the service refuses only the retention. With the retention of a canary, it
//! does so if earlier canaries leave no room for another.

use std::time::Duration;

use uuid::Uuid;

use super::findings::{is_late, put_refused, refused};
use super::memory::CanaryMemory;
use super::plan::CanaryPlan;
use super::write::{CanaryStep, Permission};
use crate::check::canary::content;
use crate::check::checked::Checked;
use crate::model::{LockMode, Reason, S3Location};
use crate::s3::{ObjectApi, Retention, S3Failure, within};

/// Result of the check if no further canary is written. Boxed, because it is large.
pub(super) type NotWritten = Box<Checked<Option<i64>>>;

/// Sends a PUT with a wrong digest, unless the service ignored an earlier one.
async fn may_put(
    api: &dyn ObjectApi,
    plan: &CanaryPlan<'_>,
    memory: &mut CanaryMemory,
    deadline: Duration,
) -> Permission {
    if memory.ignores_digest() {
        return Permission::Unknown;
    }
    let key = plan.names.text(&plan.names.unlisted_key(0));
    let retention = trial_retention_end(plan).map(|until| Retention { mode: LockMode::Governance, until });
    let putting = api.put_with_wrong_digest(&key, content(Uuid::new_v4()), retention);
    let permission = match within(deadline, putting).await {
        Err(failure) if failure.is_digest_refusal() => Permission::Granted,
        Err(failure) if concerns_every_put(&failure) => Permission::Refused(failure),
        Err(_) => Permission::Unknown,
        Ok(version) => {
            memory.found_to_ignore_digests();
            if let Err(why) = memory.save(deadline).await {
                tracing::warn!(why, "the registry does not record that the service ignores digests");
            }
            // The credentials may not be allowed to delete it. Then it remains, and is the last one.
            let version = plan.version(version);
            let _ = within(deadline, api.delete(&key, version.as_deref(), false)).await;
            Permission::Granted
        }
    };
    memory.set_permitted(permission.is_granted());
    permission
}

/// End of the retention of a PUT with a wrong digest. `None` without a retention.
fn trial_retention_end(plan: &CanaryPlan<'_>) -> Option<i64> {
    plan.retention_end().filter(|_| !plan.is_lock_unknown)
}

/// Finds out whether these credentials may still write, which an earlier canary does not show.
///
/// # Errors
/// The failed check, if they may not.
pub(super) async fn permission_to_write(
    api: &dyn ObjectApi,
    location: &S3Location,
    plan: &CanaryPlan<'_>,
    memory: &mut CanaryMemory,
    deadline: Duration,
) -> Result<Permission, NotWritten> {
    match may_put(api, plan, memory, deadline).await {
        Permission::Refused(failure) => {
            let until = trial_retention_end(plan);
            // A policy may demand a retention.
            if plan.is_lock_unknown && may_upload(api, plan, plan.retention_end(), memory, deadline).await.is_granted()
            {
                return Ok(Permission::Granted);
            }
            Err(Box::new(interpret_failed_put(api, &failure, until, location, plan, memory, deadline).await))
        }
        permission => Ok(permission),
    }
}

/// The same while earlier canaries leave no room for another: with a multipart upload that has the retention of a
/// canary.
///
/// # Errors
/// The failed check, if they may not.
pub(super) async fn permission_beside_canaries(
    api: &dyn ObjectApi,
    location: &S3Location,
    plan: &CanaryPlan<'_>,
    memory: &mut CanaryMemory,
    deadline: Duration,
) -> Result<Permission, NotWritten> {
    match may_upload(api, plan, plan.retention_end(), memory, deadline).await {
        Permission::Refused(failure) => Err(Box::new(refused(CanaryStep::Upload, &failure, location, plan))),
        permission => Ok(permission),
    }
}

/// Starts a multipart upload whose object would be locked until `until`, uploads a part, and aborts it. A PUT with a
/// wrong digest would not do in a bucket with a default retention: a service that ignores digests would lock its object
/// for days. An upload stores no object, and services permit it if they permit a PUT.
///
/// An upload may remain if the agent crashes, or may not abort it. The next run lists the uploads of this key, and
/// starts no further one unless it can abort them. So at most one remains for each key.
async fn may_upload(
    api: &dyn ObjectApi,
    plan: &CanaryPlan<'_>,
    until: Option<i64>,
    memory: &mut CanaryMemory,
    deadline: Duration,
) -> Permission {
    let key = plan.names.text(&plan.names.unlisted_key(0));
    let retention = until.map(|until| Retention { mode: LockMode::Governance, until });
    let abort = async |upload: &str| match api.abort_upload(&key, upload).await {
        Err(failure) if failure.status() != Some(404) => Err(failure),
        _ => Ok(()),
    };
    let trying = async {
        for leftover in api.uploads(&key).await? {
            abort(&leftover).await?;
        }
        let uploaded = match api.create_upload(&key, retention).await {
            Ok(upload) => {
                let uploaded = api.upload_part(&key, &upload, content(Uuid::new_v4())).await;
                abort(&upload).await?;
                uploaded
            }
            Err(failure) => Err(failure),
        };
        match uploaded {
            Ok(()) => Ok(Permission::Granted),
            // A refusal without this code may come from a proxy that does not permit POST.
            Err(failure) if failure.denies_permission() || is_full(&failure) => Ok(Permission::Refused(failure)),
            Err(failure) => Err(failure),
        }
    };
    let permission = within(deadline, trying).await.unwrap_or_else(|failure| {
        tracing::debug!(%failure, "a multipart upload does not show whether writing is permitted");
        Permission::Unknown
    });
    if permission.is_granted() {
        memory.set_permitted(true);
    }
    permission
}

/// Interprets the failed PUT of a canary whose retention ends at `until`. If only the retention may have been refused,
/// finds out whether these credentials may write without one.
pub(super) async fn interpret_failed_put(
    api: &dyn ObjectApi,
    failure: &S3Failure,
    until: Option<i64>,
    location: &S3Location,
    plan: &CanaryPlan<'_>,
    memory: &mut CanaryMemory,
    deadline: Duration,
) -> Checked<Option<i64>> {
    let may_concern_the_retention = until.is_some()
        && failure.may_concern_the_retention()
        && !failure.refuses_the_retention()
        && !is_late(failure, until, plan);
    let without_retention = match may_concern_the_retention {
        true => may_upload(api, plan, None, memory, deadline).await,
        false => Permission::Unknown,
    };
    put_refused(failure, until, &without_retention, location, plan)
}

/// Whether a PUT with the right digest would fail in the same way. Services may refuse a wrong digest with unknown
/// codes.
fn concerns_every_put(failure: &S3Failure) -> bool {
    match failure {
        S3Failure::Service { .. } => failure.is_refusal() || is_full(failure),
        _ => true,
    }
}

fn is_full(failure: &S3Failure) -> bool {
    matches!(failure.reason(), Reason::QuotaExceeded | Reason::StorageFull)
}
