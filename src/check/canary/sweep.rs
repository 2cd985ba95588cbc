//! Removes canaries that no process uses any more, and counts the locked ones.

use jiff::Timestamp;
use uuid::Uuid;

use super::clock::ServiceClock;
use super::key::{CanaryKey, CanaryNames};
use crate::s3::{ListedVersion, ObjectApi, S3Failure};

/// Largest number of versions of this node's canaries that one sweep reads. A process leaks a canary only if
/// it ends between a PUT and its DELETE, so there are usually none.
pub const LISTED_MAX: u16 = 100;

/// Largest number of leftovers that one sweep removes.
pub const REMOVED_MAX: usize = 16;

/// Largest number of locked canaries that one sweep inspects. The agent never writes more.
pub const INSPECTED_MAX: usize = 4;

/// Result of a sweep.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Swept {
    /// Number of removed canaries.
    pub removed: usize,
    /// Locked canaries of all processes on this node, which will be removed when their retention ends.
    pub locked: Vec<CanaryKey>,
    /// Key of a canary that the service locks for longer than requested.
    pub overlong: Option<String>,
    /// A canary that could not be deleted although its retention has ended. Either it is locked for longer or a
    /// permission is missing. The service does not say which.
    pub undeletable: Option<Undeleted>,
    /// An unlocked canary that was not removed, because these credentials may write but not delete. One of this
    /// process, if there is one.
    pub refused: Option<Undeleted>,
    /// Number of canaries of this node that are not locked and remain. Other processes may use some of them.
    pub unlocked: usize,
}

/// A canary whose DELETE was denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undeleted {
    /// The canary.
    pub key: CanaryKey,
    /// Its version.
    pub version: Option<String>,
    /// When it was stored, by the service's clock.
    pub modified: Option<Timestamp>,
    /// Failure of the DELETE.
    pub failure: S3Failure,
}

impl Swept {
    /// Whether no canary remains.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        *self == Self { removed: self.removed, ..Self::default() }
    }
}

/// Objects and versions that a listing found below the prefix of the canaries.
#[derive(Debug)]
pub struct Listing {
    found: Vec<ListedVersion>,
    /// Whether the bucket may have versions that the listing does not name.
    omits_versions: bool,
}

/// Lists and removes leftover canaries of this target on this node. `versioned`: whether the bucket has or had
/// versions. `in_use`: the canary of this process that stays.
///
/// # Errors
/// Those of [`list`] and [`remove`].
pub async fn sweep(
    api: &dyn ObjectApi,
    names: &CanaryNames,
    versioned: bool,
    clock: ServiceClock,
    in_use: Option<Uuid>,
) -> Result<Swept, S3Failure> {
    let listing = list(api, names, versioned).await?;
    remove(api, names, listing, clock, in_use).await
}

/// Lists canaries of this target on this node. If the listing of versions fails, lists objects instead.
///
/// # Errors
/// [`S3Failure`] of the listing.
pub async fn list(api: &dyn ObjectApi, names: &CanaryNames, versioned: bool) -> Result<Listing, S3Failure> {
    let failure = match api.list(names.folder(), versioned, LISTED_MAX).await {
        Ok(found) => return Ok(Listing { found, omits_versions: false }),
        Err(failure) => failure,
    };
    // Services without versions may not support the call.
    let lacks_versions = failure.lacks_configuration();
    let may_concern_versions =
        failure.may_concern_one_request() && !failure.is_timeout() && !failure.is_missing_permission();
    if !versioned || !(lacks_versions || may_concern_versions) {
        return Err(failure);
    }
    tracing::debug!(folder = names.folder(), %failure, "versions cannot be listed, so objects are listed");
    let found = api.list(names.folder(), false, LISTED_MAX).await?;
    Ok(Listing { found, omits_versions: !lacks_versions })
}

