//! The target routes of the Backup Targets API guide: methods, answers and samples.

use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::report::{assert_contains, metadata};
use crate::shape::{BEYOND, REPORT, assert_shape, guide, sample};
use crate::storage::{immutable_target, nfs, nfs_target, prove_lock, s3, s3_target};
use crate::workspace::Workspace;

/// A sample of a target without its user. Without authentication, the agent does not know the user.
fn without_user(mut sample: Value) -> Value {
    sample["backup_targets"]["backup_target_types"][0]["user_id"] = Value::Null;
    sample
}

fn is_request_id(text: &str) -> bool {
    text.strip_prefix("req-").is_some_and(|id| id.len() == 36 && id.parse::<uuid::Uuid>().is_ok())
}

/// Creates the three targets of the guide's list: an available default, a bucket that is offline, and an available
/// export.
async fn create_guide_targets(daemon: &Daemon) -> Vec<String> {
    let mut first = nfs_target("/one");
    first["btt_name"] = json!("nfs_1");
    first["is_default"] = json!(1);
    let missing = json!({ "type": "s3", "s3_endpoint_url": "http://127.0.0.1:1", "s3_bucket": "trilio-qamanual", "btt_name": "s3_2" });
    let mut second = nfs_target("/two");
    second["btt_name"] = json!("nfs_2");
    let mut ids = Vec::new();
    for target in [first, missing, second] {
        let id = daemon.create(target).await;
        daemon.check(&id).await;
        ids.push(id);
    }
    ids
}

#[tokio::test]
async fn lists_and_targets_match_the_guide() {
    let (_nfs, workspace) = nfs().await;
    let daemon = Daemon::start(&workspace).await;
    let ids = create_guide_targets(&daemon).await;

    let list = daemon.get("/backup_targets").await;
    assert_eq!(list["backup_targets"].as_array().map(Vec::len), Some(3));
    assert_shape(&sample(guide!("list.json")), &list, BEYOND);
    let statuses: Vec<_> =
        list["backup_targets"].as_array().expect("a list").iter().map(|one| &one["status"]).collect();
    assert_eq!(statuses, ["available", "offline", "available"]);

    let detail = daemon.get("/backup_targets/detail").await;
    assert_shape(&sample(guide!("detail.json")), &detail, &[BEYOND, &[REPORT]].concat());
    assert_eq!(detail["backup_targets"].as_array().map(Vec::len), Some(3));

    let one = daemon.get(&format!("/backup_targets/{}", ids[0])).await;
    assert_shape(&sample(guide!("show_nfs.json")), &one, BEYOND);
    assert_eq!(one["backup_targets"], list["backup_targets"][0]);
}

