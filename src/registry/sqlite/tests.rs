#![allow(clippy::disallowed_methods, reason = "the files are in a temporary directory and the child is this test")]

mod limits;
mod target_types;
mod transitions;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use jiff::Timestamp;
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::model::{MountName, NfsExport, NfsTarget, PathKey, S3Endpoint, S3Location, S3Target, TargetSpec};

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("registry.db");
    (directory, path)
}

fn at(second: i64) -> Timestamp {
    Timestamp::new(second, 123_456_789).expect("a time")
}

fn new_target(spec: TargetSpec, is_default: bool) -> (Target, TargetType) {
    let target = Target {
        id: Uuid::new_v4(),
        mount_name: MountName::derive(&spec, PathKey::Path).expect("a short export"),
        is_default,
        created_at: at(1),
        updated_at: at(1),
        version: "0.1.0".to_owned(),
        metadata: BTreeMap::from([("owner".to_owned(), "Zoë \"the\" keeper\n".to_owned())]),
        spec,
    };
    let first_type = TargetType {
        id: Uuid::new_v4(),
        target_id: target.id,
        name: target.spec.export(),
        description: Some("nightly".to_owned()),
        is_public: true,
        is_default: false,
        user_id: None,
        created_at: at(1),
        updated_at: None,
        version: "0.1.0".to_owned(),
        projects: Vec::new(),
        metadata: BTreeMap::new(),
    };
    (target, first_type)
}

fn nfs(export: &str) -> (Target, TargetType) {
    new_target(TargetSpec::Nfs(NfsTarget { export: NfsExport::parse(export).expect(export) }), false)
}

fn s3(url: &str) -> (Target, TargetType) {
    new_target(TargetSpec::S3(S3Target { location: S3Location::parse(url).expect(url), immutable: false }), false)
}

async fn create(registry: &SqliteRegistry, (target, first_type): (Target, TargetType)) -> Entry {
    registry.create_target(target, first_type).await.expect("created")
}

async fn refused(registry: &SqliteRegistry, (target, first_type): (Target, TargetType)) -> RegistryError {
    let before = registry.load().await.expect("loaded");
    let error = registry.create_target(target, first_type).await.expect_err("refused");
    assert_eq!(registry.load().await.expect("loaded"), before, "{error}");
    error
}

async fn modified(registry: &SqliteRegistry, id: TargetId, change: TargetChange, now: Timestamp) -> Target {
    registry.modify_target(id, change, now).await.expect("changed").pop().expect("its entry").target
}

/// Opening fails, and the file and its log are as they were.
fn not_opened(path: &Path) -> String {
    let wal = file_beside(path, "-wal");
    // SQLite may leave an empty log behind, which says what none says.
    let content = || (fs::read(path).ok(), fs::read(&wal).unwrap_or_default());
    let before = content();
    let error = SqliteRegistry::open(path).expect_err("refused").to_string();
    assert!(content() == before, "the file was changed: {error}");
    assert!(error.contains(&path.display().to_string()), "{error}");
    error
}

fn file_beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

