//! Files of older and newer schemas.

use uuid::Uuid;

use super::*;
use crate::model::{CanaryRecord, SpecFields};
use crate::registry::limits::TARGET_METADATA_MAX_BYTES;
use crate::registry::membership::Adoption;
use crate::registry::{Aliases, CloudId, Renames, TypeChange};

#[tokio::test]
async fn every_older_schema_is_upgraded_with_its_content() {
    for steps in 1..schema::KNOWN {
        let (_directory, path) = temporary_path();
        let connection = Connection::open(&path).expect("created");
        schema::of_older_release(&connection, steps).expect("written");
        let targets = if steps < 4 {
            "INSERT INTO target VALUES (1, '13dd2bf2-12c5-4eb8-98a3-0f1dd9f8579f', 'nfs', 'nas:/a', NULL, NULL, 0,
                 'L2E=', 1, '2025-01-30T12:32:27Z', '2025-01-30T12:32:27Z', '0.1.0', '{\"rack\": \"12\"}');
             INSERT INTO target VALUES (3, '5b2f8a0e-0f6c-4a39-9a0c-7f3f2c7d9a11', 's3', NULL,
                 'http://ceph.example:8080', 'bucket', 1, 'Y2VwaC5leGFtcGxlOjgwODAvYnVja2V0', 0,
                 '2025-01-30T12:32:27Z', '2025-01-30T12:32:27Z', '0.1.0', '{}');"
        } else {
            "INSERT INTO target VALUES (1, '13dd2bf2-12c5-4eb8-98a3-0f1dd9f8579f',
                 '{\"type\": \"nfs\", \"filesystem_export\": \"nas:/a\", \"immutable\": false}',
                 'L2E=', 1, '2025-01-30T12:32:27Z', '2025-01-30T12:32:27Z', '0.1.0', '{\"rack\": \"12\"}');
             INSERT INTO target VALUES (3, '5b2f8a0e-0f6c-4a39-9a0c-7f3f2c7d9a11',
                 '{\"type\": \"s3\", \"s3_endpoint_url\": \"http://ceph.example:8080\", \"s3_bucket\": \"bucket\",
                   \"immutable\": true}',
                 'Y2VwaC5leGFtcGxlOjgwODAvYnVja2V0', 0,
                 '2025-01-30T12:32:27Z', '2025-01-30T12:32:27Z', '0.1.0', '{}');"
        };
        connection.execute_batch(targets).expect("written");
        connection
            .execute_batch(
                "INSERT INTO target_type VALUES (1, 'c65625c1-50bf-4ab7-aa26-f625001e60f1',
                     '13dd2bf2-12c5-4eb8-98a3-0f1dd9f8579f', 'nightly', 'a text', 1, 1, 'somebody',
                     '2025-01-30T12:32:27Z', NULL, '0.1.0');",
            )
            .expect("written");
        if steps > 1 {
            let project = "INSERT INTO target_type_project VALUES (1, 'de305d54-75b4-431b-adb2-eb6b9e546014',
                'c65625c1-50bf-4ab7-aa26-f625001e60f1', 'fc439373e340459fb28202b2412e26c0', '2025-01-30T12:32:27Z', NULL, '0.1.0')";
            connection.execute_batch(project).expect("written");
        }
        if steps > 2 {
            let transition = "INSERT INTO target_transition VALUES (1, '13dd2bf2-12c5-4eb8-98a3-0f1dd9f8579f',
                '2025-01-30T12:32:27Z', NULL, 'available', NULL, NULL)";
            connection.execute_batch(transition).expect("written");
        }
        drop(connection);

        let (store, registry) = open(&path);
        let snapshot = registry.snapshot();
        let [first, second] = snapshot.targets() else { panic!("two targets with schema {steps}") };
        assert_eq!(first.target.metadata["rack"], "12");
        assert_eq!((first.target.spec.export().as_str(), first.target.is_default), ("nas:/a", true));
        let (nfs_target, _) = nfs("nas:/a");
        assert_eq!((&first.target.spec, &first.target.mount_name), (&nfs_target.spec, &nfs_target.mount_name));
        let (bucket, _) = s3("http://ceph.example:8080/bucket");
        assert_eq!(second.target.mount_name, bucket.mount_name);
        let fields = SpecFields { immutable: Some(true), ..bucket.spec.to_fields() };
        assert_eq!(second.target.spec.to_fields(), fields);
        let kept = &first.types[0];
        assert_eq!((kept.name.as_str(), kept.user_id.as_deref()), ("nightly", Some("somebody")));
        assert!(kept.is_public && kept.is_default && kept.metadata.is_empty());
        assert_eq!(kept.projects.len(), usize::from(steps > 1), "rows that refer to a target are kept");
        assert_eq!(registry.transitions(first.target.id).await.expect("read").len(), usize::from(steps > 2));

        let change = TypeChange {
            add_projects: vec![project(1)],
            set_metadata: metadata(&[("a", "b")]),
            ..TypeChange::default()
        };
        let change = Change::ModifyType { id: kept.id, change, now: crate::registry::fixtures::at(3) };
        let changed = registry.change(&change).await.expect("changed");
        registry.add_transitions(vec![transition(second.target.id, 1, Status::Available)]).await.expect("added");
        let canary = CanaryRecord { is_readable: true, ..CanaryRecord::default() };
        registry.put_canary_record(second.target.id, canary.clone()).await.expect("written");
        registry.put_own_mounts(vec![(second.target.id, Some(own_mount(1)))]).await.expect("stored");
        assert_eq!((store.cloud_id(), &*store.aliases()), (None, &Aliases::default()));
        store.put_cloud_id(Some(CloudId(Uuid::new_v4()))).await.expect("stored");
        close(store, registry).await;
        let (store, registry) = open(&path);
        assert!(store.cloud_id().is_some());
        assert_eq!(registry.snapshot().targets(), changed.targets());
        assert_eq!(registry.own_mounts().await.expect("read").len(), 1);
        let second = snapshot.targets()[1].clone();
        assert_eq!(registry.canary_record(second.target.id).await, Ok(Some(canary)));
        assert_eq!(registry.transitions(second.target.id).await.expect("read").len(), 1);
        registry.change(&Change::DeleteTarget(second.target.id)).await.expect("deleted");
        assert_eq!(registry.transitions(second.target.id).await.expect("read"), [], "rows still refer to the target");
    }
}

