//! An HTTP proxy from the environment (`HTTPS_PROXY` and others) between the agent and the gateway.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::daemon::Daemon;
use crate::gateway::{Gateway, target};
use crate::report::{assert_healthy, assert_offline, check_named};

/// The password of a proxy, which must appear in no output.
const PASSWORD: &str = "tunnelPasswordWithAnUnmistakableText";

/// The heads of requests that a proxy received.
type Heads = Arc<Mutex<Vec<String>>>;

/// Starts a proxy that opens tunnels (CONNECT, RFC 9110 §9.3.6). Returns its port and its requests.
async fn tunnels() -> (u16, Heads) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (port, heads) = (listener.local_addr().expect("an address").port(), Heads::default());
    let received = heads.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(tunnel(stream, received.clone()));
        }
    });
    (port, heads)
}

async fn tunnel(mut client: TcpStream, received: Heads) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let service = head.strip_prefix("CONNECT ")?.split(' ').next()?.to_owned();
    received.lock().ok()?.push(head);
    let mut service = TcpStream::connect(service).await.ok()?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok()?;
    copy_bidirectional(&mut client, &mut service).await.ok().map(|_| ())
}

#[tokio::test]
async fn tls_uses_environment_proxy_and_hides_its_password() {
    let gateway = Gateway::shared().await;
    let bucket = gateway.bucket().await;
    gateway.put(&bucket, "one", 4_321).await;
    for variable in ["HTTPS_PROXY", "ALL_PROXY"] {
        let (port, heads) = tunnels().await;
        let mut workspace = gateway.workspace_with(&format!("ca_bundle = \"{}\"", gateway.ca_bundle.display()));
        workspace.set_env(variable, &format!("http://somebody:{PASSWORD}@127.0.0.1:{port}"));
        // The other endpoint of the same gateway.
        workspace.set_env("NO_PROXY", "127.0.0.1");
        let daemon = Daemon::start_logging(&workspace, "trace").await;
        let id = daemon.create(target(&gateway.tls_endpoint, &bucket)).await;
        let report = daemon.check(&id).await;
        assert_healthy(&report);
        assert_eq!(report["used_bytes"], 4_321, "{report:#}");
        let detail = check_named(&report, "reachable")["detail"].as_str().expect("a detail");
        assert!(detail.contains(&format!("127.0.0.1 port {port} is the proxy")), "{detail}");
        let output = workspace.check_s3(&gateway.tls_endpoint, &bucket, &[]).await;
        assert_eq!(output.code, 0, "{output:?}");
        let tunnelled = heads.lock().expect("no panic").clone();
        assert!(
            !tunnelled.is_empty()
                && tunnelled.iter().all(|head| head.to_lowercase().contains("proxy-authorization: basic "))
        );
        let id = daemon.create(target(&gateway.endpoint, &bucket)).await;
        let near = daemon.check(&id).await;
        assert_healthy(&near);
        assert!(check_named(&near, "reachable")["detail"].is_null(), "{near:#}");
        assert_eq!(heads.lock().expect("no panic").len(), tunnelled.len(), "requests to NO_PROXY hosts used the proxy");
        let shown = format!("{report} {near} {} {} {}", daemon.log(), output.stdout, output.stderr);
        assert!(shown.contains("TRACE") && !shown.contains(PASSWORD), "the password is shown");
    }
}

#[tokio::test]
async fn unreachable_proxy_is_named() {
    let gateway = Gateway::shared().await;
    let bucket = gateway.bucket().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let mut workspace = gateway.workspace();
    workspace.set_env("HTTP_PROXY", &format!("http://127.0.0.1:{port}"));
    let (daemon, id) = Daemon::with_target(&workspace, target(&gateway.endpoint, &bucket)).await;
    let report = daemon.check(&id).await;
    let message = assert_offline(&report, "connection_refused");
    assert!(message.contains(&format!("127.0.0.1 port {port}")), "{message}");
    let detail = check_named(&report, "reachable")["detail"].as_str().expect("a detail");
    assert!(detail.contains("is the proxy that HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names"), "{detail}");
}