#[tokio::test]
async fn everything_is_there_after_reopening() {
    let (_directory, path) = place();
    let registry = SqliteRegistry::open(&path).expect("created");
    assert_eq!(registry.load().await.expect("loaded"), []);
    for new in [nfs("nas:/b/"), nfs("[fd00::1]:/x"), s3("http://ceph.example:8080/bucket"), s3("on-aws")] {
        create(&registry, new).await;
    }
    let before = registry.load().await.expect("loaded");
    assert_eq!(before.len(), 4);
    registry.close().await;
    let registry = SqliteRegistry::open(&path).expect("reopened");
    assert_eq!(registry.load().await.expect("loaded"), before);
    assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn the_first_target_and_its_type_are_the_default_and_stay_the_only_ones() {
    let (_directory, path) = place();
    let registry = SqliteRegistry::open(&path).expect("created");
    let first = create(&registry, nfs("nas:/a")).await;
    assert!(first.target.is_default && first.types[0].is_default);
    let (target, mut second_type) = nfs("nas:/c");
    second_type.is_default = true;
    let second = create(&registry, (target, second_type)).await;
    assert!(!second.target.is_default && !second.types[0].is_default);

    let error = refused(
        &registry,
        new_target(TargetSpec::Nfs(NfsTarget { export: NfsExport::parse("nas:/d").expect("valid") }), true),
    )
    .await;
    assert!(matches!(error, RegistryError::DefaultTaken { other_id, .. } if other_id == first.target.id), "{error}");

    let changed = registry.set_default_target(second.target.id, at(9)).await.expect("set");
    assert_eq!(changed.iter().map(|entry| entry.target.id).collect::<Vec<_>>(), [first.target.id, second.target.id]);
    assert!(changed[1].target.is_default && changed[1].types[0].is_default && !changed[0].target.is_default);
    assert_eq!((changed[1].target.updated_at, changed[1].types[0].updated_at), (at(9), Some(at(9))));
    assert_eq!(registry.load().await.expect("loaded"), changed);

    let again = registry.set_default_target(second.target.id, at(10)).await.expect("set");
    assert_eq!(again, changed[1..], "nothing changes");
    let unknown = Uuid::new_v4();
    let error = registry.set_default_target(unknown, at(11)).await.expect_err("unknown");
    assert!(matches!(error, RegistryError::TargetNotFound(id) if id == unknown), "{error}");
}

#[tokio::test]
async fn two_targets_never_share_a_directory_or_a_type_name() {
    let (_directory, path) = place();
    let registry = SqliteRegistry::open(&path).expect("created");
    let holder = create(&registry, nfs("nas:/b?")).await;
    for export in ["other:/b?", "other:/b?abc"] {
        let error = refused(&registry, nfs(export)).await;
        assert!(
            matches!(&error, RegistryError::MountPathTaken { other_id, other_export, .. }
                if *other_id == holder.target.id && other_export == "nas:/b?"),
            "{error}"
        );
    }
    let (target, mut same_name) = nfs("nas:/c");
    same_name.name = "nas:/b?".to_owned();
    let error = refused(&registry, (target, same_name)).await;
    assert!(matches!(&error, RegistryError::TypeNameTaken { field: "btt_name", name } if name == "nas:/b?"), "{error}");
}

#[tokio::test]
async fn of_creates_that_race_for_one_directory_one_wins() {
    let (_directory, path) = place();
    let registry = SqliteRegistry::open(&path).expect("created");
    let racers = (0..20).map(|n| {
        let (target, first_type) = nfs(&format!("nas{n}:/b"));
        registry.create_target(target, first_type)
    });
    let won = futures::future::join_all(racers).await.into_iter().filter(Result::is_ok).count();
    assert_eq!((won, registry.load().await.expect("loaded").len()), (1, 1));
}

#[tokio::test]
async fn the_default_goes_last() {
    let (_directory, path) = place();
    let registry = SqliteRegistry::open(&path).expect("created");
    let first = create(&registry, nfs("nas:/a")).await.target.id;
    let second = create(&registry, nfs("nas:/c")).await.target.id;
    for error in [registry.may_delete_target(first).await, registry.delete_target(first).await] {
        assert!(matches!(error, Err(RegistryError::DefaultInUse(id)) if id == first), "{error:?}");
    }
    registry.may_delete_target(second).await.expect("allowed");
    registry.delete_target(second).await.expect("deleted");
    registry.delete_target(first).await.expect("deleted");
    for error in [registry.may_delete_target(first).await, registry.delete_target(first).await] {
        assert!(matches!(error, Err(RegistryError::TargetNotFound(id)) if id == first), "{error:?}");
    }
    assert!(create(&registry, nfs("nas:/a")).await.target.is_default, "the names are free, the default is too");
}

#[tokio::test]
async fn what_may_change_about_a_target_changes() {
    let (_directory, path) = place();
    let registry = SqliteRegistry::open(&path).expect("created");
    let bucket = create(&registry, s3("https://ceph.example/bucket")).await.target;
    let endpoint = |url: &str| Some(S3Endpoint::parse(url).expect(url));
    let pair = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);

    let change = TargetChange {
        immutable: Some(true),
        endpoint: endpoint("http://ceph.example"),
        metadata: pair("rack", "7"),
        purge_metadata: false,
        is_default: None,
    };
    let changed = modified(&registry, bucket.id, change, at(5)).await;
    assert!(changed.spec.is_immutable());
    assert_eq!((changed.metadata.len(), changed.metadata["rack"].as_str(), changed.updated_at), (2, "7", at(5)));
    assert_eq!(changed.spec.export(), "ceph.example/bucket");
    assert_eq!(registry.load().await.expect("loaded")[0].target, changed);

    let same = modified(&registry, bucket.id, TargetChange::default(), at(6)).await;
    assert_eq!(same, changed);
    let purge = TargetChange { purge_metadata: true, metadata: pair("a", "b"), ..TargetChange::default() };
    assert_eq!(modified(&registry, bucket.id, purge, at(7)).await.metadata, pair("a", "b"));

    for other in ["https://ceph.example:8443", "https://other.example"] {
        let change = TargetChange { endpoint: endpoint(other), metadata: pair("x", "y"), ..TargetChange::default() };
        let error = registry.modify_target(bucket.id, change, at(8)).await.expect_err("fixed");
        assert!(matches!(&error, RegistryError::ExportFixed { given, .. } if given == other), "{error}");
    }
    assert_eq!(registry.load().await.expect("loaded")[0].target.metadata, pair("a", "b"), "nothing of it was done");

    let export = create(&registry, nfs("nas:/a")).await.target.id;
    for (change, expected) in [
        (TargetChange { immutable: Some(true), ..TargetChange::default() }, "immutable"),
        (TargetChange { endpoint: endpoint("https://x"), ..TargetChange::default() }, "s3_endpoint_url"),
    ] {
        let error = registry.modify_target(export, change, at(8)).await.expect_err("not s3");
        assert!(matches!(error, RegistryError::NotS3 { field, .. } if field == expected), "{error}");
    }
}

