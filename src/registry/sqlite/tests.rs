//! What the registry promises, on real files.

#![allow(clippy::disallowed_methods, reason = "the files are on this host's own disk")]

use std::collections::BTreeMap;

use super::*;
use crate::model::{MountName, NfsExport, PathKey, S3Endpoint, S3Location, TargetSpec};
use uuid::Uuid;

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn new(spec: TargetSpec, is_default: bool) -> (Target, TargetType) {
    let id = Uuid::new_v4();
    let target = Target {
        id,
        mount_name: MountName::derive(&spec, PathKey::Path).expect("a name"),
        is_default,
        created_at: time(1),
        updated_at: time(1),
        version: "1".to_owned(),
        metadata: BTreeMap::from([("rack".to_owned(), "12".to_owned())]),
        spec,
    };
    let first_type = TargetType {
        id: Uuid::new_v4(),
        target_id: id,
        name: target.spec.export(),
        description: None,
        is_public: true,
        is_default,
        user_id: None,
        created_at: time(1),
        updated_at: None,
        version: "1".to_owned(),
    };
    (target, first_type)
}

fn nfs(export: &str) -> (Target, TargetType) {
    new(TargetSpec::Nfs(NfsExport::parse(export).expect("an export")), false)
}

fn s3(endpoint: &str, bucket: &str) -> (Target, TargetType) {
    let endpoint = S3Endpoint::parse(endpoint).expect("an endpoint");
    let location = S3Location::new(Some(endpoint), bucket).expect("a bucket");
    new(TargetSpec::S3 { location, immutable: true }, false)
}

struct File {
    directory: tempfile::TempDir,
}

impl File {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory") }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("registry.db")
    }

    fn open(&self) -> Result<SqliteRegistry, RegistryError> {
        SqliteRegistry::open(&self.path())
    }

    /// Opens it when its last user has let go of it, which its thread does after it was dropped.
    fn reopen(&self) -> SqliteRegistry {
        self.open().expect("a registry")
    }
}

#[tokio::test]
async fn everything_survives_and_keeps_its_order() {
    let file = File::new();
    let registry = file.reopen();
    let mut created = Vec::new();
    for (target, first_type) in [nfs("nas:/b"), s3("https://s3.example:9000", "bucket"), nfs("[fd00::1]:/a/")] {
        created.push(registry.create_target(target, first_type).await.expect("created"));
    }
    drop(registry);
    let registry = file.reopen();
    assert_eq!(registry.load().await.expect("entries"), created);
    let defaults: Vec<bool> =
        created.iter().map(|entry| entry.target.is_default && entry.types[0].is_default).collect();
    assert_eq!(defaults, [true, false, false], "the first target of all is the default");
}

#[tokio::test]
async fn rules_are_kept_and_a_refusal_changes_nothing() {
    let file = File::new();
    let registry = file.reopen();
    let (target, first_type) = nfs("nas:/b");
    let first = registry.create_target(target, first_type).await.expect("created").target.id;
    let before = registry.load().await.expect("entries");

    let (same_path, same_path_type) = nfs("other:/b");
    let refused = registry.create_target(same_path, same_path_type).await.expect_err("taken");
    assert!(matches!(&refused, RegistryError::MountPathTaken { other_id, .. } if *other_id == first), "{refused}");
    assert!(refused.to_string().contains("nas:/b"), "{refused}");

    let (target, mut taken) = nfs("nas:/c");
    taken.name = "nas:/b".to_owned();
    let refused = registry.create_target(target, taken).await.expect_err("taken");
    assert!(matches!(refused, RegistryError::TypeNameTaken(name) if name == "nas:/b"));

    let (target, first_type) = new(TargetSpec::Nfs(NfsExport::parse("nas:/d").expect("an export")), true);
    let refused = registry.create_target(target, first_type).await.expect_err("a second default");
    assert!(matches!(refused, RegistryError::DefaultTaken { other_id, .. } if other_id == first));

    let unknown = Uuid::new_v4();
    assert!(matches!(registry.delete_target(unknown).await, Err(RegistryError::TargetNotFound(id)) if id == unknown));
    assert_eq!(registry.load().await.expect("entries"), before);
}

#[tokio::test]
async fn a_directory_inside_another_targets_is_refused() {
    let file = File::new();
    let registry = file.reopen();
    // "/b?" encodes to "L2I/", and "/b?abc" to a directory inside it.
    let (target, first_type) = nfs("nas:/b?abc");
    assert_eq!(target.mount_name.as_str(), "L2I/YWJj");
    registry.create_target(target, first_type).await.expect("created");
    let (target, first_type) = nfs("nas:/b?");
    let refused = registry.create_target(target, first_type).await.expect_err("nested");
    assert!(matches!(refused, RegistryError::MountPathTaken { .. }), "{refused}");
}

