//! Counters of requests: the requests for each bucket, and all operations with their results.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::model::tally::{Tally, status_class};

/// Period of the count of recent requests.
const HOUR: Duration = Duration::from_secs(3600);

/// Resolution of the count of the last hour.
const SLOT: Duration = Duration::from_secs(60);

/// Operations that the agent uses. Others count as [`OTHER_OPERATION`].
const OPERATIONS: &[&str] = &[
    "DeleteObject",
    "GetBucketLocation",
    "GetBucketVersioning",
    "GetObject",
    "GetObjectLockConfiguration",
    "HeadBucket",
    "HeadObject",
    "ListObjectVersions",
    "ListObjectsV2",
    "PutObject",
    "PutObjectRetention",
];

/// Name of an operation that is not in [`OPERATIONS`].
const OTHER_OPERATION: &str = "other";

/// Requests to all services, by operation and class of the status. The class is `none` without an answer.
pub type OperationTally = Tally<(&'static str, &'static str)>;

/// A request that was sent. It is counted on drop, so that a request counts even if the caller stops waiting for it.
#[derive(Debug)]
pub(super) struct Transmission {
    operations: Arc<OperationTally>,
    operation: &'static str,
    status: Option<u16>,
}

impl Transmission {
    /// Records the status of the answer.
    pub(super) fn answered(&mut self, status: u16) {
        self.status = Some(status);
    }
}

impl Drop for Transmission {
    fn drop(&mut self) {
        self.operations.count((self.operation, self.status.map_or("none", status_class)));
    }
}

/// Requests for one target: those of its probes, all, and all of the last hour.
#[derive(Debug, Clone, Default)]
pub struct RequestCounter {
    counts: Arc<Mutex<Counts>>,
    operations: Arc<OperationTally>,
    is_background: bool,
}

#[derive(Debug, Default)]
struct Counts {
    /// Requests of probes.
    of_probes: u64,
    /// All requests.
    total: u64,
    /// Begin and count of each slot, for at most an hour.
    slots: VecDeque<(Instant, u64)>,
}

impl Counts {
    fn add(&mut self, now: Instant, is_background: bool) {
        self.of_probes += u64::from(!is_background);
        self.total += 1;
        self.forget(now);
        match self.slots.back_mut() {
            Some((began, count)) if now < *began + SLOT => *count += 1,
            _ => self.slots.push_back((now, 1)),
        }
    }

    fn forget(&mut self, now: Instant) {
        while self.slots.front().is_some_and(|(began, _)| *began + HOUR <= now) {
            self.slots.pop_front();
        }
    }

    fn last_hour(&mut self, now: Instant) -> u64 {
        self.forget(now);
        self.slots.iter().map(|(_, count)| count).sum()
    }
}

impl RequestCounter {
    /// A counter for one bucket, which also counts in `operations`.
    #[must_use]
    pub fn new(operations: Arc<OperationTally>) -> Self {
        Self { operations, ..Self::default() }
    }

    /// Returns the same counter, for requests outside probes.
    #[must_use]
    pub fn for_background(&self) -> Self {
        Self { is_background: true, ..self.clone() }
    }

    /// Returns the number of requests that probes sent.
    #[must_use]
    pub fn of_probes(&self) -> u64 {
        self.counts().of_probes
    }

    /// Returns the number of all requests.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts().total
    }

    /// Returns the number of all requests of the last hour.
    #[must_use]
    pub fn last_hour(&self) -> u64 {
        self.counts().last_hour(Instant::now())
    }

    /// Counts a request that is sent now.
    pub(super) fn begin(&self, name: &str) -> Transmission {
        self.counts().add(Instant::now(), self.is_background);
        let operation = OPERATIONS.iter().copied().find(|known| *known == name).unwrap_or(OTHER_OPERATION);
        Transmission { operations: self.operations.clone(), operation, status: None }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_for_an_hour() {
        let (mut counts, began) = (Counts::default(), Instant::now());
        for minute in 0..180 {
            counts.add(began + SLOT * minute, false);
            counts.add(began + SLOT * minute, true);
        }
        assert_eq!((counts.of_probes, counts.total), (180, 360));
        assert_eq!(counts.last_hour(began + SLOT * 179), 120);
        assert_eq!(counts.last_hour(began + SLOT * 179 + HOUR), 0);
        assert_eq!(counts.slots.len(), 0);
    }
}
