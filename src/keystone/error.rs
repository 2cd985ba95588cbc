//! Errors of Keystone.

use http::StatusCode;

use crate::sys::secret_file::FileError;
use crate::tls::TlsError;

/// Why Keystone did not issue or validate a token.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeystoneError {
    /// No connection, or the answer is not HTTP.
    #[error("Keystone at {url} cannot be reached ({detail})")]
    Unreachable {
        /// Address of Keystone.
        url: String,
        /// Cause.
        detail: String,
    },
    /// The agent's login had no answer before its caller stopped waiting.
    #[error("Keystone at {url} did not answer the agent's login in time")]
    NoAnswer {
        /// Address of Keystone.
        url: String,
    },
    /// A server error, or too many requests.
    #[error("Keystone at {url} answered with HTTP status {status}")]
    Failing {
        /// Address of Keystone.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// The answer does not come from Keystone.
    #[error("{url} does not answer as Keystone does ({detail}): is it the address of Keystone, without /v3?")]
    UnexpectedAnswer {
        /// Address of Keystone.
        url: String,
        /// Cause.
        detail: String,
    },
    /// The login is wrong.
    #[error("Keystone at {url} does not accept the login: check user, domain, project and secret")]
    LoginRefused {
        /// Address of Keystone.
        url: String,
    },
    /// The agent's own token is invalid, although it is new.
    #[error("Keystone at {url} does not accept the agent's own token, not even a new one")]
    OwnTokenRefused {
        /// Address of Keystone.
        url: String,
    },
    /// The agent's user may not validate tokens.
    #[error(
        "Keystone at {url} does not let the agent's user validate tokens: give it a role that may, such as `openstack role add --user USER --project PROJECT service`"
    )]
    MayNotValidate {
        /// Address of Keystone.
        url: String,
    },
    /// A secret cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The CA bundle cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl KeystoneError {
    /// Whether the validated token may be the cause, so that the validation of other tokens may succeed.
    #[must_use]
    pub fn may_concern_one_token(&self) -> bool {
        match self {
            Self::UnexpectedAnswer { .. } => true,
            Self::Failing { status, .. } => *status == StatusCode::INTERNAL_SERVER_ERROR.as_u16(),
            _ => false,
        }
    }

    /// Whether Keystone made no decision, because it is unreachable or failing.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Failing { .. } | Self::NoAnswer { .. })
    }
}
