//! Services that are not there, and credentials that are not.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::daemon::Daemon;
use crate::gateway::{Gateway, Keys, target, workspace_for};
use crate::report::assert_offline;
use crate::workspace::Workspace;

/// Connections that fill the queue of a listener which takes two.
const FILLING: usize = 8;

fn no_matter_which() -> Keys {
    Keys::new("NOBODYHASTHISKEY", "nor-this-secret")
}

async fn check_is_offline(workspace: &Workspace, endpoint: &str, reason: &str, words: &[&str]) {
    let output = workspace.check_s3(endpoint, "backups", &[]).await;
    assert_eq!(output.code, 2, "{output:?}");
    for word in words.iter().chain([&reason]) {
        assert!(output.stdout.contains(word), "{word}: {output:?}");
    }
}

#[tokio::test]
async fn reason_when_name_is_unknown_or_port_closed() {
    let mut workspace = workspace_for(&no_matter_which());
    workspace.resolve_by_hosts_file_only();
    let agent = Daemon::start(&workspace).await;
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        listener.local_addr().expect("an address").port()
    };
    let refused = format!("http://127.0.0.1:{port}");
    for (endpoint, reason, words) in [
        ("http://s3.nowhere.invalid", "name_not_resolved", &["s3.nowhere.invalid has no address", "DNS"][..]),
        (&*refused, "connection_refused", &["127.0.0.1 port", "start the service", "correct the port"]),
    ] {
        let id = agent.create(target(endpoint, "backups")).await;
        let message = assert_offline(&agent.check(&id).await, reason);
        for word in words {
            assert!(message.contains(word), "{word}: {message}");
        }
        check_is_offline(&workspace, endpoint, reason, words).await;
    }
}

#[tokio::test]
async fn connect_timeout_is_reported_within_the_deadline() {
    // Its queue is filled, and the kernel drops what comes then, as a firewall would.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    let listener = socket.listen(1).expect("listening");
    let address = listener.local_addr().expect("an address");
    let filling: Vec<_> = (0..FILLING).map(|_| tokio::spawn(TcpStream::connect(address))).collect();
    let workspace = workspace_for(&no_matter_which());
    workspace.configure("[probe]\ndeadline = \"1s\"\nfailures_before_offline = 1");
    let agent = Daemon::start(&workspace).await;
    let id = agent.create(target(&format!("http://{address}"), "backups")).await;
    let report = agent.check(&id).await;
    assert_eq!((&report["status"], &report["reason"]), (&"offline".into(), &"connect_timed_out".into()), "{report:#}");
    let message = report["message"].as_str().expect("a sentence");
    assert!(message.contains("within 1000 ms") && message.contains("firewall"), "{message}");
    check_is_offline(&workspace, &format!("http://{address}"), "connect_timed_out", &["firewall"]).await;
    filling.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn missing_credentials_are_reported_with_their_path() {
    let gateway = Gateway::shared().await;
    let bucket = gateway.bucket().await;
    let workspace = gateway.workspace();
    let agent = Daemon::start(&workspace).await;
    let id = agent.create(target(&gateway.endpoint, &bucket)).await;
    std::fs::remove_file(workspace.path("secret")).expect("removed");
    let message = assert_offline(&agent.check(&id).await, "no_credentials");
    let secret = workspace.path("secret");
    for word in [&*bucket, secret.to_str().expect("text"), "[[s3.credentials]]"] {
        assert!(message.contains(word), "{word}: {message}");
    }
    let output = workspace.check_s3(&gateway.endpoint, &bucket, &[]).await;
    assert!(output.code == 2 && output.stdout.contains("no_credentials"), "{output:?}");
}
