//! An HTTP client with one connection for each request, and raw bytes for malformed requests.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::daemon::with_timeout;

/// An answer of the API, and the time from connecting to its last byte.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
    pub took: Duration,
}

impl Answer {
    /// Parses the body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("expected JSON ({error}): {self:?}"))
    }

    /// A header field, which must exist.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("{name} is missing: {self:?}")).to_str().expect("text")
    }

    /// The message of a fault, which must have this status and name, and the form that OpenStack clients parse.
    pub fn fault(&self, status: u16, name: &str) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/json");
        let body = self.json();
        let faults = body.as_object().expect("an object");
        assert_eq!(faults.keys().collect::<Vec<_>>(), [name], "{self:?}");
        let fault = faults[name].as_object().expect("an object");
        assert_eq!(fault.keys().collect::<Vec<_>>(), ["code", "message"], "{self:?}");
        assert_eq!(fault["code"], status, "{self:?}");
        fault["message"].as_str().expect("a message").to_owned()
    }
}

/// Builds a request.
pub fn request(method: &str, path: &str, body: Vec<u8>) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(path).header("host", "localhost");
    request.header("content-type", "application/json").body(Full::from(body)).expect("a request")
}

/// Sends a request over TCP.
pub async fn over_tcp(address: SocketAddr, request: Request<Full<Bytes>>) -> Answer {
    exchange(TcpStream::connect(address), request).await
}

/// Sends a request over a Unix socket.
pub async fn over_unix(socket: &Path, request: Request<Full<Bytes>>) -> Answer {
    exchange(UnixStream::connect(socket), request).await
}

async fn exchange<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    connecting: impl Future<Output = std::io::Result<S>>,
    request: Request<Full<Bytes>>,
) -> Answer {
    let began = Instant::now();
    let stream = connecting.await.expect("connected");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    let answer = sender.send_request(request).await.expect("an answer");
    let (head, body) = answer.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    let took = began.elapsed();
    let body = String::from_utf8(body.into()).expect("text");
    Answer { status: head.status.as_u16(), headers: head.headers, body, took }
}

/// Sends raw bytes, and returns what the agent sends until it closes the connection.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let stream = TcpStream::connect(address).await.expect("connected");
    let (mut reading, mut writing) = stream.into_split();
    let write = async {
        // The agent may close before it has read everything. Its answer still counts.
        let _ = writing.write_all(bytes).await;
    };
    let mut answer = Vec::new();
    let read = async { while let Ok(1..) = reading.read_buf(&mut answer).await {} };
    with_timeout("the end of the connection", async { tokio::join!(write, read) }).await;
    String::from_utf8(answer).expect("text")
}
