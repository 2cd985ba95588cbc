//! Login of the agent's own user.
//!
//! The agent gets its own token when it first needs one, and renews it shortly before it expires or when a service
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
use super::token::{CatalogEndpoint, IssuedToken};
use crate::model::settings::{KeystoneCredential, KeystoneSettings};
use crate::sys::secret_file::read_secret;

/// Remaining lifetime at which the own token is renewed. A new token is used for at least this time, so that a wrong
/// clock does not cause a login for every request.
const RENEW_BEFORE_END: Duration = Duration::from_secs(60);

/// Login of the agent's user, with its current token.
#[derive(Debug)]
pub struct Session {
    keystone: Keystone,
    credential: KeystoneCredential,
    own: Mutex<OwnLogin>,
}

#[derive(Debug, Default)]
struct OwnLogin {
    token: Option<Arc<OwnToken>>,
    backoff: LoginBackoff,
}

/// Token of the agent's user.
#[derive(Debug)]
pub struct OwnToken {
    token: SecretString,
    /// Endpoints of other services, as the login returned them.
    catalog: Vec<CatalogEndpoint>,
    /// The secret that it was issued for.
    login_secret: SecretString,
    renew_at: Instant,
    /// Whether a service has accepted it.
    is_accepted: AtomicBool,
}

impl Session {
    /// Creates a session. Sends nothing yet.
    ///
    /// # Errors
    /// [`KeystoneError`] when the CA bundle or the secret cannot be used.
    pub async fn new(settings: &KeystoneSettings) -> Result<Self, KeystoneError> {
        let keystone = Keystone::new(&settings.url, settings.ca_bundle.as_deref()).await?;
        let credential = settings.credential.clone();
        login(&credential).await?;
        Ok(Self { keystone, credential, own: Mutex::default() })
    }

    /// Client of the Keystone that issues the tokens.
    #[must_use]
    pub fn keystone(&self) -> &Keystone {
        &self.keystone
    }

    /// Returns the own token, or a new one if the current one is about to expire or was refused.
    ///
    /// # Errors
    /// [`KeystoneError`] when Keystone issues none, or while the backoff of a failed login lasts.
    pub async fn token(&self, refused: Option<&Arc<OwnToken>>) -> Result<Arc<OwnToken>, KeystoneError> {
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

    /// Records that a service accepted a token.
    pub async fn token_accepted(&self, own: &OwnToken) {
        if !own.is_accepted.swap(true, Ordering::Relaxed) {
            self.own.lock().await.backoff.token_accepted();
        }
    }

    /// Records that a service refused a token although it is new. It counts as a failed login.
    pub async fn new_token_refused(&self, refused: &Arc<OwnToken>, error: &KeystoneError) {
        let mut own = self.own.lock().await;
        // Many requests may see this refusal, but it counts only once.
        if own.token.take_if(|token| Arc::ptr_eq(token, refused)).is_some() {
            own.backoff.failed(error, refused.login_secret.clone());
        }
    }
}

impl OwnToken {
    fn new(issued: IssuedToken, login_secret: SecretString) -> Self {
        let life = Duration::try_from(issued.expires_at.duration_since(Timestamp::now())).unwrap_or_default();
        let used_for = life.saturating_sub(RENEW_BEFORE_END).max(RENEW_BEFORE_END);
        let renew_at = Instant::now() + used_for;
        let IssuedToken { token, catalog, .. } = issued;
        Self { token, catalog, login_secret, renew_at, is_accepted: AtomicBool::new(false) }
    }

    /// The token.
    #[must_use]
    pub fn secret(&self) -> &SecretString {
        &self.token
    }

    /// Endpoints of other services.
    #[must_use]
    pub fn catalog(&self) -> &[CatalogEndpoint] {
        &self.catalog
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
