//! What may be done with target types, and that nothing breaks the rules whatever is done.

use std::collections::{BTreeSet, HashSet};

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::*;
use crate::model::{ProjectId, TargetTypeId, TypeProject};
use crate::registry::TypeChange;

fn project_id(n: u128) -> ProjectId {
    Uuid::from_u128(n).to_string().parse().expect("an id")
}

pub(super) fn project(n: u128) -> TypeProject {
    TypeProject {
        id: Uuid::new_v4(),
        project_id: project_id(n),
        created_at: at(2),
        updated_at: None,
        version: "0.1.0".to_owned(),
    }
}

pub(super) fn new_type(target_id: TargetId, name: &str) -> TargetType {
    let (_, first_type) = nfs("nas:/unused");
    TargetType { id: Uuid::new_v4(), target_id, name: name.to_owned(), created_at: at(2), ..first_type }
}

pub(super) fn notes(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub(super) fn found(entries: &[Entry], id: TargetTypeId) -> TargetType {
    entries.iter().flat_map(|entry| &entry.types).find(|kept| kept.id == id).expect("the type").clone()
}

pub(super) async fn modify(registry: &SqliteRegistry, id: TargetTypeId, change: TypeChange) -> TargetType {
    found(&registry.modify_type(id, change, at(7)).await.expect("changed"), id)
}

#[tokio::test]
async fn a_type_is_all_there_after_reopening_and_goes_with_its_target() {
    let (_directory, path) = place();
    let registry = SqliteRegistry::open(&path).expect("created");
    create(&registry, nfs("nas:/a")).await;
    let target_id = create(&registry, nfs("nas:/b")).await.target.id;
    let mut new = new_type(target_id, "Zoë's");
    new.is_public = false;
    new.projects = vec![project(2), project(1)];
    new.metadata = notes(&[("b", "ü"), ("a", "1")]);
    let changed = registry.create_type(new.clone()).await.expect("created");
    assert_eq!(changed.len(), 1);
    assert_eq!(changed[0].types[1], new);
    let before = registry.load().await.expect("loaded");
    assert_eq!(before[1], changed[0]);
    registry.close().await;
    let registry = SqliteRegistry::open(&path).expect("reopened");
    assert_eq!(registry.load().await.expect("loaded"), before);

    registry.delete_target(target_id).await.expect("deleted");
    let error = registry.modify_type(new.id, TypeChange::default(), at(3)).await.expect_err("gone");
    assert!(matches!(error, RegistryError::TypeNotFound(id) if id == new.id), "{error}");
    let left: i64 = registry
        .run(|connection| {
            let sql = "SELECT (SELECT count(*) FROM target_type_project) + (SELECT count(*) FROM target_type_metadata)";
            connection.query_row(sql, [], |row| row.get(0)).map_err(storage)
        })
        .await
        .expect("counted");
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_type_of_no_target_or_with_a_taken_name_is_refused() {
    let (_directory, path) = place();
    let registry = SqliteRegistry::open(&path).expect("created");
    let target_id = create(&registry, nfs("nas:/a")).await.target.id;
    let unknown = Uuid::new_v4();
    let error = registry.create_type(new_type(unknown, "x")).await.expect_err("no target");
    assert!(matches!(error, RegistryError::TargetNotFound(id) if id == unknown), "{error}");
    let error = registry.create_type(new_type(target_id, "nas:/a")).await.expect_err("taken");
    assert!(matches!(&error, RegistryError::TypeNameTaken { field: "name", name } if name == "nas:/a"), "{error}");
    let second = new_type(target_id, "x");
    registry.create_type(second.clone()).await.expect("created");
    let rename = |name: &str| TypeChange { name: Some(name.to_owned()), ..TypeChange::default() };
    let error = registry.modify_type(second.id, rename("nas:/a"), at(3)).await.expect_err("taken");
    assert!(matches!(&error, RegistryError::TypeNameTaken { field: "name", .. }), "{error}");
    assert_eq!(modify(&registry, second.id, rename("x")).await.updated_at, None, "its own name is no change");
    assert_eq!(modify(&registry, second.id, rename("y")).await.name, "y");
}

#[tokio::test]
async fn the_default_type_takes_its_target_with_it() {
    let (_directory, path) = place();
    let registry = SqliteRegistry::open(&path).expect("created");
    let first = create(&registry, nfs("nas:/a")).await;
    let second = create(&registry, nfs("nas:/b")).await;
    let mut new = new_type(second.target.id, "x");
    new.is_default = true;
    let changed = registry.create_type(new.clone()).await.expect("created");
    assert_eq!(changed, registry.load().await.expect("loaded"));
    assert_eq!(changed[1].types[1], new, "it is new, and was not changed");
    assert_eq!(changed[0].types[0].updated_at, Some(new.created_at));
    let flags = |entries: &[Entry]| -> Vec<(bool, Vec<bool>)> {
        let types = |entry: &Entry| entry.types.iter().map(|kept| kept.is_default).collect();
        entries.iter().map(|entry| (entry.target.is_default, types(entry))).collect()
    };
    assert_eq!(flags(&changed), [(false, vec![false]), (true, vec![false, true])]);

    // A target that is the default already keeps the type that was chosen.
    let again = registry.set_default_target(second.target.id, at(5)).await.expect("set");
    assert_eq!(again, changed[1..]);

    let make_default = || TypeChange { is_default: Some(true), ..TypeChange::default() };
    let changed = registry.modify_type(second.types[0].id, make_default(), at(6)).await.expect("set");
    assert_eq!(flags(&changed), [(true, vec![true, false])]);
    let changed = registry.modify_type(first.types[0].id, make_default(), at(7)).await.expect("set");
    assert_eq!(changed[1].target.updated_at, at(7));
    assert_eq!(flags(&registry.load().await.expect("loaded")), [(true, vec![true]), (false, vec![false, false])]);
}

#[tokio::test]
async fn a_target_that_becomes_the_default_brings_a_type_that_all_can_use() {
    let (_directory, path) = place();
    let registry = SqliteRegistry::open(&path).expect("created");
    let first = create(&registry, nfs("nas:/a")).await;
    let second = create(&registry, nfs("nas:/b")).await;
    let private = TypeChange { is_public: Some(false), ..TypeChange::default() };
    modify(&registry, second.types[0].id, private.clone()).await;
    let changed = registry.set_default_target(second.target.id, at(3)).await.expect("set");
    assert!(changed[1].types[0].is_default, "there is no other");
    registry.set_default_target(first.target.id, at(4)).await.expect("set");
    let public = new_type(second.target.id, "public");
    registry.create_type(public.clone()).await.expect("created");
    let changed = registry.set_default_target(second.target.id, at(5)).await.expect("set");
    assert!(!changed[1].types[0].is_default && changed[1].types[1].is_default);

    // The one that was chosen stays, whoever can use it.
    modify(&registry, public.id, private).await;
    let again = registry.set_default_target(second.target.id, at(6)).await.expect("set");
    assert!(again[0].types[1].is_default);
}

#[tokio::test]
async fn the_default_type_cannot_be_told_not_to_be() {
    let (_directory, path) = place();
    let registry = SqliteRegistry::open(&path).expect("created");
    let entry = create(&registry, nfs("nas:/a")).await;
    let other = new_type(entry.target.id, "x");
    registry.create_type(other.clone()).await.expect("created");
    let before = registry.load().await.expect("loaded");
    let change =
        || TypeChange { is_default: Some(false), description: Some("never".to_owned()), ..TypeChange::default() };
    let error = registry.modify_type(entry.types[0].id, change(), at(3)).await.expect_err("the default");
    assert!(matches!(&error, RegistryError::DefaultTypeStays { id, .. } if *id == entry.types[0].id), "{error}");
    assert_eq!(registry.load().await.expect("loaded"), before);
    assert_eq!(modify(&registry, other.id, change()).await.description.as_deref(), Some("never"));
}

#[tokio::test]
async fn the_last_type_and_the_default_type_stay() {
    let (_directory, path) = place();
    let registry = SqliteRegistry::open(&path).expect("created");
    let entry = create(&registry, nfs("nas:/a")).await;
    let first = entry.types[0].id;
    let error = registry.delete_type(first).await.expect_err("the last");
    assert!(matches!(&error, RegistryError::LastType { id, .. } if *id == first), "{error}");
    assert!(error.to_string().contains("delete the backup target itself"), "{error}");
    let second = new_type(entry.target.id, "x");
    registry.create_type(second.clone()).await.expect("created");
    let error = registry.delete_type(first).await.expect_err("the default");
    assert!(matches!(&error, RegistryError::DefaultTypeInUse { id, .. } if *id == first), "{error}");
    assert!(error.to_string().contains("PUT /backup_target_types/<id>"), "{error}");
    assert_eq!(registry.delete_type(second.id).await.expect("deleted"), entry);
    let error = registry.delete_type(second.id).await.expect_err("gone");
    assert!(matches!(error, RegistryError::TypeNotFound(_)), "{error}");
}

#[tokio::test]
async fn a_type_is_public_or_some_projects_and_never_both() {
    let (_directory, path) = place();
    let registry = SqliteRegistry::open(&path).expect("created");
    let id = create(&registry, nfs("nas:/a")).await.types[0].id;
    let give = |projects: &[u128]| TypeChange {
        add_projects: projects.iter().copied().map(project).collect(),
        ..TypeChange::default()
    };
    let public = |is_public| TypeChange { is_public: Some(is_public), ..TypeChange::default() };
    let remove = |projects: &[u128]| TypeChange {
        remove_projects: projects.iter().copied().map(project_id).collect(),
        ..TypeChange::default()
    };
    let purge = TypeChange { purge_projects: true, ..TypeChange::default() };
    let replace = TypeChange { purge_projects: true, ..give(&[4]) };
    for (change, is_public, projects) in [
        (give(&[1, 2, 1]), false, &[1, 2][..]),
        (give(&[2, 3]), false, &[1, 2, 3]),
        (remove(&[2, 9]), false, &[1, 3]),
        (public(false), false, &[1, 3]),
        (replace, false, &[4]),
        (purge.clone(), false, &[]),
        (public(true), true, &[]),
        (purge, true, &[]),
        (give(&[1]), false, &[1]),
        (remove(&[1]), false, &[]),
        (give(&[5]), false, &[5]),
        (public(true), true, &[]),
        (public(false), false, &[]),
    ] {
        let kept = modify(&registry, id, change.clone()).await;
        let expected: Vec<ProjectId> = projects.iter().copied().map(project_id).collect();
        let have: Vec<ProjectId> = kept.projects.into_iter().map(|assigned| assigned.project_id).collect();
        assert_eq!((kept.is_public, have), (is_public, expected), "{change:?}");
    }
    let contradiction = TypeChange { is_public: Some(true), ..give(&[1]) };
    let error = registry.modify_type(id, contradiction, at(8)).await.expect_err("both");
    assert!(matches!(error, RegistryError::PublicWithProjects), "{error}");
    let target_id = registry.load().await.expect("loaded")[0].target.id;
    let both = TargetType { projects: vec![project(1)], ..new_type(target_id, "both") };
    let error = registry.create_type(both).await.expect_err("both");
    assert!(matches!(error, RegistryError::PublicWithProjects), "{error}");
}

#[tokio::test]
async fn an_assignment_that_is_there_is_left_as_it_is() {
    let (_directory, path) = place();
    let registry = SqliteRegistry::open(&path).expect("created");
    let id = create(&registry, nfs("nas:/a")).await.types[0].id;
    let give = || TypeChange { add_projects: vec![project(1)], ..TypeChange::default() };
    let first = modify(&registry, id, give()).await;
    let changed = registry.modify_type(id, give(), at(9)).await.expect("nothing to do");
    assert_eq!(found(&changed, id), first, "neither the assignment nor the time of the type");
}

#[tokio::test]
async fn a_description_is_replaced_kept_and_cleared() {
    let (_directory, path) = place();
    let registry = SqliteRegistry::open(&path).expect("created");
    let id = create(&registry, nfs("nas:/a")).await.types[0].id;
    for (description, expected) in [(Some("x"), Some("x")), (None, Some("x")), (Some(""), None), (None, None)] {
        let change = TypeChange { description: description.map(str::to_owned), ..TypeChange::default() };
        assert_eq!(modify(&registry, id, change).await.description.as_deref(), expected, "{description:?}");
    }
}

#[tokio::test]
async fn metadata_is_set_removed_and_purged() {
    let (_directory, path) = place();
    let registry = SqliteRegistry::open(&path).expect("created");
    let id = create(&registry, nfs("nas:/a")).await.types[0].id;
    let set = |pairs: &[(&str, &str)]| TypeChange { set_metadata: notes(pairs), ..TypeChange::default() };
    let remove = |key: &str, value: Option<&str>| TypeChange {
        remove_metadata: BTreeMap::from([(key.to_owned(), value.map(str::to_owned))]),
        ..TypeChange::default()
    };
    for (change, expected) in [
        (set(&[("a", "1"), ("b", "2")]), &[("a", "1"), ("b", "2")][..]),
        (set(&[("a", "3")]), &[("a", "3"), ("b", "2")]),
        (remove("a", Some("1")), &[("a", "3"), ("b", "2")]),
        (remove("a", Some("")), &[("a", "3"), ("b", "2")]),
        (remove("a", Some("3")), &[("b", "2")]),
        (remove("c", None), &[("b", "2")]),
        (remove("b", None), &[]),
        (set(&[("a", "1")]), &[("a", "1")]),
        (TypeChange { purge_metadata: true, ..set(&[("z", "9")]) }, &[("z", "9")]),
        (TypeChange { purge_metadata: true, ..TypeChange::default() }, &[]),
    ] {
        let kept = modify(&registry, id, change.clone()).await;
        assert_eq!(kept.metadata, notes(expected), "{change:?}");
    }
}

#[tokio::test]
async fn a_registry_of_the_first_schema_is_taken_over_with_all_that_is_in_it() {
    let (_directory, path) = place();
    let connection = Connection::open(&path).expect("created");
    schema::of_older_release(&connection, 1).expect("written");
    connection
        .execute_batch(
            "INSERT INTO target VALUES (1, '13dd2bf2-12c5-4eb8-98a3-0f1dd9f8579f', 'nfs', 'nas:/a', NULL, NULL, 0,
                 'L2E=', 1, '2025-01-30T12:32:27Z', '2025-01-30T12:32:27Z', '0.1.0', '{\"rack\": \"12\"}');
             INSERT INTO target_type VALUES (1, 'c65625c1-50bf-4ab7-aa26-f625001e60f1',
                 '13dd2bf2-12c5-4eb8-98a3-0f1dd9f8579f', 'nightly', 'a text', 1, 1, 'somebody',
                 '2025-01-30T12:32:27Z', NULL, '0.1.0');",
        )
        .expect("written");
    drop(connection);
    let registry = SqliteRegistry::open(&path).expect("upgraded");
    let entries = registry.load().await.expect("loaded");
    assert_eq!((entries.len(), entries[0].target.metadata["rack"].as_str()), (1, "12"));
    let kept = &entries[0].types[0];
    assert_eq!((kept.name.as_str(), kept.user_id.as_deref()), ("nightly", Some("somebody")));
    assert!(kept.is_public && kept.is_default && kept.projects.is_empty() && kept.metadata.is_empty());
    let change =
        TypeChange { add_projects: vec![project(1)], set_metadata: notes(&[("a", "b")]), ..TypeChange::default() };
    let changed = modify(&registry, kept.id, change).await;
    registry.close().await;
    let registry = SqliteRegistry::open(&path).expect("reopened");
    assert_eq!(registry.load().await.expect("loaded")[0].types, [changed]);
}

/// A change at random. Numbers choose among what there is, and now and then miss it.
#[derive(Debug, Clone)]
enum Operation {
    CreateTarget(u8),
    DeleteTarget(usize),
    SetDefault(usize),
    CreateType {
        target: usize,
        name: u8,
        is_default: bool,
        projects: Vec<u8>,
        is_public: bool,
    },
    ModifyType {
        which: usize,
        name: Option<u8>,
        is_public: Option<bool>,
        make_default: bool,
        purge: bool,
        add: Vec<u8>,
        remove: Vec<u8>,
    },
    DeleteType(usize),
}

fn operation() -> impl Strategy<Value = Operation> {
    let projects = || prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(0_u8..4, 1..3)];
    let rarely = || prop::bool::weighted(0.2);
    let which = || 0..=MISS;
    let name = || prop::option::weighted(0.3, 0_u8..9);
    prop_oneof![
        2 => (0_u8..4).prop_map(Operation::CreateTarget),
        1 => which().prop_map(Operation::DeleteTarget),
        1 => which().prop_map(Operation::SetDefault),
        3 => (which(), 0_u8..9, rarely(), projects(), rarely()).prop_map(
            |(target, name, is_default, projects, is_public)| Operation::CreateType {
                target, name, is_default, projects, is_public
            }
        ),
        6 => (which(), name(), prop::option::of(any::<bool>()), rarely(), rarely(), projects(), projects())
            .prop_map(|(which, name, is_public, make_default, purge, add, remove)| Operation::ModifyType {
                which, name, is_public, make_default, purge, add, remove
            }),
        2 => which().prop_map(Operation::DeleteType),
    ]
}

