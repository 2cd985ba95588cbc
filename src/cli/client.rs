//! HTTP/1.1 client of the agent, over its Unix socket, TCP or TLS. Every wait and every answer is
//! bounded.
//!
//! The client obtains a token when the agent demands one (401), and keeps it for later requests.
//! [`address`] documents to which addresses it may send a token.

mod address;
mod error;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Mutex, OnceCell};
use tokio_rustls::TlsConnector;

use super::terminal::{error_chain, escape_invisible};
use crate::api::auth::AUTH_TOKEN;
use crate::api::wire;
use crate::sys::group::group_of;
use crate::tls::{self, TlsError};
use address::{DefaultAddresses, is_this_host};

pub use address::Address;
pub use error::ClientError;

/// Deadline of an answer from the agent's memory.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Deadline of an answer that waits for a probe or an unmount, which have their own deadlines.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(300);

/// Largest accepted answer, in bytes. The details of ten thousand targets fit into it.
const ANSWER_MAX_BYTES: usize = 64 << 20;

/// Options that select the agent, its token and TLS, for every command that needs an agent.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection to the agent")]
pub struct ConnectionOptions {
    /// Address of the agent: unix:/path, http://host:port or https://host:port [default: its Unix socket, then http://127.0.0.1:8781]
    #[arg(long, global = true, env = "TARGETWATCH_API", hide_env_values = true, value_name = "ADDRESS")]
    api: Option<Address>,
    /// File with a Keystone token or the agent's secret [default: OS_TOKEN, OS_CLOUD, or OS_AUTH_URL and related variables]
    #[arg(long, global = true, env = "TARGETWATCH_TOKEN_FILE", hide_env_values = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// File of certificate authorities to trust in addition to those of the system, for https
    #[arg(long, global = true, env = "TARGETWATCH_CA_BUNDLE", hide_env_values = true, value_name = "FILE")]
    ca_bundle: Option<PathBuf>,
    /// File of the client certificate, for https
    #[arg(
        long,
        global = true,
        env = "TARGETWATCH_CLIENT_CERTIFICATE",
        hide_env_values = true,
        value_name = "FILE",
        requires = "client_key"
    )]
    client_certificate: Option<PathBuf>,
    /// File of the key of the client certificate
    #[arg(long, global = true, env = "TARGETWATCH_CLIENT_KEY", hide_env_values = true, value_name = "FILE")]
    client_key: Option<PathBuf>,
}

/// Client of one agent.
#[derive(Debug, Clone)]
pub struct Client {
    options: ConnectionOptions,
    defaults: DefaultAddresses,
    token: Arc<Mutex<Option<SecretString>>>,
    tls: Arc<OnceCell<Arc<ClientConfig>>>,
}

/// Answer of an agent. It is decoded on demand, so that `--json` prints every field that the agent sent.
#[derive(Debug)]
pub struct Answer {
    from: Address,
    body: Bytes,
}

impl Answer {
    /// Decodes the answer.
    ///
    /// # Errors
    /// [`ClientError::UnexpectedAnswer`] when the answer is not a `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body).map_err(|error| ClientError::UnexpectedAnswer {
            address: self.from.clone(),
            detail: escape_invisible(&error.to_string()),
        })
    }
}

/// Request to the agent, without its address.
#[derive(Clone)]
struct ApiRequest<'a> {
    method: Method,
    path: &'a str,
    body: Bytes,
    token: Option<SecretString>,
}

impl Client {
    /// Creates a client. It opens a connection for each request.
    #[must_use]
    pub fn new(options: ConnectionOptions) -> Self {
        Self { options, defaults: DefaultAddresses::default(), token: Arc::default(), tls: Arc::default() }
    }

