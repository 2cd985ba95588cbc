//! Usage history: the used bytes of one target in the last days, and the time until the target is full.
//!
//! Backups grow in steps: some hours of writing at night, nothing during the day, and now and then a purge. So the
//! growth is the Theil–Sen estimate: the median of the slopes between all pairs of samples. A few unusual samples do
//! not change it (Sen, "Estimates of the regression coefficient based on Kendall's tau", 1968). The forecast is `None`
//! where the history shows no clear growth:
//!
//! - with fewer than [`SAMPLES_MIN`] samples, because a history shorter than two days may be one long backup,
//! - if use falls between more than a quarter of the pairs, as around a purge,
//! - if use does not rise between at least three fifths of the pairs, as with a single backup in three days,
//! - beyond [`FORECAST_MAX`].
//!
//! For nightly backups of up to 8 hours, the estimate is between 0.7 and 1.1 times the average growth.

use std::time::Duration;

use jiff::Timestamp;

use super::capacity::Capacity;

/// Largest number of samples of one target. A history occupies 16 bytes for each.
pub const SAMPLES_MAX: usize = 18;

/// Shortest time between two samples.
pub const SPACING: Duration = Duration::from_secs(4 * 3600);

/// Age above which a sample is dropped: the time that the samples cover.
pub const WINDOW: Duration = Duration::from_secs(72 * 3600);

/// Smallest number of samples for a forecast. They cover at least 48 hours, so two nightly backups.
pub const SAMPLES_MIN: usize = 13;

/// Longest forecast. A history of three days says nothing about a time that is further away.
pub const FORECAST_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Used bytes at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    /// Seconds since 1970, by this host's clock.
    at: i64,
    used_bytes: u64,
}

/// Used bytes of one target in the last days.
#[derive(Debug, Clone, Default)]
pub struct UsageHistory {
    /// At most [`SAMPLES_MAX`], oldest first.
    samples: Vec<Sample>,
    /// Growth, in bytes per second. Zero if no clear growth is known.
    growth: f64,
}

impl UsageHistory {
    /// Adds what a probe measured, unless the latest sample is younger than [`SPACING`].
    pub fn add(&mut self, at: Timestamp, capacity: &Capacity) {
        let Some(used_bytes) = capacity.used_bytes else { return };
        let at = at.as_second();
        let before = self.samples.len();
        // A sample from the future is from before the clock was set back.
        self.samples.retain(|sample| (0..=WINDOW.as_secs().cast_signed()).contains(&(at - sample.at)));
        let is_due = self.samples.last().is_none_or(|last| at - last.at >= SPACING.as_secs().cast_signed());
        if is_due {
            if self.samples.capacity() == 0 {
                self.samples.reserve_exact(SAMPLES_MAX);
            }
            if self.samples.len() == SAMPLES_MAX {
                self.samples.remove(0);
            }
            self.samples.push(Sample { at, used_bytes });
        }
        if is_due || self.samples.len() != before {
            self.growth = growth(&self.samples).unwrap_or_default();
        }
    }

    /// Returns the time until the available space is used up, if use continues to grow as in the history. `None` if
    /// that is not known.
    #[must_use]
    pub fn time_to_full(&self, capacity: &Capacity) -> Option<Duration> {
        capacity.capacity_bytes.filter(|size| *size > 0)?;
        let available = capacity.available_bytes.filter(|_| self.growth > 0.0)?;
        #[allow(clippy::cast_precision_loss, reason = "an estimate")]
        let seconds = available as f64 / self.growth;
        (seconds <= FORECAST_MAX.as_secs_f64()).then(|| Duration::from_secs_f64(seconds.max(0.0)))
    }
}

