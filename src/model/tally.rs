//! Counts and durations since the start of the agent: the data of its metrics.
//!
//! Keys come from fixed sets, so a tally is bounded by its type. Updates and reads hold a lock for one map access, and
//! wait for nothing else.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Class of an HTTP status, as a label.
#[must_use]
pub const fn status_class(status: u16) -> &'static str {
    match status {
        ..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        500.. => "5xx",
    }
}

/// Number of events for each key, since the start of the agent.
#[derive(Debug)]
pub struct Tally<K>(Mutex<BTreeMap<K, u64>>);

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord + Clone> Tally<K> {
    /// Counts one event.
    pub fn count(&self, key: K) {
        self.add(key, 1);
    }

    /// Counts several events.
    pub fn add(&self, key: K, events: u64) {
        let mut counts = self.counts();
        let count = counts.entry(key).or_default();
        *count = count.saturating_add(events);
    }

    /// Returns the number of events of a key.
    #[must_use]
    pub fn of(&self, key: &K) -> u64 {
        self.counts().get(key).copied().unwrap_or_default()
    }

    /// Returns each key with events, and their number.
    #[must_use]
    pub fn all(&self) -> Vec<(K, u64)> {
        self.counts().iter().map(|(key, count)| (key.clone(), *count)).collect()
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<K, u64>> {
        // Every change is a single addition, so a panic leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Distribution of durations since the start of the agent.
#[derive(Debug)]
pub struct Histogram(Mutex<Observed>);

/// Durations that were observed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Observed {
    /// Upper bound of each bucket in seconds, and the number of durations between the previous bound and this one. The
    /// last bound is infinite.
    pub buckets: Vec<(f64, u64)>,
    /// Sum of the durations, in seconds.
    pub sum: f64,
}

impl Observed {
    /// Returns the number of durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }
}

impl Histogram {
    /// An empty histogram with these upper bounds, in seconds, ascending. Longer durations are counted in an additional
    /// bucket.
    #[must_use]
    pub fn new(bounds: &[f64]) -> Self {
        let buckets = bounds.iter().copied().chain([f64::INFINITY]).map(|bound| (bound, 0)).collect();
        Self(Mutex::new(Observed { buckets, sum: 0.0 }))
    }

    /// Adds a duration.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let mut observed = self.observed();
        observed.sum += seconds;
        if let Some((_, count)) = observed.buckets.iter_mut().find(|(bound, _)| seconds <= *bound) {
            *count += 1;
        }
    }

    /// Returns the durations so far.
    #[must_use]
    pub fn snapshot(&self) -> Observed {
        self.observed().clone()
    }

    fn observed(&self) -> MutexGuard<'_, Observed> {
        // A panic between two additions loses at most one observation.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_by_key() {
        let tally = Tally::default();
        for key in ["b", "a", "b"] {
            tally.count(key);
        }
        tally.add("c", u64::MAX);
        tally.count("c");
        assert_eq!(tally.all(), [("a", 1), ("b", 2), ("c", u64::MAX)]);
        assert_eq!((tally.of(&"b"), tally.of(&"d")), (2, 0));
    }

    #[test]
    fn duration_is_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        let histogram = Histogram::new(&[0.01, 1.0]);
        for milliseconds in [0, 10, 11, 1000, 1001] {
            histogram.observe(Duration::from_millis(milliseconds));
        }
        let observed = histogram.snapshot();
        assert_eq!(observed.buckets, [(0.01, 2), (1.0, 2), (f64::INFINITY, 1)]);
        assert_eq!(observed.count(), 5);
        assert!((observed.sum - 2.022).abs() < 1e-9, "{}", observed.sum);
    }
}
