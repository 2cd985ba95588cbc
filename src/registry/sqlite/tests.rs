//! Tests of the file: reopening, damage, locks and checkpoints. [`upgrade`] tests other schemas, [`loss`] tests a file
//! that lost acknowledged changes, [`backup`] tests backup and restore, [`inspection`] reading without a change, and
//! [`disks`] a full or failing disk.

#![allow(clippy::disallowed_methods, reason = "the files are in a temporary directory and the child is this test")]

mod backup;
mod disks;
mod inspection;
mod loss;
mod upgrade;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::model::{Status, TargetType};
use crate::registry::contract::{own_mount, transition};
use crate::registry::fixtures::{create, create_target, metadata, new_type, nfs, project, refused, s3};
use crate::registry::{Change, Registry, RegistryError};

/// Longest wait for the store to copy its log by itself.
const WAIT_MAX: Duration = Duration::from_secs(20);

fn temporary_path() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("registry.db");
    (directory, path)
}

/// Opens a store, and the registry in front of it.
fn open(path: &Path) -> (Arc<SqliteStore>, Registry) {
    let store = Arc::new(SqliteStore::open(path).expect("opened"));
    (store.clone(), Registry::new(store))
}

/// Closes a store that no registry uses any more.
async fn close(store: Arc<SqliteStore>, registry: Registry) {
    drop(registry);
    Arc::into_inner(store).expect("the last one").close().await;
}

/// Waits until the log is copied into the file.
async fn wait_until_copied(path: &Path) {
    let wal = file_beside(path, "-wal");
    let copied = async {
        while fs::metadata(&wal).expect("a log").len() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, copied).await.expect("the log is copied into the file");
}

/// Returns the error of opening, and asserts that the file and its log are left as they were.
fn open_error(path: &Path) -> String {
    let wal = file_beside(path, "-wal");
    // SQLite may leave an empty log behind, which means the same as none.
    let content = || (fs::read(path).ok(), fs::read(&wal).unwrap_or_default());
    let before = content();
    let error = SqliteStore::open(path).expect_err("refused").to_string();
    assert!(content() == before, "the file was changed: {error}");
    assert!(error.contains(&path.display().to_string()), "{error}");
    error
}

/// Creates the file of an older release with one NFS target.
fn create_with_schema_3(path: &Path, export: &str) {
    let connection = Connection::open(path).expect("created");
    schema::of_older_release(&connection, 3).expect("written");
    insert_into_schema_3(&connection, export);
}

fn insert_into_schema_3(connection: &Connection, export: &str) {
    let insert = "INSERT INTO target VALUES (1, '13dd2bf2-12c5-4eb8-98a3-0f1dd9f8579f', 'nfs', ?1, NULL,
        NULL, 0, 'L29sZA==', 1, '2025-01-30T12:32:27Z', '2025-01-30T12:32:27Z', '0.1.0', '{}')";
    connection.execute(insert, [export]).expect("written");
}

fn file_beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