    /// Sends a GET request and decodes the answer.
    ///
    /// # Errors
    /// [`ClientError`], also when the agent answers with a fault.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.fetch(path).await?.decode()
    }

    /// Sends a GET request and returns the answer without decoding it.
    ///
    /// # Errors
    /// [`ClientError`], also when the agent answers with a fault.
    pub async fn fetch(&self, path: &str) -> Result<Answer, ClientError> {
        self.exchange(Method::GET, path, Bytes::new(), ANSWER_TIMEOUT).await
    }

    /// Sends a request and decodes the answer. The body may be empty.
    ///
    /// # Errors
    /// [`ClientError`], also when the agent answers with a fault.
    pub async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<T, ClientError> {
        self.exchange(method, path, body, timeout).await?.decode()
    }

    /// Sends a DELETE request. The answer has no body.
    ///
    /// # Errors
    /// [`ClientError`], also when the agent answers with a fault.
    pub async fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.exchange(Method::DELETE, path, Bytes::new(), PROBE_TIMEOUT).await.map(|_| ())
    }

    /// Sends a request and returns the answer without decoding it. The body may be empty.
    ///
    /// # Errors
    /// [`ClientError`], also when the agent answers with a fault.
    pub async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Answer, ClientError> {
        let token = self.token.lock().await.clone();
        let request = ApiRequest { method, path, body, token };
        let message = match self.try_addresses(request.clone(), timeout).await {
            Err(ClientError::Refused { status: StatusCode::UNAUTHORIZED, message }) => message,
            outcome => return outcome,
        };
        let refused = request.token.as_ref().map(|token| token.expose_secret());
        let new_token = self.new_token(refused, message).await?;
        self.try_addresses(ApiRequest { token: Some(new_token), ..request }, timeout).await
    }

    /// Returns a token in place of the refused one. Concurrent requests obtain it once.
    async fn new_token(&self, refused: Option<&str>, message: String) -> Result<SecretString, ClientError> {
        let is_refused = |token: &SecretString| refused == Some(token.expose_secret());
        let mut token = self.token.lock().await;
        if let Some(newer) = token.as_ref().filter(|token| !is_refused(token)) {
            return Ok(newer.clone());
        }
        let variable = |name: &str| std::env::var(name).ok();
        let Some(new_token) = super::token::token(self.options.token_file.as_ref(), variable).await? else {
            return Err(ClientError::TokenNeeded { message });
        };
        if is_refused(&new_token) {
            return Err(ClientError::Refused { status: StatusCode::UNAUTHORIZED, message });
        }
        *token = Some(new_token.clone());
        Ok(new_token)
    }

    async fn try_addresses(&self, request: ApiRequest<'_>, timeout: Duration) -> Result<Answer, ClientError> {
        if let Some(address) = &self.options.api {
            return with_timeout(timeout, address, self.send_to(address, request)).await;
        }
        let DefaultAddresses { socket, port } = &self.defaults;
        let first = with_timeout(timeout, socket, self.send_to(socket, request.clone())).await;
        let Err(ClientError::NotRunning { .. } | ClientError::NotPermitted { .. }) = first else {
            return first;
        };
        let request = ApiRequest { token: None, ..request };
        match with_timeout(timeout, port, self.send_to(port, request)).await {
            Err(ClientError::Refused { status: StatusCode::UNAUTHORIZED, message }) => {
                Err(ClientError::TokenWithheld { address: port.clone(), message })
            }
            // The socket exists, so it belongs to the agent, although this user may not use it.
            Err(ClientError::NotRunning { .. }) if matches!(first, Err(ClientError::NotPermitted { .. })) => first,
            outcome => outcome,
        }
    }

    async fn send_to(&self, address: &Address, request: ApiRequest<'_>) -> Result<Bytes, ClientError> {
        match address {
            Address::Unix(socket) => {
                send_over(address, connected(address, UnixStream::connect(socket).await)?, request).await
            }
            Address::Tcp(authority) => {
                let stream = connected(address, TcpStream::connect(authority).await)?;
                let peer = connected(address, stream.peer_addr())?;
                if request.token.is_some() && !is_this_host(peer.ip()) {
                    return Err(ClientError::PlainText { address: address.clone() });
                }
                send_over(address, stream, request).await
            }
            Address::Tls(authority) => {
                let untrusted = |detail: String| ClientError::Untrusted { address: address.clone(), detail };
                let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host);
                let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
                let name = name.map_err(|error| untrusted(error.to_string()))?;
                let config = self.tls.get_or_try_init(|| self.options.tls()).await?;
                let stream = connected(address, TcpStream::connect(authority).await)?;
                let stream = TlsConnector::from(config.clone()).connect(name, stream).await;
                send_over(address, stream.map_err(|error| untrusted(escape_invisible(&error.to_string())))?, request)
                    .await
            }
        }
    }
}