#[tokio::test]
async fn a_target_becomes_the_default_together_with_its_other_changes_or_not_at_all() {
    let (_directory, path) = place();
    let registry = SqliteRegistry::open(&path).expect("created");
    let first = create(&registry, nfs("nas:/a")).await.target;
    let second = create(&registry, nfs("nas:/b")).await.target;
    let note = BTreeMap::from([("rack".to_owned(), "7".to_owned())]);
    let change = TargetChange { metadata: note, is_default: Some(true), ..TargetChange::default() };

    let before = registry.load().await.expect("loaded");
    let refused = TargetChange { immutable: Some(true), ..change.clone() };
    registry.modify_target(second.id, refused, at(4)).await.expect_err("not s3");
    assert_eq!(registry.load().await.expect("loaded"), before);

    let changed = registry.modify_target(second.id, change, at(5)).await.expect("changed");
    assert_eq!(changed.iter().map(|entry| entry.target.id).collect::<Vec<_>>(), [first.id, second.id]);
    assert_eq!(registry.load().await.expect("loaded"), changed);
    assert!(!changed[0].target.is_default && changed[1].target.is_default && changed[1].types[0].is_default);
    assert_eq!(changed[1].target.metadata["rack"], "7");

    let not = || TargetChange { is_default: Some(false), ..TargetChange::default() };
    let error = registry.modify_target(second.id, not(), at(6)).await.expect_err("the default");
    assert!(matches!(error, RegistryError::DefaultStays(id) if id == second.id), "{error}");
    assert_eq!(registry.load().await.expect("loaded"), changed);
    assert_eq!(registry.modify_target(first.id, not(), at(6)).await.expect("is none"), changed[..1]);
}

#[tokio::test]
async fn a_new_target_is_judged_by_what_the_rules_ask_for_and_nothing_else_is_read() {
    let (_directory, path) = place();
    let registry = SqliteRegistry::open(&path).expect("created");
    create(&registry, nfs("nas:/a")).await;
    // Who reads the assignments of all types fails.
    registry
        .run(|connection| {
            let no_id = "z".repeat(32);
            let sql = format!(
                "INSERT INTO target_type_project SELECT NULL, 'x', id, '{no_id}', '', NULL, '' FROM target_type;"
            );
            connection.execute_batch(&sql).map_err(storage)
        })
        .await
        .expect("written");
    registry.load().await.expect_err("unreadable");
    create(&registry, nfs("nas:/b")).await;
}

