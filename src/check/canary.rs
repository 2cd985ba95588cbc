//! Canary objects: the objects that the agent writes to a bucket, and their removal.
//!
//! The key of a canary contains everything that is needed to remove it ([`key`]). So the next sweep
//! ([`mod@sweep`]) finds a canary whose process ended between PUT and DELETE, and one whose PUT timed
//! out and was applied later. State is kept outside of the bucket only if the bucket cannot be listed
//! ([`super::object_canary::memory`]).
//!
//! Times are by the service's clock if it is known. That clock decides what is locked, and it may differ
//! from this host's clock.

mod clock;
pub mod key;
pub mod sweep;

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;

pub use clock::{CLOCK_DIFFERENCE_MAX_SECONDS, CLOCK_UNCERTAINTY_SECONDS, ServiceClock};
pub use key::{CanaryKey, CanaryKind, CanaryNames, ProcessRole};
pub use sweep::{Swept, Undeleted, sweep};

/// Size of a canary, in bytes.
pub const CANARY_BYTES: usize = 4096;

/// Whether the rest of a retention is certainly longer than requested, whatever the uncertainty of the clocks.
#[must_use]
pub fn exceeds(left_seconds: i64, retention: Duration) -> bool {
    let most = i64::try_from(retention.as_secs()).unwrap_or(i64::MAX).saturating_add(CLOCK_UNCERTAINTY_SECONDS);
    left_seconds > most
}

/// Formats a time in seconds since 1970, such as `2026-11-24T12:57:51Z`.
#[must_use]
pub fn utc(second: i64) -> String {
    Timestamp::from_second(second).map_or_else(|_| format!("second {second}"), |time| time.to_string())
}

/// First bytes of the content of a canary.
const CONTENT_PREFIX: &[u8] = b"targetwatch canary ";

/// Content of a canary. It depends on the id only, and differs for each id.
#[must_use]
pub fn content(id: Uuid) -> Bytes {
    let line = [CONTENT_PREFIX, format!("{id}: this object may be deleted\n").as_bytes()].concat();
    line.iter().copied().cycle().take(CANARY_BYTES).collect()
}

/// Whether this is the complete content of a canary.
#[must_use]
pub fn is_content(found: &Bytes) -> bool {
    let rest = found.strip_prefix(CONTENT_PREFIX).and_then(|rest| rest.get(..uuid::fmt::Hyphenated::LENGTH));
    let id = rest.and_then(|id| Uuid::try_parse_ascii(id).ok());
    id.is_some_and(|id| *found == content(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_of_a_canary_depends_on_its_id() {
        let (one, another) = (Uuid::new_v4(), Uuid::new_v4());
        assert_eq!(content(one), content(one));
        assert_ne!(content(one), content(another));
        assert_eq!(content(one).len(), CANARY_BYTES);
        assert!(is_content(&content(one)));
        let (cut, empty) = (content(one).slice(..CANARY_BYTES - 1), Bytes::new());
        assert!(!is_content(&cut) && !is_content(&empty) && !is_content(&content(one).slice(1..)));
    }
}
