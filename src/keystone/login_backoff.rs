//! Backoff of the agent's own login. Keystone locks a user after too many wrong passwords, and other programs may
//! share this user.
//!
//! Each refusal by Keystone doubles the wait, from [`BACKOFF_MIN`] to [`BACKOFF_MAX`]. It may refuse the login
//! or the token that the login produced. An unreachable Keystone does not lock users and should be used as soon as
//! it is back, so the wait stays [`BACKOFF_MIN`]. After a change of the secret, or a restart, there is no wait.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use super::error::KeystoneError;

/// First wait.
pub const BACKOFF_MIN: Duration = Duration::from_secs(5);

/// Longest wait.
pub const BACKOFF_MAX: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
pub(super) struct LoginBackoff {
    /// Refusals since the last login whose token Keystone accepted.
    refusals: u32,
    last_failure: Option<Failure>,
}

#[derive(Debug)]
struct Failure {
    until: Instant,
    error: KeystoneError,
    secret: SecretString,
}

impl LoginBackoff {
    /// Returns the error of the last failed login while a login with the same secret must wait.
    pub(super) fn pending_error(&self, secret: &SecretString) -> Option<KeystoneError> {
        let last = self.last_failure.as_ref().filter(|last| last.until > Instant::now())?;
        (last.secret.expose_secret() == secret.expose_secret()).then(|| last.error.clone())
    }

    /// Records that a login with this secret, or its token, was refused or had no answer.
    pub(super) fn failed(&mut self, error: &KeystoneError, secret: SecretString) {
        let is_other_secret =
            self.last_failure.as_ref().is_some_and(|last| last.secret.expose_secret() != secret.expose_secret());
        if is_other_secret {
            self.refusals = 0;
        }
        let wait = if error.is_outage() {
            BACKOFF_MIN
        } else {
            let wait = BACKOFF_MIN.saturating_mul(2_u32.saturating_pow(self.refusals)).min(BACKOFF_MAX);
            self.refusals = self.refusals.saturating_add(1);
            wait
        };
        self.last_failure = Some(Failure { until: Instant::now() + wait, error: error.clone(), secret });
    }

    /// Records that a login produced a token, which Keystone has not accepted yet.
    pub(super) fn token_issued(&mut self) {
        self.last_failure = None;
    }

    /// Records that Keystone accepted the token of a login.
    pub(super) fn token_accepted(&mut self) {
        *self = Self::default();
    }
}
