//! Why the agent's answer is not there, each with what to do.

use std::io;
use std::time::Duration;

use http::StatusCode;

use super::Address;
use crate::cli::token::TokenError;
use crate::tls::TlsError;

/// Why the agent's answer is not there.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no agent answers at {address} ({source}): start it with `systemctl start targetwatch`, or say where it is with --api"
    )]
    NotRunning {
        /// Where it was looked for.
        address: Address,
        /// What the system says.
        source: io::Error,
    },
    /// The socket is not for us.
    #[error("{address} may not be used by this user: use sudo, or join {}", group.as_ref().map_or_else(|| "the group of its socket".to_owned(), |group| format!("the group {group}")))]
    NotPermitted {
        /// The socket.
        address: Address,
        /// Its group, if it can be seen.
        group: Option<String>,
    },
    /// It took too long.
    #[error("the agent at {address} did not answer within {} s", after.as_secs())]
    TimedOut {
        /// Where it is.
        address: Address,
        /// How long was waited.
        after: Duration,
    },
    /// What came back is no answer of the agent.
    #[error("{address} does not answer as the agent does ({detail}): is it another service, or another version?")]
    UnexpectedAnswer {
        /// Where it is.
        address: Address,
        /// What was wrong.
        detail: String,
    },
    /// Its certificate is not trusted, or it wants one: a connection that ends before the answer is all
    /// that may be seen of that.
    #[error(
        "{address} and this client do not agree on TLS ({detail}): name the authority of its certificate with --ca-bundle, and a certificate of your own with --client-certificate if it wants one"
    )]
    Untrusted {
        /// Where it is.
        address: Address,
        /// What was wrong.
        detail: String,
    },
    /// Files for TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The agent wants a token and there is none.
    #[error(
        "{message} (this command takes one from --token-file, OS_TOKEN, OS_CLOUD, or OS_AUTH_URL and its companions)"
    )]
    TokenNeeded {
        /// What the agent says.
        message: String,
    },
    /// It was found where it usually is and wants a token, and nobody said that it may have one.
    #[error(
        "{message} (no token was sent to {address}, where any process may listen: if it is the agent, say --api {address} to send it there)"
    )]
    TokenWithheld {
        /// Where it was found.
        address: Address,
        /// What it says.
        message: String,
    },
    /// A token would cross a network in plain text.
    #[error(
        "no token is sent to {address}, because everybody on the way could read it: say https://, or reach its loopback through a tunnel (ssh -L)"
    )]
    PlainText {
        /// Where it would go.
        address: Address,
    },
    /// The agent wants a token, and the way to one does not lead there.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The agent refused.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// What the agent says.
        message: String,
    },
}
