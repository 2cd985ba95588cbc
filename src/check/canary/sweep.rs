//! Removes canaries that nobody uses any more, and counts those that are locked.

use uuid::Uuid;

use super::{CanaryKey, CanaryNames, ServiceClock};
use crate::s3::{ListedVersion, ObjectApi, S3Failure};

/// How many versions of this node's canaries are looked at. There are as many as runs ended between a
/// PUT and its DELETE, so mostly none.
pub const LISTED_MAX: u16 = 100;

/// How many leftovers one sweep removes.
pub const REMOVED_MAX: usize = 16;

/// How many locked canaries one sweep looks at. More than this are not put.
pub const LOOKED_AT_MAX: usize = 4;

/// What a sweep found and left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Swept {
    /// How many were removed.
    pub removed: usize,
    /// Those that are locked, whoever on this node put them, and will be removed after it.
    pub locked: Vec<CanaryKey>,
    /// The key of one of which the service tells that it is locked for longer than it asked to be.
    pub overlong: Option<String>,
    /// The key of one that was not deleted although its retention has ended, and why: whether it is
    /// locked for longer, or these credentials may not delete it, the service does not tell.
    pub undeletable: Option<(String, S3Failure)>,
    /// Why one that nothing locks was not removed: these credentials may write and not delete.
    pub refused: Option<S3Failure>,
}

/// Removes what is left of canaries of this target on this node. What is still locked is left alone, and
/// looked at: is it for as long as it asked to be? `versioned` is whether the bucket has or had versions.
///
/// # Errors
/// [`S3Failure`] of the listing, or of a DELETE that failed for another reason than a lock.
pub async fn sweep(
    api: &dyn ObjectApi,
    names: &CanaryNames,
    versioned: bool,
    clock: ServiceClock,
    in_use: &[Uuid],
) -> Result<Swept, S3Failure> {
    let mut swept = Swept::default();
    for found in api.list(names.folder(), versioned, LISTED_MAX).await? {
        let Some(key) = names.parse(&found.key) else { continue };
        let modified = found.modified.map(jiff::Timestamp::as_second);
        // Whoever put it: it counts until it can be removed.
        if key.until > 0 && !clock.is_past(key.until) && !in_use.contains(&key.id) {
            if swept.locked.len() < LOOKED_AT_MAX {
                let told = told_until(api, &found).await?;
                if told.is_some_and(|until| until > key.until) {
                    swept.overlong = Some(found.key);
                }
            }
            swept.locked.push(key);
            continue;
        }
        if !names.is_leftover(&key, modified, clock, in_use) {
            continue;
        }
        if swept.removed >= REMOVED_MAX {
            continue;
        }
        match api.delete(&found.key, found.version.as_deref(), false).await {
            Ok(_) => swept.removed += 1,
            Err(failure) if is_no(&failure) && key.until > 0 => {
                if told_until(api, &found).await?.is_some_and(|until| until > key.until) {
                    swept.overlong = Some(found.key);
                } else {
                    swept.undeletable = Some((found.key, failure));
                }
            }
            Err(failure) if is_no(&failure) => swept.refused = Some(failure),
            Err(failure) => return Err(failure),
        }
    }
    if swept.removed > 0 {
        tracing::info!(folder = names.folder(), removed = swept.removed, "removed what was left of canaries");
    }
    Ok(swept)
}

fn is_no(failure: &S3Failure) -> bool {
    failure.is_refusal() || failure.is_lock_refusal()
}

/// Until when a version is locked, if the service tells it to these credentials.
async fn told_until(api: &dyn ObjectApi, found: &ListedVersion) -> Result<Option<i64>, S3Failure> {
    match api.head(&found.key, found.version.as_deref()).await {
        Ok(stored) => Ok(stored.retention.map(|retention| retention.until)),
        Err(failure) if failure.is_gone() || failure.is_refusal() => Ok(None),
        Err(failure) => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::canary::{CanaryKind, ProcessRole};
    use crate::check::fake::FakeObjects;
    use crate::model::LockMode;
    use crate::s3::Retention;

    fn names(role: ProcessRole) -> CanaryNames {
        CanaryNames::new("canary/", "node-7", "s3/backups", role, Uuid::new_v4())
    }

    #[tokio::test]
    async fn what_a_command_has_locked_counts_for_the_agent_and_stays() {
        let clock = ServiceClock::new(Some(0));
        let (agent, command) = (names(ProcessRole::Daemon), names(ProcessRole::OneShot));
        let api = FakeObjects::default();
        let key = command.new_key(CanaryKind::Lock, clock.now() + 60);
        api.keep(&command.text(&key));
        let mine = agent.new_key(CanaryKind::Lock, clock.now() + 60);
        api.keep(&agent.text(&mine));
        let swept = sweep(&api, &agent, true, clock, &[mine.id]).await.expect("swept");
        assert_eq!(swept, Swept { locked: vec![key], ..Swept::default() });
        assert_eq!(api.keys().len(), 2);
    }

    #[tokio::test]
    async fn what_is_locked_counts_behind_more_leftovers_than_are_removed() {
        let clock = ServiceClock::new(Some(0));
        let (agent, before) = (names(ProcessRole::Daemon), names(ProcessRole::Daemon));
        let api = FakeObjects::default();
        for _ in 0..REMOVED_MAX + 1 {
            api.keep(&before.text(&before.new_key(CanaryKind::Write, 0)));
        }
        let key = before.new_key(CanaryKind::Lock, clock.now() + 60);
        api.keep(&before.text(&key));
        let swept = sweep(&api, &agent, true, clock, &[]).await.expect("swept");
        assert_eq!((swept.removed, swept.locked), (REMOVED_MAX, vec![key]));
    }

    #[tokio::test]
    async fn only_what_the_service_tells_to_be_locked_for_longer_is_overlong() {
        let clock = ServiceClock::new(Some(0));
        let names = names(ProcessRole::Daemon);
        for (until, told, is_overlong) in [(-60, 3600, true), (-60, -60, false), (60, 3600, true), (60, 60, false)] {
            let api = FakeObjects { refuses_delete: true, ..FakeObjects::default() };
            let text = names.text(&names.new_key(CanaryKind::Lock, clock.now() + until));
            let retention = Retention { mode: LockMode::Compliance, until: clock.now() + told };
            api.keep_locked(&text, Some(retention));
            let swept = sweep(&api, &names, true, clock, &[]).await.expect("swept");
            assert_eq!(swept.overlong.is_some(), is_overlong, "{until} {told}: {swept:?}");
            assert_eq!(swept.undeletable.is_some(), until < 0 && !is_overlong, "{until} {told}: {swept:?}");
        }
    }
}
