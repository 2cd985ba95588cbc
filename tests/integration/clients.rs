//! Slow and silent clients: they delay no other client.

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::daemon::Daemon;
use crate::storage::nfs_target;
use crate::workspace::Workspace;

/// Number of slow clients at the same time.
const SLOW_CLIENTS: usize = 200;

/// Connects clients that send only the first part of a request.
async fn slow_clients(daemon: &Daemon, beginning: &str) -> Vec<TcpStream> {
    let mut clients = Vec::new();
    for _ in 0..SLOW_CLIENTS {
        let mut client = TcpStream::connect(daemon.address()).await.expect("connected");
        client.write_all(beginning.as_bytes()).await.expect("written");
        clients.push(client);
    }
    clients
}

/// Asserts that all clients are still connected and without an answer.
fn assert_waiting(clients: &[TcpStream]) {
    for client in clients {
        let read = client.try_read(&mut [0; 1]);
        assert!(read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    }
}

#[tokio::test]
async fn clients_with_incomplete_headers_delay_no_answer() {
    let daemon = Daemon::start(&Workspace::new()).await;
    let clients = slow_clients(&daemon, "GET /backup_targets HTTP/1.1\r\nhost: localhost\r\nx-sl").await;
    let id = daemon.create(nfs_target("/one")).await;
    assert_eq!(daemon.show(&id).await["status"], "offline");
    daemon.delete(&id).await;
    assert_waiting(&clients);
}

#[tokio::test]
async fn clients_with_incomplete_bodies_delay_no_answer() {
    let daemon = Daemon::start(&Workspace::new()).await;
    let head = "POST /backup_targets HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"backup_target\": {";
    let clients = slow_clients(&daemon, head).await;
    daemon.create(nfs_target("/one")).await;
    assert_eq!(daemon.targets().await.len(), 1);
    assert_waiting(&clients);
}

#[tokio::test]
async fn stops_promptly_while_clients_are_slow() {
    let mut daemon = Daemon::start(&Workspace::new()).await;
    let clients = slow_clients(&daemon, "GET /backup_targets HTTP/1.1\r\n").await;
    assert_waiting(&clients);
    let took = daemon.stop().await;
    assert!(took < std::time::Duration::from_secs(2), "{took:?}");
}
