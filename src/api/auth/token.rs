//! Shared secret. A request with the secret has admin rights.
//!
//! The agent keeps its SHA-256 and compares it in constant time, so that neither content nor length of the
//! secret can be measured.

use std::path::Path;
use std::sync::Arc;

use axum::http::StatusCode;
use secrecy::ExposeSecret;
use subtle::ConstantTimeEq;

use super::cache::TokenHash;
use super::credential::{TokenOwner, is_token};
use super::error::{AuthError, SECRET_MIN_BYTES};
use crate::api::fault::Fault;
use crate::model::Caller;
use crate::sys::secret_file::read_secret;

#[derive(Debug)]
pub(super) struct TokenAuth {
    expected: TokenHash,
    owner: Arc<TokenOwner>,
}

impl TokenAuth {
    /// Reads the secret from a file, which the configuration names in `key`.
    pub(super) async fn load(file: &Path, key: &'static str) -> Result<Self, AuthError> {
        let secret = read_secret(file).await.map_err(|source| AuthError::File { key, source })?;
        let text = secret.expose_secret();
        if text.len() < SECRET_MIN_BYTES || !is_token(text) {
            return Err(AuthError::Secret { key, path: file.to_owned() });
        }
        let owner = TokenOwner { caller: Arc::new(Caller::local()), project_name: String::new(), access_rules: None };
        Ok(Self { expected: TokenHash::of(text), owner: Arc::new(owner) })
    }

    /// Whether a token is the secret.
    pub(super) fn is_secret(&self, token: &str) -> bool {
        TokenHash::of(token).as_bytes().ct_eq(self.expected.as_bytes()).into()
    }

    pub(super) fn identify(&self, token: &str) -> Result<Arc<TokenOwner>, Fault> {
        if self.is_secret(token) {
            Ok(self.owner.clone())
        } else {
            Err(Fault::new(StatusCode::UNAUTHORIZED, "the token is not the agent's, see [api.token] file on its host"))
        }
    }
}
