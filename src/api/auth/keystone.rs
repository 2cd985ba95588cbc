//! Validation of Keystone tokens: once for each token, however many requests carry it.
//!
//! A validation is a task of its own, so a client that disconnects does not cancel it for other requests
//! that wait for it. The configuration bounds the validations in flight. Revalidations of formerly valid
//! tokens have [`REFRESHES_MAX`] permits of their own, so a flood of unknown tokens does not delay them. A
//! validation waits for its permit for at most [`PLACE_WITHIN`], and then for Keystone as long as
//! configured. While Keystone is down, cached tokens remain valid, and other requests get 503.
//!
//! A token longer than [`SENT_MAX_BYTES`] is not sent: Keystone's web server would refuse it, and a healthy
//! Keystone would look broken.

mod speech;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::http::StatusCode;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{Semaphore, watch};

use super::cache::{Found, TokenCache, TokenHash, Verdict, WasValid};
use super::{AuthError, Identity};
use crate::api::fault::Fault;
use crate::keystone::{TokenFacts, Validator};
use crate::model::Caller;
use crate::model::settings::KeystoneSettings;
use speech::Speech;

/// The most questions at the same time about tokens that were good.
const REFRESHES_MAX: usize = 4;

/// How long a question waits for its place.
const PLACE_WITHIN: Duration = Duration::from_secs(5);

/// The longest token that Keystone is asked about, in bytes. Its own have some 250; those of its
/// former PKI formats, which had more, are no longer made.
const SENT_MAX_BYTES: usize = 2048;

/// How often a flood of unknown tokens is said in the log.
const CROWD_SAID_EVERY: Duration = Duration::from_secs(60);

/// How often the log says that Keystone went or came back.
const SAID_EVERY: Duration = Duration::from_secs(10);

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
    questions: Semaphore,
    /// Permits of revalidations of formerly valid tokens.
    refreshes: Semaphore,
    of_keystone: Speech,
    of_the_crowd: Speech,
}

