//! Keystone: getting a token, and asking what a token is worth.
//!
//! The few calls of the Identity API v3 that the agent and its command line make. [`Keystone`] makes
//! them; [`Validator`] is the agent's side: it has a token of its own, renews it, and asks about
//! those of others. Nothing is sent before it is needed, so a Keystone that is away holds up no
//! start. Callers bound the wait; answers are bounded here. Tokens and secrets are [`SecretString`]s:
//! nothing shows them.
//!
//! What a refusal means depends on who is refused (Identity API v3, "Validate and show information
//! for token"): 404 is about the token that was asked about, 401 about the agent's own, and 403 says
//! that the agent may not ask. A 404 counts only as Keystone's own fault body: a web server that is
//! not Keystone must not make every token a bad one.

mod http;
mod login;
mod login_backoff;
mod resolver;
mod validator;

use ::http::StatusCode;
use jiff::Timestamp;
use secrecy::SecretString;
use serde::Deserialize;

use crate::sys::secret_file::FileError;
use crate::tls::TlsError;

pub use self::http::Keystone;
pub use login::{Domain, Identifier, Login, Method, Scope};
pub use validator::Validator;

/// A token that was issued.
#[derive(Debug, Clone)]
pub struct IssuedToken {
    /// The token.
    pub token: SecretString,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// What Keystone says of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFacts {
    /// Whose it is.
    pub user_id: String,
    /// The project that it is for, unless it is for the system, a domain or nothing.
    pub project: Option<Project>,
    /// Whether it is for the whole system.
    pub is_system: bool,
    /// The names of the user's roles in what it is for.
    pub roles: Vec<String>,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// A project.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Project {
    /// Its id.
    pub id: String,
    /// Its name, unique in its domain only.
    #[serde(default)]
    pub name: String,
}

/// Why Keystone did not help.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeystoneError {
    /// Nobody answers, or not as HTTP.
    #[error("Keystone at {url} cannot be reached ({detail})")]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// What went wrong.
        detail: String,
    },
    /// It takes a login and says nothing.
    #[error("Keystone at {url} did not answer the agent's login in time")]
    NoAnswer {
        /// Where it is.
        url: String,
    },
    /// It cannot answer now.
    #[error("Keystone at {url} is in trouble: it answers with HTTP status {status}")]
    Failing {
        /// Where it is.
        url: String,
        /// The status.
        status: u16,
    },
    /// Something else answers.
    #[error("{url} does not answer as Keystone does ({detail}): is it the address of Keystone, without /v3?")]
    NotUnderstood {
        /// Where it was looked for.
        url: String,
        /// What was wrong.
        detail: String,
    },
    /// The login is wrong.
    #[error("Keystone at {url} does not accept the login: check user, domain, project and secret")]
    LoginRefused {
        /// Where it is.
        url: String,
    },
    /// The token that the question was asked with is bad.
    #[error("Keystone at {url} does not accept the agent's own token, not even a new one")]
    OwnTokenRefused {
        /// Where it is.
        url: String,
    },
    /// The login has no right to ask.
    #[error(
        "Keystone at {url} does not let the agent's user validate tokens: give it a role that may, such as `openstack role add --user USER --project PROJECT service`"
    )]
    MayNotValidate {
        /// Where it is.
        url: String,
    },
    /// A secret cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its certificate cannot be checked.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl KeystoneError {
    /// Whether it may be the token that was asked about, so that others are worth a question.
    #[must_use]
    pub fn may_concern_one_token(&self) -> bool {
        match self {
            Self::NotUnderstood { .. } => true,
            Self::Failing { status, .. } => *status == StatusCode::INTERNAL_SERVER_ERROR.as_u16(),
            _ => false,
        }
    }

    /// Whether Keystone judged nothing, because it is not there or in trouble.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Failing { .. } | Self::NoAnswer { .. })
    }
}

#[cfg(test)]
pub mod fake;
#[cfg(test)]
mod tests;
