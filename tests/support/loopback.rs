//! A TCP server on loopback that stops completely: no task outlives it, and nothing keeps listening.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

/// Maximum number of connections. Further ones are closed immediately.
pub const CONNECTIONS_MAX: usize = 256;

/// A listener and the tasks of its connections. Dropping it ends them as soon as the runtime runs.
pub struct Loopback {
    address: SocketAddr,
    /// Its drop is the signal to end.
    ending: oneshot::Sender<()>,
    accepting: JoinHandle<()>,
}

impl Loopback {
    /// Listens on `port` of 127.0.0.1 (0: any free one) and runs `serve` for each connection.
    ///
    /// # Errors
    /// When the port is not available.
    pub async fn start<F, S>(port: u16, serve: F) -> io::Result<Self>
    where
        F: Fn(TcpStream) -> S + Send + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        let (ending, ended) = oneshot::channel();
        let accepting = tokio::spawn(accept(listener, ended, serve));
        Ok(Self { address, ending, accepting })
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the listener and every connection, and returns when they are closed.
    pub async fn stop(self) {
        drop(self.ending);
        let _panicked_at_worst = self.accepting.await;
    }
}

async fn accept<F, S>(listener: TcpListener, mut ended: oneshot::Receiver<()>, serve: F)
where
    F: Fn(TcpStream) -> S,
    S: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut ended => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if connections.len() < CONNECTIONS_MAX => {
                    let _only_slower_without = stream.set_nodelay(true);
                    connections.spawn(serve(stream));
                }
                Ok(_) => {}
                // The connection went away while it was accepted, or descriptors ran out for now.
                Err(_) => tokio::task::yield_now().await,
            },
        }
    }
    drop(listener);
    connections.shutdown().await;
}
