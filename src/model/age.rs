//! Times for people: since an event, and of a forecast.

use std::time::Duration;

/// Time before the end of a certificate or of credentials from which the end is a warning.
pub const END_ANNOUNCED_BEFORE: Duration = Duration::from_secs(14 * 24 * 3600);

use jiff::Timestamp;

/// Formats the time since an event in one unit: `12 s`, `3 min`, `5 h`, `2 d`.
#[must_use]
pub fn age(since: Timestamp, now: Timestamp) -> String {
    rounded(now.duration_since(since).as_secs().max(0).cast_unsigned())
}

/// Formats a duration in one unit, as [`age`] does.
#[must_use]
pub fn in_one_unit(duration: Duration) -> String {
    rounded(duration.as_secs())
}

fn rounded(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_has_one_unit() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        for (seconds, text) in [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (200_000, "2 d")] {
            assert_eq!(age(at(0), at(seconds)), text);
        }
        assert_eq!(age(at(5), at(0)), "0 s", "a clock that was set back");
    }
}
