//! The token of a request, and its owner.

use std::sync::Arc;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::api::fault::Fault;
use crate::keystone::AccessRule;
use crate::model::Caller;

/// Header of the token, as in all services of OpenStack.
pub const AUTH_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");

/// Header with the project that a client selects.
pub(super) const AUTH_PROJECT: HeaderName = HeaderName::from_static("x-auth-project-id");

/// Bearer scheme, for clients other than OpenStack's (RFC 6750). Compared without regard to case.
const BEARER: &str = "Bearer";

/// Longest token that is validated, in bytes. Tokens of Keystone have about 250.
pub(super) const TOKEN_MAX_BYTES: usize = 8192;

/// Owner of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TokenOwner {
    pub(super) caller: Arc<Caller>,
    pub(super) project_name: String,
    /// Access rules of this service, if the token has access rules.
    pub(super) access_rules: Option<Vec<AccessRule>>,
}

/// The token of a request, from either header. `None` when there is none.
pub(super) fn token_of(headers: &HeaderMap) -> Result<Option<&str>, Fault> {
    let mut tokens = headers.get_all(AUTH_TOKEN).iter().map(|value| value.to_str().ok());
    let mut bearers = headers.get_all(AUTHORIZATION).iter().map(bearer);
    let (token, others) = match (tokens.next(), bearers.next()) {
        (None, None) => return Ok(None),
        (Some(token), None) | (None, Some(token)) => (token, tokens.next().or(bearers.next())),
        (Some(_), other @ Some(_)) => (None, other),
    };
    if others.is_some() {
        let message = "there is more than one token: send one, in X-Auth-Token or in Authorization";
        return Err(Fault::new(StatusCode::UNAUTHORIZED, message));
    }
    match token.filter(|token| is_token(token)) {
        Some(token) => Ok(Some(token)),
        None => {
            let message = format!(
                "the token is malformed, expected 1 to {TOKEN_MAX_BYTES} printable characters without blanks, in X-Auth-Token or as Authorization: Bearer"
            );
            Err(Fault::new(StatusCode::UNAUTHORIZED, message))
        }
    }
}

fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case(BEARER).then(|| token.trim())
}

/// Whether a text can be a token.
pub(super) fn is_token(text: &str) -> bool {
    (1..=TOKEN_MAX_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}