/// Returns the growth in bytes per second, or `None` if the samples show no clear growth.
fn growth(samples: &[Sample]) -> Option<f64> {
    if samples.len() < SAMPLES_MIN {
        return None;
    }
    #[allow(clippy::cast_precision_loss, reason = "an estimate")]
    let slope = |from: &Sample, to: &Sample| {
        (i128::from(to.used_bytes) - i128::from(from.used_bytes)) as f64 / (to.at - from.at) as f64
    };
    let pairs = samples.iter().enumerate().flat_map(|(at, to)| samples[..at].iter().map(move |from| (from, to)));
    let mut slopes: Vec<f64> = pairs.map(|(from, to)| slope(from, to)).collect();
    slopes.sort_by(f64::total_cmp);
    let (quarter, two_fifths) = (slopes.len() / 4, slopes.len() * 2 / 5);
    let median = slopes[(slopes.len() - 1) / 2].midpoint(slopes[slopes.len() / 2]);
    (slopes[quarter] >= 0.0 && slopes[two_fifths] > 0.0).then_some(median)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: i64 = 3600;
    const TIB: u64 = 1 << 40;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    /// A bucket of 100 TiB that contains `used` bytes.
    fn capacity(used: u64) -> Capacity {
        Capacity::from_bucket(Some(used), Some(100 * TIB))
    }

    /// The history of a target that was probed every 10 minutes from hour `from` to hour `to`.
    fn probed(from: i64, to: i64, used: impl Fn(i64) -> u64) -> UsageHistory {
        let mut history = UsageHistory::default();
        for second in (from * HOUR..=to * HOUR).step_by(600) {
            history.add(at(second), &capacity(used(second)));
            assert!(history.samples.len() <= SAMPLES_MAX && history.samples.capacity() <= SAMPLES_MAX);
        }
        history
    }

    /// Hours until a target is full that contains 90 TiB.
    fn hours_left(history: &UsageHistory) -> Option<f64> {
        history.time_to_full(&capacity(90 * TIB)).map(|time| time.as_secs_f64() / 3600.0)
    }

    /// One TiB is written in `hours` hours of each day.
    fn nightly(second: i64, hours: i64) -> u64 {
        let (day, within) = (second / (24 * HOUR), second % (24 * HOUR));
        day.cast_unsigned() * TIB + within.min(hours * HOUR).cast_unsigned() * (TIB / (hours * HOUR).cast_unsigned())
    }

    fn steady(second: i64) -> u64 {
        second.cast_unsigned() * (TIB / 86_400)
    }

    #[test]
    fn time_to_full_is_available_space_divided_by_growth() {
        let found = hours_left(&probed(0, 72, steady)).expect("growing");
        assert!((found - 240.0).abs() < 0.1, "10 TiB at 1 TiB a day: {found}");
    }

    #[test]
    fn time_to_full_is_unknown_with_too_little_history() {
        assert_eq!(hours_left(&UsageHistory::default()), None);
        assert_eq!(hours_left(&probed(0, 47, steady)), None);
        assert!(hours_left(&probed(0, 49, steady)).is_some());
    }

    #[test]
    fn time_to_full_is_unknown_without_growth_or_size() {
        for (name, used) in [
            ("constant", (|_| TIB) as fn(i64) -> u64),
            ("falling", |second| 90 * TIB - steady(second)),
            ("as much is purged each day as is written", |second| nightly(second % (24 * HOUR), 4)),
            ("one backup in three days", |second| if second > 30 * HOUR { 2 * TIB } else { TIB }),
            ("a KiB an hour, so full in millions of years", |second| second.cast_unsigned() / 4),
        ] {
            assert_eq!(hours_left(&probed(0, 72, used)), None, "{name}");
        }
        let history = probed(0, 72, steady);
        for unknown in [
            Capacity::default(),
            Capacity::from_bucket(Some(TIB), None),
            Capacity::from_bucket(None, Some(TIB)),
            Capacity::from_blocks(4096, 0, 0, 0, 0, 0),
        ] {
            assert_eq!(history.time_to_full(&unknown), None, "{unknown:?}");
        }
        assert_eq!(history.time_to_full(&capacity(101 * TIB)), Some(Duration::ZERO), "more than its quota");
    }

    #[test]
    fn history_forgets_what_is_older_than_its_window() {
        let mut history = probed(0, 72, steady);
        history.add(at((72 + 73) * HOUR), &capacity(TIB));
        assert_eq!((history.samples.len(), hours_left(&history)), (1, None), "the target was offline for days");
    }

    #[test]
    fn clock_that_is_set_back_drops_samples_from_the_future() {
        let mut history = probed(1000, 1072, steady);
        history.add(at(0), &capacity(0));
        assert_eq!((history.samples.len(), hours_left(&history)), (1, None));
    }

    #[test]
    fn history_of_one_target_needs_at_most_350_bytes() {
        let samples = SAMPLES_MAX * size_of::<Sample>();
        assert!(size_of::<UsageHistory>() + samples <= 350, "{samples}");
    }

    proptest! {
        #[test]
        fn nightly_backups_are_forecast_at_their_average_growth(start in 0_i64..24, length in 1_i64..=8, hours in 49_i64..200) {
            let found = hours_left(&probed(start, start + hours, |second| nightly(second, length))).expect("growing");
            prop_assert!((240.0 / 1.1..240.0 / 0.7).contains(&found), "{found}");
        }

        #[test]
        fn purge_hides_the_forecast_or_delays_it_by_less_than_three_times(purged_at in 0_i64..144, share in 1_u64..=100) {
            // Written until hour 144, so that the purge may be before the window too.
            let used = |second| {
                let gone = if second >= purged_at * HOUR { steady(purged_at * HOUR) / 100 * share } else { 0 };
                steady(second) - gone
            };
            if let Some(found) = hours_left(&probed(0, 144, used)) {
                prop_assert!((230.0..620.0).contains(&found), "{found}");
            }
        }

        #[test]
        fn two_wrong_measurements_do_not_make_a_forecast_wrong(wrong in proptest::collection::vec((0_i64..18, any::<u64>()), 0..=2)) {
            let used = |second: i64| {
                let slot = second / (4 * HOUR);
                wrong.iter().find(|(at, _)| *at == slot).map_or_else(|| steady(second), |(_, used)| *used)
            };
            if let Some(found) = hours_left(&probed(0, 71, used)) {
                prop_assert!((120.0..480.0).contains(&found), "{found}");
            }
        }

        #[test]
        fn forecast_is_bounded_whatever_is_measured(measured in proptest::collection::vec((any::<i32>(), any::<u64>()), 0..60)) {
            let mut history = UsageHistory::default();
            for (second, used) in measured {
                history.add(at(second.into()), &capacity(used));
                prop_assert!(history.samples.len() <= SAMPLES_MAX);
                prop_assert!(history.samples.is_sorted_by(|a, b| a.at < b.at));
                let forecast = history.time_to_full(&capacity(used));
                prop_assert!(forecast.is_none_or(|time| time <= FORECAST_MAX));
            }
        }
    }
}
