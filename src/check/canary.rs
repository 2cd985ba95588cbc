//! Canary objects: the objects that the agent writes to a bucket, and their removal.
//!
//! The key of a canary contains everything that is needed to remove it ([`key`]). So the next sweep
//! ([`mod@sweep`]) finds a canary whose process ended between PUT and DELETE, and one whose PUT timed
//! out and was applied later. State is kept outside of the bucket only if the bucket cannot be listed
//! ([`super::object_canary::memory`]).
//!
//! Times are by the service's clock if it is known. That clock decides what is locked, and it may differ
//! from this host's clock.

pub mod key;
pub mod sweep;

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;

pub use key::{CanaryKey, CanaryKind, CanaryNames, ProcessRole};
pub use sweep::{Swept, Undeleted, sweep};

/// Size of a canary, in bytes.
pub const CANARY_BYTES: usize = 4096;

/// Uncertainty of the service's clock, in seconds. Its answers and the times that are compared with them have whole
/// seconds.
pub const CLOCK_UNCERTAINTY_SECONDS: i64 = 2;

/// Largest difference between the service's clock and this host's clock at which a canary is locked, in seconds. With a
/// larger one services refuse requests (Signature Version 4), so the reported time cannot be that of the service's
/// clock.
pub const CLOCK_DIFFERENCE_MAX_SECONDS: i64 = 900;

/// The service's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServiceClock {
    ahead_seconds: Option<i64>,
}

impl ServiceClock {
    /// A clock that is this many seconds ahead of this host's. An unknown clock counts as equal to it.
    #[must_use]
    pub fn new(ahead_seconds: Option<i64>) -> Self {
        Self { ahead_seconds }
    }

    /// Returns why a retention must not be calculated with this clock. `None` if it is plausible. With a wrong clock,
    /// objects would be locked for longer than configured.
    #[must_use]
    pub fn implausible(self) -> Option<String> {
        match self.ahead_seconds {
            None => {
                Some("the service does not report its clock, which decides when a retention ends: let the service, and the proxies before it, send the header Date (RFC 9110 §6.6.1)".to_owned())
            }
            Some(ahead) if ahead.saturating_abs() > CLOCK_DIFFERENCE_MAX_SECONDS => Some(format!(
                "the clocks of the service and of this host differ by {} s, more than {CLOCK_DIFFERENCE_MAX_SECONDS} s: correct the clock that is wrong (NTP)",
                ahead.saturating_abs()
            )),
            Some(_) => None,
        }
    }

    /// Current time of the clock, in seconds since 1970.
    #[must_use]
    pub fn now(self) -> i64 {
        Timestamp::now().as_second().saturating_add(self.ahead_seconds.unwrap_or_default())
    }

    /// End of a retention that lasts no longer than `retention`, despite the uncertainty of the clock.
    #[must_use]
    pub fn end_of(self, retention: Duration) -> i64 {
        let seconds = i64::try_from(retention.as_secs()).unwrap_or(i64::MAX);
        self.now().saturating_add(seconds).saturating_sub(1)
    }

    /// Whether a time has certainly passed.
    #[must_use]
    pub fn is_past(self, time: i64) -> bool {
        self.now() >= time.saturating_add(CLOCK_UNCERTAINTY_SECONDS)
    }

    /// Whether a time may have passed.
    #[must_use]
    pub fn may_be_past(self, time: i64) -> bool {
        self.now() >= time.saturating_sub(CLOCK_UNCERTAINTY_SECONDS)
    }

    /// Time until a time has certainly passed.
    #[must_use]
    pub fn wait_until_past(self, time: i64) -> Duration {
        let seconds = time.saturating_add(CLOCK_UNCERTAINTY_SECONDS).saturating_sub(self.now());
        Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
    }
}

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
    fn retention_is_never_longer_than_configured_and_its_end_is_certain() {
        for ahead in [-3600, 0, 3600] {
            let clock = ServiceClock::new(Some(ahead));
            let end = clock.end_of(Duration::from_secs(10));
            let left = end - Timestamp::now().as_second() - ahead;
            assert!((8..=9).contains(&left), "{left} s");
            assert!(!clock.is_past(end) && !clock.may_be_past(end));
            assert!(clock.may_be_past(clock.now() + 1) && !clock.is_past(clock.now() - 1));
            let wait = clock.wait_until_past(end);
            assert!((10..=11).contains(&wait.as_secs()), "{wait:?}");
            assert!(clock.is_past(clock.now() - CLOCK_UNCERTAINTY_SECONDS));
            assert_eq!(clock.wait_until_past(clock.now() - 60), Duration::ZERO);
        }
    }

    #[test]
    fn clock_is_implausible_when_it_is_unknown_or_differs_too_much() {
        for (ahead, is_plausible) in [
            (None, false),
            (Some(0), true),
            (Some(CLOCK_DIFFERENCE_MAX_SECONDS), true),
            (Some(-CLOCK_DIFFERENCE_MAX_SECONDS), true),
            (Some(CLOCK_DIFFERENCE_MAX_SECONDS + 1), false),
            (Some(-CLOCK_DIFFERENCE_MAX_SECONDS - 1), false),
            (Some(i64::MIN), false),
        ] {
            assert_eq!(ServiceClock::new(ahead).implausible().is_none(), is_plausible, "{ahead:?}");
        }
    }

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