#[tokio::test]
async fn a_disk_that_is_full_or_read_only_changes_nothing() {
    let (_directory, path) = place();
    let registry = SqliteRegistry::open(&path).expect("created");
    let kept = create(&registry, nfs("nas:/a")).await;
    for (limit, none) in [
        ("PRAGMA max_page_count = 1", "PRAGMA max_page_count = 100000"),
        ("PRAGMA query_only = 1", "PRAGMA query_only = 0"),
    ] {
        let pragma = |sql: &'static str| registry.run(move |connection| connection.execute_batch(sql).map_err(storage));
        pragma(limit).await.expect("set");
        let (mut target, first_type) = nfs("nas:/large");
        target.metadata.insert("notes".to_owned(), "x".repeat(1 << 20));
        let error = refused(&registry, (target, first_type)).await;
        assert!(matches!(error, RegistryError::Storage(_)), "{error}");
        assert!(error.to_string().ends_with("Nothing was changed"), "{error}");
        pragma(none).await.expect("set");
    }
    create(&registry, nfs("nas:/b")).await;
    assert_eq!(registry.load().await.expect("loaded")[0], kept);
}

#[tokio::test]
async fn a_file_that_was_removed_or_replaced_takes_no_change_and_can_be_read() {
    for lost in ["", "-wal"] {
        for is_replaced in [false, true] {
            let (_directory, path) = place();
            let registry = SqliteRegistry::open(&path).expect("created");
            let kept = create(&registry, nfs("nas:/a")).await;
            let lost = file_beside(&path, lost);
            let content = fs::read(&lost).expect("there");
            fs::remove_file(&lost).expect("removed");
            if is_replaced {
                // Beside the old one, so that it is another file.
                fs::write(file_beside(&path, ".other"), content).expect("written");
                fs::rename(file_beside(&path, ".other"), &lost).expect("replaced");
            }
            let error = refused(&registry, nfs("nas:/b")).await.to_string();
            assert!(error.contains(&lost.display().to_string()) && error.contains("removed or replaced"), "{error}");
            let error = registry.may_delete_target(kept.target.id).await.expect_err("refused before it is unmounted");
            assert!(matches!(error, RegistryError::Storage(_)), "{error}");
            assert_eq!(registry.load().await.expect("read"), [kept]);
        }
    }
}

#[tokio::test]
async fn a_job_is_done_though_nobody_waits_for_it() {
    let (_directory, path) = place();
    let registry = SqliteRegistry::open(&path).expect("created");
    let (target, first_type) = nfs("nas:/a");
    let mut create = Box::pin(registry.create_target(target, first_type));
    // Whether it is answered yet or not: it is queued.
    let _ = futures::poll!(&mut create);
    drop(create);
    registry.close().await;
    let registry = SqliteRegistry::open(&path).expect("reopened");
    assert_eq!(registry.load().await.expect("loaded").len(), 1);
}

#[tokio::test]
async fn a_second_agent_is_refused_while_the_first_has_the_file() {
    let (_directory, path) = place();
    let registry = SqliteRegistry::open(&path).expect("created");
    create(&registry, nfs("nas:/a")).await;
    let error = not_opened(&path);
    assert!(error.contains("another agent is using it"), "{error}");
    create(&registry, nfs("nas:/b")).await;
    registry.close().await;
    SqliteRegistry::open(&path).expect("free again");
}

#[test]
fn what_is_no_registry_is_refused_and_left_as_it_is() {
    let noise: Vec<u8> = (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for (content, expected) in [
        (noise.as_slice(), "not an SQLite database"),
        (b"".as_slice(), "the file is empty"),
        (b"SQLite format 3\0".as_slice(), "not an SQLite database"),
    ] {
        let (_directory, path) = place();
        fs::write(&path, content).expect("written");
        let error = not_opened(&path);
        assert!(error.contains(expected) && error.contains("left as it is"), "{error}");
    }
}

#[test]
fn another_applications_database_is_refused() {
    let (_directory, path) = place();
    Connection::open(&path).expect("created").execute_batch("CREATE TABLE songs (title TEXT)").expect("written");
    let error = not_opened(&path);
    assert!(error.contains("another application"), "{error}");
}

#[tokio::test]
async fn a_newer_schema_is_refused_wherever_it_is_written() {
    for in_log in [false, true] {
        let (_directory, path) = place();
        SqliteRegistry::open(&path).expect("created").close().await;
        let connection = Connection::open(&path).expect("opened");
        connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, in_log).expect("set");
        connection.pragma_update(None, "user_version", 99).expect("written");
        drop(connection);
        let error = not_opened(&path);
        assert!(error.contains("has schema 99") && error.contains("up to 3"), "{error}");
    }
}

