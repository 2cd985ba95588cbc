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
//! If the listing is refused or fails, leftovers are not found. The agent then remembers its latest canary, also across
//! restarts, and removes it by key and version ([`memory`]). The listing decides nothing else.
//!
//! If it is unknown whether the bucket locks new objects by default, the canary gets that short retention too. If the
//! service answers that the bucket has no object lock, the canary is written without one.
//!
//! Some operators grant credentials that may write but not delete, to protect backups. Writing is verified, and the
//! canary remains. In a bucket without versions the next run overwrites it. In other buckets the next run only reads it
//! back. If the credentials may not read either, only writing is verified, which is a warning. The agent also verifies
//! that such credentials may still write, without storing an object ([`permission`]). A command remembers nothing, so
//! it does only that if each run could leave one more version.

mod earlier;
mod findings;
mod kept;
pub mod memory;
mod permission;
mod plan;
mod write;

use std::time::Duration;

use super::canary::key::COMMAND_KEYS;
use super::canary::sweep::{list, remove};
use super::canary::{CANARY_BYTES, ProcessRole};
use super::checked::Checked;
use crate::model::{CanaryLeftover, Outcome, S3Location};
use crate::s3::{ObjectApi, S3Failure, within};
use earlier::{EarlierCanaries, after_failed_listing, after_sweep, read_back};
use findings::{
    differs, is_late, nearly_over, not_deleted, not_read, not_stored, overlong, refused, unlisted, unrecorded,
    without_clock,
};
pub use memory::{CanaryMemory, CanaryStore, Resolved};
use permission::{interpret_failed_put, permission_beside_canaries, permission_to_write};
pub use plan::{CanaryPlan, LOCKED_BY_WRITING_MAX, LOCKED_MAX, NULL_VERSION};
use write::{CanaryEnd, CanaryStep, Written, write};

