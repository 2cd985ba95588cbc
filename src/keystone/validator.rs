//! The agent's side: a token of its own, with which it asks about those of others.
//!
//! The own token is got when it is first needed, and anew shortly before it ends or as soon as
//! Keystone no longer takes it; the secret is read again each time, so a rotated one takes effect by
//! itself. Only one request for it is on its way at a time, and one that failed is not made again at
//! once ([`super::login_backoff`]): a flood of tokens must not lock the agent's user out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::login_backoff::LoginBackoff;
use super::{Domain, Identifier, IssuedToken, Keystone, KeystoneError, Login, Method, Scope, TokenFacts};
use crate::model::settings::{KeystoneCredential, KeystoneSettings};
use crate::sys::secret_file::read_secret;

/// The own token is renewed when this little of its life is left, and never earlier than that after
/// it was got: a clock that is wrong must not make every question two.
const RENEWED_BEFORE_END: Duration = Duration::from_secs(60);

/// Asks Keystone about tokens.
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
    /// What it was got with.
    secret: SecretString,
    renew_at: Instant,
    /// Whether Keystone has taken it.
    is_proven: AtomicBool,
}

impl Validator {
    /// A validator, which has not asked anything yet.
    ///
    /// # Errors
    /// [`KeystoneError`] when the CA bundle or the secret cannot be used.
    pub async fn new(settings: &KeystoneSettings) -> Result<Self, KeystoneError> {
        let keystone = Keystone::at(&settings.url, settings.ca_bundle.as_deref()).await?;
        let credential = settings.credential.clone();
        login(&credential).await?;
        Ok(Self { keystone, credential, own: Mutex::default() })
    }

    /// Asks about a token. None when it is unknown, has ended or was revoked.
    ///
    /// # Errors
    /// [`KeystoneError`] when Keystone does not say. The caller bounds the wait.
    pub async fn validate(&self, subject: &SecretString) -> Result<Option<TokenFacts>, KeystoneError> {
        let own = self.own_token(None).await?;
        let refused = match self.ask(&own, subject).await {
            Err(KeystoneError::OwnTokenRefused { .. }) => own,
            outcome => return outcome,
        };
        let renewed = self.own_token(Some(&refused)).await?;
        let outcome = self.ask(&renewed, subject).await;
        if let Err(error @ KeystoneError::OwnTokenRefused { .. }) = &outcome {
            let mut own = self.own.lock().await;
            // Many may be told at once, and it is one failure.
            if own.token.take_if(|token| Arc::ptr_eq(token, &renewed)).is_some() {
                own.backoff.failed(error, renewed.secret.clone());
            }
        }
        outcome
    }

    async fn ask(&self, own: &OwnToken, subject: &SecretString) -> Result<Option<TokenFacts>, KeystoneError> {
        let facts = self.keystone.validate(&own.token, subject).await?;
        if !own.is_proven.swap(true, Ordering::Relaxed) {
            self.own.lock().await.backoff.release();
        }
        Ok(facts)
    }

    /// The own token, unless it is the one that was refused.
    async fn own_token(&self, refused: Option<&Arc<OwnToken>>) -> Result<Arc<OwnToken>, KeystoneError> {
        let mut own = self.own.lock().await;
        let is_good = |token: &&Arc<OwnToken>| {
            token.renew_at > Instant::now() && refused.is_none_or(|refused| !Arc::ptr_eq(refused, token))
        };
        if let Some(token) = own.token.as_ref().filter(is_good) {
            return Ok(token.clone());
        }
        let login = login(&self.credential).await?;
        let secret = login.secret().clone();
        if let Some(error) = own.backoff.holds(&secret) {
            return Err(error);
        }
        // Who waits may give up, and that this login has no answer must count all the same.
        own.backoff.failed(&KeystoneError::NoAnswer { url: self.keystone.url().to_owned() }, secret.clone());
        match self.keystone.issue(&login).await {
            Ok(issued) => {
                own.backoff.answered();
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
        let used_for = life.saturating_sub(RENEWED_BEFORE_END).max(RENEWED_BEFORE_END);
        let renew_at = Instant::now() + used_for;
        Self { token: issued.token, secret, renew_at, is_proven: AtomicBool::new(false) }
    }
}

async fn login(credential: &KeystoneCredential) -> Result<Login, KeystoneError> {
    Ok(match credential {
        KeystoneCredential::Password { username, user_domain, password_file, project, project_domain } => Login {
            method: Method::Password {
                user: Identifier::Name(username.clone(), Domain::Name(user_domain.clone())),
                password: read_secret(password_file).await?,
            },
            scope: Scope::Project(Identifier::Name(project.clone(), Domain::Name(project_domain.clone()))),
        },
        KeystoneCredential::Application { id, secret_file } => Login {
            method: Method::ApplicationCredential { id: Ok(id.clone()), secret: read_secret(secret_file).await? },
            scope: Scope::Default,
        },
    })
}
