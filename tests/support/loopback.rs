//! A TCP server on loopback that stops completely: no task and no listening socket outlives it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

/// Maximum number of connections. Further ones are closed immediately.
pub const CONNECTIONS_MAX: usize = 256;

/// A listener and the tasks of its connections. Dropping it ends them as soon as the runtime runs.
pub struct LoopbackServer {
    address: SocketAddr,
    /// Dropping it stops the server.
    stop: oneshot::Sender<()>,
    accepting: JoinHandle<()>,
}

impl LoopbackServer {
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
        let (stop, stopped) = oneshot::channel();
        let accepting = tokio::spawn(accept(listener, stopped, serve));
        Ok(Self { address, stop, accepting })
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the listener and every connection, and returns when they are closed.
    pub async fn stop(self) {
        drop(self.stop);
        // An error means that the task panicked, so it has ended too.
        let _ = self.accepting.await;
    }
}

async fn accept<F, S>(listener: TcpListener, mut stopped: oneshot::Receiver<()>, serve: F)
where
    F: Fn(TcpStream) -> S,
    S: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if connections.len() < CONNECTIONS_MAX => {
                    // An error only makes answers slower.
                    let _ = stream.set_nodelay(true);
                    connections.spawn(serve(stream));
                }
                Ok(_) => {}
                // The client disconnected while it was accepted, or no descriptor is free at the moment.
                Err(_) => tokio::task::yield_now().await,
            },
        }
    }
    drop(listener);
    connections.shutdown().await;
}