impl KeystoneAuth {
    pub(super) async fn load(settings: &KeystoneSettings) -> Result<Self, AuthError> {
        let cache = TokenCache::new(settings.cache_entries, settings.cache_time, settings.negative_cache_time);
        let shared = Shared {
            validator: ArcSwap::from_pointee(Validator::new(settings).await?),
            cache: Mutex::new(cache),
            questions: Semaphore::new(settings.validations),
            refreshes: Semaphore::new(REFRESHES_MAX),
            of_keystone: Speech::every(SAID_EVERY),
            of_the_crowd: Speech::every(CROWD_SAID_EVERY),
            settings: settings.clone(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Keeps the token cache. Without it, a reload while Keystone is down would refuse every caller.
    pub(super) async fn reload(&self) -> Result<(), AuthError> {
        self.shared.validator.store(Arc::new(Validator::new(&self.shared.settings).await?));
        self.shared.cache().forget_failure();
        Ok(())
    }

    pub(super) fn url(&self) -> &str {
        &self.shared.settings.url
    }

    pub(super) async fn identify(&self, token: SecretString) -> Result<Arc<Identity>, Fault> {
        if token.expose_secret().len() > SENT_MAX_BYTES {
            return Err(bad());
        }
        let hash = TokenHash::of(&token);
        let found = self.shared.cache().find(hash);
        let mut pending = match found {
            Found::Good(identity) => return Ok(identity),
            Found::Stale(identity, sender) => {
                self.ask(hash, token, sender, WasValid::Yes);
                return Ok(identity);
            }
            Found::Bad => return Err(bad()),
            Found::Full => {
                self.shared.report_crowd();
                return Err(overloaded());
            }
            Found::KeystoneDown => return Err(unknown()),
            Found::Pending(pending) => pending,
            Found::Nothing(sender, pending, was_valid) => {
                self.ask(hash, token, sender, was_valid);
                pending
            }
        };
        let verdict = pending.wait_for(Option::is_some).await.ok().and_then(|verdict| verdict.clone());
        match verdict {
            Some(Verdict::Good(identity, _)) => Ok(identity),
            Some(Verdict::Bad) => Err(bad()),
            Some(Verdict::Overloaded) => Err(overloaded()),
            Some(Verdict::Unknown | Verdict::KeystoneDown) | None => Err(unknown()),
        }
    }

    fn ask(&self, hash: TokenHash, token: SecretString, sender: watch::Sender<Option<Verdict>>, was_valid: WasValid) {
        let shared = self.shared.clone();
        tokio::spawn(async move {
            let mut landing = Landing { shared, hash, verdict: Verdict::Unknown };
            landing.verdict = landing.shared.verdict(&token, was_valid).await;
            let verdict = landing.verdict.clone();
            // Remembered before it is told, so that who comes now finds it.
            drop(landing);
            sender.send_replace(Some(verdict));
        });
    }
}

fn unknown() -> Fault {
    let message = "tokens cannot be validated now, because Keystone is unavailable, try again later";
    Fault::new(StatusCode::SERVICE_UNAVAILABLE, message)
}

fn overloaded() -> Fault {
    let message = "too many unknown tokens are being validated; try again later";
    Fault::new(StatusCode::SERVICE_UNAVAILABLE, message)
}

fn bad() -> Fault {
    let message = "the token is not valid: it is unknown, has ended or was revoked; get a new one";
    Fault::new(StatusCode::UNAUTHORIZED, message)
}

/// Ends a question in the cache, also when its task panics.
struct Landing {
    shared: Arc<Shared>,
    hash: TokenHash,
    verdict: Verdict,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.shared.cache().finish_validation(self.hash, &self.verdict);
    }
}

impl Shared {
    fn cache(&self) -> std::sync::MutexGuard<'_, TokenCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn verdict(&self, token: &SecretString, was_valid: WasValid) -> Verdict {
        let (places, when_full) = match was_valid {
            WasValid::Yes => (&self.refreshes, Verdict::Unknown),
            WasValid::No => (&self.questions, Verdict::Overloaded),
        };
        let Ok(_place) = tokio::time::timeout(PLACE_WITHIN, places.acquire()).await else {
            if was_valid == WasValid::No {
                self.report_crowd();
            }
            return when_full;
        };
        // Who was before in the line may have found out.
        if self.cache().is_keystone_down() {
            return Verdict::Unknown;
        }
        let validator = self.validator.load_full();
        let (problem, verdict) = match tokio::time::timeout(self.settings.timeout, validator.validate(token)).await {
            Ok(Ok(facts)) => {
                self.of_keystone.is_well("tokens are validated again");
                return facts.map_or(Verdict::Bad, |facts| self.judged(facts));
            }
            // What Keystone says of one token only must not hold up the others.
            Ok(Err(error)) => (
                error.to_string(),
                if error.may_concern_one_token() { Verdict::Unknown } else { Verdict::KeystoneDown },
            ),
            Err(_) => (timed_out(&self.settings.url, self.settings.timeout), Verdict::KeystoneDown),
        };
        self.of_keystone.is_wrong(&format!("tokens cannot be validated: {problem}"));
        verdict
    }

    fn report_crowd(&self) {
        let places = self.settings.validations;
        self.of_the_crowd.is_wrong(&format!(
            "too many unknown tokens are being validated, more than {places} at a time: is this a flood? Else raise [api.keystone] validations"
        ));
        // It is said again when it is so again.
        self.of_the_crowd.forget();
    }

    fn judged(&self, facts: TokenFacts) -> Verdict {
        if facts.expires_at <= Timestamp::now() {
            tracing::warn!(
                "Keystone takes a token that ended at {} by this host's clock: set the clocks of both",
                facts.expires_at
            );
            return Verdict::Bad;
        }
        let has_role = facts.roles.iter().any(|role| role.eq_ignore_ascii_case(&self.settings.admin_role));
        // A token for a domain only is no cloud admin's.
        let is_admin = has_role && (facts.is_system || facts.project.is_some());
        let (project_id, project_name) = facts.project.map(|project| (project.id, project.name)).unzip();
        let caller = Caller { user_id: Some(facts.user_id), project_id, is_admin };
        let identity = Identity { caller, project_name: project_name.unwrap_or_default() };
        Verdict::Good(Arc::new(identity), facts.expires_at)
    }
}

fn timed_out(url: &str, after: Duration) -> String {
    format!("Keystone at {url} did not answer within {} ms", after.as_millis())
}

#[cfg(test)]
mod tests;