/// Writes a canary. `deadline` bounds the removal of leftovers, and then also the canary itself. The fact is the end of
/// the retention of the latest locked canary, in seconds since 1970. That canary may be from an earlier run.
pub async fn object_canary(
    api: &dyn ObjectApi,
    location: &S3Location,
    plan: &CanaryPlan<'_>,
    memory: &mut CanaryMemory,
    deadline: Duration,
) -> Checked<Option<i64>> {
    memory.begin_run();
    if let (Some(why), Some(_)) = (plan.clock.implausible(), plan.retention) {
        return Checked::skipped(without_clock(&why, location, plan));
    }
    let is_command = plan.names.role() == ProcessRole::OneShot;
    let mut step = CanaryStep::List;
    let sweeping = async {
        let listing = list(api, plan.names, plan.may_have_versions()).await?;
        step = CanaryStep::DeleteEarlier;
        remove(api, plan.names, listing, plan.clock, plan.in_use).await
    };
    let (listed, earlier) = match within(deadline, sweeping).await {
        Ok(swept) => {
            let earlier = after_sweep(swept, location, plan, memory);
            // A later listing may fail.
            if let Ok(EarlierCanaries { kept: Some(kept), .. }) = &earlier {
                memory.keep(kept.leftover.clone(), deadline).await;
            }
            (Ok(()), earlier)
        }
        Err(failure) if step != CanaryStep::List || !failure.may_concern_one_request() => {
            return refused(step, &failure, location, plan);
        }
        // Nobody would find the versions that commands leave when they are killed.
        Err(failure) if is_command && plan.may_add_versions() => {
            return match permission_to_write(api, location, plan, memory, deadline).await {
                Err(failed) => *failed,
                Ok(permission) => Checked::skipped(not_stored(&failure, location, plan, permission.is_granted())),
            };
        }
        // Backups can be written without listing them.
        Err(failure) => {
            // A silent service must not use up three deadlines.
            let deadline = if failure.is_timeout() { deadline / 2 } else { deadline };
            let earlier = after_failed_listing(api, location, plan, memory, &failure, deadline).await;
            (Err(failure), earlier)
        }
    };
    let is_expected = |failure: &S3Failure| plan.append_only && failure.is_missing_permission();
    let warning = listed.as_ref().err().filter(|failure| !is_expected(failure));
    let warning = warning.map(|failure| unlisted(failure, location, plan));
    let earlier = match earlier {
        Ok(earlier) => earlier,
        // No further canary is written. A PUT with a wrong digest could add one.
        Err(checked) if listed.is_ok() && checked.outcome() == Outcome::Skipped => {
            return match permission_beside_canaries(api, location, plan, memory, deadline).await {
                Err(failed) => *failed,
                Ok(_) => *checked,
            };
        }
        Err(checked) => return (*checked).with_warnings(warning),
    };
    let mut canary = match &earlier.kept {
        // A PUT would add a version, or be refused because of the lock.
        Some(kept) if plan.adds_version_to(&kept.leftover) || kept.leftover.until > 0 => {
            return read_back(api, location, plan, kept, memory, deadline).await.with_warnings(warning);
        }
        Some(kept) => plan.replacement_of(&kept.leftover),
        None => plan.new_canary(plan.retention_end(), listed.is_ok(), 0),
    };
    let mut tries = 1..COMMAND_KEYS;
    let (written, step) = loop {
        let (written, step) = match attempt(api, plan, &canary, memory, listed.is_err(), deadline).await {
            Ok(attempted) => attempted,
            Err(why) => return Checked::skipped(unrecorded(&why, location)).with_warnings(warning),
        };
        let has_no_lock = step == CanaryStep::Put && written.as_ref().is_err_and(S3Failure::denies_object_lock);
        let differs = matches!(written, Ok(Written { end: CanaryEnd::Differs, .. }));
        if has_no_lock && plan.is_lock_unknown && canary.until > 0 {
            canary = plan.new_canary(None, listed.is_ok(), 0);
        } else if differs
            && is_command
            && listed.is_err()
            && let Some(attempt) = tries.next()
        {
            // Another command may have replaced or removed it.
            canary = plan.new_canary(None, false, attempt);
        } else {
            break (written, step);
        }
    };
    let until = (canary.until > 0).then_some(canary.until);
    let EarlierCanaries { remark, latest, .. } = earlier;
    let checked = match written {
        Ok(Written { end, unread }) => {
            let unread = unread.map(|denied| not_read(location, &denied, plan));
            let wrote = if unread.is_some() { "wrote" } else { "wrote and read back" };
            let checked = match end {
                CanaryEnd::Removed if unread.is_some() => {
                    Checked::passed(latest).detail(format!("wrote and deleted {CANARY_BYTES} bytes{remark}"))
                }
                CanaryEnd::Removed => {
                    Checked::passed(latest).detail(format!("wrote, read back and deleted {CANARY_BYTES} bytes{remark}"))
                }
                CanaryEnd::Kept(denied) => {
                    let finding = (!plan.append_only).then(|| not_deleted(location, &denied, plan));
                    let expected = if plan.append_only { " (append_only)" } else { "" };
                    Checked::passed(latest).with_warnings(finding).detail(format!(
                        "{wrote} {CANARY_BYTES} bytes. Deleting them was refused{expected}, so they remain{remark}"
                    ))
                }
                CanaryEnd::Locked => Checked::passed(until).detail(format!(
                    "{wrote} {CANARY_BYTES} bytes, which are locked for a few seconds and deleted after that{remark}"
                )),
                CanaryEnd::LockedLonger => Checked::passed(latest).with_warnings([overlong(location, &canary.key)]),
                CanaryEnd::Differs => Checked::failed(differs(location)),
            };
            checked.with_warnings(unread)
        }
        Err(failure) if step == CanaryStep::Put => {
            interpret_failed_put(api, &failure, until, location, plan, memory, deadline).await
        }
        Err(failure) if is_late(&failure, until, plan) => nearly_over(location, &failure),
        Err(failure) => refused(step, &failure, location, plan),
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
) -> Result<(Result<Written, S3Failure>, CanaryStep), String> {
    let before = memory.leftover().cloned();
    memory.remember(canary.clone());
    if must_record && let Err(why) = memory.save(deadline).await {
        memory.restore(before);
        return Err(why);
    }
    let mut step = CanaryStep::Put;
    let written = within(deadline, write(api, plan, canary, memory, &mut step)).await;
    if step == CanaryStep::Put && written.as_ref().is_err_and(S3Failure::stored_nothing) {
        memory.restore(before);
    }
    if must_record && let Err(why) = memory.save(deadline).await {
        tracing::warn!(why, "the registry still has the record of an earlier canary");
    }
    Ok((written, step))
}

#[cfg(test)]
mod tests;