/// The number that chooses what is not there; the others choose among what is.
const MISS: usize = 20;

fn chosen(ids: &[Uuid], number: usize) -> Uuid {
    if number == MISS || ids.is_empty() { Uuid::new_v4() } else { ids[number % ids.len()] }
}

async fn perform(registry: &SqliteRegistry, before: &[Entry], operation: Operation) -> Result<(), RegistryError> {
    let targets: Vec<Uuid> = before.iter().map(|entry| entry.target.id).collect();
    let types: Vec<Uuid> = before.iter().flat_map(|entry| &entry.types).map(|kept| kept.id).collect();
    let target = |number| chosen(&targets, number);
    let kept = |number| chosen(&types, number);
    let assigned = |projects: Vec<u8>| projects.into_iter().map(|n| project(n.into())).collect();
    match operation {
        Operation::CreateTarget(n) => {
            let (target, first_type) = nfs(&format!("nas:/{n}"));
            registry.create_target(target, first_type).await.map(drop)
        }
        Operation::DeleteTarget(n) => registry.delete_target(target(n)).await,
        Operation::SetDefault(n) => registry.set_default_target(target(n), at(3)).await.map(drop),
        Operation::CreateType { target: n, name, is_default, projects, is_public } => {
            let new = new_type(target(n), &format!("type {name}"));
            let new = TargetType { is_default, projects: assigned(projects), is_public, ..new };
            registry.create_type(new).await.map(drop)
        }
        Operation::ModifyType { which, name, is_public, make_default, purge, add, remove } => {
            let change = TypeChange {
                name: name.map(|name| format!("type {name}")),
                is_public,
                is_default: make_default.then_some(true),
                purge_projects: purge,
                add_projects: assigned(add),
                remove_projects: remove.into_iter().map(|n| project_id(n.into())).collect::<BTreeSet<_>>(),
                ..TypeChange::default()
            };
            registry.modify_type(kept(which), change, at(4)).await.map(drop)
        }
        Operation::DeleteType(n) => registry.delete_type(kept(n)).await.map(drop),
    }
}

