//! Removes canaries that nobody uses any more, and counts those that are locked.

use uuid::Uuid;

use super::{CanaryKey, CanaryNames, ServiceClock};
use crate::s3::{ObjectApi, S3Failure};

/// How many versions of this node's canaries are looked at. There are as many as runs ended between a
/// PUT and its DELETE, so mostly none.
pub const LISTED_MAX: u16 = 100;

/// How many leftovers one sweep removes.
pub const REMOVED_MAX: usize = 16;

/// What a sweep found and left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Swept {
    /// How many were removed.
    pub removed: usize,
    /// Those that are locked as they asked to be, and will be removed after it.
    pub locked: Vec<CanaryKey>,
    /// The key of one that the service keeps locked for longer than it asked to be.
    pub overlong: Option<String>,
    /// Why one that nothing locks was not removed: these credentials may write and not delete.
    pub refused: Option<S3Failure>,
}

/// Removes what is left of canaries of this node. What is still locked is left alone, without a
/// request. `versioned` is whether the bucket has or had versions.
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
        if !names.is_leftover(&key, modified, clock, in_use) {
            continue;
        }
        if key.until > 0 && !clock.is_past(key.until) {
            swept.locked.push(key);
            continue;
        }
        if swept.removed >= REMOVED_MAX {
            break;
        }
        match api.delete(&found.key, found.version.as_deref(), false).await {
            Ok(_) => swept.removed += 1,
            Err(failure) if failure.is_refusal() && key.until > 0 => swept.overlong = Some(found.key),
            Err(failure) if failure.is_refusal() => swept.refused = Some(failure),
            Err(failure) => return Err(failure),
        }
    }
    if swept.removed > 0 {
        tracing::info!(folder = names.folder(), removed = swept.removed, "removed what was left of canaries");
    }
    Ok(swept)
}
