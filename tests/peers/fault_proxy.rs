//! A proxy in front of the gateway that injects faults: it answers instead of the gateway, never ends an answer, or
//! breaks off an answer.
//!
//! It works on bytes because most of its faults are not valid HTTP. Each connection has one request. Signatures
//! stay valid because the proxy does not change signed parts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// Interval between the bytes of a slow answer.
const SLOW_BYTE_INTERVAL: Duration = Duration::from_millis(50);

/// The fault that requests meet.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The proxy answers instead of the gateway. The first line of the head is the status, and the others are
    /// headers. Answers to HEAD have no body.
    Answer { head: String, body: String },
    /// The body of the answer never ends. HEAD requests are forwarded.
    EndlessBody,
    /// The head of the answer never ends.
    EndlessHead,
    /// The answer arrives one byte at a time and never ends.
    SlowBytes,
    /// The connection is reset in the middle of the answer. HEAD requests are forwarded.
    ResetMidBody,
    /// These bytes, which are not HTTP, are sent, and the connection is closed.
    Bytes(&'static str),
}

/// The running proxy.
pub struct FaultProxy {
    pub endpoint: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl FaultProxy {
    /// Starts a proxy with one fault in front of a plain endpoint.
    pub async fn start(endpoint: &str, fault: Fault) -> Self {
        let gateway = endpoint.strip_prefix("http://").expect("a plain endpoint").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        tokio::spawn({
            let heads = heads.clone();
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let (gateway, fault, heads) = (gateway.clone(), fault.clone(), heads.clone());
                    // An error means that the client disconnected, as some faults make it do.
                    tokio::spawn(async move { serve(client, &gateway, &fault, &heads).await });
                }
            }
        });
        Self { endpoint, heads }
    }

    /// The heads of all requests so far.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(mut client: TcpStream, gateway: &str, fault: &Fault, heads: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let (head, rest) = read_head(&mut client).await?;
    heads.lock().unwrap_or_else(PoisonError::into_inner).push(head.clone());
    let is_head = head.starts_with("HEAD ");
    match fault {
        Fault::EndlessBody | Fault::ResetMidBody if is_head => forward(client, gateway, &head, &rest).await,
        Fault::Answer { head, body } => {
            let lines = head.replace('\n', "\r\n");
            let length = body.len();
            let body = if is_head { "" } else { body };
            let answer = format!("HTTP/1.1 {lines}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
            client.write_all(answer.as_bytes()).await?;
            client.shutdown().await
        }
        Fault::EndlessBody => {
            client
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\n\r\n<?xml version=\"1.0\"?>")
                .await?;
            loop {
                client.write_all(&[b' '; 4096]).await?;
            }
        }
        Fault::EndlessHead => {
            client.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            loop {
                client.write_all(format!("X-More: {}\r\n", "x".repeat(1000)).as_bytes()).await?;
            }
        }
        Fault::SlowBytes => {
            client.write_all(b"HTTP/1.1 200 OK\r\nX-Slow: ").await?;
            loop {
                client.write_all(b"x").await?;
                // The slowness is the fault. It ends when the client disconnects.
                tokio::time::sleep(SLOW_BYTE_INTERVAL).await;
            }
        }
        Fault::ResetMidBody => {
            client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n<?xml").await?;
            // Without time to linger, the kernel resets the connection when it is closed (socket(7)).
            client.set_zero_linger()
        }
        Fault::Bytes(bytes) => {
            client.write_all(bytes.as_bytes()).await?;
            client.shutdown().await
        }
    }
}

/// Reads the head of a request. Also returns the part of the body that was read with it.
async fn read_head(client: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let mut read = Vec::new();
    loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = read.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&read).into_owned(), rest));
        }
        if client.read_buf(&mut read).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn forward(mut client: TcpStream, gateway: &str, head: &str, rest: &[u8]) -> std::io::Result<()> {
    let mut service = TcpStream::connect(gateway).await?;
    let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    service.write_all(head.as_bytes()).await?;
    service.write_all(rest).await?;
    copy_bidirectional(&mut client, &mut service).await.map(|_| ())
}
