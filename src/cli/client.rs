//! The client: HTTP/1.1 to the agent, over its Unix socket or TCP, with TLS where the address says
//! so, every wait and answer bounded.
//!
//! A token is got and sent when the agent asks for one (401), and kept for what follows. Where it may
//! go is said in [`address`].

mod address;
mod error;

use std::io;
use std::path::{Path, PathBuf};
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

use super::terminal::{error_chain, escape_controls};
use crate::api::auth::AUTH_TOKEN;
use crate::api::wire;
use crate::sys::group::group_of;
use crate::tls::{self, TlsError};
use address::{DefaultAddresses, stays_here};

pub use address::Address;
pub use error::ClientError;

/// How long an answer from memory may take.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an answer may take that waits for a probe or an unmount, which have deadlines.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(300);

/// The largest answer that is read, in bytes: the details of ten thousand targets.
const ANSWER_MAX_BYTES: usize = 64 << 20;

/// How the agent is reached, for every command that asks it.
#[derive(Debug, Clone, Default, Args)]
pub struct ConnectionOptions {
    /// Where the agent answers: unix:/path, http://host:port or https://host:port [default: its own socket, then http://127.0.0.1:8781]
    #[arg(long, global = true, env = "TARGETWATCH_API", value_name = "ADDRESS")]
    api: Option<Address>,
    /// A file with a token, or the agent's secret [default: OS_TOKEN, OS_CLOUD, or OS_AUTH_URL and its companions]
    #[arg(long, global = true, env = "TARGETWATCH_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Certificate authorities to trust beside the system's, for https
    #[arg(long, global = true, env = "TARGETWATCH_CA_BUNDLE", value_name = "FILE")]
    ca_bundle: Option<PathBuf>,
    /// A certificate to show, for https
    #[arg(long, global = true, env = "TARGETWATCH_CLIENT_CERTIFICATE", value_name = "FILE", requires = "client_key")]
    client_certificate: Option<PathBuf>,
    /// The key of the certificate to show
    #[arg(long, global = true, env = "TARGETWATCH_CLIENT_KEY", value_name = "FILE")]
    client_key: Option<PathBuf>,
}

/// A client of one agent.
#[derive(Debug, Clone)]
pub struct Client {
    access: ConnectionOptions,
    defaults: DefaultAddresses,
    token: Arc<Mutex<Option<SecretString>>>,
    tls: Arc<OnceCell<Arc<ClientConfig>>>,
}

/// What is asked.
#[derive(Clone)]
struct ApiRequest<'a> {
    method: Method,
    path: &'a str,
    body: Bytes,
    token: Option<SecretString>,
}

impl Client {
    /// A client of the agent that is reached so.
    #[must_use]
    pub fn new(access: ConnectionOptions) -> Self {
        Self { access, defaults: DefaultAddresses::default(), token: Arc::default(), tls: Arc::default() }
    }

