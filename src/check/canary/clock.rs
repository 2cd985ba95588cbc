//! The service's clock, by which it decides what is locked.

use std::time::Duration;

use jiff::Timestamp;

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
}
