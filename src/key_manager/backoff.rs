//! Backoff towards a key manager that is unreachable or failing, shared by all of its secrets.
//!
//! Each failure doubles the wait, and any answer about a secret ends the backoff. After the wait one request is tried.
//! Other callers get the last error at once, so that targets do not each pay the timeout. A requested check need not
//! wait, because an operator who repaired the key manager wants to know whether it works.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::error::KeyManagerError;
use super::freshness::Freshness;
use crate::model::secret_ref::SecretRef;
use crate::model::{BucketSecret, random_fraction};

/// First wait.
const WAIT_MIN: Duration = Duration::from_secs(1);

/// Longest wait.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Backoff of one key manager.
#[derive(Debug, Default)]
pub(super) struct Backoff(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    latest: Option<Failure>,
    /// Whether a request is being tried after a failure.
    is_trying: bool,
    /// Secret of the latest request, if it failed for a reason that may concern only this secret.
    suspect: Option<String>,
}

#[derive(Debug)]
struct Failure {
    error: KeyManagerError,
    at: Instant,
    retry_at: Instant,
}

/// Permission for one request.
#[derive(Debug)]
pub(super) struct RequestPermit {
    backoff: Arc<Backoff>,
    started_at: Instant,
    is_trial: bool,
}

impl Backoff {
    /// Permits a request.
    ///
    /// # Errors
    /// The latest error, while the key manager must not be asked.
    pub(super) fn start(self: &Arc<Self>, freshness: Freshness) -> Result<RequestPermit, KeyManagerError> {
        let now = Instant::now();
        let mut state = self.state();
        let is_trial = match &state.latest {
            None => false,
            Some(latest) if state.is_trying || (freshness == Freshness::Cached && now < latest.retry_at) => {
                return Err(latest.error.clone());
            }
            Some(_) => true,
        };
        state.is_trying |= is_trial;
        Ok(RequestPermit { backoff: self.clone(), started_at: now, is_trial })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is complete before the next call that may panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RequestPermit {
    /// Returns the error of another request that failed after this one was permitted, for example while this one waited
    /// in the queue.
    pub(super) fn overtaking_failure(&self) -> Option<KeyManagerError> {
        let state = self.backoff.state();
        state.latest.as_ref().filter(|_| !self.is_trial).map(|latest| latest.error.clone())
    }

    /// Records that the request is sent now.
    pub(super) fn sent(&mut self) {
        self.started_at = Instant::now();
    }

    /// Records the result of the request.
    pub(super) fn ended(self, reference: &SecretRef, outcome: &Result<BucketSecret, KeyManagerError>) {
        let mut state = self.backoff.state();
        let error = match outcome {
            Err(error) if error.is_failing_service() => error,
            Err(error) if !error.is_answer() => return,
            Ok(_) | Err(_) => {
                *state = State { is_trying: state.is_trying, ..State::default() };
                return;
            }
        };
        let is_other = state.suspect.replace(reference.as_str().to_owned()).is_some_and(|it| it != reference.as_str());
        if error.may_concern_one_secret() && state.latest.is_none() && !is_other {
            return;
        }
        // Requests at the same time see the same outage, which counts once.
        if state.latest.as_ref().is_some_and(|latest| self.started_at < latest.at) {
            return;
        }
        let wait = WAIT_MIN.saturating_mul(2_u32.saturating_pow(state.failures)).min(WAIT_MAX);
        state.failures = state.failures.saturating_add(1);
        let at = Instant::now();
        // A random part, so that many nodes do not retry at the same moments.
        let retry_at = at + wait.mul_f64(1.0 - random_fraction() / 2.0);
        state.latest = Some(Failure { error: error.clone(), at, retry_at });
    }
}

impl Drop for RequestPermit {
    fn drop(&mut self) {
        if self.is_trial {
            self.backoff.state().is_trying = false;
        }
    }
}
