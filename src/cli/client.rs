//! The client: HTTP/1.1 to the agent, over its Unix socket or TCP, with TLS where the address says
//! so, every wait and answer bounded.
//!
//! A token is got and sent when the agent asks for one (401), and kept for what follows.

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::{HeaderValue, Method, Request, StatusCode, Uri};
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

use super::terminal::plain;
use super::token::TokenError;
use crate::api::auth::AUTH_TOKEN;
use crate::api::wire;
use crate::tls::{self, TlsError};

/// Where the agent's unit puts its socket.
const DEFAULT_SOCKET: &str = "/run/targetwatch/api.sock";

/// Where the agent listens besides.
const DEFAULT_AUTHORITY: &str = "127.0.0.1:8781";

/// How long an answer from memory may take.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an answer may take that waits for a probe or an unmount, which have deadlines.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(300);

/// The largest answer that is read, in bytes: the details of ten thousand targets.
const ANSWER_MAX_BYTES: usize = 64 << 20;

/// Where an agent answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
    /// `host:port`, with TLS.
    Tls(String),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        let uri: Option<Uri> = text.parse().ok();
        let plain = uri.filter(|uri| uri.path() == "/" && uri.query().is_none() && uri.port_u16().is_some());
        let parts = plain.map(Uri::into_parts).and_then(|parts| Some((parts.scheme?, parts.authority?)));
        match parts {
            Some((scheme, authority)) if scheme == http::uri::Scheme::HTTP => Ok(Self::Tcp(authority.to_string())),
            Some((scheme, authority)) if scheme == http::uri::Scheme::HTTPS => Ok(Self::Tls(authority.to_string())),
            _ => Err("expected unix:/path, http://host:port or https://host:port".to_owned()),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
            Self::Tcp(authority) => write!(formatter, "http://{authority}"),
            Self::Tls(authority) => write!(formatter, "https://{authority}"),
        }
    }
}

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
    #[error("{address} may not be used by this user: use sudo, or join the group targetwatch")]
    NotPermitted {
        /// The socket.
        address: Address,
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
    NotUnderstood {
        /// Where it is.
        address: Address,
        /// What was wrong.
        detail: String,
    },
    /// Its certificate is not trusted, or it wants one.
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

/// How the agent is reached, for every command that asks it.
#[derive(Debug, Clone, Default, Args)]
pub struct Access {
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
    access: Access,
    token: Arc<Mutex<Option<SecretString>>>,
    tls: Arc<OnceCell<Arc<ClientConfig>>>,
}

/// What is asked.
#[derive(Clone)]
struct Question<'a> {
    method: Method,
    path: &'a str,
    body: Bytes,
    token: Option<SecretString>,
}

impl Client {
    /// A client of the agent that is reached so.
    #[must_use]
    pub fn new(access: Access) -> Self {
        Self { access, token: Arc::default(), tls: Arc::default() }
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
            .map_err(|error| ClientError::NotUnderstood { address, detail: plain(&error.to_string()) })
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
        let question = Question { method, path, body, token: token.clone() };
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
        self.answer(Question { token: Some(found), ..question }, timeout).await
    }

    async fn answer(&self, question: Question<'_>, timeout: Duration) -> Result<(Address, Bytes), ClientError> {
        let Some(address) = &self.access.api else {
            // The socket of the unit first: where it is, it is the one that is meant.
            let socket = Address::Unix(DEFAULT_SOCKET.into());
            return match within(timeout, &socket, self.ask(&socket, question.clone())).await {
                Err(ClientError::NotRunning { .. } | ClientError::NotPermitted { .. }) => {
                    let tcp = Address::Tcp(DEFAULT_AUTHORITY.to_owned());
                    within(timeout, &tcp, self.ask(&tcp, question)).await
                }
                outcome => outcome,
            };
        };
        within(timeout, address, self.ask(address, question)).await
    }

    async fn ask(&self, address: &Address, question: Question<'_>) -> Result<Bytes, ClientError> {
        match address {
            Address::Unix(socket) => over(address, connected(address, connect_unix(socket).await)?, question).await,
            Address::Tcp(authority) => {
                over(address, connected(address, TcpStream::connect(authority).await)?, question).await
            }
            Address::Tls(authority) => {
                let untrusted = |detail: String| ClientError::Untrusted { address: address.clone(), detail };
                let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host);
                let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
                let name = name.map_err(|error| untrusted(error.to_string()))?;
                let config = self.tls.get_or_try_init(|| self.access.tls()).await?;
                let stream = connected(address, TcpStream::connect(authority).await)?;
                let stream = TlsConnector::from(config.clone()).connect(name, stream).await;
                over(address, stream.map_err(|error| untrusted(plain(&error.to_string())))?, question).await
            }
        }
    }
}