#[tokio::test]
async fn target_that_may_not_be_created_any_more_is_kept() {
    let (_directory, path) = temporary_path();
    let connection = Connection::open(&path).expect("created");
    schema::of_older_release(&connection, 3).expect("written");
    let large = metadata(&[("a", &"x".repeat(TARGET_METADATA_MAX_BYTES + 1))]);
    let (export, _) = nfs("nas:/a//b");
    let (bucket, _) = s3("on-aws");
    let rows = [(&export, "nfs", Some("nas:/a//b"), None), (&bucket, "s3", None, Some("on-aws"))];
    for (target, kind, nfs_export, s3_bucket) in rows {
        let insert = "INSERT INTO target VALUES (NULL, ?1, ?2, ?3, NULL, ?4, 0, ?5, ?6, '2025-01-30T12:32:27Z',
            '2025-01-30T12:32:27Z', '0.1.0', ?7)";
        let content = serde_json::to_string(&large).expect("JSON");
        let (id, mount_name) = (target.id.to_string(), target.mount_name.as_str());
        let is_default = kind == "nfs";
        connection
            .execute(insert, rusqlite::params![id, kind, nfs_export, s3_bucket, mount_name, is_default, content])
            .expect("written");
    }
    drop(connection);

    let (_store, registry) = open(&path);
    let snapshot = registry.snapshot();
    let kept: Vec<_> = snapshot.targets().iter().map(|kept| (&kept.target.spec, &kept.target.mount_name)).collect();
    assert_eq!(kept, [(&export.spec, &export.mount_name), (&bucket.spec, &bucket.mount_name)]);
    assert!(snapshot.targets().iter().all(|kept| kept.target.metadata == large));
}

#[test]
fn older_file_with_an_unreadable_row_is_refused_and_unchanged() {
    let (_directory, path) = temporary_path();
    create_with_schema_3(&path, "nas:/../etc");
    let error = open_error(&path);
    assert!(error.contains("the file is damaged") && error.contains("filesystem_export"), "{error}");
}

#[tokio::test]
async fn newer_schema_is_refused_in_file_and_log() {
    for in_log in [false, true] {
        let (_directory, path) = temporary_path();
        SqliteStore::open(&path).expect("created").close().await;
        let connection = Connection::open(&path).expect("opened");
        connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, in_log).expect("set");
        connection.pragma_update(None, "user_version", 99).expect("written");
        drop(connection);
        let error = open_error(&path);
        assert!(error.contains("has schema 99") && error.contains(&format!("up to {}", schema::KNOWN)), "{error}");
    }
}

#[tokio::test]
async fn ids_of_a_shared_registry_replace_those_of_the_node_with_all_rows() {
    let (_directory, path) = temporary_path();
    let (store, registry) = open(&path);
    let first = create(&registry, nfs("nas:/a")).await;
    let second = create(&registry, s3("https://ceph.example/bucket")).await;
    let new = TargetType { is_public: false, projects: vec![project(1)], ..new_type(first.target.id, "second") };
    registry.change(&Change::CreateType(new)).await.expect("created");
    let former = first.target.id;
    registry.add_transitions(vec![transition(former, 1, Status::Available)]).await.expect("added");
    registry.put_own_mounts(vec![(former, Some(own_mount(1)))]).await.expect("stored");
    registry.put_canary_record(former, CanaryRecord::default()).await.expect("written");
    let (id, former_type, type_id) = (Uuid::new_v4(), first.types[0].id, Uuid::new_v4());
    let cloud_id = CloudId(Uuid::new_v4());
    let renames = Renames { targets: vec![(former, id)], types: vec![(former_type, type_id)] };
    store.adopt(Adoption { cloud_id, renames, writes: Vec::new() }).await.expect("joined");
    close(store, registry).await;

    let (store, registry) = open(&path);
    assert_eq!(store.cloud_id(), Some(cloud_id));
    let snapshot = registry.snapshot();
    let order: Vec<_> = snapshot.targets().iter().map(|found| found.target.id).collect();
    assert_eq!(order, [id, second.target.id]);
    let renamed = &snapshot.targets()[0];
    assert_eq!(renamed.types.iter().map(|found| found.projects.len()).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(renamed.types[0].id, type_id);
    assert_eq!(registry.transitions(id).await.expect("read").len(), 1);
    assert_eq!(registry.own_mounts().await.expect("read"), [(id, own_mount(1))]);
    assert!(registry.canary_record(id).await.expect("read").is_some());
    assert_eq!((registry.current_target_id(former), registry.current_target_id(id)), (id, id));
    assert_eq!((registry.current_type_id(former_type), registry.current_type_id(type_id)), (type_id, type_id));
    let unknown = Uuid::new_v4();
    assert_eq!(registry.current_target_id(unknown), unknown);
}
