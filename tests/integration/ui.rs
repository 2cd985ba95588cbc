//! `GET /ui` of the real binary: headers, protection, texts of others, and answers while a server hangs.

use hyper::header::{ACCEPT_ENCODING, AUTHORIZATION, HOST, HeaderName};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::daemon::{Daemon, with_timeout};
use crate::fleet::{address, aggregator, list_with};
use crate::http::{over_tcp, over_unix, request};
use crate::report::assert_contains;
use crate::storage::{nfs, nfs_target};
use crate::support::nfs_server::Behaviour;
use crate::workspace::{Workspace, set_mode};

/// An error of a hostile or broken S3 service. Messages of the agent quote its code.
const REFUSAL: &str = "<?xml version=\"1.0\"?><Error><Code>&lt;script&gt;alert(1)&lt;/script&gt;\u{202e}</Code><Message>no</Message></Error>";

/// A service that answers every request with [`REFUSAL`]. Returns its port.
async fn refusing_service() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = vec![0; 8192];
                let length = connection.read(&mut head).await.unwrap_or_default();
                // HEAD has no body, and then the agent asks with GET.
                let is_head = head[..length].starts_with(b"HEAD");
                let body = if is_head { "" } else { REFUSAL };
                let answer = format!(
                    "HTTP/1.1 400 Bad Request\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    if is_head { 0 } else { REFUSAL.len() }
                );
                let _ = connection.write_all(answer.as_bytes()).await;
            });
        }
    });
    port
}