/// Removes leftover canaries. Locked canaries stay. Verifies that they are not locked for longer than requested.
///
/// # Errors
/// [`S3Failure`] of a DELETE that failed for another reason than a lock.
pub async fn remove(
    api: &dyn ObjectApi,
    names: &CanaryNames,
    listing: Listing,
    clock: ServiceClock,
    in_use: Option<Uuid>,
) -> Result<Swept, S3Failure> {
    let mut swept = Swept::default();
    for mut found in listing.found {
        let Some(key) = names.parse(&found.key) else { continue };
        let modified = found.modified.map(Timestamp::as_second);
        // A locked canary counts until it can be removed, whichever process wrote it.
        if key.until > 0 && !clock.is_past(key.until) && in_use != Some(key.id) {
            if swept.locked.len() < INSPECTED_MAX
                && reported_end(api, &found).await?.is_some_and(|until| until > key.until)
            {
                swept.overlong = Some(found.key);
            }
            swept.locked.push(key);
            continue;
        }
        if in_use == Some(key.id) {
            continue;
        }
        if !names.is_leftover(&key, modified, clock, in_use) {
            swept.unlocked += 1;
            continue;
        }
        // The next sweep removes it.
        if swept.removed >= REMOVED_MAX {
            continue;
        }
        let mut unknown_version = None;
        if listing.omits_versions {
            match api.head(&found.key, None).await {
                Ok(stored) => found.version = stored.version,
                Err(failure) if failure.is_gone() => continue,
                Err(failure) => unknown_version = Some(failure),
            }
        }
        // A DELETE without the version would hide it behind a delete marker.
        let failure = match unknown_version {
            Some(failure) => failure,
            None => match api.delete(&found.key, found.version.as_deref(), false).await {
                Err(failure) if is_denial(&failure) => failure,
                Err(failure) if !failure.is_gone() => return Err(failure),
                _ => {
                    swept.removed += 1;
                    continue;
                }
            },
        };
        swept.unlocked += 1;
        if key.until > 0 && reported_end(api, &found).await?.is_some_and(|until| until > key.until) {
            swept.overlong = Some(found.key);
            continue;
        }
        let kept = if key.until > 0 { &mut swept.undeletable } else { &mut swept.refused };
        if kept.as_ref().is_none_or(|kept| !names.is_own(&kept.key)) {
            *kept = Some(Undeleted { key, version: found.version, modified: found.modified, failure });
        }
    }
    if swept.removed > 0 {
        tracing::info!(folder = names.folder(), removed = swept.removed, "removed leftover canaries");
    }
    Ok(swept)
}

/// Whether a DELETE was denied: for a lack of permission, or for a lock.
pub(in crate::check) fn is_denial(failure: &S3Failure) -> bool {
    failure.is_refusal() || failure.is_lock_refusal()
}

