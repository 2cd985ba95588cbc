//! Whether these credentials may write, without storing an object.
//!
//! If every further canary would remain, the agent sends a PUT with a wrong digest. S3 services check the permission and
//! the quota first, then refuse the digest, and store nothing. A service that does not check digests stores the object.
//! That is remembered, so that only one such object remains.

use std::time::Duration;

use uuid::Uuid;

use super::{CanaryMemory, CanaryPlan};
use crate::check::canary::content;
use crate::model::{LockMode, Reason};
use crate::s3::{ObjectApi, Retention, S3Failure, within};

/// What a PUT with a wrong digest showed.
pub(super) enum Permission {
    /// The service refused only the digest, or stored the object.
    Granted,
    /// The service would refuse every PUT, or does not answer.
    Refused(S3Failure),
    /// The answer shows neither.
    Unknown,
}

impl Permission {
    pub(super) fn is_granted(&self) -> bool {
        matches!(self, Self::Granted)
    }
}

/// Sends a PUT with a wrong digest, unless the service ignored an earlier one.
pub(super) async fn may_put(
    api: &dyn ObjectApi,
    plan: &CanaryPlan<'_>,
    memory: &mut CanaryMemory,
    deadline: Duration,
) -> Permission {
    if memory.ignores_digest() {
        return Permission::Unknown;
    }
    let key = plan.names.text(&plan.names.unlisted_key(0));
    let until = plan.retention_end().filter(|_| !plan.is_lock_unknown);
    let retention = until.map(|until| Retention { mode: LockMode::Governance, until });
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

/// Whether a PUT with the right digest would fail in the same way. Services may refuse a wrong digest with unknown codes.
fn concerns_every_put(failure: &S3Failure) -> bool {
    match failure {
        S3Failure::Service { .. } => {
            failure.is_refusal() || matches!(failure.reason(), Reason::QuotaExceeded | Reason::StorageFull)
        }
        _ => true,
    }
}
