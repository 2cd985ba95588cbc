//! A TCP proxy before etcd that loses answers or requests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What happens to requests that write, until one of them was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Loss {
    None,
    /// The request reaches etcd, and the connection ends before the answer.
    Answer,
    /// The connection ends before the request reaches etcd.
    Request,
}

/// A proxy that runs until it is dropped.
pub struct LossyProxy {
    pub url: String,
    loss: Arc<AtomicU8>,
    serving: JoinHandle<()>,
}

impl LossyProxy {
    /// Starts a proxy of the member at this URL.
    pub async fn start(url: &str) -> Self {
        let target: SocketAddr = url.trim_start_matches("http://").parse().expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let own = listener.local_addr().expect("an address");
        let loss = Arc::new(AtomicU8::new(Loss::None as u8));
        let state = loss.clone();
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay(client, target, state.clone()));
            }
        });
        Self { url: format!("http://{own}"), loss, serving }
    }

    /// Loses the next request that writes, or its answer.
    pub fn lose(&self, loss: Loss) {
        self.loss.store(loss as u8, Ordering::SeqCst);
    }
}

impl Drop for LossyProxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn relay(mut client: TcpStream, target: SocketAddr, loss: Arc<AtomicU8>) {
    let mut server = TcpStream::connect(target).await.expect("etcd listens");
    let (mut request, mut answer) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    // Once an answer is to be lost, it is awaited, and then the connection ends.
    let mut loses_answer = false;
    loop {
        tokio::select! {
            read = client.read(&mut request) => {
                let Ok(bytes @ 1..) = read else { return };
                if request[..bytes].windows(11).any(|part| part == b"request_put") {
                    let lost = loss.swap(Loss::None as u8, Ordering::SeqCst);
                    if lost == Loss::Request as u8 {
                        return;
                    }
                    loses_answer = lost == Loss::Answer as u8;
                }
                if server.write_all(&request[..bytes]).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut answer) => {
                let Ok(bytes @ 1..) = read else { return };
                if loses_answer || client.write_all(&answer[..bytes]).await.is_err() {
                    return;
                }
            }
        }
    }
}
