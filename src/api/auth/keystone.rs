//! Tokens of Keystone: asked about once, however many requests carry them.
//!
//! A question is a task of its own: a client that leaves takes no answer from those that wait for the
//! same one. At most so many questions are on their way as the configuration says, and each, with
//! its waiting, takes no longer than the configured time. While Keystone is down, tokens that are
//! remembered go on, and others get 503.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::http::StatusCode;
use jiff::Timestamp;
use secrecy::SecretString;
use tokio::sync::{Semaphore, watch};

use super::cache::{Found, TokenCache, TokenHash, Verdict};
use super::{AuthError, Identity};
use crate::api::fault::Fault;
use crate::keystone::{TokenFacts, Validator};
use crate::model::Caller;
use crate::model::settings::KeystoneSettings;

#[derive(Debug, Clone)]
pub(super) struct KeystoneAuth {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: KeystoneSettings,
    validator: ArcSwap<Validator>,
    cache: Mutex<TokenCache>,
    questions: Semaphore,
    /// What was last said of Keystone in the log, so that it is said once.
    problem: Mutex<Option<String>>,
}

impl KeystoneAuth {
    pub(super) async fn load(settings: &KeystoneSettings) -> Result<Self, AuthError> {
        let cache = TokenCache::new(settings.cache_entries, settings.cache_time, settings.negative_cache_time);
        let shared = Shared {
            validator: ArcSwap::from_pointee(Validator::new(settings).await?),
            cache: Mutex::new(cache),
            questions: Semaphore::new(settings.validations),
            problem: Mutex::default(),
            settings: settings.clone(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What is remembered of tokens stays: a reload while Keystone is down would refuse everybody.
    pub(super) async fn reload(&self) -> Result<(), AuthError> {
        self.shared.validator.store(Arc::new(Validator::new(&self.shared.settings).await?));
        Ok(())
    }

    pub(super) fn url(&self) -> &str {
        &self.shared.settings.url
    }

    pub(super) async fn identify(&self, token: SecretString) -> Result<Arc<Identity>, Fault> {
        let hash = TokenHash::of(&token);
        let found = self.shared.cache().find(hash);
        let mut flight = match found {
            Found::Good(identity) => return Ok(identity),
            Found::Stale(identity, sender) => {
                self.ask(hash, token, sender);
                return Ok(identity);
            }
            Found::Bad => return Err(bad()),
            Found::Full => return Err(self.unknown()),
            Found::Flying(flight) => flight,
            Found::Nothing(sender, flight) => {
                self.ask(hash, token, sender);
                flight
            }
        };
        let verdict = flight.wait_for(Option::is_some).await.ok().and_then(|verdict| verdict.clone());
        match verdict {
            Some(Verdict::Good(identity, _)) => Ok(identity),
            Some(Verdict::Bad) => Err(bad()),
            Some(Verdict::Unknown) | None => Err(self.unknown()),
        }
    }

    fn ask(&self, hash: TokenHash, token: SecretString, sender: watch::Sender<Option<Verdict>>) {
        let shared = self.shared.clone();
        tokio::spawn(async move {
            let mut landing = Landing { shared, hash, verdict: Verdict::Unknown };
            landing.verdict = landing.shared.verdict(&token).await;
            let verdict = landing.verdict.clone();
            // Remembered before it is told, so that who comes now finds it.
            drop(landing);
            sender.send_replace(Some(verdict));
        });
    }

    fn unknown(&self) -> Fault {
        let message = "tokens cannot be validated now, because Keystone does not help; try again later";
        Fault::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }
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
        self.shared.cache().land(self.hash, &self.verdict);
    }
}

impl Shared {
    fn cache(&self) -> std::sync::MutexGuard<'_, TokenCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn verdict(&self, token: &SecretString) -> Verdict {
        let answer = tokio::time::timeout(self.settings.timeout, async {
            // Never closed.
            let _question = self.questions.acquire().await;
            self.validator.load_full().validate(token).await
        });
        let problem = match answer.await {
            Ok(Ok(facts)) => {
                self.report(None);
                return facts.map_or(Verdict::Bad, |facts| self.judged(facts));
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => timed_out(&self.settings.url, self.settings.timeout),
        };
        self.report(Some(problem));
        Verdict::Unknown
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

    /// Says in the log what is wrong with Keystone, and that it is over, once each.
    fn report(&self, problem: Option<String>) {
        let mut last = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        if *last == problem {
            return;
        }
        match &problem {
            Some(problem) => tracing::error!("tokens cannot be validated: {problem}"),
            None => tracing::info!("tokens are validated again"),
        }
        *last = problem;
    }
}

fn timed_out(url: &str, after: Duration) -> String {
    format!("Keystone at {url} did not answer within {} ms", after.as_millis())
}

#[cfg(test)]
mod tests;
