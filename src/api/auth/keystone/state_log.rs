//! Log of a state that may change with each request. Each change is logged once, at a bounded rate. A state that
//! lasts is always logged eventually.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct StateLog {
    min_interval: Duration,
    last: Mutex<Logged>,
}

/// The last line that was logged.
#[derive(Debug, Default)]
struct Logged {
    problem: Option<String>,
    at: Option<Instant>,
}

impl StateLog {
    /// A log with at most one line in each interval.
    pub(super) fn new(min_interval: Duration) -> Self {
        Self { min_interval, last: Mutex::default() }
    }

    /// Logs a problem unless it is the last one that was logged.
    pub(super) fn failed(&self, problem: &str) {
        if self.changed(Some(problem)) {
            tracing::error!("{problem}");
        }
    }

    /// Logs the end of a problem.
    pub(super) fn recovered(&self, message: &str) {
        if self.changed(None) {
            tracing::info!("{message}");
        }
    }

    /// Logs a problem that has no end. It is logged again at the next occurrence.
    pub(super) fn occurred(&self, problem: &str) {
        self.failed(problem);
        self.last.lock().unwrap_or_else(PoisonError::into_inner).problem = None;
    }

    fn changed(&self, problem: Option<&str>) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.problem.as_deref() == problem || last.at.is_some_and(|at| at.elapsed() < self.min_interval) {
            return false;
        }
        *last = Logged { problem: problem.map(str::to_owned), at: Some(Instant::now()) };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn flapping_state_is_logged_at_a_bounded_rate() {
        let log = StateLog::new(Duration::from_secs(10));
        assert!(!log.changed(None), "no problem is not a change at first");
        assert!(log.changed(Some("down")));
        let mut logged = 0;
        for _ in 0..100 {
            tokio::time::advance(Duration::from_millis(100)).await;
            logged += usize::from(log.changed(None)) + usize::from(log.changed(Some("down")));
        }
        assert_eq!(logged, 1, "ten seconds of changes");
        tokio::time::advance(Duration::from_secs(10)).await;
        // A second state within the interval is logged after it.
        let both = [Some("other"), None].map(|state| {
            let changed = log.changed(state);
            assert!(!log.changed(state), "once");
            changed
        });
        assert_eq!(both, [true, false]);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(log.changed(None));
    }
}
