//! Validation of Keystone tokens: once for each token, however many requests contain it.
//!
//! A validation is a separate task, so a client that disconnects does not cancel it for other requests
//! that wait for it. The configuration bounds the concurrent validations. Revalidations of formerly valid
//! tokens have their own [`REVALIDATIONS_MAX`] permits, so a flood of unknown tokens does not delay them. A
//! validation waits for its permit for at most [`PERMIT_TIMEOUT`], and then for Keystone as long as
//! configured. While Keystone is down, cached tokens remain valid, and other requests get 503.
//!
//! A token longer than [`TOKEN_SENT_MAX_BYTES`] is not sent. Keystone's web server would refuse it, so that a healthy
//! Keystone would look broken.

mod state_log;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::http::StatusCode;
use jiff::Timestamp;
use secrecy::SecretString;
use tokio::sync::{Semaphore, watch};

use super::cache::{CachedToken, PendingValidation, TokenCache, TokenHash, Validation, WasValid};
use super::credential::TokenOwner;
use super::error::AuthError;
use super::identity::Identity;
use crate::api::fault::Fault;
use crate::keystone::{TokenFacts, Validator};
use crate::model::Caller;
use crate::model::settings::KeystoneSettings;
use state_log::StateLog;

/// Largest number of revalidations of formerly valid tokens at the same time.
const REVALIDATIONS_MAX: usize = 4;

/// How long a validation waits for its permit.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest token that is sent to Keystone, in bytes. Keystone's tokens have about 250. Tokens of the former PKI formats
/// were longer, but Keystone no longer issues them.
const TOKEN_SENT_MAX_BYTES: usize = 2048;

/// Largest number of access rules of one token that are kept with it in the cache. The API has fewer requests than
/// this. Further rules are ignored and allow nothing.
const ACCESS_RULES_MAX: usize = 64;

/// Shortest interval between log lines about a flood of unknown tokens.
const OVERLOAD_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Shortest interval between log lines about clocks that differ.
const CLOCK_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Shortest interval between log lines about the state of Keystone.
const STATE_LOG_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub(super) struct KeystoneAuth {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: KeystoneSettings,
    validator: ArcSwap<Validator>,
    cache: Mutex<TokenCache>,
    /// Permits of validations of unknown tokens.
    validations: Semaphore,
    /// Permits of revalidations of formerly valid tokens.
    revalidations: Semaphore,
    state_log: StateLog,
    overload_log: StateLog,
    clock_log: StateLog,
}