impl Access {
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
            ClientError::NotPermitted { address }
        } else {
            ClientError::NotRunning { address, source }
        }
    })
}

async fn over(
    address: &Address,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    question: Question<'_>,
) -> Result<Bytes, ClientError> {
    let Question { method, path, body, token } = question;
    let odd = |detail: String| ClientError::NotUnderstood { address: address.clone(), detail: plain(&detail) };
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
    let answer = sender.send_request(request).await.map_err(|error| odd(error.to_string()))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    #[test]
    fn addresses_are_sockets_or_http_with_or_without_tls() {
        assert_eq!("unix:/run/x".parse(), Ok(Address::Unix("/run/x".into())));
        assert_eq!("http://[::1]:8781".parse(), Ok(Address::Tcp("[::1]:8781".to_owned())));
        assert_eq!("https://a.example:8781/".parse(), Ok(Address::Tls("a.example:8781".to_owned())));
        for bad in ["", "host", "ftp://host:1", "http://host", "https://host", "http://host:1/path"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }

    fn at(address: Address) -> Access {
        Access { api: Some(address), ..Access::default() }
    }

    /// What a server that answers each connection with the next text was asked.
    async fn asked(
        access: Access,
        path: &Path,
        answers: &'static [&'static str],
    ) -> (Result<wire::Health, ClientError>, Vec<String>) {
        let listener = UnixListener::bind(path).expect("a socket");
        let serving = tokio::spawn(async move {
            let mut heads = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.expect("a client");
                let mut head = vec![0; 4096];
                let length = stream.read(&mut head).await.expect("a request");
                heads.push(String::from_utf8_lossy(&head[..length]).into_owned());
                stream.write_all(answer.as_bytes()).await.expect("written");
            }
            heads
        });
        let client = Client::new(access);
        let outcome = client.get("/healthz").await;
        let heads = tokio::time::timeout(ANSWER_TIMEOUT, serving).await.expect("all were asked for");
        (outcome, heads.expect("no panic"))
    }

    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"status\":\"ok\"}";
    const WANTS_TOKEN: &str = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 47\r\n\r\n{\"unauthorized\":{\"code\":401,\"message\":\"token\"}}";

    #[tokio::test]
    async fn a_token_is_sent_to_who_asks_for_it_and_to_nobody_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("token");
        std::fs::write(&file, "a-token\n").expect("written");
        let access = |socket: &str| {
            let path = directory.path().join(socket);
            let access = Access { token_file: Some(file.clone()), ..at(Address::Unix(path.clone())) };
            (access, path)
        };
        let (open, path) = access("open");
        let (outcome, heads) = asked(open, &path, &[OK]).await;
        assert!(outcome.is_ok() && !heads[0].contains("a-token"), "{heads:?}");
        let (closed, path) = access("closed");
        let (outcome, heads) = asked(closed, &path, &[WANTS_TOKEN, OK]).await;
        assert!(outcome.is_ok() && !heads[0].contains("a-token"), "{heads:?}");
        assert!(heads[1].contains("x-auth-token: a-token\r\n"), "{heads:?}");
        let (refusing, path) = access("refusing");
        let (outcome, _) = asked(refusing, &path, &[WANTS_TOKEN, WANTS_TOKEN]).await;
        assert!(matches!(outcome, Err(ClientError::Refused { status: StatusCode::UNAUTHORIZED, .. })));
    }

    async fn answer(text: &'static [u8]) -> Result<wire::Health, ClientError> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).expect("a socket");
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await.expect("a request");
            stream.write_all(text).await.expect("written");
        });
        Client::new(at(Address::Unix(path))).get("/healthz").await
    }

    #[tokio::test]
    async fn answers_faults_and_nonsense_are_told_apart() {
        let good = answer(b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"status\":\"ok\"}").await;
        assert_eq!(good.expect("an answer").status, "ok");
        let fault = b"HTTP/1.1 404 Not Found\r\ncontent-length: 49\r\n\r\n{\"itemNotFound\":{\"code\":404,\"message\":\"no such\"}}";
        assert!(matches!(answer(fault).await, Err(ClientError::Refused { message, .. }) if message == "no such"));
        for nonsense in [&b"SSH-2.0-x\r\n"[..], b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", b""] {
            assert!(matches!(answer(nonsense).await, Err(ClientError::NotUnderstood { .. })));
        }
    }

    #[tokio::test]
    async fn an_agent_that_is_not_there_is_told_with_what_to_do() {
        let client = Client::new(at(Address::Unix("/nonexistent/api.sock".into())));
        let error = client.get::<wire::Health>("/healthz").await.expect_err("nobody").to_string();
        assert!(error.contains("systemctl start targetwatch") && error.contains("/nonexistent/api.sock"), "{error}");
    }
}
