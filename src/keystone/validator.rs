//! Validation of tokens with the agent's own token.

use secrecy::SecretString;

use super::error::KeystoneError;
use super::session::{OwnToken, Session};
use super::token::TokenFacts;
use crate::model::settings::KeystoneSettings;

/// Validates tokens.
#[derive(Debug)]
pub struct Validator {
    session: Session,
}

impl Validator {
    /// Creates a validator. Sends nothing yet.
    ///
    /// # Errors
    /// [`KeystoneError`] when the CA bundle or the secret cannot be used.
    pub async fn new(settings: &KeystoneSettings) -> Result<Self, KeystoneError> {
        Ok(Self { session: Session::new(settings).await? })
    }

    /// Returns the number of requests to Keystone, as [`Keystone::requests`](super::Keystone::requests).
    #[must_use]
    pub fn requests(&self) -> Vec<(&'static str, u64)> {
        self.session.keystone().requests()
    }

    /// Validates a token. `None` when it is unknown, expired or revoked. The caller bounds the wait.
    ///
    /// # Errors
    /// [`KeystoneError`] when Keystone does not decide.
    pub async fn validate(&self, subject: &SecretString) -> Result<Option<TokenFacts>, KeystoneError> {
        let own = self.session.token(None).await?;
        let refused = match self.validate_with(&own, subject).await {
            Err(KeystoneError::OwnTokenRefused { .. }) => own,
            outcome => return outcome,
        };
        let renewed = self.session.token(Some(&refused)).await?;
        let outcome = self.validate_with(&renewed, subject).await;
        if let Err(error @ KeystoneError::OwnTokenRefused { .. }) = &outcome {
            self.session.new_token_refused(&renewed, error).await;
        }
        outcome
    }

    async fn validate_with(&self, own: &OwnToken, subject: &SecretString) -> Result<Option<TokenFacts>, KeystoneError> {
        let facts = self.session.keystone().validate(own.secret(), subject).await?;
        self.session.token_accepted(own).await;
        Ok(facts)
    }
}
