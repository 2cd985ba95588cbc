//! Targets and types for tests, here and in the agent.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::{Change, Refusal, RegisteredTarget, Registry, RegistryError, Snapshot, rules};
pub(crate) use crate::model::node_scope::scope;
use crate::model::{
    MountName, NfsExport, NfsTarget, PathKey, ProjectId, S3Location, S3Target, Target, TargetId, TargetSpec,
    TargetType, TargetTypeId, TypeProject,
};

/// A point in time with nanoseconds, to detect a text form that rounds.
pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::new(second, 123_456_789).expect("a time")
}

/// A time in the first second that is later than those of all earlier calls.
fn next_time() -> Timestamp {
    static CALLS: AtomicI64 = AtomicI64::new(1);
    at(1) + SignedDuration::from_micros(CALLS.fetch_add(1, Ordering::Relaxed))
}

/// A target with its first type, later than those before. Neither is the default.
pub(crate) fn new_target(spec: TargetSpec) -> (Target, TargetType) {
    let now = next_time();
    let target = Target {
        id: Uuid::new_v4(),
        mount_name: MountName::derive(&spec, PathKey::Path).expect("a short export"),
        is_default: false,
        created_at: now,
        updated_at: now,
        version: "0.1.0".to_owned(),
        metadata: metadata(&[("owner", "Zoë \"the\" keeper\n")]),
        scope: None,
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
        created_at: now,
        updated_at: None,
        version: "0.1.0".to_owned(),
        projects: Vec::new(),
        metadata: BTreeMap::new(),
    };
    (target, first_type)
}

pub(crate) fn nfs(export: &str) -> (Target, TargetType) {
    new_target(TargetSpec::Nfs(NfsTarget {
        export: NfsExport::parse(export).expect(export),
        options: None,
        mode: None,
    }))
}

pub(crate) fn s3(url: &str) -> (Target, TargetType) {
    new_target(TargetSpec::S3(S3Target {
        location: S3Location::parse(url).expect(url),
        immutable: false,
        secret_ref: None,
    }))
}

pub(crate) fn new_type(target_id: TargetId, name: &str) -> TargetType {
    let (_, first_type) = nfs("nas:/unused");
    TargetType { id: Uuid::new_v4(), target_id, name: name.to_owned(), created_at: at(2), ..first_type }
}

pub(crate) fn project_id(n: u128) -> ProjectId {
    Uuid::from_u128(n).to_string().parse().expect("an id")
}

pub(crate) fn project(n: u128) -> TypeProject {
    TypeProject {
        id: Uuid::new_v4(),
        project_id: project_id(n),
        created_at: at(2),
        updated_at: None,
        version: "0.1.0".to_owned(),
    }
}

pub(crate) fn metadata(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub(crate) fn create_target((target, first_type): (Target, TargetType)) -> Change {
    Change::CreateTarget { target: target.into(), first_type, declines_default: false }
}

/// The snapshot with the changes of `change`.
pub(crate) fn changed(snapshot: &Snapshot, change: &Change) -> Result<Snapshot, Refusal> {
    Ok(snapshot.apply(&rules::decide(snapshot, change)?, snapshot.revision().next()))
}

/// A snapshot of these targets, each with its first type. The first target is the default.
pub(crate) fn snapshot_of(targets: impl IntoIterator<Item = (Target, TargetType)>) -> Snapshot {
    let with_type = |(n, (target, first_type)): (usize, (Target, TargetType))| {
        let is_default = n == 0;
        let target = Target { is_default, ..target }.into();
        RegisteredTarget { target, types: [TargetType { is_default, ..first_type }.into()].into() }
    };
    Snapshot::new(targets.into_iter().enumerate().map(with_type).collect())
}

pub(crate) fn target(snapshot: &Snapshot, id: TargetId) -> &RegisteredTarget {
    snapshot.target(id).expect("the target")
}

pub(crate) fn target_type(snapshot: &Snapshot, id: TargetTypeId) -> &TargetType {
    snapshot.target_type(id).expect("the type")
}

/// Creates a target and returns it with its type.
pub(crate) async fn create(registry: &Registry, new: (Target, TargetType)) -> RegisteredTarget {
    let id = new.0.id;
    target(&registry.change(&create_target(new)).await.expect("created"), id).clone()
}

/// Returns the error of creating a target, and asserts that nothing was changed.
pub(crate) async fn refused(registry: &Registry, new: (Target, TargetType)) -> RegistryError {
    let before = registry.snapshot();
    let error = registry.change(&create_target(new)).await.expect_err("refused");
    assert_eq!(registry.snapshot(), before, "{error}");
    error
}
