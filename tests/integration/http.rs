//! A client: one request a connection, and bytes as they are for what no client would send.

use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::daemon::in_time;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("JSON was expected ({error}): {self:?}"))
    }

    /// A header.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("{name} is missing: {self:?}")).to_str().expect("text")
    }

    /// The message of a fault, which must be of this status and name and have the form that
    /// OpenStack's clients parse.
    pub fn fault(&self, status: u16, name: &str) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/json");
        let body = self.json();
        let faults = body.as_object().expect("an object");
        assert_eq!(faults.keys().collect::<Vec<_>>(), [name], "{self:?}");
        let fault = faults[name].as_object().expect("an object");
        assert_eq!(fault.keys().collect::<Vec<_>>(), ["code", "message"], "{self:?}");
        assert_eq!(fault["code"], status, "{self:?}");
        fault["message"].as_str().expect("a text").to_owned()
    }
}

/// A request.
pub fn request(method: &str, path: &str, body: Vec<u8>) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(path).header("host", "localhost");
    request.header("content-type", "application/json").body(Full::from(body)).expect("a request")
}

/// Asks over TCP.
pub async fn over_tcp(address: SocketAddr, request: Request<Full<Bytes>>) -> Answer {
    exchange(TcpStream::connect(address).await.expect("connected"), request).await
}

/// Asks over a Unix socket.
pub async fn over_unix(socket: &Path, request: Request<Full<Bytes>>) -> Answer {
    exchange(UnixStream::connect(socket).await.expect("connected"), request).await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Answer {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    let answer = sender.send_request(request).await.expect("an answer");
    let (head, body) = answer.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    let body = String::from_utf8(body.into()).expect("text");
    Answer { status: head.status.as_u16(), headers: head.headers, body }
}

/// Sends bytes as they are and gives what comes back until the agent closes the connection.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let stream = TcpStream::connect(address).await.expect("connected");
    let (mut reading, mut writing) = stream.into_split();
    let write = async {
        // The agent may close before it has read everything: what it then said is what counts.
        let _ = writing.write_all(bytes).await;
    };
    let mut answer = Vec::new();
    let read = async {
        let mut part = [0; 4096];
        while let Ok(count @ 1..) = reading.read(&mut part).await {
            answer.extend_from_slice(&part[..count]);
        }
    };
    in_time("the end of the connection", async { tokio::join!(write, read) }).await;
    String::from_utf8(answer).expect("text")
}
