//! A TCP proxy in front of etcd that loses answers or requests, or holds one for some time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::daemon::with_timeout;

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

/// Begin of a write of a key in `/fleet/v1/facts`, as the JSON gateway of etcd encodes it.
const FACT_WRITE: &str = r#""request_put":{"key":"L2ZsZWV0L3YxL2ZhY3Rz"#;

/// What happens to requests that write facts.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Hold {
    /// They pass.
    None,
    /// The next one will be held.
    Next,
    /// One is held.
    Held,
    /// The held one is sent to etcd.
    Released,
    /// The answer of etcd to the held one.
    Answered(String),
}

/// A proxy that runs until it is dropped.
pub struct LossyProxy {
    pub url: String,
    loss: Arc<AtomicU8>,
    hold: watch::Sender<Hold>,
    serving: JoinHandle<()>,
}

impl LossyProxy {
    /// Starts a proxy of the member at this URL.
    pub async fn start(url: &str) -> Self {
        let target: SocketAddr = url.trim_start_matches("http://").parse().expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let own = listener.local_addr().expect("an address");
        let loss = Arc::new(AtomicU8::new(Loss::None as u8));
        let (state, hold) = (loss.clone(), watch::Sender::new(Hold::None));
        let holding = hold.clone();
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay(client, target, state.clone(), holding.clone()));
            }
        });
        Self { url: format!("http://{own}"), loss, hold, serving }
    }

    /// Loses the next request that writes, or its answer.
    pub fn lose(&self, loss: Loss) {
        self.loss.store(loss as u8, Ordering::SeqCst);
    }

    /// Holds the next request that writes a fact, and waits for it.
    pub async fn hold_fact(&self) {
        self.hold.send_replace(Hold::Next);
        let is_held = async { self.hold.subscribe().wait_for(|hold| *hold == Hold::Held).await.is_ok() };
        assert!(with_timeout("a fact", is_held).await);
    }

    /// Sends the request to etcd, and returns the answer.
    pub async fn release(&self) -> String {
        self.hold.send_replace(Hold::Released);
        let mut state = self.hold.subscribe();
        let answered = async {
            let state = state.wait_for(|hold| matches!(hold, Hold::Answered(_))).await.expect("the proxy runs");
            match &*state {
                Hold::Answered(answer) => answer.clone(),
                state => panic!("{state:?} instead of an answer"),
            }
        };
        with_timeout("the answer of etcd", answered).await
    }
}

impl Drop for LossyProxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn relay(mut client: TcpStream, target: SocketAddr, loss: Arc<AtomicU8>, hold: watch::Sender<Hold>) {
    let mut server = TcpStream::connect(target).await.expect("etcd listens");
    let (mut request, mut answer) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    // Once an answer is to be lost, it is awaited, and then the connection ends.
    let mut loses_answer = false;
    loop {
        tokio::select! {
            read = client.read(&mut request) => {
                let Ok(bytes @ 1..) = read else { return };
                let writes_fact = request[..bytes].windows(FACT_WRITE.len()).any(|part| part == FACT_WRITE.as_bytes());
                let take = |hold: &mut Hold| *hold == Hold::Next && { *hold = Hold::Held; true };
                let is_held = writes_fact && hold.send_if_modified(take);
                if is_held && hold.subscribe().wait_for(|hold| *hold == Hold::Released).await.is_err() {
                    return;
                }
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
                if is_held {
                    let Ok(bytes @ 1..) = server.read(&mut answer).await else { return };
                    hold.send_replace(Hold::Answered(String::from_utf8_lossy(&answer[..bytes]).into_owned()));
                    if client.write_all(&answer[..bytes]).await.is_err() {
                        return;
                    }
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
