//! Services that cannot be reached, and missing credentials.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::daemon::Daemon;
use crate::gateway::{Gateway, Keys, target, workspace_for};
use crate::report::{assert_contains, assert_offline};
use crate::workspace::Workspace;

/// Number of connections that fill the queue of a listener with space for two.
const CONNECTIONS: usize = 8;

/// Keys for services that no request reaches.
fn any_keys() -> Keys {
    Keys::new("NOBODYHASTHISKEY", "nor-this-secret")
}

/// Asserts that `check s3` reports this reason, and a message with all these words.
async fn assert_check_fails(workspace: &Workspace, endpoint: &str, reason: &str, words: &[&str]) {
    let output = workspace.check_s3(endpoint, "backups", &[]).await;
    assert_eq!(output.code, 2, "{output:?}");
    assert_contains(&output.stdout, &[words, &[reason]].concat());
}

#[tokio::test]
async fn reason_when_name_is_unknown_or_port_closed() {
    let mut workspace = workspace_for(&any_keys());
    workspace.resolve_by_hosts_file_only();
    let daemon = Daemon::start(&workspace).await;
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        listener.local_addr().expect("an address").port()
    };
    let refused = format!("http://127.0.0.1:{port}");
    for (endpoint, reason, words) in [
        ("http://s3.nowhere.invalid", "name_not_resolved", &["s3.nowhere.invalid has no address", "DNS"][..]),
        (&*refused, "connection_refused", &["127.0.0.1 port", "start the service", "correct the port"]),
    ] {
        let id = daemon.create(target(endpoint, "backups")).await;
        let message = assert_offline(&daemon.check(&id).await, reason);
        assert_contains(&message, words);
        assert_check_fails(&workspace, endpoint, reason, words).await;
    }
}

#[tokio::test]
async fn connect_timeout_is_reported_within_the_deadline() {
    // The kernel drops connections beyond the full queue, as a firewall does.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    let listener = socket.listen(1).expect("listening");
    let address = listener.local_addr().expect("an address");
    let connections: Vec<_> = (0..CONNECTIONS).map(|_| tokio::spawn(TcpStream::connect(address))).collect();
    let workspace = workspace_for(&any_keys());
    workspace.configure("[probe]\ndeadline = \"1s\"\nfailures_before_offline = 1");
    let (daemon, id) = Daemon::with_target(&workspace, target(&format!("http://{address}"), "backups")).await;
    let report = daemon.check(&id).await;
    assert_eq!((&report["status"], &report["reason"]), (&"offline".into(), &"connect_timed_out".into()), "{report:#}");
    let message = report["message"].as_str().expect("a message");
    assert!(message.contains("within 1000 ms") && message.contains("firewall"), "{message}");
    assert_check_fails(&workspace, &format!("http://{address}"), "connect_timed_out", &["firewall"]).await;
    connections.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn missing_credentials_are_reported_with_their_path() {
    let gateway = Gateway::shared().await;
    let bucket = gateway.bucket().await;
    let workspace = gateway.workspace();
    let (daemon, id) = Daemon::with_target(&workspace, target(&gateway.endpoint, &bucket)).await;
    std::fs::remove_file(workspace.path("secret")).expect("removed");
    let message = assert_offline(&daemon.check(&id).await, "no_credentials");
    let secret = workspace.path("secret");
    assert_contains(&message, &[&*bucket, secret.to_str().expect("text"), "[[s3.credentials]]"]);
    let output = workspace.check_s3(&gateway.endpoint, &bucket, &[]).await;
    assert!(output.code == 2 && output.stdout.contains("no_credentials"), "{output:?}");
}