#[tokio::test]
async fn content_is_the_same_after_reopening() {
    let (_directory, path) = temporary_path();
    let (store, registry) = open(&path);
    assert!(registry.snapshot().targets().is_empty());
    for new in [nfs("nas:/b/"), nfs("[fd00::1]:/x"), s3("http://ceph.example:8080/bucket"), s3("on-aws")] {
        create(&registry, new).await;
    }
    let new = TargetType {
        is_public: false,
        projects: vec![project(2), project(1)],
        metadata: metadata(&[("b", "ü"), ("a", "1")]),
        ..new_type(registry.snapshot().targets()[1].target.id, "Zoë's")
    };
    registry.change(&Change::CreateType(new)).await.expect("created");
    let before = registry.snapshot();
    let id = before.targets()[0].target.id;
    let history = [transition(id, 1, Status::Available), transition(id, 2, Status::Offline)];
    registry.add_transitions(history.to_vec()).await.expect("added");
    registry.put_own_mounts(vec![(id, Some(own_mount(7)))]).await.expect("stored");
    close(store, registry).await;
    let (_, registry) = open(&path);
    let first = &before.targets()[0].target;
    let own_mount_of = |export: &str| maintenance::own_mount(&path, &first.mount_name, export).expect("read");
    assert_eq!(own_mount_of(&first.spec.export()), Some(own_mount(7)), "another process reads it");
    assert_eq!(own_mount_of("other:/export"), None);
    assert_eq!(registry.snapshot().targets(), before.targets());
    let [oldest, newest] = history;
    assert_eq!(registry.transitions(id).await.expect("read"), [newest, oldest]);
    assert_eq!(registry.own_mounts().await.expect("read"), [(id, own_mount(7))]);
    assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn file_is_complete_without_its_log_after_a_pause() {
    let (_directory, path) = temporary_path();
    let (_store, registry) = open(&path);
    for export in ["nas:/a", "nas:/b", "nas:/c"] {
        create(&registry, nfs(export)).await;
        wait_until_copied(&path).await;
        let (_directory, copy) = temporary_path();
        fs::copy(&path, &copy).expect("copied");
        let copied = SqliteStore::open(&copy).expect("opened").snapshot();
        assert_eq!(copied.targets(), registry.snapshot().targets());
    }
}

#[tokio::test]
async fn log_is_copied_after_another_program_has_read_it() {
    let (_directory, path) = temporary_path();
    let (_store, registry) = open(&path);
    create(&registry, nfs("nas:/a")).await;
    let reader = Connection::open(&path).expect("opened");
    reader.execute_batch("BEGIN; SELECT count(*) FROM target").expect("read");
    // The reader must not delay a change.
    for export in ["nas:/b", "nas:/c"] {
        let created = create(&registry, nfs(export));
        tokio::time::timeout(file::BUSY_TIMEOUT / 2, created).await.expect("no wait for the reader");
        tokio::time::sleep(CHECKPOINT_AFTER * 2).await;
    }
    drop(reader);
    wait_until_copied(&path).await;
}

#[tokio::test]
async fn file_is_complete_without_its_log_after_closing() {
    let (directory, path) = temporary_path();
    let (store, registry) = open(&path);
    create(&registry, nfs("nas:/a")).await;
    // Another clone of the registry is still in use, as in a daemon that stops.
    registry.close().await;
    let error = refused(&registry, nfs("nas:/b")).await.to_string();
    assert!(error.contains("its writer has stopped"), "{error}");
    let mut names: Vec<_> =
        fs::read_dir(directory.path()).expect("read").map(|entry| entry.expect("an entry").file_name()).collect();
    names.sort();
    assert_eq!(names, ["registry.db", "registry.db.generation", "registry.db.lock"]);
    assert_eq!(SqliteStore::open(&path).expect("free again").snapshot().targets(), store.snapshot().targets());
}

#[tokio::test]
async fn deleting_a_target_leaves_no_rows_behind() {
    let (_directory, path) = temporary_path();
    let (store, registry) = open(&path);
    let id = create(&registry, nfs("nas:/a")).await.target.id;
    let new = TargetType {
        is_public: false,
        projects: vec![project(1)],
        metadata: metadata(&[("a", "1")]),
        ..new_type(id, "x")
    };
    registry.change(&Change::CreateType(new)).await.expect("created");
    registry.add_transitions(vec![transition(id, 1, Status::Offline)]).await.expect("added");
    registry.put_own_mounts(vec![(id, Some(own_mount(1)))]).await.expect("stored");
    registry.change(&Change::DeleteTarget(id)).await.expect("deleted");
    let count = |table: &'static str| {
        store.read(move |connection| {
            Ok(connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0))?)
        })
    };
    for table in
        ["own_mount", "target", "target_type", "target_type_project", "target_type_metadata", "target_transition"]
    {
        assert_eq!(count(table).await.expect("counted"), 0, "{table}");
    }
}

#[tokio::test]
async fn full_or_read_only_disk_changes_nothing() {
    let (_directory, path) = temporary_path();
    let (store, registry) = open(&path);
    let kept = create(&registry, nfs("nas:/a")).await;
    for (limit, none) in [
        ("PRAGMA max_page_count = 1", "PRAGMA max_page_count = 100000"),
        ("PRAGMA query_only = 1", "PRAGMA query_only = 0"),
    ] {
        let pragma =
            |sql: &'static str| store.run(move |connection| connection.execute_batch(sql).map_err(StorageError::from));
        pragma(limit).await.expect("set");
        let (mut target, first_type) = nfs("nas:/large");
        target.metadata.insert("text".to_owned(), "x".repeat(60_000));
        let error = refused(&registry, (target, first_type)).await;
        assert!(matches!(error, RegistryError::Storage(_)), "{error}");
        assert!(error.to_string().ends_with("Nothing was changed"), "{error}");
        pragma(none).await.expect("set");
    }
    create(&registry, nfs("nas:/b")).await;
    assert_eq!(*registry.snapshot().targets()[0], kept);
}

