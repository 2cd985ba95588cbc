//! `GET /metrics` of the real binary: content, protection, and the addresses of `[metrics] listen`.

use std::net::SocketAddr;

use http_body_util::Full;
use hyper::Request;
use nix::sys::signal::Signal;

use crate::daemon::{Daemon, with_timeout};
use crate::documents::read;
use crate::http::{over_tcp, over_unix, request};
use crate::promtool;
use crate::report::assert_contains;
use crate::storage::{nfs, nfs_target};
use crate::support::nfs_server::Behaviour;
use crate::workspace::{Workspace, set_mode};

const TOKEN: &str = "0123456789abcdef-metrics";

/// A GET request with a token.
fn authorized(path: &str, token: &str) -> Request<Full<bytes::Bytes>> {
    let mut request = request("GET", path, Vec::new());
    let value = format!("Bearer {token}").parse().expect("a value");
    request.headers_mut().insert(hyper::header::AUTHORIZATION, value);
    request
}

/// Adds an address of the metrics with a token to a workspace.
fn with_metrics_token(workspace: &Workspace) {
    set_mode(&workspace.write("metrics.token", TOKEN), 0o600);
    let directory = workspace.path("");
    workspace.configure(&format!(
        "[metrics]\nlisten = [\"127.0.0.2:0\"]\ntoken_file = \"{}metrics.token\"",
        directory.display()
    ));
}

/// The address of `[metrics] listen`, which the agent logs.
async fn metrics_address(daemon: &Daemon) -> SocketAddr {
    let line = daemon.wait_for_log("serving the metrics").await;
    line.rsplit("listen=").next().expect("an address").trim().parse().expect("an address")
}

