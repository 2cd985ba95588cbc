//! Counter of requests for a bucket: the load that the agent puts on the service.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextRef;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;

/// Time for which requests are counted.
const HOUR: Duration = Duration::from_secs(3600);

/// Resolution of the count of the last hour.
const SLOT: Duration = Duration::from_secs(60);

/// Requests for one target: those of its probes, and all of the last hour.
#[derive(Debug, Clone, Default)]
pub struct RequestCounter {
    counts: Arc<Mutex<Counts>>,
    is_background: bool,
}

#[derive(Debug, Default)]
struct Counts {
    /// Requests of probes.
    total: u64,
    /// Begin and count of each slot, for at most an hour.
    slots: VecDeque<(Instant, u64)>,
}

impl Counts {
    fn add(&mut self, now: Instant, is_background: bool) {
        self.total += u64::from(!is_background);
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
    /// Returns the same counter, for requests outside probes.
    #[must_use]
    pub fn for_background(&self) -> Self {
        Self { counts: self.counts.clone(), is_background: true }
    }

    /// Returns the number of requests that probes sent.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts().total
    }

    /// Returns the number of all requests of the last hour.
    #[must_use]
    pub fn last_hour(&self) -> u64 {
        self.counts().last_hour(Instant::now())
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intercept for RequestCounter {
    fn name(&self) -> &'static str {
        "RequestCounter"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.counts().add(Instant::now(), self.is_background);
        Ok(())
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
        assert_eq!((counts.total, counts.last_hour(began + SLOT * 179)), (180, 120));
        assert_eq!(counts.last_hour(began + SLOT * 179 + HOUR), 0);
        assert_eq!(counts.slots.len(), 0);
    }
}