#[tokio::test]
async fn removed_or_replaced_file_refuses_changes() {
    for lost in ["", "-wal"] {
        for is_replaced in [false, true] {
            let (_directory, path) = temporary_path();
            let (_store, registry) = open(&path);
            let kept = create(&registry, nfs("nas:/a")).await;
            let lost = file_beside(&path, lost);
            let content = fs::read(&lost).expect("there");
            fs::remove_file(&lost).expect("removed");
            if is_replaced {
                // Written under another name first, so that it has another inode.
                fs::write(file_beside(&path, ".other"), content).expect("written");
                fs::rename(file_beside(&path, ".other"), &lost).expect("replaced");
            }
            let error = refused(&registry, nfs("nas:/b")).await.to_string();
            assert!(error.contains(&lost.display().to_string()) && error.contains("removed or replaced"), "{error}");
            let delete = Change::DeleteTarget(kept.target.id);
            let error = registry.verify(&delete).await.expect_err("refused before it is unmounted");
            assert!(matches!(error, RegistryError::Storage(_)), "{error}");
            assert_eq!(registry.transitions(kept.target.id).await.expect("reading goes on"), []);
            assert_eq!(registry.snapshot().targets(), [kept.into()]);
        }
    }
}

#[tokio::test]
async fn no_change_is_accepted_after_one_whose_effect_is_unknown() {
    let (_directory, path) = temporary_path();
    let (store, registry) = open(&path);
    store.identity.is_uncertain.store(true, std::sync::atomic::Ordering::Relaxed);
    let error = refused(&registry, nfs("nas:/a")).await.to_string();
    assert!(error.contains("became read-only") && error.contains("restart the agent"), "{error}");
    assert!(registry.verify_writable().await.is_err());
}

#[tokio::test]
async fn unreadable_directory_is_not_reported_as_a_removed_file() {
    let (_directory, path) = temporary_path();
    let (_store, registry) = open(&path);
    let kept = create(&registry, nfs("nas:/a")).await;
    let here = path.parent().expect("a directory");
    // A link to itself is unreadable even for root, which ignores permissions.
    let away = here.with_extension("away");
    fs::rename(here, &away).expect("moved");
    std::os::unix::fs::symlink(here, here).expect("a loop");
    let error = refused(&registry, nfs("nas:/b")).await.to_string();
    assert!(error.contains("cannot be read") && error.contains("symbolic links"), "{error}");
    assert!(!error.contains("removed"), "{error}");
    fs::remove_file(here).expect("removed");
    fs::rename(&away, here).expect("moved back");
    assert_eq!(registry.snapshot().targets(), [kept.into()]);
    create(&registry, nfs("nas:/b")).await;
}

#[tokio::test]
async fn commit_is_finished_when_its_caller_stops_waiting() {
    let (_directory, path) = temporary_path();
    let (store, registry) = open(&path);
    let change = create_target(nfs("nas:/a"));
    let mut create = Box::pin(registry.change(&change));
    // The first poll queues the change. It may or may not be answered already.
    let _ = futures::poll!(&mut create);
    drop(create);
    close(store, registry).await;
    let (_store, registry) = open(&path);
    assert_eq!(registry.snapshot().targets().len(), 1);
}

#[tokio::test]
async fn second_agent_is_refused_while_the_first_uses_the_file() {
    let (_directory, path) = temporary_path();
    let (store, registry) = open(&path);
    create(&registry, nfs("nas:/a")).await;
    wait_until_copied(&path).await;
    let error = open_error(&path);
    assert!(error.contains("another agent is using it"), "{error}");
    create(&registry, nfs("nas:/b")).await;
    close(store, registry).await;
    SqliteStore::open(&path).expect("free again");
}

