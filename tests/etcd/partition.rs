//! The network between the members of a cluster, from which one member can be cut off.
//!
//! Each member is reached through a proxy. Members name themselves in their requests, so the proxy knows both ends.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Header field of a request with the id of the member that sends it.
const SENDER: &str = "x-server-from: ";

/// Largest head of a request.
const HEAD_MAX_BYTES: usize = 1 << 14;

/// A member that is cut off: its position and its id.
type Isolated = Option<(usize, u64)>;

/// The proxies of all members, which run until it is dropped.
pub struct PeerNetwork {
    /// Addresses of the proxies, in the order of the members.
    pub addresses: Vec<SocketAddr>,
    isolated: watch::Sender<Isolated>,
    serving: Vec<JoinHandle<()>>,
}

impl PeerNetwork {
    /// Starts a proxy before each of these members.
    pub async fn start(members: &[SocketAddr]) -> Self {
        let isolated = watch::Sender::new(None);
        let (mut addresses, mut serving) = (Vec::new(), Vec::new());
        for (position, member) in members.iter().copied().enumerate() {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            addresses.push(listener.local_addr().expect("an address"));
            let isolated = isolated.clone();
            serving.push(tokio::spawn(async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(relay(client, member, position, isolated.subscribe()));
                }
            }));
        }
        Self { addresses, isolated, serving }
    }

    /// Cuts a member off from the others, or connects all of them again.
    pub fn isolate(&self, member: Isolated) {
        self.isolated.send_replace(member);
    }
}

impl Drop for PeerNetwork {
    fn drop(&mut self) {
        for task in &self.serving {
            task.abort();
        }
    }
}

async fn relay(mut client: TcpStream, member: SocketAddr, position: usize, mut isolated: watch::Receiver<Isolated>) {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < HEAD_MAX_BYTES {
        let Ok(1..) = client.read_buf(&mut head).await else { return };
    }
    let text = String::from_utf8_lossy(&head).to_lowercase();
    let sender = text.split_once(SENDER).and_then(|(_, rest)| rest.lines().next());
    let sender = sender.and_then(|id| u64::from_str_radix(id.trim(), 16).ok());
    let is_cut = |isolated: &Isolated| isolated.is_some_and(|(at, id)| at == position || Some(id) == sender);
    if is_cut(&isolated.borrow()) {
        return;
    }
    let Ok(mut server) = TcpStream::connect(member).await else { return };
    if server.write_all(&head).await.is_err() {
        return;
    }
    tokio::select! {
        // An error ends the connection.
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = isolated.wait_for(is_cut) => {}
    }
}