fn rules_hold(entries: &[Entry]) -> TestCaseResult {
    let defaults: Vec<&Entry> = entries.iter().filter(|entry| entry.target.is_default).collect();
    prop_assert_eq!(defaults.len(), usize::from(!entries.is_empty()), "one default target");
    let types: Vec<&TargetType> = entries.iter().flat_map(|entry| &entry.types).collect();
    let default_types: Vec<_> = types.iter().filter(|kept| kept.is_default).map(|kept| kept.target_id).collect();
    let expected: Vec<_> = defaults.iter().map(|entry| entry.target.id).collect();
    prop_assert_eq!(default_types, expected, "one default type, of the default target");
    prop_assert!(entries.iter().all(|entry| !entry.types.is_empty()), "a type for every target");
    let names: HashSet<&str> = types.iter().map(|kept| kept.name.as_str()).collect();
    prop_assert_eq!(names.len(), types.len(), "unique names");
    for kept in types {
        prop_assert!(!kept.is_public || kept.projects.is_empty(), "public or some projects': {:?}", kept);
        let ids: HashSet<&ProjectId> = kept.projects.iter().map(|assigned| &assigned.project_id).collect();
        prop_assert_eq!(ids.len(), kept.projects.len(), "a project once");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_done_in_whatever_order_the_rules_hold(operations in prop::collection::vec(operation(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let (_directory, path) = place();
            let registry = SqliteRegistry::open(&path).expect("created");
            let mut before = Vec::new();
            for operation in operations {
                let outcome = perform(&registry, &before, operation.clone()).await;
                let after = registry.load().await.expect("loaded");
                if let Err(error) = outcome {
                    prop_assert!(!matches!(error, RegistryError::Storage(_)), "{:?}: {}", operation, error);
                    prop_assert_eq!(&after, &before, "refused ({}) and done all the same", error);
                }
                rules_hold(&after)?;
                before = after;
            }
            registry.close().await;
            let registry = SqliteRegistry::open(&path).expect("reopened");
            prop_assert_eq!(registry.load().await.expect("loaded"), before);
            Ok(())
        })?;
    }
}
