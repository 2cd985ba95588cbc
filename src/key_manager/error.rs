//! Errors of the key manager.

use http::StatusCode;

use crate::keystone::KeystoneError;
use crate::model::report::{Finding, finding};
use crate::model::{PayloadError, Reason, SecretMismatch};
use crate::tls::TlsError;

/// Why a secret was not read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeyManagerError {
    /// The reference is not a URL of the configured key manager.
    #[error(
        "secret_ref is not a secret of the configured key manager {0}, and nothing was sent to it; correct secret_ref, or [key_manager]"
    )]
    OtherKeyManager(String),
    /// The key manager has no such secret.
    #[error("the key manager {0} has no such secret, or it has no payload; store it again and correct secret_ref")]
    NotFound(String),
    /// The agent's user may not read the secret.
    #[error(
        "the key manager {0} does not let the agent's user read the secret; give the user a role in the project of the secret, or add it to the secret's ACL: `openstack acl user add --user USER SECRET_REF`"
    )]
    Forbidden(String),
    /// The payload does not contain credentials.
    #[error("the payload of the secret is not usable: {0}; store a corrected secret")]
    Malformed(#[from] PayloadError),
    /// The secret belongs to another target, so its keys are not sent to this one.
    #[error(transparent)]
    OtherTarget(#[from] SecretMismatch),
    /// The payload is too large.
    #[error("the payload of the secret is larger than {0} bytes; store the JSON object of the credentials only")]
    TooLarge(usize),
    /// The payload is not of the requested type.
    #[error("the key manager {0} cannot return the payload as application/octet-stream; store it with that type")]
    WrongType(String),
    /// The catalog has no key manager.
    #[error(
        "Keystone's catalog has no usable key-manager endpoint with interface {0}; set [key_manager] endpoint, interface or region"
    )]
    NoEndpoint(String),
    /// No complete answer.
    #[error("the key manager {url} cannot be reached ({detail})")]
    Unreachable {
        /// Address of the key manager.
        url: String,
        /// Cause.
        detail: String,
    },
    /// No answer in time.
    #[error("the key manager did not answer within {0} ms")]
    TimedOut(u128),
    /// An answer by which the key manager says that it cannot serve now.
    #[error("the key manager {url} answered with HTTP status {status}")]
    Failing {
        /// Address of the key manager.
        url: String,
        /// Status of the answer.
        status: StatusCode,
    },
    /// An answer that says nothing about the secret.
    #[error("the key manager {url} answered with {detail}")]
    UnexpectedAnswer {
        /// Address of the key manager.
        url: String,
        /// Description of the answer.
        detail: String,
    },
    /// The agent's new token is invalid for the key manager.
    #[error(
        "the key manager {0} does not accept the agent's token, not even a new one; check that it uses the Keystone of [api.keystone] url, and that its own login works: [keystone_authtoken] in barbican.conf"
    )]
    TokenRefused(String),
    /// Keystone issues no token.
    #[error(transparent)]
    Keystone(#[from] KeystoneError),
    /// The CA bundle cannot be used.
    #[error("[key_manager] ca_bundle: {0}")]
    Tls(#[from] TlsError),
}

impl KeyManagerError {
    /// The reason code.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::OtherKeyManager(_) | Self::NotFound(_) => Reason::SecretNotFound,
            Self::Forbidden(_) => Reason::SecretForbidden,
            Self::Malformed(_) | Self::OtherTarget(_) | Self::TooLarge(_) | Self::WrongType(_) => {
                Reason::SecretMalformed
            }
            Self::NoEndpoint(_)
            | Self::Unreachable { .. }
            | Self::TimedOut(_)
            | Self::Failing { .. }
            | Self::UnexpectedAnswer { .. }
            | Self::TokenRefused(_)
            | Self::Keystone(_)
            | Self::Tls(_) => Reason::KeyManagerUnavailable,
        }
    }

    /// Whether nothing is known about the secret, because the key manager or Keystone is unreachable or failing.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut(_) | Self::Failing { .. } => true,
            Self::Keystone(error) => error.is_outage(),
            _ => false,
        }
    }

    /// Whether the key manager or Keystone does not serve, so that further requests would fail too. A login that
    /// Keystone refuses has its own backoff.
    #[must_use]
    pub(super) fn is_failing_service(&self) -> bool {
        self.is_outage() || matches!(self, Self::UnexpectedAnswer { .. } | Self::TokenRefused(_))
    }

    /// Whether only this secret may be the cause of a failing service.
    #[must_use]
    pub(super) fn may_concern_one_secret(&self) -> bool {
        match self {
            Self::UnexpectedAnswer { .. } => true,
            Self::Failing { status, .. } => *status == StatusCode::INTERNAL_SERVER_ERROR,
            _ => false,
        }
    }

    /// Whether the key manager has answered the request for the secret.
    #[must_use]
    pub(super) fn is_answer(&self) -> bool {
        self.reason() != Reason::KeyManagerUnavailable && !matches!(self, Self::OtherKeyManager(_))
    }

    /// The reason with a message that begins with the subject, and tells whether the last good credentials are in use.
    #[must_use]
    pub fn finding(&self, subject: &str, is_last_good_used: bool) -> Finding {
        let used = if is_last_good_used { ". The last good credentials stay in use" } else { "" };
        let problem = match self {
            Self::OtherTarget(_) => "are not used",
            _ => "were not read",
        };
        finding!(self.reason(), "{subject}: the credentials of secret_ref {problem}: {self}{used}")
    }
}
