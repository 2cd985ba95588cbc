//! Errors of the client, each with what to do.

use std::io;
use std::time::Duration;

use http::StatusCode;

use super::address::Address;
use crate::cli::token::TokenError;
use crate::tls::TlsError;

/// Error of a request to the agent.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No process listens at the address.
    #[error(
        "no agent answers at {address} ({source}). Start it with `systemctl start targetwatch`, or give its address with --api"
    )]
    NotRunning {
        /// Address that was tried.
        address: Address,
        /// Error of the operating system.
        source: io::Error,
    },
    /// This user may not connect to the socket.
    #[error("this user may not connect to {address}. Use sudo, or join {}", group.as_ref().map_or_else(|| "the group of its socket".to_owned(), |group| format!("the group {group}")))]
    NotPermitted {
        /// Address of the socket.
        address: Address,
        /// Group of the socket, if it is visible.
        group: Option<String>,
    },
    /// No answer within the deadline.
    #[error("the agent at {address} did not answer within {} s", after.as_secs())]
    TimedOut {
        /// Address of the agent.
        address: Address,
        /// Deadline of the answer.
        after: Duration,
    },
    /// The answer is not one of an agent.
    #[error("unexpected answer from {address} ({detail}). Check that it is the agent, and of the same version")]
    UnexpectedAnswer {
        /// Address of the agent.
        address: Address,
        /// Cause.
        detail: String,
    },
    /// The certificate of the agent is not trusted, or the agent requires a client certificate. The
    /// client may see only that the connection ends before the answer.
    #[error(
        "TLS with {address} failed ({detail}). Give the authority of its certificate with --ca-bundle, and a client certificate with --client-certificate if the agent requires one"
    )]
    Untrusted {
        /// Address of the agent.
        address: Address,
        /// Cause.
        detail: String,
    },
    /// A TLS file cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The agent requires a token, and none is configured.
    #[error("{message} (set --token-file, OS_TOKEN, OS_CLOUD, or OS_AUTH_URL and related variables)")]
    TokenNeeded {
        /// Message of the agent.
        message: String,
    },
    /// The process at the default port requires a token. The client sends none to a default address.
    #[error(
        "{message} (no token was sent to {address}, because any process may listen there. If it is the agent, use --api {address})"
    )]
    TokenWithheld {
        /// Address of the process.
        address: Address,
        /// Message of the agent.
        message: String,
    },
    /// The token would cross a network in plain text.
    #[error(
        "no token was sent to {address}, because it would cross the network in plain text. Use https://, or an SSH tunnel to its loopback address (ssh -L)"
    )]
    PlainText {
        /// Address of the agent.
        address: Address,
    },
    /// The agent requires a token, and the client cannot obtain one.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The agent refused the request.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: StatusCode,
        /// Message of the agent.
        message: String,
    },
}