impl KeystoneAuth {
    pub(super) async fn load(settings: &KeystoneSettings) -> Result<Self, AuthError> {
        let cache = TokenCache::new(settings.cache_entries, settings.cache_time, settings.negative_cache_time);
        let shared = Shared {
            validator: ArcSwap::from_pointee(Validator::new(settings).await?),
            cache: Mutex::new(cache),
            validations: Semaphore::new(settings.validations),
            revalidations: Semaphore::new(REVALIDATIONS_MAX),
            state_log: StateLog::new(STATE_LOG_INTERVAL),
            overload_log: StateLog::new(OVERLOAD_LOG_INTERVAL),
            clock_log: StateLog::new(CLOCK_LOG_INTERVAL),
            settings: settings.clone(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    pub(super) fn settings(&self) -> &KeystoneSettings {
        &self.shared.settings
    }

    /// Reads the files again and keeps the token cache. Without the cache, a reload while Keystone is down would refuse
    /// every caller.
    pub(super) async fn reload(&self) -> Result<(), AuthError> {
        self.shared.validator.store(Arc::new(Validator::new(&self.shared.settings).await?));
        self.shared.cache().forget_failure();
        Ok(())
    }

    /// Requests to Keystone by result, since its files were last read.
    pub(super) fn requests(&self) -> Vec<(&'static str, u64)> {
        self.shared.validator.load().requests()
    }

    pub(super) fn url(&self) -> &str {
        &self.shared.settings.url
    }

    /// Identifies a token. Starts a validation unless the cache has a recent one.
    pub(super) fn identify(&self, token: &str) -> Result<Identity, Fault> {
        if token.len() > TOKEN_SENT_MAX_BYTES {
            return Err(invalid());
        }
        let hash = TokenHash::of(token);
        let found = self.shared.cache().find(hash);
        match found {
            CachedToken::Valid(owner) => Ok(Identity::Owner(owner)),
            CachedToken::Stale(owner, sender) => {
                self.start_validation(hash, token, sender, WasValid::Yes);
                Ok(Identity::Owner(owner))
            }
            CachedToken::Invalid => Err(invalid()),
            CachedToken::Overloaded => {
                self.shared.report_overload();
                Err(overloaded())
            }
            CachedToken::KeystoneDown => Err(unavailable()),
            CachedToken::Pending(pending) => Ok(Identity::Pending(pending)),
            CachedToken::Missing(sender, pending, was_valid) => {
                self.start_validation(hash, token, sender, was_valid);
                Ok(Identity::Pending(pending))
            }
        }
    }

    fn start_validation(
        &self,
        hash: TokenHash,
        token: &str,
        sender: watch::Sender<Option<Validation>>,
        was_valid: WasValid,
    ) {
        let (shared, token) = (self.shared.clone(), SecretString::from(token));
        tokio::spawn(async move {
            let mut guard = PendingGuard { shared, hash, verdict: Validation::Unknown };
            guard.verdict = guard.shared.verdict(&token, was_valid).await;
            let verdict = guard.verdict.clone();
            // The verdict is cached before it is sent, so that a new request finds it.
            drop(guard);
            sender.send_replace(Some(verdict));
        });
    }
}

/// Waits for a validation. Returns the owner of the token.
pub(super) async fn validated(mut pending: PendingValidation) -> Result<Arc<TokenOwner>, Fault> {
    let verdict = pending.wait_for(Option::is_some).await.ok().and_then(|verdict| verdict.clone());
    match verdict {
        Some(Validation::Valid(owner, _)) => Ok(owner),
        Some(Validation::Invalid) => Err(invalid()),
        Some(Validation::Overloaded) => Err(overloaded()),
        Some(Validation::Unknown | Validation::KeystoneDown) | None => Err(unavailable()),
    }
}

fn unavailable() -> Fault {
    let message = "tokens cannot be validated now, because Keystone is unavailable, try again later";
    Fault::new(StatusCode::SERVICE_UNAVAILABLE, message)
}

fn overloaded() -> Fault {
    let message = "too many unknown tokens are being validated, try again later";
    Fault::new(StatusCode::SERVICE_UNAVAILABLE, message)
}

fn invalid() -> Fault {
    let message = "the token is not valid: it is unknown, expired or revoked, get a new one";
    Fault::new(StatusCode::UNAUTHORIZED, message)
}

/// Finishes a validation in the cache, also when its task panics.
struct PendingGuard {
    shared: Arc<Shared>,
    hash: TokenHash,
    verdict: Validation,
}

impl Drop for PendingGuard {
    fn drop(&mut self) {
        self.shared.cache().finish_validation(self.hash, &self.verdict);
    }
}

impl Shared {
    fn cache(&self) -> std::sync::MutexGuard<'_, TokenCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn verdict(&self, token: &SecretString, was_valid: WasValid) -> Validation {
        let (permits, when_full) = match was_valid {
            WasValid::Yes => (&self.revalidations, Validation::Unknown),
            WasValid::No => (&self.validations, Validation::Overloaded),
        };
        let Ok(_permit) = tokio::time::timeout(PERMIT_TIMEOUT, permits.acquire()).await else {
            if was_valid == WasValid::No {
                self.report_overload();
            }
            return when_full;
        };
        // An earlier validation may have found that Keystone is down.
        if self.cache().is_keystone_down() {
            return Validation::Unknown;
        }
        let validator = self.validator.load_full();
        let (problem, verdict) = match tokio::time::timeout(self.settings.timeout, validator.validate(token)).await {
            Ok(Ok(facts)) => {
                self.state_log.recovered("tokens are validated again");
                return facts.map_or(Validation::Invalid, |facts| self.verdict_of(facts));
            }
            // An error about one token must not delay the others.
            Ok(Err(error)) => (
                error.to_string(),
                if error.may_concern_one_token() { Validation::Unknown } else { Validation::KeystoneDown },
            ),
            Err(_) => (timed_out(&self.settings.url, self.settings.timeout), Validation::KeystoneDown),
        };
        self.state_log.failed(&format!("tokens cannot be validated: {problem}"));
        verdict
    }

    fn report_overload(&self) {
        let permits = self.settings.validations;
        self.overload_log.occurred(&format!(
            "too many unknown tokens are being validated, more than {permits} at a time: is this a flood? Otherwise raise [api.keystone] validations"
        ));
    }

    fn verdict_of(&self, facts: TokenFacts) -> Validation {
        if facts.expires_at <= Timestamp::now() {
            self.clock_log.occurred(&format!(
                "Keystone accepts a token that expired at {} by this host's clock: synchronize the clocks of both",
                facts.expires_at
            ));
            return Validation::Invalid;
        }
        let has_role = facts.roles.iter().any(|role| role.eq_ignore_ascii_case(&self.settings.admin_role));
        // The admin of a domain is not an admin of the cloud.
        let is_admin = has_role && (facts.is_system || facts.project.is_some());
        let (project_id, project_name) = facts.project.map(|project| (project.id, project.name)).unzip();
        let caller = Arc::new(Caller { user_id: Some(facts.user_id), project_id, is_admin });
        let access_rules = facts.access_rules.map(|rules| {
            let own = rules.into_iter().filter(|rule| rule.service == self.settings.service_type);
            own.take(ACCESS_RULES_MAX).collect()
        });
        let owner = TokenOwner { caller, project_name: project_name.unwrap_or_default(), access_rules };
        Validation::Valid(Arc::new(owner), facts.expires_at)
    }
}

fn timed_out(url: &str, after: Duration) -> String {
    format!("Keystone at {url} did not answer within {} ms", after.as_millis())
}

#[cfg(test)]
mod tests;
