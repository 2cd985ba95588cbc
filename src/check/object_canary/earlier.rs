//! Canaries of earlier runs: which of them remain, and whether another one is written beside them.

use std::time::Duration;

use super::findings::{
    differs, kept, neither_read_nor_deleted, overlong, refused, still_locked, too_many, undeletable, unknown,
    unrecorded,
};
use super::kept::Kept;
use super::memory::{CanaryMemory, Resolved};
use super::permission::{NotWritten, permission_beside_canaries, permission_to_write};
use super::plan::{CanaryPlan, LOCKED_BY_WRITING_MAX, LOCKED_MAX, NULL_VERSION};
use super::write::{CanaryStep, denies_reading};
use crate::check::canary::sweep::REMOVED_MAX;
use crate::check::canary::{ProcessRole, Swept, Undeleted, is_content};
use crate::check::checked::Checked;
use crate::model::{CanaryLeftover, S3Location};
use crate::s3::{ObjectApi, S3Failure, StoredVersion, within};

/// What is known of earlier canaries before the next one is written.
#[derive(Default)]
pub(super) struct EarlierCanaries {
    /// A canary that these credentials may not delete. It is overwritten or read back instead of writing a new one.
    pub(super) kept: Option<Kept>,
    /// End of the retention of the latest locked canary of this process.
    pub(super) latest: Option<i64>,
    pub(super) remark: String,
}

/// Decides, after a sweep, whether a canary is written.
pub(super) fn after_sweep(
    swept: Swept,
    location: &S3Location,
    plan: &CanaryPlan<'_>,
    memory: &mut CanaryMemory,
) -> Result<EarlierCanaries, NotWritten> {
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
        leaves_room: remaining < LOCKED_MAX,
    });
    let own = swept.locked.iter().filter(|key| plan.names.is_own(key));
    let latest = own.map(|key| key.until).max();
    let remark =
        if swept.removed > 0 { format!("; leftover canaries removed: {}", swept.removed) } else { String::new() };
    Ok(EarlierCanaries { kept, latest, remark })
}

/// Tries to remove the remembered canary of a bucket whose listing failed.
pub(super) async fn after_failed_listing(
    api: &dyn ObjectApi,
    location: &S3Location,
    plan: &CanaryPlan<'_>,
    memory: &mut CanaryMemory,
    failed_listing: &S3Failure,
    deadline: Duration,
) -> Result<EarlierCanaries, NotWritten> {
    if let Err(why) = memory.load(deadline).await {
        return Err(Box::new(Checked::skipped(unrecorded(&why, location))));
    }
    let Some(leftover) = memory.leftover().cloned() else {
        return remove_late(api, location, plan, deadline).await;
    };
    let finding = match within(deadline, memory.resolve(api, plan)).await {
        Ok(Resolved::Gone) => return remove_late(api, location, plan, deadline).await,
        Ok(Resolved::Undeletable(denied)) if leftover.until == 0 || plan.append_only => {
            return Ok(EarlierCanaries {
                kept: Some(Kept { leftover, denied, leaves_room: true }),
                ..EarlierCanaries::default()
            });
        }
        Ok(resolved @ (Resolved::Locked | Resolved::LockedLonger)) => {
            let permission = permission_beside_canaries(api, location, plan, memory, deadline).await?;
            // Without versions, the lock could be the reason of a refusal.
            let has_version = leftover.version.as_ref().is_some_and(|version| version != NULL_VERSION);
            if has_version && !permission.is_granted() {
                permission_to_write(api, location, plan, memory, deadline).await?;
            }
            let is_overlong = matches!(resolved, Resolved::LockedLonger);
            let finding = if is_overlong { overlong(location, &leftover.key) } else { still_locked(location, 1) };
            return Err(Box::new(Checked::skipped(finding)));
        }
        Ok(Resolved::Undeletable(denied)) => undeletable(location, &leftover.key, &denied),
        Ok(Resolved::Unknown) => {
            let permission = permission_to_write(api, location, plan, memory, deadline).await?;
            let finding = unknown(failed_listing, location, &leftover.key, permission.is_granted());
            return Err(Box::new(Checked::skipped(finding)));
        }
        Err(failure) => return Err(Box::new(refused(CanaryStep::DeleteEarlier, &failure, location, plan))),
    };
    permission_to_write(api, location, plan, memory, deadline).await?;
    Err(Box::new(Checked::skipped(finding)))
}

/// Removes canaries of the agent that PUTs of earlier runs stored late, so that none remains. A command removes none,
/// because another command may use its key. It replaces them.
async fn remove_late(
    api: &dyn ObjectApi,
    location: &S3Location,
    plan: &CanaryPlan<'_>,
    deadline: Duration,
) -> Result<EarlierCanaries, NotWritten> {
    if plan.names.role() == ProcessRole::OneShot {
        return Ok(EarlierCanaries::default());
    }
    let key = plan.names.text(&plan.names.unlisted_key(0));
    let removing = async {
        for _ in 0..REMOVED_MAX {
            if !plan.may_have_versions() {
                break;
            }
            let Ok(StoredVersion { version: Some(version), .. }) = api.head(&key, None).await else { break };
            api.delete(&key, Some(&version), false).await?;
        }
        // Without a version, it would add a delete marker.
        api.delete(&key, plan.may_have_versions().then_some(NULL_VERSION), false).await
    };
    match within(deadline, removing).await {
        Err(failure) if failure.is_timeout() => {
            Err(Box::new(refused(CanaryStep::DeleteEarlier, &failure, location, plan)))
        }
        // The DELETE of the canary reports another failure.
        _ => Ok(EarlierCanaries::default()),
    }
}

/// Reads back an earlier canary that can neither be deleted nor overwritten, and verifies that these credentials may
/// still write.
pub(super) async fn read_back(
    api: &dyn ObjectApi,
    location: &S3Location,
    plan: &CanaryPlan<'_>,
    earlier: &Kept,
    memory: &mut CanaryMemory,
    deadline: Duration,
) -> Checked<Option<i64>> {
    let permission = match earlier.leaves_room {
        true => permission_to_write(api, location, plan, memory, deadline).await,
        false => permission_beside_canaries(api, location, plan, memory, deadline).await,
    };
    if let Err(failed) = permission {
        return *failed;
    }
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
        Err(failure) => refused(CanaryStep::ReadEarlier, &failure, location, plan),
    }
}
