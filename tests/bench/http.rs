//! A minimal HTTP client, with a connection for each request, as most pollers have, or with a persistent one.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Time limit of an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Time limit of the start of a server.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Polling interval while a server starts.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A loopback address with a port that was free a moment ago.
pub fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Waits until a server accepts connections.
pub async fn wait_for_listener(address: SocketAddr) -> anyhow::Result<()> {
    let polling = async {
        let mut ticks = tokio::time::interval(POLL_INTERVAL);
        while TcpStream::connect(address).await.is_err() {
            ticks.tick().await;
        }
    };
    tokio::time::timeout(START_TIMEOUT, polling).await.with_context(|| format!("nothing listens at {address}"))
}

/// An answer, and the time to its last byte from connecting, or from sending on a persistent connection.
pub struct Answer {
    pub headers: HeaderMap,
    pub body: Bytes,
    pub took: Duration,
}

/// Gets a path.
pub async fn get(address: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    exchange(address, Method::GET, path, "", Bytes::new()).await
}

/// Gets a path with a header field.
pub async fn get_with(address: SocketAddr, path: &str, header: &str) -> anyhow::Result<Answer> {
    exchange(address, Method::GET, path, header, Bytes::new()).await
}

/// Posts a body to a path, with a header field, or `""` for none.
pub async fn post(address: SocketAddr, path: &str, header: &str, body: impl Into<Bytes>) -> anyhow::Result<Answer> {
    exchange(address, Method::POST, path, header, body.into()).await
}

async fn exchange(
    address: SocketAddr,
    method: Method,
    path: &str,
    header: &str,
    body: Bytes,
) -> anyhow::Result<Answer> {
    let what = format!("{method} http://{address}{path}");
    let mut request = Request::builder().method(method).uri(path).header(http::header::HOST, address.to_string());
    if let Some((name, value)) = header.split_once(": ") {
        request = request.header(name, value);
    }
    if !body.is_empty() {
        request = request.header(http::header::CONTENT_TYPE, "application/json");
    }
    let request = request.body(Full::new(body))?;
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, async {
        let began = Instant::now();
        let mut connection = Connection::open(address).await?;
        let answer = connection.send(request).await?;
        anyhow::Ok(Answer { took: began.elapsed(), ..answer })
    });
    let answer = answer.await.with_context(|| format!("{what}: no answer within {} s", ANSWER_TIMEOUT.as_secs()))?;
    answer.context(what)
}

/// A persistent connection.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driving: JoinHandle<hyper::Result<()>>,
}

impl Connection {
    /// Connects to a server.
    pub async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        Ok(Self { sender, driving: tokio::spawn(connection) })
    }

    /// Sends a request and reads the answer.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        let began = Instant::now();
        self.sender.ready().await?;
        let (head, body) = self.sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        let took = began.elapsed();
        let is_good = head.status.is_success() || head.status == StatusCode::NOT_MODIFIED;
        ensure!(is_good, "{}: {}", head.status, String::from_utf8_lossy(&body));
        Ok(Answer { headers: head.headers, body, took })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driving.abort();
    }
}