#[tokio::test]
async fn metrics_show_targets_while_their_server_hangs() {
    let (server, workspace) = nfs().await;
    workspace.configure("[probe]\ndeadline = \"60s\"");
    let (daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    daemon.check(&id).await;
    let healthy = daemon.request("GET", "/metrics", None).await.body;
    let available = "targetwatch_target_available{export=\"127.0.0.1:/backups\"}";
    assert_contains(&healthy, &[&format!("{available} 1"), "targetwatch_target_size_bytes{", "targetwatch_targets{"]);

    server.set_behaviour(Behaviour::Silent);
    let hanging = tokio::spawn({
        let address = daemon.address();
        let path = format!("/backup_targets/{id}/check");
        async move { over_tcp(address, request("POST", &path, Vec::new())).await }
    });
    with_timeout("a call without an answer", server.unanswered_call()).await;
    let scraped = daemon.request("GET", "/metrics", None).await;
    assert_contains(&scraped.body, &[&format!("{available} 1"), "targetwatch_target_size_bytes{"]);
    assert!(!hanging.is_finished(), "the probe still hangs");
    hanging.abort();
}

#[tokio::test]
async fn metrics_are_accepted_by_promtool() {
    if !promtool::is_installed() {
        return;
    }
    let (_server, workspace) = nfs().await;
    let (daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    daemon.check(&id).await;
    let scraped = daemon.request("GET", "/metrics", None).await.body;
    let golden = ["metrics.prom", "fleet-metrics.prom"].map(|name| read(format!("tests/fixtures/{name}")));
    for exposition in [scraped].into_iter().chain(golden) {
        assert_eq!(promtool::run(&["check", "metrics"], &exposition).await.as_deref(), Ok(""));
    }
}

#[tokio::test]
async fn metrics_token_allows_only_the_metrics() {
    let workspace = Workspace::new();
    with_metrics_token(&workspace);
    let daemon = Daemon::start(&workspace).await;
    let metrics = metrics_address(&daemon).await;
    for address in [daemon.address(), metrics] {
        let answer = over_tcp(address, authorized("/metrics", TOKEN)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.header("content-type").starts_with("text/plain; version=0.0.4"));
        let refused = over_tcp(address, request("GET", "/metrics", Vec::new())).await;
        assert_contains(&refused.fault(401, "unauthorized"), &["[metrics] token_file", "Authorization: Bearer"]);
        assert_eq!(refused.header("www-authenticate"), "Bearer");
        let wrong = over_tcp(address, authorized("/metrics", "0123456789abcdef-another")).await;
        assert_eq!(wrong.status, 401);
    }
    for path in ["/backup_targets", "/node", "/healthz", "/openapi.json", "/"] {
        assert_eq!(over_tcp(metrics, authorized(path, TOKEN)).await.status, 404, "{path}");
    }
    assert_eq!(over_tcp(metrics, request("POST", "/metrics", Vec::new())).await.status, 401);
    let over_socket = over_unix(&workspace.path("api.sock"), request("GET", "/metrics", Vec::new())).await;
    assert_eq!(over_socket.status, 200);
    assert!(!daemon.log().contains(TOKEN));
}

#[tokio::test]
async fn metrics_token_does_not_allow_other_routes_of_the_api() {
    let workspace = Workspace::new();
    let api_token = workspace.write("api.token", "fedcba9876543210-api");
    with_metrics_token(&workspace);
    workspace.configure(&format!("[api]\nauth = \"token\"\n[api.token]\nfile = \"{}\"", api_token.display()));
    let daemon = Daemon::start(&workspace).await;
    let status = async |path, token| over_tcp(daemon.address(), authorized(path, token)).await.status;
    assert_eq!(status("/metrics", TOKEN).await, 200);
    assert_eq!(status("/metrics", "fedcba9876543210-api").await, 200);
    assert_eq!(status("/v1/any/metrics", TOKEN).await, 200);
    for path in ["/node", "/backup_targets", "/readyz", "/metrics/x"] {
        assert_eq!(status(path, TOKEN).await, 401, "{path}");
    }
}

#[tokio::test]
async fn metrics_token_is_read_again_by_reload() {
    let workspace = Workspace::new();
    with_metrics_token(&workspace);
    let daemon = Daemon::start(&workspace).await;
    let status = async |token| over_tcp(daemon.address(), authorized("/metrics", token)).await.status;
    workspace.write("metrics.token", "fedcba9876543210-new");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("configuration reloaded").await;
    assert_eq!((status(TOKEN).await, status("fedcba9876543210-new").await), (401, 200));

    workspace.write("metrics.token", "short");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("configuration reloaded in part").await;
    let metrics = over_tcp(daemon.address(), authorized("/metrics", "fedcba9876543210-new")).await.body;
    assert_contains(&metrics, &["targetwatch_config_last_reload_successful 0"]);

    workspace.configure("[probe]\ndeadline = \"never\"");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("cannot reload the configuration").await;
    let metrics = over_tcp(daemon.address(), authorized("/metrics", "fedcba9876543210-new")).await.body;
    assert_contains(&metrics, &["targetwatch_config_last_reload_successful 0"]);
}

#[tokio::test]
async fn start_fails_when_remote_address_of_metrics_has_no_token() {
    let workspace = Workspace::new();
    workspace.configure("[metrics]\nlisten = [\"0.0.0.0:0\"]");
    let stderr = Daemon::fails_to_start(&workspace).await;
    assert_contains(&stderr, &["[metrics] listen", "0.0.0.0:0", "token_file"]);
}

#[tokio::test]
async fn open_metrics_are_sent_to_a_client_that_accepts_them() {
    let daemon = Daemon::start(&Workspace::new()).await;
    let mut asked = request("GET", "/metrics", Vec::new());
    let accepted = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    asked.headers_mut().insert(hyper::header::ACCEPT, accepted.parse().expect("a value"));
    let answer = over_tcp(daemon.address(), asked).await;
    assert!(answer.header("content-type").starts_with("application/openmetrics-text; version=1.0.0"));
    assert!(answer.body.ends_with("# EOF\n"));
}
