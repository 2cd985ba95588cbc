//! Routes that are not in the API guide (health, readiness, node, OpenAPI), and conditional requests.

use serde_json::{Value, json};

use crate::daemon::{Daemon, eventually};
use crate::http::{over_tcp, over_unix, request};
use crate::storage::{nfs, nfs_target};
use crate::support::nfs_server::Behaviour;
use crate::workspace::Workspace;

#[tokio::test]
async fn readyz_succeeds_when_every_target_has_a_verdict() {
    let (server, workspace) = nfs().await;
    workspace.configure("[probe]\ndeadline = \"60s\"");
    server.set_behaviour(Behaviour::Silent);
    let daemon = Daemon::start(&workspace).await;
    assert_eq!(daemon.get("/readyz").await, json!({ "backup_targets": 0, "not_checked": 0 }));
    let id = daemon.create(nfs_target("/backups")).await;
    let waiting = daemon.request("GET", "/readyz", None).await;
    assert_eq!((waiting.status, waiting.json()), (503, json!({ "backup_targets": 1, "not_checked": 1 })));
    assert_eq!(daemon.get("/healthz").await, json!({ "status": "ok" }), "the agent itself is healthy");
    // Broken connections end the probe with a verdict.
    server.stop().await;
    let ready = eventually("ready", async || {
        Some(daemon.request("GET", "/readyz", None).await).filter(|answer| answer.status == 200)
    })
    .await;
    assert_eq!(ready.json(), json!({ "backup_targets": 1, "not_checked": 0 }));
    assert_eq!(daemon.show(&id).await["status"], "offline");
}

#[tokio::test]
async fn report_is_not_checked_before_the_first_verdict() {
    let (server, workspace) = nfs().await;
    workspace.configure("[probe]\ndeadline = \"60s\"");
    server.set_behaviour(Behaviour::Silent);
    let (daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    let checks = daemon.report(&id).await;
    assert_eq!((&checks["status"], &checks["reason"]), (&json!("offline"), &json!("not_checked")));
    for key in ["verdict", "checked_at", "last_available_at", "capacity_bytes", "used_bytes", "duration_ms"] {
        assert_eq!(checks[key], Value::Null, "{key}");
    }
    assert_eq!(checks["checks"], json!([]));
}

#[tokio::test]
async fn node_describes_host_and_agent() {
    let daemon = Daemon::start(&Workspace::new()).await;
    let node = daemon.get("/node").await;
    let hostname = nix::unistd::gethostname().expect("a name").into_string().expect("text");
    assert_eq!(node["host"]["hostname"], hostname.as_str());
    assert_eq!(node["agent"]["pid"], daemon.pid());
    assert_eq!(node["agent"]["version"], env!("CARGO_PKG_VERSION"));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("read");
    assert_eq!(node["host"]["kernel"], kernel.trim());
    for (section, key) in [("agent", "resident_bytes"), ("agent", "threads"), ("agent", "open_files"), ("host", "cpus")]
    {
        assert!(node[section][key].as_u64().is_some_and(|count| count > 0), "{section}.{key}: {node:#}");
    }
    assert!(node["host"]["memory"]["total_bytes"].as_u64() > node["host"]["memory"]["available_bytes"].as_u64());
    assert_eq!(node["agent"]["stuck_children"], json!([]));
}

#[tokio::test]
async fn openapi_lists_every_served_route() {
    let daemon = Daemon::start(&Workspace::new()).await;
    let description = daemon.get("/openapi.json").await;
    assert!(description["openapi"].as_str().is_some_and(|version| version.starts_with("3.")), "{description}");
    let paths = description["paths"].as_object().expect("an object");
    for (path, verbs) in [
        ("/backup_targets", &["get", "post"][..]),
        ("/backup_targets/detail", &["get"]),
        ("/backup_targets/verdicts", &["get"]),
        ("/backup_targets/{id}", &["get", "put", "delete"]),
        ("/backup_targets/{id}/set_default", &["get"]),
        ("/backup_targets/{id}/checks", &["get"]),
        ("/backup_targets/{id}/check", &["post"]),
        ("/backup_target_types", &["get", "post"]),
        ("/backup_target_types/detail", &["get"]),
        ("/backup_target_types/{id}", &["get", "put", "delete"]),
        ("/backup_target_types/{id}/add_projects", &["post"]),
        ("/backup_target_types/{id}/remove_projects", &["put", "post"]),
        ("/backup_target_types/{id}/add_metadata", &["post"]),
        ("/backup_target_types/{id}/remove_metadata", &["put", "post"]),
        ("/node", &["get"]),
        ("/healthz", &["get"]),
        ("/readyz", &["get"]),
        ("/openapi.json", &["get"]),
    ] {
        let described = paths.get(path).and_then(Value::as_object).unwrap_or_else(|| panic!("{path} is not described"));
        assert!(verbs.iter().all(|verb| described.contains_key(*verb)), "{path}: {described:?}");
    }
}

#[tokio::test]
async fn unchanged_list_answers_not_modified() {
    let (_nfs, workspace) = nfs().await;
    let (daemon, id) = Daemon::with_target(&workspace, nfs_target("/one")).await;
    daemon.check(&id).await;
    let first = daemon.request("GET", "/backup_targets", None).await;
    let tag = first.header("etag").to_owned();
    let again = async |tag: &str| {
        let mut request = request("GET", "/backup_targets", Vec::new());
        request.headers_mut().insert("if-none-match", tag.parse().expect("a header"));
        over_tcp(daemon.address(), request).await
    };
    let unchanged = again(&tag).await;
    assert_eq!((unchanged.status, unchanged.body.as_str(), unchanged.header("etag")), (304, "", tag.as_str()));
    assert_eq!(again("\"another\"").await.status, 200);

    daemon.create(nfs_target("/two")).await;
    let changed = again(&tag).await;
    assert_eq!(changed.status, 200);
    assert_ne!(changed.header("etag"), tag);
    assert_eq!(changed.json()["backup_targets"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn socket_and_port_answer_the_same_and_socket_is_group_only() {
    use std::os::unix::fs::PermissionsExt as _;

    let workspace = Workspace::new();
    let daemon = Daemon::start(&workspace).await;
    daemon.create(nfs_target("/one")).await;
    let socket = workspace.path("api.sock");
    let id = daemon.targets().await[0]["id"].as_str().expect("an id").to_owned();
    let path = format!("/backup_targets/{id}");
    let over_socket = over_unix(&socket, request("GET", &path, Vec::new())).await;
    assert_eq!(over_socket.json()["backup_targets"]["id"], daemon.show(&id).await["id"]);
    let mode = std::fs::metadata(&socket).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o660, "{mode:o}");
}
