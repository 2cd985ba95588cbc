//! Logs a state that may change with each request: each change once, and at a bounded rate. A state that
//! lasts is always logged in the end.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct Speech {
    every: Duration,
    said: Mutex<Said>,
}

#[derive(Debug, Default)]
struct Said {
    problem: Option<String>,
    at: Option<Instant>,
}

impl Speech {
    /// Speaks at most once in so long.
    pub(super) fn every(every: Duration) -> Self {
        Self { every, said: Mutex::default() }
    }

    /// Something is wrong.
    pub(super) fn is_wrong(&self, problem: &str) {
        if self.is_news(Some(problem)) {
            tracing::error!("{problem}");
        }
    }

    /// Nothing is wrong; `again` is said when something was.
    pub(super) fn is_well(&self, again: &str) {
        if self.is_news(None) {
            tracing::info!("{again}");
        }
    }

    /// What was said counts no longer, but when it was.
    pub(super) fn forget(&self) {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).problem = None;
    }

    fn is_news(&self, problem: Option<&str>) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.problem.as_deref() == problem || said.at.is_some_and(|at| at.elapsed() < self.every) {
            return false;
        }
        *said = Said { problem: problem.map(str::to_owned), at: Some(Instant::now()) };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_flips_is_said_seldom_and_what_stays_is_said_at_last() {
        let speech = Speech::every(Duration::from_secs(10));
        assert!(!speech.is_news(None), "that all is well is no news");
        assert!(speech.is_news(Some("down")));
        let mut said = 0;
        for _ in 0..100 {
            tokio::time::advance(Duration::from_millis(100)).await;
            said += usize::from(speech.is_news(None)) + usize::from(speech.is_news(Some("down")));
        }
        assert_eq!(said, 1, "ten seconds of flipping");
        tokio::time::advance(Duration::from_secs(10)).await;
        // Whatever was said last, both are said when each stays.
        let both = [Some("other"), None].map(|state| {
            let news = speech.is_news(state);
            assert!(!speech.is_news(state), "once");
            news
        });
        assert_eq!(both, [true, false]);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(speech.is_news(None));
    }
}