#[tokio::test]
async fn page_has_strict_headers_and_is_whole() {
    let (_server, workspace) = nfs().await;
    let (daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    daemon.check(&id).await;
    for path in ["/ui", "/ui/", "/v1/ui", &format!("/ui/targets/{id}")] {
        let page = daemon.request("GET", path, None).await;
        assert_eq!(page.status, 200, "{page:?}");
        assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
        let policy = page.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-") && !policy.contains("script"), "{policy}");
        assert_eq!(page.header("cache-control"), "no-store");
        assert_eq!(page.header("x-frame-options"), "DENY");
        assert!(!page.headers.contains_key("refresh"), "not without being asked");
        assert_contains(&page.body, &["<html lang=\"en\">", "127.0.0.1:/backups", "available", " s ago"]);
        for absent in ["<script", "<link rel=\"stylesheet\"", "src=", "http-equiv", "style=\""] {
            assert!(!page.body.contains(absent), "{path}: {absent}");
        }
    }
    let reloading = daemon.request("GET", "/ui?refresh=30", None).await;
    assert_eq!(reloading.header("refresh"), "30");
}

#[tokio::test]
async fn page_answers_while_a_server_hangs() {
    let (server, workspace) = nfs().await;
    workspace.configure("[probe]\ndeadline = \"60s\"");
    let (daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    daemon.check(&id).await;
    server.set_behaviour(Behaviour::Silent);
    let hanging = tokio::spawn({
        let (address, path) = (daemon.address(), format!("/backup_targets/{id}/check"));
        async move { over_tcp(address, request("POST", &path, Vec::new())).await }
    });
    with_timeout("a call without an answer", server.unanswered_call()).await;
    for path in ["/ui", &format!("/ui/targets/{id}")] {
        assert_contains(&daemon.request("GET", path, None).await.body, &["127.0.0.1:/backups", "available"]);
    }
    assert!(!hanging.is_finished(), "the probe still hangs");
    hanging.abort();
}

#[tokio::test]
async fn texts_of_others_are_escaped() {
    let port = refusing_service().await;
    let daemon = Daemon::start(&Workspace::new()).await;
    let export = "127.0.0.1:/<script>alert(1)</script>&\"'";
    let scripted = daemon.create(json!({ "type": "nfs", "filesystem_export": export, "btt_name": "scripted" })).await;
    let bucket = json!({ "type": "s3", "s3_endpoint_url": format!("http://127.0.0.1:{port}"), "s3_bucket": "refused" });
    let refused = daemon.create(bucket).await;
    let report = daemon.check(&refused).await;
    let message = report["message"].as_str().expect("a message");
    assert!(message.contains("<script>alert(1)</script>"), "the service's code is in the report: {report:#}");
    daemon.check(&scripted).await;
    for path in ["/ui", &format!("/ui/targets/{scripted}"), &format!("/ui/targets/{refused}"), "/ui?q=%3Cscript%3E"] {
        let page = daemon.request("GET", path, None).await.body;
        assert!(!page.contains("<script") && !page.contains('\u{202e}'), "{path}: {page}");
        assert!(page.contains("&lt;script&gt;"), "{path}: {page}");
    }
}

#[tokio::test]
async fn unknown_target_and_wrong_parameter_have_pages_of_their_own() {
    let daemon = Daemon::start(&Workspace::new()).await;
    for (path, status, expected) in [
        ("/ui/targets/00000000-0000-4000-8000-000000000000", 404, "there is no backup target 00000000"),
        ("/ui/targets/%3Cscript%3E", 404, "there is no backup target &lt;script&gt;"),
        ("/ui/targets/%ff", 404, "there is no backup target"),
        ("/ui?status=dead", 400, "status: &quot;dead&quot; is not one of"),
    ] {
        let page = daemon.request("GET", path, None).await;
        assert_eq!((page.status, page.header("content-type")), (status, "text/html; charset=utf-8"), "{page:?}");
        assert_contains(&page.body, &[expected, "All backup targets"]);
    }
    let long = daemon.request("GET", &format!("/ui/targets/{}", "x".repeat(4096)), None).await;
    assert!(long.status == 404 && !long.body.contains(&"x".repeat(601)), "a message is one line: {long:?}");
    daemon.request("GET", "/ui/nothing", None).await.fault(404, "itemNotFound");
    daemon.request("POST", "/ui", None).await.fault(405, "badMethod");
}

#[tokio::test]
async fn page_is_compressed_for_a_browser_and_refused_to_pages_of_other_sites() {
    let daemon = Daemon::start(&Workspace::new()).await;
    let ask = async |headers: &[(HeaderName, &str)]| {
        let mut asked = request("GET", "/ui", Vec::new());
        for (name, value) in headers {
            asked.headers_mut().insert(name, value.parse().expect("a value"));
        }
        asked.headers_mut().remove("content-type");
        asked
    };
    let site = HeaderName::from_static("sec-fetch-site");
    for (headers, status) in [
        (&[(site.clone(), "none"), (HOST, "localhost:8781")][..], 200),
        (&[(site.clone(), "same-origin"), (HOST, "127.0.0.1:8781")], 200),
        (&[(site.clone(), "cross-site")], 403),
        (&[(HOST, "rebound.example")], 403),
    ] {
        assert_eq!(over_tcp(daemon.address(), ask(headers).await).await.status, status, "{headers:?}");
    }
    let raw = "GET /ui HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n";
    let mut connection = tokio::net::TcpStream::connect(daemon.address()).await.expect("connected");
    connection.write_all(raw.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    with_timeout("the page", connection.read_to_end(&mut answer)).await.expect("an answer");
    let head = String::from_utf8_lossy(&answer).to_lowercase();
    assert_contains(&head, &[&format!("vary: {ACCEPT_ENCODING}"), "content-encoding: gzip"]);
}

#[tokio::test]
async fn page_needs_the_token_of_the_api() {
    const TOKEN: &str = "0123456789abcdef-ui";
    let workspace = Workspace::new();
    let file = workspace.write("api.token", TOKEN);
    set_mode(&file, 0o600);
    workspace.configure(&format!("[api]\nauth = \"token\"\n[api.token]\nfile = {file:?}"));
    let daemon = Daemon::start(&workspace).await;
    daemon.request("GET", "/ui", None).await.fault(401, "unauthorized");
    let mut authorized = request("GET", "/ui", Vec::new());
    authorized.headers_mut().insert(AUTHORIZATION, format!("Bearer {TOKEN}").parse().expect("a value"));
    assert_eq!(over_tcp(daemon.address(), authorized).await.status, 200);
    let over_socket = over_unix(&workspace.path("api.sock"), request("GET", "/ui", Vec::new())).await;
    assert_eq!(over_socket.status, 200, "the socket needs no token");
}

#[tokio::test]
async fn page_is_off_where_other_hosts_reach_the_api_unless_it_is_asked_for() {
    for (ui, status) in [("", 404), ("[ui]\nenabled = true", 200)] {
        let workspace = Workspace::new();
        let socket = workspace.path("api.sock");
        workspace.configure(&format!(
            "[api]\nallow_unauthenticated_remote = true\nlisten = [\"127.0.0.1:0\", \"0.0.0.0:0\", \"unix:{}\"]\n{ui}",
            socket.display()
        ));
        let daemon = Daemon::start(&workspace).await;
        assert_eq!(daemon.request("GET", "/ui", None).await.status, status, "{ui}");
        let description = daemon.get("/openapi.json").await;
        assert_eq!(description["paths"]["/ui"].is_object(), status == 200, "{ui}");
    }
}

#[tokio::test]
async fn fleet_page_has_strict_headers_and_is_whole() {
    let (_server, workspace) = nfs().await;
    let (agent, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    agent.check(&id).await;
    let nodes = [address(&agent), "http://127.0.0.1:9".to_owned()];
    let workspace = aggregator(&nodes, "available_when = \"any\"");
    let fleet = Daemon::start_aggregator(&workspace).await;
    let unpolled = fleet.request("GET", "/ui/fleet", None).await;
    assert!(unpolled.status == 200 || unpolled.body.contains("have not been polled yet"), "{unpolled:?}");
    let list = list_with(&fleet, "the target", |list| list["backup_targets"][0]["nodes"]["available"] == 1).await;
    let in_fleet = list["backup_targets"][0]["id"].as_str().expect("text");
    for path in
        ["/ui/fleet", "/v1/ui/fleet/", &format!("/ui/fleet/targets/{in_fleet}"), &format!("/ui/fleet/targets/{id}")]
    {
        let page = fleet.request("GET", path, None).await;
        assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"), "{path}");
        let policy = page.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-") && !policy.contains("script"), "{policy}");
        assert_eq!((page.header("cache-control"), page.header("x-frame-options")), ("no-store", "DENY"));
        assert_contains(&page.body, &["127.0.0.1:/backups", "1 of 2 nodes answer", "1 of 2", "127.0.0.1:9"]);
        for absent in ["<script", "src=", "http-equiv", "style=\""] {
            assert!(!page.body.contains(absent), "{path}: {absent}");
        }
    }
    assert_eq!(fleet.request("GET", "/ui/fleet?refresh=30", None).await.header("refresh"), "30");
    let start = fleet.request("GET", "/ui", None).await;
    assert_eq!((start.status, start.header("location")), (303, "/ui/fleet"));
    for (path, status, words) in [
        ("/ui/fleet?status=dead", 400, "status: &quot;dead&quot; is not one of: offline"),
        ("/ui/fleet/targets/none", 404, "is not the id of a target"),
    ] {
        let page = fleet.request("GET", path, None).await;
        assert!(page.status == status && page.body.contains(words), "{path}: {page:?}");
    }
    let foreign = with_timeout("an answer", async {
        let mut request = request("GET", "/ui/fleet", Vec::new());
        request.headers_mut().insert(HOST, "attacker.example".parse().expect("a name"));
        over_tcp(fleet.address(), request).await
    });
    assert_eq!(foreign.await.status, 403, "DNS rebinding");
}
