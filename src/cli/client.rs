//! The client: HTTP/1.1 to the agent, over its Unix socket or TCP, every wait and answer bounded.

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::terminal::plain;
use crate::api::wire;

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
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        let uri: Option<Uri> = text.parse().ok();
        let authority = uri.filter(|uri| uri.scheme_str() == Some("http") && uri.path() == "/");
        let authority = authority.and_then(|uri| uri.authority().cloned()).filter(|found| found.port_u16().is_some());
        authority
            .map(|authority| Self::Tcp(authority.to_string()))
            .ok_or_else(|| "expected unix:/path or http://host:port".to_owned())
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
            Self::Tcp(authority) => write!(formatter, "http://{authority}"),
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
    /// The agent refused.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// What the agent says.
        message: String,
    },
}

/// A client of one agent.
#[derive(Debug, Clone)]
pub struct Client {
    address: Option<Address>,
}

impl Client {
    /// A client of the agent at an address, or where an agent is by default.
    #[must_use]
    pub fn new(address: Option<Address>) -> Self {
        Self { address }
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
        let Some(address) = &self.address else {
            // The socket of the unit first: where it is, it is the one that is meant.
            let socket = Address::Unix(DEFAULT_SOCKET.into());
            return match within(timeout, &socket, ask(&socket, method.clone(), path, body.clone())).await {
                Err(ClientError::NotRunning { .. } | ClientError::NotPermitted { .. }) => {
                    let tcp = Address::Tcp(DEFAULT_AUTHORITY.to_owned());
                    within(timeout, &tcp, ask(&tcp, method, path, body)).await
                }
                outcome => outcome,
            };
        };
        within(timeout, address, ask(address, method, path, body)).await
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

async fn ask(address: &Address, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
    match address {
        Address::Unix(socket) => {
            over(address, connected(address, connect_unix(socket).await)?, method, path, body).await
        }
        Address::Tcp(authority) => {
            over(address, connected(address, TcpStream::connect(authority).await)?, method, path, body).await
        }
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
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<Bytes, ClientError> {
    let odd = |detail: String| ClientError::NotUnderstood { address: address.clone(), detail: plain(&detail) };
    let host = match address {
        Address::Unix(_) => "localhost",
        Address::Tcp(authority) => authority,
    };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| odd(error.to_string()))?;
    let driving = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, host)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(|error| odd(error.to_string()))?;
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
    fn addresses_are_sockets_or_plain_http() {
        assert_eq!("unix:/run/x".parse(), Ok(Address::Unix("/run/x".into())));
        assert_eq!("http://[::1]:8781".parse(), Ok(Address::Tcp("[::1]:8781".to_owned())));
        for bad in ["", "host", "https://host:1", "http://host", "http://host:1/path"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
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
        Client::new(Some(Address::Unix(path))).get("/healthz").await
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
        let client = Client::new(Some(Address::Unix("/nonexistent/api.sock".into())));
        let error = client.get::<wire::Health>("/healthz").await.expect_err("nobody").to_string();
        assert!(error.contains("systemctl start targetwatch") && error.contains("/nonexistent/api.sock"), "{error}");
    }
}
