//! Validation of tokens with the agent's own token.
//!
//! The agent gets its own token when it first needs one, and renews it shortly before it expires or when Keystone
//! no longer accepts it. It reads the secret again each time, so a rotated secret takes effect without a restart.
//! Only one login is in progress at a time, and a failed login is not repeated at once
//! ([`super::login_backoff`]). Otherwise a flood of tokens would lock the agent's user.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::error::KeystoneError;
use super::http::Keystone;
use super::login::{Domain, Identifier, Login, LoginScope, Method};
use super::login_backoff::LoginBackoff;
use super::token::{IssuedToken, TokenFacts};
use crate::model::settings::{KeystoneCredential, KeystoneSettings};
use crate::sys::secret_file::read_secret;

/// Remaining lifetime at which the own token is renewed. A new token is used for at least this time, so that a wrong
/// clock does not cause a login for every validation.
const RENEW_BEFORE_END: Duration = Duration::from_secs(60);

/// Validates tokens.
#[derive(Debug)]
pub struct Validator {
    keystone: Keystone,
    credential: KeystoneCredential,
    own: Mutex<OwnLogin>,
}

#[derive(Debug, Default)]
struct OwnLogin {
    token: Option<Arc<OwnToken>>,
    backoff: LoginBackoff,
}

#[derive(Debug)]
struct OwnToken {
    token: SecretString,
    /// The secret that it was issued for.
    secret: SecretString,
    renew_at: Instant,
    /// Whether Keystone has accepted it.
    is_accepted: AtomicBool,
}

impl Validator {
    /// Creates a validator. Sends nothing yet.
    ///
    /// # Errors
    /// [`KeystoneError`] when the CA bundle or the secret cannot be used.
    pub async fn new(settings: &KeystoneSettings) -> Result<Self, KeystoneError> {
        let keystone = Keystone::new(&settings.url, settings.ca_bundle.as_deref()).await?;
        let credential = settings.credential.clone();
        login(&credential).await?;
        Ok(Self { keystone, credential, own: Mutex::default() })
    }

    /// Returns the number of requests to Keystone, as [`Keystone::requests`].
    #[must_use]
    pub fn requests(&self) -> Vec<(&'static str, u64)> {
        self.keystone.requests()
    }

    /// Validates a token. `None` when it is unknown, expired or revoked. The caller bounds the wait.
    ///
    /// # Errors
    /// [`KeystoneError`] when Keystone does not decide.
    pub async fn validate(&self, subject: &SecretString) -> Result<Option<TokenFacts>, KeystoneError> {
        let own = self.own_token(None).await?;
        let refused = match self.validate_with(&own, subject).await {
            Err(KeystoneError::OwnTokenRefused { .. }) => own,
            outcome => return outcome,
        };
        let renewed = self.own_token(Some(&refused)).await?;
        let outcome = self.validate_with(&renewed, subject).await;
        if let Err(error @ KeystoneError::OwnTokenRefused { .. }) = &outcome {
            let mut own = self.own.lock().await;
            // Many validations may see this refusal, but it counts only once.
            if own.token.take_if(|token| Arc::ptr_eq(token, &renewed)).is_some() {
                own.backoff.failed(error, renewed.secret.clone());
            }
        }
        outcome
    }

    async fn validate_with(&self, own: &OwnToken, subject: &SecretString) -> Result<Option<TokenFacts>, KeystoneError> {
        let facts = self.keystone.validate(&own.token, subject).await?;
        if !own.is_accepted.swap(true, Ordering::Relaxed) {
            self.own.lock().await.backoff.token_accepted();
        }
        Ok(facts)
    }

    /// Returns the own token, or a new one if the current one is about to expire or was refused.
    async fn own_token(&self, refused: Option<&Arc<OwnToken>>) -> Result<Arc<OwnToken>, KeystoneError> {
        let mut own = self.own.lock().await;
        let is_usable = |token: &&Arc<OwnToken>| {
            token.renew_at > Instant::now() && refused.is_none_or(|refused| !Arc::ptr_eq(refused, token))
        };
        if let Some(token) = own.token.as_ref().filter(is_usable) {
            return Ok(token.clone());
        }
        let login = login(&self.credential).await?;
        let secret = login.secret().clone();
        if let Some(error) = own.backoff.pending_error(&secret) {
            return Err(error);
        }
        // Recorded in advance: a login without an answer must count even if the caller stops waiting.
        own.backoff.failed(&KeystoneError::NoAnswer { url: self.keystone.url().to_owned() }, secret.clone());
        match self.keystone.issue(&login).await {
            Ok(issued) => {
                own.backoff.token_issued();
                let token = Arc::new(OwnToken::new(issued, secret));
                own.token = Some(token.clone());
                Ok(token)
            }
            Err(error) => {
                own.backoff.failed(&error, secret);
                Err(error)
            }
        }
    }
}

impl OwnToken {
    fn new(issued: IssuedToken, secret: SecretString) -> Self {
        let life = Duration::try_from(issued.expires_at.duration_since(Timestamp::now())).unwrap_or_default();
        let used_for = life.saturating_sub(RENEW_BEFORE_END).max(RENEW_BEFORE_END);
        let renew_at = Instant::now() + used_for;
        Self { token: issued.token, secret, renew_at, is_accepted: AtomicBool::new(false) }
    }
}

async fn login(credential: &KeystoneCredential) -> Result<Login, KeystoneError> {
    Ok(match credential {
        KeystoneCredential::Password { username, user_domain, password_file, project, project_domain } => Login {
            method: Method::Password {
                user: Identifier::Name(username.clone(), Domain::Name(user_domain.clone())),
                password: read_secret(password_file).await?,
            },
            scope: LoginScope::Project(Identifier::Name(project.clone(), Domain::Name(project_domain.clone()))),
        },
        KeystoneCredential::Application { id, secret_file } => Login {
            method: Method::ApplicationCredential { id: Ok(id.clone()), secret: read_secret(secret_file).await? },
            scope: LoginScope::Default,
        },
    })
}