#[tokio::test]
async fn create_answers_before_the_first_probe_like_the_guide() {
    let daemon = Daemon::start(&Workspace::new()).await;
    daemon.create(nfs_target("/first")).await;
    let body = json!({
        "s3_endpoint_url": "https://127.0.0.1:1", "s3_bucket": "object-locked-cephs3-2", "filesystem_export": null,
        "type": "s3", "is_default": 0, "btt_name": "", "immutable": 0, "metadata": {},
    });
    let answer = daemon.try_create(body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let created = answer.json();
    assert_shape(&without_user(sample(guide!("create_s3.json"))), &created, BEYOND);
    let target = &created["backup_targets"];
    assert_eq!(target["status"], "offline");
    assert_eq!(target["capacity"], Value::Null);
    assert_eq!(
        target["backup_target_types"][0]["name"], "127.0.0.1:1/object-locked-cephs3-2",
        "the export, if there is no name"
    );
}

#[tokio::test]
async fn bodies_of_trilio_6_2_are_accepted_stored_and_answered() {
    let workspace = Workspace::new();
    let daemon = Daemon::start(&workspace).await;
    let options = "nolock,soft,timeo=600,intr,lookupcache=none,nfsvers=3,retrans=10";
    let secret = "https://barbican.example.com:9311/v1/secrets/5f8c2c9e-52f3-4a0b-9f6b-0f5f1f6c9a11";
    let export = daemon.create(json!({
        "s3_endpoint_url": null, "s3_bucket": null, "filesystem_export": "127.0.0.1:/one", "type": "nfs", "is_default": 0,
        "btt_name": null, "name": "nightly", "immutable": 0, "secret_ref": null, "nfs_mount_opts": options, "metadata": {},
    }));
    let export = export.await;
    let bucket = daemon.create(json!({
        "s3_endpoint_url": "https://127.0.0.1:1", "s3_bucket": "backups", "filesystem_export": null, "type": "s3",
        "is_default": 0, "btt_name": "bucket", "immutable": 1, "secret_ref": secret, "nfs_mount_opts": null, "metadata": {},
    }));
    let bucket = bucket.await;
    let fields = |target: &Value| {
        let name = target["backup_target_types"][0]["name"].clone();
        (target["nfs_mount_opts"].clone(), target["secret_ref"].clone(), target["is_default"].clone(), name)
    };
    let (one, two) = (daemon.show(&export).await, daemon.show(&bucket).await);
    assert_eq!(fields(&one), (json!(options), Value::Null, json!(false), json!("nightly")));
    assert_eq!(fields(&two), (Value::Null, json!(secret), json!(false), json!("bucket")));
    let changed = daemon.modify(&export, json!({ "nfs_mount_opts": "nfsvers=4.2,hard", "name": "weekly" })).await;
    assert_eq!(fields(&changed), (json!("nfsvers=4.2,hard"), Value::Null, json!(false), json!("weekly")));
    for (mode, answer) in [("none", json!("none")), ("", Value::Null), ("none", json!("none"))] {
        let changed = daemon.modify(&export, json!({ "mount_mode": mode })).await;
        assert_eq!(changed["mount_mode"], answer);
    }
    let unchanged = daemon.modify(&export, json!({ "mount_mode": null })).await;
    assert_eq!(unchanged["mount_mode"], "none");
    let changed = daemon.modify(&bucket, json!({ "secret_ref": "", "nfs_mount_opts": null })).await;
    assert_eq!(fields(&changed).1, Value::Null);
    for (status, name, body, part) in [
        (
            400,
            "badRequest",
            json!({ "nfs_mount_opts": "soft,suid" }),
            "nfs_mount_opts: mount option \"suid\" is not allowed",
        ),
        (400, "badRequest", json!({ "mount_mode": "fuse" }), "mount_mode: \"fuse\" is not a mode, expected \"kernel\""),
        (400, "badRequest", json!({ "secret_ref": secret }), "secret_ref: a target of type nfs has none"),
        (409, "conflictingRequest", json!({ "name": "bucket" }), "name \"bucket\" is already the name"),
    ] {
        let path = format!("/backup_targets/{export}");
        let answer = daemon.request("PUT", &path, Some(&json!({ "backup_target": body }))).await;
        assert_contains(&answer.fault(status, name), &[part]);
    }
    let again =
        json!({ "type": "s3", "s3_endpoint_url": "HTTPS://127.0.0.1:1/", "s3_bucket": "backups", "name": "other" });
    let answer = daemon.try_create(again).await;
    assert!(answer.status == 409 && answer.body.contains(&bucket), "{answer:?}");
    assert!(!daemon.log().contains("barbican"), "the log contains the secret's reference");
}

#[tokio::test]
async fn set_default_by_get_moves_the_default() {
    let s3 = s3().await;
    let (_nfs, workspace) = nfs().await;
    let (daemon, former) = Daemon::with_target(&workspace, nfs_target("/one")).await;
    let id = daemon.create(immutable_target(&s3, "locked")).await;
    prove_lock(&daemon, &s3, &id).await;
    let moved = daemon.set_default(&id).await;
    assert_shape(&without_user(sample(guide!("set_default_s3.json"))), &moved, BEYOND);
    assert_eq!(moved["backup_targets"]["is_default"], true);
    assert_eq!(moved["backup_targets"]["backup_target_types"][0]["is_default"], true);
    let expected = json!([
        { "key": "bucket", "value": "locked" }, { "key": "immutable", "value": "1" }, { "key": "object_lock", "value": "1" },
        { "key": "object_lock_verdict", "value": "enforced" },
    ]);
    assert_eq!(moved["backup_targets"]["backup_target_metadata"], expected);
    let former = daemon.show(&former).await;
    assert_eq!(
        (&former["is_default"], &former["backup_target_types"][0]["is_default"]),
        (&json!(false), &json!(false))
    );
}

#[tokio::test]
async fn every_route_is_served_below_each_prefix() {
    let (_nfs, workspace) = nfs().await;
    let (daemon, keep) = Daemon::with_target(&workspace, nfs_target("/one")).await;
    for prefix in ["", "/v1", "/v1/f7d2d1b2a7c94d5cbb4cf2f0d3b0a6f1"] {
        let body = json!({ "backup_target": nfs_target("/two") });
        let created = daemon.request("POST", &format!("{prefix}/backup_targets"), Some(&body)).await;
        assert_eq!(created.status, 200, "{created:?}");
        let id = created.json()["backup_targets"]["id"].as_str().expect("an id").to_owned();
        for path in ["", "/detail", &format!("/{id}"), &format!("/{id}/checks"), &format!("/{id}/set_default")] {
            daemon.get(&format!("{prefix}/backup_targets{path}")).await;
        }
        let checked = daemon.request("POST", &format!("{prefix}/backup_targets/{id}/check"), None).await;
        assert_eq!(checked.status, 200, "{checked:?}");
        let note = json!({ "backup_target": { "metadata": { "rack": "b7" } } });
        let modified = daemon.request("PUT", &format!("{prefix}/backup_targets/{id}"), Some(&note)).await;
        assert_eq!(modified.status, 200, "{modified:?}");
        every_type_route_is_served(&daemon, prefix, &id).await;
        for path in ["/node", "/healthz", "/readyz", "/openapi.json"] {
            daemon.get(&format!("{prefix}{path}")).await;
        }
        daemon.set_default(&keep).await;
        let deleted = daemon.request("DELETE", &format!("{prefix}/backup_targets/{id}"), None).await;
        assert_eq!(deleted.status, 202, "{deleted:?}");
    }
    assert_eq!(daemon.targets().await.len(), 1);
}

async fn every_type_route_is_served(daemon: &Daemon, prefix: &str, target: &str) {
    let types = format!("{prefix}/backup_target_types");
    let body = json!({ "backup_target_type": { "name": "gold", "backup_targets_id": target } });
    let created = daemon.request("POST", &types, Some(&body)).await;
    assert_eq!(created.status, 200, "{created:?}");
    let id = created.json()["backup_target_types"]["id"].as_str().expect("an id").to_owned();
    for path in ["", "/detail", &format!("/{id}")] {
        daemon.get(&format!("{types}{path}")).await;
    }
    let projects = json!({ "backup_target_type": { "project_list": ["fc439373e340459fb28202b2412e26c0"] } });
    let metadata = json!({ "backup_target_type": { "metadata": [{ "key": "tier", "value": "1" }] } });
    for (method, path, body) in [
        ("PUT", "", json!({ "backup_target_type": { "description": "fast" } })),
        ("POST", "/add_projects", projects.clone()),
        ("PUT", "/remove_projects", projects.clone()),
        ("POST", "/remove_projects", projects),
        ("POST", "/add_metadata", metadata.clone()),
        ("PUT", "/remove_metadata", metadata.clone()),
        ("POST", "/remove_metadata", metadata),
    ] {
        let answer = daemon.request(method, &format!("{types}/{id}{path}"), Some(&body)).await;
        assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
    }
    let deleted = daemon.request("DELETE", &format!("{types}/{id}"), None).await;
    assert_eq!((deleted.status, deleted.body.as_str()), (202, ""), "{deleted:?}");
    assert_eq!(deleted.header("content-length"), "0");
}

#[tokio::test]
async fn delete_answers_202_with_empty_html_body() {
    let (daemon, id) = Daemon::with_target(&Workspace::new(), nfs_target("/one")).await;
    let answer = daemon.request("DELETE", &format!("/backup_targets/{id}"), None).await;
    assert_eq!((answer.status, answer.body.as_str()), (202, ""));
    assert_eq!(answer.header("content-type"), "text/html; charset=UTF-8");
    assert_eq!(answer.header("content-length"), "0");
    daemon.request("GET", &format!("/backup_targets/{id}"), None).await.fault(404, "itemNotFound");
    assert!(daemon.targets().await.is_empty());
    daemon.create(nfs_target("/one")).await;
}

#[tokio::test]
async fn every_answer_has_a_unique_request_id() {
    let (daemon, id) = Daemon::with_target(&Workspace::new(), nfs_target("/one")).await;
    let one = format!("/backup_targets/{id}");
    let mut ids = std::collections::HashSet::new();
    let requests = [
        ("GET", "/backup_targets", 200),
        ("GET", "/nowhere", 404),
        ("PATCH", "/backup_targets", 405),
        ("POST", "/backup_targets", 400),
        ("GET", "/backup_target_types", 200),
        ("POST", "/backup_target_types", 400),
        ("GET", "/healthz", 200),
        ("DELETE", &one, 202),
    ];
    for (method, path, status) in requests {
        let answer = daemon.request(method, path, None).await;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        let id = answer.header("x-compute-request-id");
        assert!(is_request_id(id), "{id}");
        assert!(ids.insert(id.to_owned()), "{id} was given twice");
    }
}

#[tokio::test]
async fn field_names_of_both_releases_are_supported() {
    let workspace = Workspace::new();
    let daemon = Daemon::start(&workspace).await;
    for (field, path, directory) in [
        ("nfs_export", "/mnt/tvault/162", "L21udC90dmF1bHQvMTYy"),
        ("filesystem_export", "/Trilio_Backup", "L1RyaWxpb19CYWNrdXA="),
    ] {
        let export = format!("127.0.0.1:{path}");
        let answer = daemon.try_create(json!({ "type": "nfs", field: export })).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let target = &answer.json()["backup_targets"];
        let mount_path = workspace.path("mounts").join(directory);
        for release in ["nfs", "filesystem"] {
            assert_eq!(target[format!("{release}_export")], export);
            assert_eq!(target[format!("{release}_export_mount_path")], mount_path.to_str().expect("text"));
        }
    }
}

#[tokio::test]
async fn flags_may_be_numbers_booleans_or_strings() {
    let s3 = s3().await;
    let daemon = Daemon::start(&Workspace::new()).await;
    daemon.create(nfs_target("/one")).await;
    for (bucket, yes) in [("locked", json!(1)), ("plain", json!(true)), ("versioned", json!("1"))] {
        let mut target = s3_target(&s3, bucket);
        target["immutable"] = yes;
        let id = daemon.create(target).await;
        assert_eq!(metadata(&daemon.show(&id).await, "immutable"), Some("1"));
    }
}

#[tokio::test]
async fn put_changes_only_metadata_and_immutability() {
    let s3 = s3().await;
    let (daemon, id) = Daemon::with_target(&Workspace::new(), s3_target(&s3, "locked")).await;
    let before = daemon.show(&id).await;
    daemon.modify(&id, json!({ "metadata": { "rack": "b7", "owner": "ops" } })).await;
    let after = daemon.modify(&id, json!({ "metadata": { "rack": "b8" }, "immutable": 1 })).await;
    assert_eq!(metadata(&after, "rack"), Some("b8"));
    assert_eq!(metadata(&after, "owner"), Some("ops"));
    assert_eq!(metadata(&after, "immutable"), Some("1"));
    for key in ["id", "type", "created_at", "filesystem_export", "filesystem_export_mount_path", "version"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    let purged = daemon.modify(&id, json!({ "metadata": { "rack": "b9" }, "purge_metadata": true })).await;
    assert_eq!((metadata(&purged, "rack"), metadata(&purged, "owner")), (Some("b9"), None));
}