#[tokio::test]
async fn there_is_always_exactly_one_default() {
    let file = File::new();
    let registry = file.reopen();
    let mut ids = Vec::new();
    for (target, first_type) in [nfs("nas:/a"), nfs("nas:/b"), nfs("nas:/c")] {
        ids.push(registry.create_target(target, first_type).await.expect("created").target.id);
    }
    let refused = registry.may_delete_target(ids[0]).await.expect_err("the default");
    assert!(matches!(refused, RegistryError::DefaultInUse(id) if id == ids[0]));
    let changed = registry.set_default_target(ids[1], time(9)).await.expect("switched");
    let shown: Vec<_> = changed.iter().map(|entry| (entry.target.id, entry.target.is_default)).collect();
    assert_eq!(shown, [(ids[0], false), (ids[1], true)]);
    assert_eq!(changed[1].target.updated_at, time(9));
    assert!(changed[1].types[0].is_default && !changed[0].types[0].is_default);
    registry.delete_target(ids[0]).await.expect("no default any more");
    let left = registry.load().await.expect("entries");
    assert_eq!(left.iter().filter(|entry| entry.target.is_default).count(), 1);
    let again = registry.set_default_target(ids[1], time(10)).await.expect("it already is");
    assert_eq!(again.len(), 1);
}

#[tokio::test]
async fn what_may_change_changes_and_the_export_does_not() {
    let file = File::new();
    let registry = file.reopen();
    let (target, first_type) = s3("https://s3.example:9000", "bucket");
    let id = registry.create_target(target, first_type).await.expect("created").target.id;
    let change = TargetChange {
        immutable: Some(false),
        endpoint: Some(S3Endpoint::parse("http://s3.example:9000").expect("an endpoint")),
        metadata: BTreeMap::from([("room".to_owned(), "2".to_owned())]),
        purge_metadata: true,
    };
    let changed = registry.modify_target(id, change, time(5)).await.expect("changed").target;
    assert!(!changed.spec.is_immutable());
    assert_eq!(changed.metadata, BTreeMap::from([("room".to_owned(), "2".to_owned())]));
    assert_eq!((changed.created_at, changed.updated_at), (time(1), time(5)));
    assert!(matches!(&changed.spec, TargetSpec::S3 { location, .. }
        if location.endpoint().is_some_and(|endpoint| endpoint.url() == "http://s3.example:9000")));

    let elsewhere = TargetChange {
        endpoint: Some(S3Endpoint::parse("https://other.example").expect("an endpoint")),
        immutable: Some(true),
        ..TargetChange::default()
    };
    let refused = registry.modify_target(id, elsewhere, time(6)).await.expect_err("another export");
    assert!(matches!(refused, RegistryError::ExportFixed { .. }), "{refused}");
    assert_eq!(registry.load().await.expect("entries")[0].target, changed, "nothing of it was changed");
}

#[test]
fn a_file_that_is_no_registry_stops_and_stays_as_it_is() {
    let file = File::new();
    let noise: Vec<u8> = (0..20_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(file.path(), &noise).expect("written");
    let error = file.open().err().expect("noise");
    assert!(matches!(error, RegistryError::NotARegistry { .. }), "{error}");
    assert!(error.to_string().contains("registry.db"), "{error}");
    assert_eq!(std::fs::read(file.path()).expect("read"), noise);

    let other = File::new();
    Connection::open(other.path())
        .and_then(|c| c.execute_batch("CREATE TABLE t (a); PRAGMA user_version = 1;"))
        .expect("made");
    let before = std::fs::read(other.path()).expect("read");
    let error = other.open().err().expect("another program's");
    assert!(error.to_string().contains("another program"), "{error}");
    assert_eq!(std::fs::read(other.path()).expect("read"), before);
}

#[tokio::test]
async fn a_newer_schema_stops_and_names_both_versions() {
    let file = File::new();
    drop(file.reopen());
    let connection = Connection::open(file.path()).expect("opened");
    connection.pragma_update(None, "user_version", 99).expect("set");
    drop(connection);
    let error = file.open().err().expect("newer");
    assert!(matches!(error, RegistryError::NewerSchema { found: 99, .. }), "{error}");
}

#[test]
fn a_file_that_cannot_be_written_stops() {
    let missing = SqliteRegistry::open(Path::new("/nonexistent/registry.db")).err().expect("no directory");
    assert!(matches!(missing, RegistryError::Unwritable { .. }), "{missing}");
    let directory = tempfile::tempdir().expect("a directory");
    let error = SqliteRegistry::open(directory.path()).err().expect("a directory is no file");
    assert!(matches!(error, RegistryError::Unwritable { .. }), "{error}");
}

#[tokio::test]
async fn a_second_agent_on_the_same_file_is_told_so() {
    let file = File::new();
    let first = file.reopen();
    let error = file.open().err().expect("taken");
    assert!(error.to_string().contains("another process uses it"), "{error}");
    assert!(first.load().await.is_ok(), "the first one goes on");
}

#[test]
fn only_the_agents_user_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let file = File::new();
    drop(file.reopen());
    let mode = std::fs::metadata(file.path()).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
