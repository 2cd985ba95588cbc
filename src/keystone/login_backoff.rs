//! The backoff on the agent's own login: Keystone locks a user who shows a wrong password too often,
//! and this user may be one that others share.
//!
//! A failure that is Keystone's verdict doubles the wait, from [`BACKOFF_MIN`] to [`BACKOFF_MAX`]: the login was
//! refused, or the token that came of it. A Keystone that is not there locks nobody, and is to be used
//! as soon as it is back: the wait stays [`BACKOFF_MIN`]. Another secret, or a new start, needs no wait.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use super::KeystoneError;

/// The first wait.
pub const BACKOFF_MIN: Duration = Duration::from_secs(5);

/// The longest wait.
pub const BACKOFF_MAX: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
pub(super) struct LoginBackoff {
    /// Verdicts since the last login that led to an answer.
    verdicts: u32,
    last: Option<Failure>,
}

#[derive(Debug)]
struct Failure {
    until: Instant,
    error: KeystoneError,
    secret: SecretString,
}

impl LoginBackoff {
    /// Why a login with this secret has to wait.
    pub(super) fn holds(&self, secret: &SecretString) -> Option<KeystoneError> {
        let last = self.last.as_ref().filter(|last| last.until > Instant::now())?;
        (last.secret.expose_secret() == secret.expose_secret()).then(|| last.error.clone())
    }

    /// A login with this secret failed, or what came of it.
    pub(super) fn failed(&mut self, error: &KeystoneError, secret: SecretString) {
        let is_another = self.last.as_ref().is_some_and(|last| last.secret.expose_secret() != secret.expose_secret());
        if is_another {
            self.verdicts = 0;
        }
        let wait = if error.is_outage() {
            BACKOFF_MIN
        } else {
            let wait = BACKOFF_MIN.saturating_mul(2_u32.saturating_pow(self.verdicts)).min(BACKOFF_MAX);
            self.verdicts = self.verdicts.saturating_add(1);
            wait
        };
        self.last = Some(Failure { until: Instant::now() + wait, error: error.clone(), secret });
    }

    /// A login led to a token, of which nothing else is known.
    pub(super) fn answered(&mut self) {
        self.last = None;
    }

    /// Keystone answered a question that was asked after a login.
    pub(super) fn release(&mut self) {
        *self = Self::default();
    }
}
