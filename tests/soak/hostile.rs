//! Clients that send malformed, oversized, slow or no requests. Any answer is right, as long as the other clients
//! are served.

use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::Load;

/// Number of hostile clients.
const CLIENTS: usize = 8;

/// Connections that one client holds open, far below the agent's limit for all clients.
const HELD_CONNECTIONS: usize = 50;

/// Time for which connections are held open.
const HELD: Duration = Duration::from_millis(500);

/// Time for which a hostile client waits for an answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// Pause between two attacks of one client.
const PAUSE: Duration = Duration::from_millis(10);

/// Maximum size of a body that the agent accepts, in bytes.
const BODY_MAX_BYTES: usize = 1 << 20;

/// Starts all hostile clients.
pub fn spawn(tasks: &mut JoinSet<()>, address: SocketAddr, load: &Load, random: &mut StdRng) {
    for _ in 0..CLIENTS {
        let (mut load, mut random) = (load.clone(), StdRng::from_rng(random));
        tasks.spawn(async move {
            while load.runs() {
                attack(address, &mut load, &mut random).await;
                load.pause(PAUSE).await;
            }
        });
    }
}

async fn attack(address: SocketAddr, load: &mut Load, random: &mut StdRng) {
    let attack = random.random_range(0..11);
    let bytes = match attack {
        0 => hold_connections(address, load, "").await,
        1 => hold_connections(address, load, "GET /backup_targets HTTP/1.1\r\nhost: localhost\r\nx-slow: ").await,
        2 => {
            let beginning = format!("{}{{", post_head(1000));
            hold_connections(address, load, &beginning).await
        }
        3 => Some((0..random.random_range(1..4096)).map(|_| random.next_u32() as u8).collect()),
        4 => Some(post(&[b' '; BODY_MAX_BYTES + 1])),
        5 => Some(post("[".repeat(100_000).as_bytes())),
        6 => Some(post(large_metadata(random).as_bytes())),
        7 => Some(
            format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "x".repeat(random.random_range(1..100_000)))
                .into_bytes(),
        ),
        8 => {
            let fields: String = (0..random.random_range(1..5000)).map(|number| format!("x-{number}: y\r\n")).collect();
            Some(format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n").into_bytes())
        }
        // Lists that nobody reads.
        9 => hold_connections(address, load, "GET /backup_targets/detail HTTP/1.1\r\nhost: localhost\r\n\r\n").await,
        _ => {
            let one = "GET /backup_targets/detail HTTP/1.1\r\nhost: localhost\r\n\r\n";
            Some(one.repeat(100).into_bytes())
        }
    };
    if let Some(bytes) = bytes {
        // Half of the clients disconnect without reading the whole answer.
        let patience = if random.random_bool(0.5) { PATIENCE } else { Duration::from_millis(1) };
        let _ = tokio::time::timeout(patience, exchange(address, &bytes)).await;
    }
}

/// A target that the agent refuses, with metadata of up to the maximum size of a body.
fn large_metadata(random: &mut StdRng) -> String {
    let value = "v".repeat(random.random_range(1..BODY_MAX_BYTES - 1024));
    let target = json!({ "type": "nfs", "filesystem_export": "not an export", "metadata": { "note": value } });
    json!({ "backup_target": target }).to_string()
}

fn post(body: &[u8]) -> Vec<u8> {
    [post_head(body.len()).as_bytes(), body].concat()
}

/// The head of a creation that passes the protection against web pages, so that the agent reads the body.
fn post_head(length: usize) -> String {
    format!(
        "POST /backup_targets HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    )
}

/// Opens connections with a request or its beginning, reads nothing, and closes them later.
async fn hold_connections(address: SocketAddr, load: &mut Load, beginning: &str) -> Option<Vec<u8>> {
    let mut held = Vec::new();
    for _ in 0..HELD_CONNECTIONS {
        // The agent may refuse them.
        let Ok(mut stream) = TcpStream::connect(address).await else { break };
        let _ = stream.write_all(beginning.as_bytes()).await;
        held.push(stream);
    }
    load.pause(HELD).await;
    None
}

/// Sends raw bytes, and returns what the agent sends until it closes the connection.
pub async fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    if let Ok(mut stream) = TcpStream::connect(address).await {
        let (mut reading, mut writing) = stream.split();
        // The agent may close before it has read everything. Its answer still counts.
        let _ = tokio::join!(writing.write_all(bytes), reading.read_to_end(&mut answer));
    }
    answer
}
