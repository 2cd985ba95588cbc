//! A proxy in front of the gateway that does what the gateway cannot be made to do: answers in its workspace,
//! never ends an answer, or ends it in the middle.
//!
//! It works on bytes and not on messages, since most of its faults are no HTTP. Each connection carries
//! one request; signatures stay valid, since nothing that is signed is changed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// How often an answer that never ends goes on.
const DRIP: Duration = Duration::from_millis(50);

/// What is done to requests.
#[derive(Debug, Clone)]
pub enum Fault {
    /// They are answered in the gateway's workspace: with this status line and these headers, a header a
    /// line, and with this body, which an answer to HEAD does not have.
    Answer { head: String, body: String },
    /// All but HEAD, which passes, are answered with a body that never ends.
    EndlessBody,
    /// The head of the answer never ends.
    EndlessHead,
    /// The answer comes a byte at a time, and never to its end.
    SlowBytes,
    /// All but HEAD, which passes, get half of an answer, and then a reset.
    ResetMidBody,
    /// These bytes come, which are no HTTP, and the connection is closed.
    Bytes(&'static str),
}

/// The running proxy.
pub struct FaultProxy {
    pub endpoint: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl FaultProxy {
    /// A proxy to the service at a plain endpoint, with one fault.
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
                    // It ends with an error when its client leaves, as some faults have it do.
                    tokio::spawn(async move { serve(client, &gateway, &fault, &heads).await });
                }
            }
        });
        Self { endpoint, heads }
    }

    /// The heads of all requests that came.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(mut client: TcpStream, gateway: &str, fault: &Fault, heads: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let (head, rest) = read_head(&mut client).await?;
    heads.lock().unwrap_or_else(PoisonError::into_inner).push(head.clone());
    let is_head = head.starts_with("HEAD ");
    match fault {
        Fault::EndlessBody | Fault::ResetMidBody if is_head => pass_on(client, gateway, &head, &rest).await,
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
                // The fault is the slowness itself; it ends when the client leaves.
                tokio::time::sleep(DRIP).await;
            }
        }
        Fault::ResetMidBody => {
            client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n<?xml").await?;
            // What it got and did not read makes the kernel reset a connection that is closed; with no
            // time to linger it does so in any case.
            client.set_zero_linger()
        }
        Fault::Bytes(bytes) => {
            client.write_all(bytes.as_bytes()).await?;
            client.shutdown().await
        }
    }
}

/// Reads up to the end of a request's head; what came after it is of its body.
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

async fn pass_on(mut client: TcpStream, gateway: &str, head: &str, rest: &[u8]) -> std::io::Result<()> {
    let mut service = TcpStream::connect(gateway).await?;
    let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    service.write_all(head.as_bytes()).await?;
    service.write_all(rest).await?;
    copy_bidirectional(&mut client, &mut service).await.map(|_| ())
}