/// End of a version's retention, if the service reports it to these credentials.
async fn reported_end(api: &dyn ObjectApi, found: &ListedVersion) -> Result<Option<i64>, S3Failure> {
    match api.head(&found.key, found.version.as_deref()).await {
        Ok(stored) => Ok(stored.retention.map(|retention| retention.until)),
        Err(failure) if failure.is_gone() || failure.may_concern_one_request() => Ok(None),
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
    async fn sweep_counts_and_keeps_locked_canaries_of_commands() {
        let clock = ServiceClock::new(Some(0));
        let (agent, command) = (names(ProcessRole::Daemon), names(ProcessRole::OneShot));
        let api = FakeObjects::default();
        let key = command.new_key(CanaryKind::Lock, clock.now() + 60);
        api.keep(&command.text(&key));
        let mine = agent.new_key(CanaryKind::Lock, clock.now() + 60);
        api.keep(&agent.text(&mine));
        let swept = sweep(&api, &agent, true, clock, Some(mine.id)).await.expect("swept");
        assert_eq!(swept, Swept { locked: vec![key], ..Swept::default() });
        assert_eq!(api.keys().len(), 2);
    }

    #[tokio::test]
    async fn sweep_lists_objects_when_the_service_lists_no_versions() {
        let (agent, before) = (names(ProcessRole::Daemon), names(ProcessRole::Daemon));
        let api = FakeObjects { lists_no_versions: true, ..FakeObjects::default() };
        api.keep(&before.text(&before.new_key(CanaryKind::Write, 0)));
        let swept = sweep(&api, &agent, true, ServiceClock::new(Some(0)), None).await.expect("swept");
        assert_eq!((swept.removed, api.keys()), (1, Vec::new()));
    }

    #[tokio::test]
    async fn sweep_lists_objects_when_the_listing_of_versions_fails() {
        let (agent, before) = (names(ProcessRole::Daemon), names(ProcessRole::Daemon));
        for failure in [
            S3Failure::service(500, Some("InternalError"), None),
            S3Failure::service(503, Some("SlowDown"), None),
            S3Failure::service(500, None, None),
            S3Failure::service(409, Some("Conflict"), None),
            S3Failure::service(302, None, None),
            S3Failure::service(403, Some("SignatureDoesNotMatch"), None),
            S3Failure::ConnectionBroken("reset".to_owned()),
        ] {
            let api =
                FakeObjects { versions_failure: Some(failure.clone()), versioned: true, ..FakeObjects::default() };
            api.keep(&before.text(&before.new_key(CanaryKind::Write, 0)));
            let swept = sweep(&api, &agent, true, ServiceClock::new(Some(0)), None).await.ok();
            assert_eq!(swept.map(|swept| swept.removed), Some(1), "{failure}");
            assert_eq!(api.deleted(), [Some("1".to_owned())], "a DELETE without a version adds a delete marker");
            let unreadable = FakeObjects { refuses_get: true, ..api };
            unreadable.keep(&before.text(&before.new_key(CanaryKind::Write, 0)));
            let swept = sweep(&unreadable, &agent, true, ServiceClock::new(Some(0)), None).await.expect("swept");
            assert_eq!((swept.removed, swept.unlocked, unreadable.keys().len()), (0, 1, 1), "{failure}");
        }
    }

    #[tokio::test]
    async fn sweep_counts_locked_canaries_behind_more_leftovers_than_it_removes() {
        let clock = ServiceClock::new(Some(0));
        let (agent, before) = (names(ProcessRole::Daemon), names(ProcessRole::Daemon));
        let api = FakeObjects::default();
        for _ in 0..REMOVED_MAX + 1 {
            api.keep(&before.text(&before.new_key(CanaryKind::Write, 0)));
        }
        let key = before.new_key(CanaryKind::Lock, clock.now() + 60);
        api.keep(&before.text(&key));
        let swept = sweep(&api, &agent, true, clock, None).await.expect("swept");
        assert_eq!((swept.removed, swept.locked), (REMOVED_MAX, vec![key]));
    }

    #[tokio::test]
    async fn canary_is_overlong_only_when_the_service_reports_a_later_end() {
        let clock = ServiceClock::new(Some(0));
        let names = names(ProcessRole::Daemon);
        for (until, told, is_overlong) in [(-60, 3600, true), (-60, -60, false), (60, 3600, true), (60, 60, false)] {
            let api = FakeObjects { refuses_delete: true, ..FakeObjects::default() };
            let text = names.text(&names.new_key(CanaryKind::Lock, clock.now() + until));
            let retention = Retention { mode: LockMode::Compliance, until: clock.now() + told };
            api.keep_locked(&text, Some(retention));
            let swept = sweep(&api, &names, true, clock, None).await.expect("swept");
            assert_eq!(swept.overlong.is_some(), is_overlong, "{until} {told}: {swept:?}");
            assert_eq!(swept.undeletable.is_some(), until < 0 && !is_overlong, "{until} {told}: {swept:?}");
        }
    }
}
