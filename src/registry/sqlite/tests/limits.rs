//! What a registry and a type may hold, and that they say so when it is more.

use super::target_types::{found, modify, new_type, notes, project};
use super::*;
use crate::model::target_type::{TYPE_METADATA_MAX, TYPE_PROJECTS_MAX};
use crate::registry::{ASSIGNMENTS_MAX, TARGETS_MAX, TYPE_NOTES_MAX, TYPES_MAX, TypeChange};

#[tokio::test]
async fn a_full_registry_takes_no_more() {
    let (_directory, path) = place();
    let registry = SqliteRegistry::open(&path).expect("created");
    registry
        .run(|connection| {
            let transaction = connection.transaction().map_err(storage)?;
            for n in 0..TARGETS_MAX {
                rows::insert_target(&transaction, &nfs(&format!("nas:/t{n}")).0).map_err(storage)?;
            }
            transaction.commit().map_err(storage)
        })
        .await
        .expect("filled");
    let error = refused(&registry, nfs("nas:/one-more")).await;
    assert!(matches!(error, RegistryError::TooManyTargets), "{error}");
}

#[tokio::test]
async fn a_full_type_takes_no_more_and_says_how_much_that_is() {
    let (_directory, path) = place();
    let registry = SqliteRegistry::open(&path).expect("created");
    let id = create(&registry, nfs("nas:/a")).await.types[0].id;
    let full = TypeChange {
        add_projects: (0..TYPE_PROJECTS_MAX as u128).map(project).collect(),
        set_metadata: (0..TYPE_METADATA_MAX).map(|n| (n.to_string(), "x".to_owned())).collect(),
        ..TypeChange::default()
    };
    let kept = modify(&registry, id, full).await;
    assert_eq!((kept.projects.len(), kept.metadata.len()), (1000, 64));
    for (change, limit) in [
        (TypeChange { add_projects: vec![project(5000)], ..TypeChange::default() }, "1000 is the limit"),
        (TypeChange { set_metadata: notes(&[("more", "x")]), ..TypeChange::default() }, "64 is the limit"),
    ] {
        let error = registry.modify_type(id, change, at(8)).await.expect_err("full");
        assert!(error.to_string().contains(limit), "{error}");
    }
    assert_eq!(found(&registry.load().await.expect("loaded"), id), kept);
}

#[tokio::test]
async fn a_registry_that_is_full_of_types_takes_no_more_on_either_way() {
    let (_directory, path) = place();
    let registry = SqliteRegistry::open(&path).expect("created");
    let target_id = create(&registry, nfs("nas:/a")).await.target.id;
    registry
        .run(move |connection| {
            let transaction = connection.transaction().map_err(storage)?;
            for n in 1..TYPES_MAX {
                type_rows::insert(&transaction, &new_type(target_id, &format!("type {n}"))).map_err(storage)?;
            }
            transaction.commit().map_err(storage)
        })
        .await
        .expect("filled");
    let error = refused(&registry, nfs("nas:/one-more")).await;
    assert!(matches!(error, RegistryError::TooManyTypes), "{error}");
    let error = registry.create_type(new_type(target_id, "one more")).await.expect_err("full");
    assert!(matches!(error, RegistryError::TooManyTypes), "{error}");
    assert!(error.to_string().contains("20000"), "{error}");
    assert_eq!(registry.load().await.expect("loaded")[0].types.len(), TYPES_MAX);
}

#[tokio::test]
async fn all_types_together_have_only_so_many_projects_and_so_much_metadata() {
    let (_directory, path) = place();
    let registry = SqliteRegistry::open(&path).expect("created");
    let entry = create(&registry, nfs("nas:/a")).await;
    let (target_id, id) = (entry.target.id, entry.types[0].id);
    // A type that holds nearly all, as a hundred would at their own limit.
    let of = create(&registry, nfs("nas:/full")).await.types[0].id;
    registry
        .run(move |connection| {
            let rows = |table: &str, columns: &str, count: usize| {
                format!(
                    "WITH RECURSIVE counted (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < {count})
                     INSERT INTO {table} SELECT {columns} FROM counted;"
                )
            };
            let assigned =
                format!("NULL, printf('%032x', n), '{of}', printf('%032x', n + 1000000), '{0}', NULL, ''", at(1));
            let notes = format!("'{of}', n, ''");
            let sql = rows("target_type_project", &assigned, ASSIGNMENTS_MAX - 2)
                + &rows("target_type_metadata", &notes, TYPE_NOTES_MAX - 2);
            connection.execute_batch(&sql).map_err(storage)
        })
        .await
        .expect("filled");
    let give = |range: std::ops::Range<u128>| TypeChange {
        add_projects: range.map(project).collect(),
        ..TypeChange::default()
    };
    let set = |pairs: &[(&str, &str)]| TypeChange { set_metadata: notes(pairs), ..TypeChange::default() };
    let at_the_limit = async |change: TypeChange| {
        registry.modify_type(id, change, at(3)).await.map(|changed| found(&changed, id)).map_err(|e| e.to_string())
    };
    // What is left fits exactly.
    let error = at_the_limit(give(0..3)).await.expect_err("one too many");
    assert!(error.contains("100001 projects: 100000 is the limit"), "{error}");
    let kept = at_the_limit(give(0..2)).await.expect("room for two");
    let error = at_the_limit(set(&[("a", ""), ("b", ""), ("c", "")])).await.expect_err("one too many");
    assert!(error.contains("100001 metadata entries: 100000 is the limit"), "{error}");
    let kept_notes = at_the_limit(set(&[("a", ""), ("b", "")])).await.expect("room for two");
    assert_eq!((kept.projects.len(), kept_notes.metadata.len()), (2, 2));

    // Full is full on the other way too, and what does not grow is not refused.
    let mut new = new_type(target_id, "new");
    (new.is_public, new.projects) = (false, vec![project(9)]);
    let error = registry.create_type(new.clone()).await.expect_err("full");
    assert!(matches!(error, RegistryError::TooManyAssignments(_)), "{error}");
    (new.is_public, new.projects, new.metadata) = (true, Vec::new(), notes(&[("a", "b")]));
    let error = registry.create_type(new.clone()).await.expect_err("full");
    assert!(matches!(error, RegistryError::TooManyNotes(_)), "{error}");
    new.metadata.clear();
    registry.create_type(new).await.expect("has neither");
    at_the_limit(set(&[("a", "b")])).await.expect("the same number");
    let swapped = TypeChange { purge_projects: true, ..give(5..7) };
    at_the_limit(swapped).await.expect("the same number");
}