#[test]
fn file_that_is_not_a_registry_is_refused_and_unchanged() {
    let noise: Vec<u8> = (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for (content, expected) in [
        (noise.as_slice(), "not an SQLite database"),
        (b"".as_slice(), "the file is empty"),
        (b"SQLite format 3\0".as_slice(), "not an SQLite database"),
    ] {
        let (_directory, path) = temporary_path();
        fs::write(&path, content).expect("written");
        let error = open_error(&path);
        assert!(error.contains(expected) && error.contains("left unchanged"), "{error}");
    }
}

#[test]
fn database_of_another_application_is_refused() {
    let (_directory, path) = temporary_path();
    Connection::open(&path).expect("created").execute_batch("CREATE TABLE songs (title TEXT)").expect("written");
    let error = open_error(&path);
    assert!(error.contains("another application"), "{error}");
}

#[tokio::test]
async fn damaged_file_is_refused() {
    let (_directory, path) = temporary_path();
    let (store, registry) = open(&path);
    for n in 0..100 {
        create(&registry, nfs(&format!("nas:/t{n}"))).await;
    }
    close(store, registry).await;
    let sound = fs::read(&path).expect("read");

    let mut overwritten = sound.clone();
    overwritten[8192..12288].fill(0xa5);
    for damaged in [&overwritten[..], &sound[..sound.len() / 2]] {
        fs::write(&path, damaged).expect("written");
        let error = open_error(&path);
        assert!(error.contains("the file is damaged"), "{error}");
    }
    fs::write(&path, &sound).expect("written");
    let connection = Connection::open(&path).expect("opened");
    connection
        .execute("UPDATE target SET spec = json_set(spec, '$.filesystem_export', 'nas:/../etc') WHERE position = 7", [])
        .expect("written");
    drop(connection);
    let error = open_error(&path);
    assert!(error.contains("filesystem_export") && error.contains("\"..\""), "{error}");
}

#[tokio::test]
async fn log_without_its_file_is_refused() {
    let (_directory, path) = temporary_path();
    fs::write(file_beside(&path, "-wal"), "log").expect("written");
    let error = open_error(&path);
    assert!(error.contains("the file is missing"), "{error}");
}

#[test]
fn unwritable_path_is_named() {
    let (directory, path) = temporary_path();
    let missing = directory.path().join("misspelt/deeper/registry.db");
    assert!(open_error(&missing).contains("do not exist"), "{missing:?}");
    fs::write(&path, "a file").expect("written");
    let error = open_error(&path.join("registry.db"));
    assert!(error.contains("cannot be opened for writing"), "{error}");
    let error = open_error(directory.path());
    assert!(error.contains("cannot be opened for writing"), "{error}");
    let created = directory.path().join("state/registry.db");
    SqliteStore::open(&created).expect("its directory alone was missing");
}

/// Environment variable with the registry's path. If it is set, the test below runs as its own child process.
const CHILD_PATH: &str = "TARGETWATCH_TEST_REGISTRY";

#[tokio::test]
async fn answered_create_survives_sigkill() {
    if let Some(path) = std::env::var_os(CHILD_PATH) {
        let (_store, registry) = open(Path::new(&path));
        let id = create(&registry, nfs("nas:/a")).await.target.id;
        println!("\nanswered {id}");
        std::future::pending::<()>().await;
    }
    let (_directory, path) = temporary_path();
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "registry::sqlite::tests::answered_create_survives_sigkill", "--nocapture"])
        .env(CHILD_PATH, &path)
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child");
    let output = BufReader::new(child.stdout.take().expect("a pipe"));
    let answered = output
        .lines()
        .find_map(|line| line.expect("text").strip_prefix("answered ").map(str::to_owned))
        .expect("an answer");
    child.kill().expect("killed");
    child.wait().expect("reaped");
    let (_store, registry) = open(&path);
    let snapshot = registry.snapshot();
    let entries = snapshot.targets();
    assert_eq!(entries.iter().map(|entry| entry.target.id.to_string()).collect::<Vec<_>>(), [answered]);
}

#[tokio::test]
async fn unknown_reason_in_a_history_is_kept() {
    let (_directory, path) = temporary_path();
    let (store, registry) = open(&path);
    let id = create(&registry, nfs("nas:/a")).await.target.id;
    let added = [transition(id, 1, Status::Offline), transition(id, 2, Status::Offline)];
    registry.add_transitions(added.to_vec()).await.expect("added");
    close(store, registry).await;
    let connection = Connection::open(&path).expect("opened");
    let change = "UPDATE target_transition SET reason = 'of_tomorrow' WHERE position = (SELECT max(position) FROM target_transition)";
    assert_eq!(connection.execute(change, []).expect("changed"), 1);
    drop(connection);

    let (_store, registry) = open(&path);
    let history = registry.transitions(id).await.expect("readable");
    let codes: Vec<_> = history.iter().flat_map(|kept| &kept.finding).map(|finding| &*finding.code).collect();
    assert_eq!(codes, ["of_tomorrow", "stale_handle"]);
}

#[tokio::test]
async fn read_is_skipped_when_its_caller_stops_waiting() {
    let (_directory, path) = temporary_path();
    let (store, registry) = open(&path);
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let mut holding =
        Box::pin(store.run(move |_| held.recv().map_err(|error| StorageError::Failed(error.to_string()))));
    assert!(futures::poll!(&mut holding).is_pending());
    let (tell, told) = std::sync::mpsc::channel();
    let mut reading =
        Box::pin(store.read(move |_| tell.send(()).map_err(|error| StorageError::Failed(error.to_string()))));
    assert!(futures::poll!(&mut reading).is_pending());
    drop(reading);
    hold.send(()).expect("let go");
    holding.await.expect("held");
    close(store, registry).await;
    assert!(told.recv().is_err(), "it was read");
}
