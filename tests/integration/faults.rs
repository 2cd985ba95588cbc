//! What is refused although it is well-formed: routes, verbs, ids and rules.

use serde_json::json;

use crate::daemon::Daemon;
use crate::storage::nfs_target;
use crate::workspace::Workspace;

#[tokio::test]
async fn a_path_that_is_not_there_is_told_with_where_to_look() {
    let daemon = Daemon::start(&Workspace::new()).await;
    for path in ["/", "/backup_target", "/backup_targets/x/y", "/v2/backup_targets", "/v1", "//backup_targets"] {
        let message = daemon.request("GET", path, None).await.fault(404, "itemNotFound");
        assert!(message.contains("/openapi.json"), "{message}");
    }
}

#[tokio::test]
async fn a_verb_that_a_path_does_not_have_is_told() {
    let daemon = Daemon::start(&Workspace::new()).await;
    let id = daemon.create(nfs_target("/one")).await;
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
async fn an_unknown_id_is_not_found_whether_or_not_it_could_be_one() {
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
async fn a_second_default_is_refused_with_how_to_switch() {
    let daemon = Daemon::start(&Workspace::new()).await;
    let first = daemon.create(nfs_target("/one")).await;
    let mut second = nfs_target("/two");
    second["is_default"] = json!(1);
    let message = daemon.try_create(second).await.fault(409, "conflictingRequest");
    assert!(message.contains("is_default") && message.contains(&first) && message.contains("set_default"), "{message}");
    assert_eq!(daemon.targets().await.len(), 1);
}

#[tokio::test]
async fn a_directory_that_another_target_has_is_refused_and_the_other_is_named() {
    let daemon = Daemon::start(&Workspace::new()).await;
    let first = daemon.create(nfs_target("/backups")).await;
    let other = json!({ "type": "nfs", "filesystem_export": "127.0.0.2:/backups" });
    let message = daemon.try_create(other).await.fault(409, "conflictingRequest");
    assert!(message.contains(&first) && message.contains("127.0.0.1:/backups"), "{message}");
    assert_eq!(daemon.targets().await.len(), 1);
}

#[tokio::test]
async fn a_target_type_name_that_is_taken_is_refused() {
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
async fn the_default_is_not_deleted_while_others_exist() {
    let daemon = Daemon::start(&Workspace::new()).await;
    let first = daemon.create(nfs_target("/one")).await;
    let second = daemon.create(nfs_target("/two")).await;
    let delete = async |id: &str| daemon.request("DELETE", &format!("/backup_targets/{id}"), None).await;
    let message = delete(&first).await.fault(409, "conflictingRequest");
    assert!(message.contains("default") && message.contains("set_default"), "{message}");
    assert_eq!(daemon.targets().await.len(), 2);
    daemon.get(&format!("/backup_targets/{second}/set_default")).await;
    assert_eq!(delete(&first).await.status, 202);
    assert_eq!(delete(&second).await.status, 202, "the last one may go");
}
