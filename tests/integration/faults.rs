//! Refusals of well-formed requests: unknown routes, methods and ids, and violated rules.

use serde_json::json;

use crate::daemon::Daemon;
use crate::storage::nfs_target;
use crate::workspace::Workspace;

#[tokio::test]
async fn not_found_points_to_the_routes() {
    let daemon = Daemon::start(&Workspace::new()).await;
    for path in ["/backup_target", "/backup_targets/x/y", "/v2/backup_targets", "/v2", "//backup_targets"] {
        let message = daemon.request("GET", path, None).await.fault(404, "itemNotFound");
        assert!(message.contains("/openapi.json"), "{message}");
    }
}

#[tokio::test]
async fn wrong_method_is_refused_naming_method_and_path() {
    let (daemon, id) = Daemon::with_target(&Workspace::new(), nfs_target("/one")).await;
    let (one, check, default) = (
        format!("/backup_targets/{id}"),
        format!("/backup_targets/{id}/check"),
        format!("/backup_targets/{id}/set_default"),
    );
    for (method, path) in [
        ("PUT", "/backup_targets"),
        ("DELETE", "/backup_targets"),
        ("POST", one.as_str()),
        ("GET", check.as_str()),
        ("PUT", default.as_str()),
        ("POST", "/node"),
        ("POST", "/healthz"),
    ] {
        let message = daemon.request(method, path, None).await.fault(405, "badMethod");
        assert!(message.contains(method) && message.contains(path), "{message}");
    }
    assert_eq!(daemon.targets().await.len(), 1);
}

#[tokio::test]
async fn unknown_or_malformed_id_is_not_found() {
    let daemon = Daemon::start(&Workspace::new()).await;
    daemon.create(nfs_target("/one")).await;
    let body = json!({ "backup_target": { "metadata": { "a": "b" } } });
    for id in ["4720baae-5422-466d-a4b2-a4a2c94400f3", "not-a-uuid", "0", "%2e%2e"] {
        for (method, path, body) in [
            ("GET", "", None),
            ("PUT", "", Some(&body)),
            ("DELETE", "", None),
            ("GET", "/set_default", None),
            ("GET", "/checks", None),
            ("POST", "/check", None),
        ] {
            let answer = daemon.request(method, &format!("/backup_targets/{id}{path}"), body).await;
            let message = answer.fault(404, "itemNotFound");
            assert!(message.contains("no backup target"), "{method} {id}{path}: {message}");
        }
    }
    assert_eq!(daemon.targets().await.len(), 1);
}

#[tokio::test]
async fn default_moves_to_new_target_that_asks_for_it() {
    let (daemon, first) = Daemon::with_target(&Workspace::new(), nfs_target("/one")).await;
    let mut second = nfs_target("/two");
    second["is_default"] = json!(1);
    let second = daemon.create(second).await;
    let targets = daemon.targets().await;
    let is_default = |id: &str| targets.iter().find(|target| target["id"] == id).map(|target| &target["is_default"]);
    assert_eq!((is_default(&first), is_default(&second)), (Some(&json!(false)), Some(&json!(true))));
}

#[tokio::test]
async fn conflicting_mount_directory_is_refused_naming_the_target() {
    let (daemon, first) = Daemon::with_target(&Workspace::new(), nfs_target("/backups")).await;
    let other = json!({ "type": "nfs", "filesystem_export": "127.0.0.2:/backups" });
    let message = daemon.try_create(other).await.fault(409, "conflictingRequest");
    assert!(message.contains(&first) && message.contains("127.0.0.1:/backups"), "{message}");
    assert_eq!(daemon.targets().await.len(), 1);
}

#[tokio::test]
async fn ambiguous_export_of_a_new_target_is_refused() {
    let daemon = Daemon::start(&Workspace::new()).await;
    let message = daemon.try_create(nfs_target("/a//b")).await.fault(400, "badRequest");
    assert!(message.contains("filesystem_export") && message.contains("write 127.0.0.1:/a/b"), "{message}");
    assert!(daemon.targets().await.is_empty());
}

#[tokio::test]
async fn duplicate_type_name_is_refused() {
    let daemon = Daemon::start(&Workspace::new()).await;
    let named = |path: &str| {
        let mut target = nfs_target(path);
        target["btt_name"] = json!("nightly");
        target
    };
    daemon.create(named("/one")).await;
    let message = daemon.try_create(named("/two")).await.fault(409, "conflictingRequest");
    assert!(message.contains("btt_name") && message.contains("nightly"), "{message}");
    assert_eq!(daemon.targets().await.len(), 1);
}

#[tokio::test]
async fn default_target_cannot_be_deleted_while_others_exist() {
    let (daemon, first) = Daemon::with_target(&Workspace::new(), nfs_target("/one")).await;
    let second = daemon.create(nfs_target("/two")).await;
    let delete = async |id: &str| daemon.request("DELETE", &format!("/backup_targets/{id}"), None).await;
    let message = delete(&first).await.fault(409, "conflictingRequest");
    assert!(message.contains("default") && message.contains("set_default"), "{message}");
    assert_eq!(daemon.targets().await.len(), 2);
    daemon.set_default(&second).await;
    assert_eq!(delete(&first).await.status, 202);
    assert_eq!(delete(&second).await.status, 202, "the last target can be deleted");
}