#[tokio::test]
async fn a_damaged_file_is_refused() {
    let (_directory, path) = place();
    let registry = SqliteRegistry::open(&path).expect("created");
    for n in 0..100 {
        create(&registry, nfs(&format!("nas:/t{n}"))).await;
    }
    registry.close().await;
    let sound = fs::read(&path).expect("read");

    let mut overwritten = sound.clone();
    overwritten[8192..12288].fill(0xa5);
    for damaged in [&overwritten[..], &sound[..sound.len() / 2]] {
        fs::write(&path, damaged).expect("written");
        let error = not_opened(&path);
        assert!(error.contains("the file is damaged"), "{error}");
    }
    fs::write(&path, &sound).expect("written");
    let connection = Connection::open(&path).expect("opened");
    connection.execute("UPDATE target SET nfs_export = 'nas:/../etc' WHERE position = 7", []).expect("written");
    drop(connection);
    let error = not_opened(&path);
    assert!(error.contains("filesystem_export") && error.contains("\"..\""), "{error}");
}

#[tokio::test]
async fn a_log_without_its_file_is_a_loss_and_not_a_start() {
    let (_directory, path) = place();
    fs::write(file_beside(&path, "-wal"), "log").expect("written");
    let error = not_opened(&path);
    assert!(error.contains("the file is missing"), "{error}");
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let (directory, path) = place();
    let missing = directory.path().join("misspelt/deeper/registry.db");
    assert!(not_opened(&missing).contains("does not exist"), "{missing:?}");
    fs::write(&path, "a file").expect("written");
    let error = not_opened(&path.join("registry.db"));
    assert!(error.contains("cannot be opened for writing"), "{error}");
    let error = not_opened(directory.path());
    assert!(error.contains("cannot be opened for writing"), "{error}");
    let created = directory.path().join("state/registry.db");
    SqliteRegistry::open(&created).expect("its directory alone was missing");
}

/// What of the environment makes the test below its own child.
const CHILD_PATH: &str = "TARGETWATCH_TEST_REGISTRY";

#[tokio::test]
async fn an_answered_create_survives_sigkill() {
    if let Some(path) = std::env::var_os(CHILD_PATH) {
        let registry = SqliteRegistry::open(Path::new(&path)).expect("created");
        let id = create(&registry, nfs("nas:/a")).await.target.id;
        println!("\nanswered {id}");
        std::future::pending::<()>().await;
    }
    let (_directory, path) = place();
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "registry::sqlite::tests::an_answered_create_survives_sigkill", "--nocapture"])
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
    let registry = SqliteRegistry::open(&path).expect("reopened, and not locked");
    let entries = registry.load().await.expect("loaded");
    assert_eq!(entries.iter().map(|entry| entry.target.id.to_string()).collect::<Vec<_>>(), [answered]);
}

#[tokio::test]
async fn a_file_that_cannot_be_looked_at_is_not_told_to_be_gone() {
    let (_directory, path) = place();
    let registry = SqliteRegistry::open(&path).expect("created");
    let kept = create(&registry, nfs("nas:/a")).await;
    let here = path.parent().expect("a directory");
    // A link that leads to itself: no permission stops root, and this does.
    let away = here.with_extension("away");
    fs::rename(here, &away).expect("moved");
    std::os::unix::fs::symlink(here, here).expect("a loop");
    let error = refused(&registry, nfs("nas:/b")).await.to_string();
    assert!(error.contains("cannot be looked at") && error.contains("symbolic links"), "{error}");
    assert!(!error.contains("removed"), "{error}");
    fs::remove_file(here).expect("removed");
    fs::rename(&away, here).expect("moved back");
    assert_eq!(registry.load().await.expect("read"), [kept]);
    create(&registry, nfs("nas:/b")).await;
}