    /// Asks and reads the answer.
    ///
    /// # Errors
    /// [`ClientError`], also when the agent answers with a fault.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.send(Method::GET, path, Bytes::new(), ANSWER_TIMEOUT).await
    }

    /// Sends a body, or none, and reads the answer.
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
        let (address, bytes) = self.exchange(method, path, body, timeout).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| ClientError::UnexpectedAnswer { address, detail: escape_controls(&error.to_string()) })
    }

    /// Asks for something whose answer has no body.
    ///
    /// # Errors
    /// [`ClientError`], also when the agent answers with a fault.
    pub async fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.exchange(Method::DELETE, path, Bytes::new(), PROBE_TIMEOUT).await.map(|_| ())
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<(Address, Bytes), ClientError> {
        let mut token = self.token.lock().await;
        let question = ApiRequest { method, path, body, token: token.clone() };
        let message = match self.answer(question.clone(), timeout).await {
            Err(ClientError::Refused { status: StatusCode::UNAUTHORIZED, message }) => message,
            outcome => return outcome,
        };
        let variable = |name: &str| std::env::var(name).ok();
        let Some(found) = super::token::token(self.access.token_file.as_ref(), variable).await? else {
            return Err(ClientError::TokenNeeded { message });
        };
        let is_refused = |refused: &SecretString| refused.expose_secret() == found.expose_secret();
        if question.token.as_ref().is_some_and(is_refused) {
            return Err(ClientError::Refused { status: StatusCode::UNAUTHORIZED, message });
        }
        *token = Some(found.clone());
        self.answer(ApiRequest { token: Some(found), ..question }, timeout).await
    }

    async fn answer(&self, question: ApiRequest<'_>, timeout: Duration) -> Result<(Address, Bytes), ClientError> {
        if let Some(address) = &self.access.api {
            return within(timeout, address, self.ask(address, question)).await;
        }
        let DefaultAddresses { socket, port } = &self.defaults;
        let first = within(timeout, socket, self.ask(socket, question.clone())).await;
        let Err(ClientError::NotRunning { .. } | ClientError::NotPermitted { .. }) = first else {
            return first;
        };
        let question = ApiRequest { token: None, ..question };
        match within(timeout, port, self.ask(port, question)).await {
            Err(ClientError::Refused { status: StatusCode::UNAUTHORIZED, message }) => {
                Err(ClientError::TokenWithheld { address: port.clone(), message })
            }
            // The socket that is there and not for us is the agent's.
            Err(ClientError::NotRunning { .. }) if matches!(first, Err(ClientError::NotPermitted { .. })) => first,
            outcome => outcome,
        }
    }

    async fn ask(&self, address: &Address, question: ApiRequest<'_>) -> Result<Bytes, ClientError> {
        match address {
            Address::Unix(socket) => over(address, connected(address, connect_unix(socket).await)?, question).await,
            Address::Tcp(authority) => {
                let stream = connected(address, TcpStream::connect(authority).await)?;
                let peer = connected(address, stream.peer_addr())?;
                if question.token.is_some() && !stays_here(peer.ip()) {
                    return Err(ClientError::PlainText { address: address.clone() });
                }
                over(address, stream, question).await
            }
            Address::Tls(authority) => {
                let untrusted = |detail: String| ClientError::Untrusted { address: address.clone(), detail };
                let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host);
                let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
                let name = name.map_err(|error| untrusted(error.to_string()))?;
                let config = self.tls.get_or_try_init(|| self.access.tls()).await?;
                let stream = connected(address, TcpStream::connect(authority).await)?;
                let stream = TlsConnector::from(config.clone()).connect(name, stream).await;
                over(address, stream.map_err(|error| untrusted(escape_controls(&error.to_string())))?, question).await
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

async fn within(
    after: Duration,
    address: &Address,
    answer: impl Future<Output = Result<Bytes, ClientError>>,
) -> Result<(Address, Bytes), ClientError> {
    match tokio::time::timeout(after, answer).await {
        Ok(answer) => answer.map(|bytes| (address.clone(), bytes)),
        Err(_) => Err(ClientError::TimedOut { address: address.clone(), after }),
    }
}

async fn connect_unix(socket: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(socket).await
}

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

async fn over(
    address: &Address,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    question: ApiRequest<'_>,
) -> Result<Bytes, ClientError> {
    let ApiRequest { method, path, body, token } = question;
    let odd =
        |detail: String| ClientError::UnexpectedAnswer { address: address.clone(), detail: escape_controls(&detail) };
    let host = match address {
        Address::Unix(_) => "localhost",
        Address::Tcp(authority) | Address::Tls(authority) => authority,
    };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| odd(error.to_string()))?;
    let driving = tokio::spawn(connection);
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, host)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(|error| odd(error.to_string()))?;
    if let Some(token) = token {
        let value = HeaderValue::from_str(token.expose_secret());
        let mut value = value.map_err(|_| odd("the token has characters that no header may have".to_owned()))?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTH_TOKEN, value);
    }
    let answer = match sender.send_request(request).await {
        Ok(answer) => answer,
        Err(error) => {
            drop(sender);
            // Where the connection ended before the request was on its way, the connection knows why.
            let why = driving.await.ok().and_then(Result::err).unwrap_or(error);
            return Err(broken(address, why));
        }
    };
    let status = answer.status();
    let collected = Limited::new(answer.into_body(), ANSWER_MAX_BYTES).collect().await;
    let bytes = collected.map_err(|error| odd(error.to_string()))?.to_bytes();
    driving.abort();
    if status.is_success() || status == StatusCode::SERVICE_UNAVAILABLE && path == "/readyz" {
        return Ok(bytes);
    }
    let fault: wire::FaultBody =
        serde_json::from_slice(&bytes).map_err(|_| odd(format!("HTTP status {status} without a fault")))?;
    let message = fault.0.into_values().next().map(|detail| detail.message);
    Err(ClientError::Refused { status, message: message.unwrap_or_else(|| status.to_string()) })
}

/// Why a connection ended before the answer. With TLS 1.3 an agent refuses the client's certificate, or
/// that it has none, only after the handshake; and what it says of that can be lost on the way.
fn broken(address: &Address, error: hyper::Error) -> ClientError {
    let address = address.clone();
    let is_of_tls = matches!(address, Address::Tls(_)) && !error.is_parse();
    let detail = error_chain(&error.into());
    if is_of_tls {
        ClientError::Untrusted { address, detail }
    } else {
        ClientError::UnexpectedAnswer { address, detail }
    }
}

#[cfg(test)]
mod tests;