impl ConnectionOptions {
    async fn tls(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let identity = self.client_certificate.as_deref().zip(self.client_key.as_deref());
        tls::client_config(self.ca_bundle.as_deref(), identity).await.map(Arc::new)
    }
}

async fn with_timeout(
    after: Duration,
    address: &Address,
    answer: impl Future<Output = Result<Bytes, ClientError>>,
) -> Result<Answer, ClientError> {
    match tokio::time::timeout(after, answer).await {
        Ok(answer) => answer.map(|body| Answer { from: address.clone(), body }),
        Err(_) => Err(ClientError::TimedOut { address: address.clone(), after }),
    }
}

/// Converts the error of a connection that could not be opened.
fn connected<T>(address: &Address, outcome: io::Result<T>) -> Result<T, ClientError> {
    outcome.map_err(|source| {
        let address = address.clone();
        if source.kind() == io::ErrorKind::PermissionDenied {
            let group = if let Address::Unix(socket) = &address { group_of(socket) } else { None };
            ClientError::NotPermitted { address, group }
        } else {
            ClientError::NotRunning { address, source }
        }
    })
}

async fn send_over(
    address: &Address,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: ApiRequest<'_>,
) -> Result<Bytes, ClientError> {
    let ApiRequest { method, path, body, token } = request;
    let unexpected =
        |detail: String| ClientError::UnexpectedAnswer { address: address.clone(), detail: escape_invisible(&detail) };
    let host = match address {
        Address::Unix(_) => "localhost",
        Address::Tcp(authority) | Address::Tls(authority) => authority,
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| unexpected(error.to_string()))?;
    let connection = tokio::spawn(connection);
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, host)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(|error| unexpected(error.to_string()))?;
    if let Some(token) = token {
        let value = HeaderValue::from_str(token.expose_secret());
        let mut value = value
            .map_err(|_| unexpected("the token contains characters that an HTTP header does not allow".to_owned()))?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTH_TOKEN, value);
    }
    let answer = match sender.send_request(request).await {
        Ok(answer) => answer,
        Err(error) => {
            drop(sender);
            // If the connection ended before the request was sent, only the connection knows the cause.
            let cause = connection.await.ok().and_then(Result::err).unwrap_or(error);
            return Err(ended_early(address, cause));
        }
    };
    let status = answer.status();
    let collected = Limited::new(answer.into_body(), ANSWER_MAX_BYTES).collect().await;
    let bytes = collected.map_err(|error| unexpected(error.to_string()))?.to_bytes();
    connection.abort();
    if status.is_success() {
        return Ok(bytes);
    }
    let fault: wire::FaultBody =
        serde_json::from_slice(&bytes).map_err(|_| unexpected(format!("HTTP status {status} without a fault")))?;
    let message = fault.0.into_values().next().map(|detail| detail.message);
    Err(ClientError::Refused { status, message: message.unwrap_or_else(|| status.to_string()) })
}

/// Converts the error of a connection that ended before the answer.
///
/// With TLS 1.3, an agent refuses a missing or untrusted client certificate only after the handshake, and
/// its alert may be lost.
fn ended_early(address: &Address, error: hyper::Error) -> ClientError {
    let address = address.clone();
    let is_tls = matches!(address, Address::Tls(_)) && !error.is_parse();
    let detail = error_chain(&error.into());
    if is_tls { ClientError::Untrusted { address, detail } } else { ClientError::UnexpectedAnswer { address, detail } }
}

#[cfg(test)]
mod tests;
