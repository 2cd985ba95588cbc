//! The simplest client there is: a connection for each request, as pollers make it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// After this an answer is not slow but missing.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The body of an answer, and the time from connecting to its last byte.
pub struct Answer {
    pub body: Bytes,
    pub took: Duration,
}

/// Asks for a path.
pub async fn get(address: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    exchange(address, Method::GET, path, Bytes::new()).await
}

/// Sends a body to a path.
pub async fn post(address: SocketAddr, path: &str, body: impl Into<Bytes>) -> anyhow::Result<Answer> {
    exchange(address, Method::POST, path, body.into()).await
}

async fn exchange(address: SocketAddr, method: Method, path: &str, body: Bytes) -> anyhow::Result<Answer> {
    let what = format!("{method} http://{address}{path}");
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, address.to_string())
        .body(Full::new(body))?;
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, send(address, request)).await;
    answer.with_context(|| format!("{what}: no answer within {} s", ANSWER_TIMEOUT.as_secs()))?.context(what)
}

async fn send(address: SocketAddr, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
    let began = Instant::now();
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driving = tokio::spawn(connection);
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    let took = began.elapsed();
    driving.abort();
    ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
    Ok(Answer { body, took })
}
