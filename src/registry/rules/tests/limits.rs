//! Limits of a registry and of a type.

use std::sync::Arc;

use super::*;
use crate::model::target::METADATA_MAX;
use crate::model::target_type::{TYPE_METADATA_MAX, TYPE_PROJECTS_MAX};
use crate::registry::RegisteredTarget;
use crate::registry::change::TypeChange;
use crate::registry::fixtures::{new_type, project, target_type};
use crate::registry::limits::{
    ASSIGNMENTS_MAX, TARGET_METADATA_MAX_BYTES, TARGET_METADATA_TOTAL_MAX_BYTES, TARGETS_MAX, TYPE_METADATA_TOTAL_MAX,
    TYPES_MAX,
};

#[test]
fn full_registry_refuses_a_target() {
    let content = Content::of((0..TARGETS_MAX).map(|n| nfs(&format!("nas:/t{n}"))));
    assert_eq!(content.refusal(create_target(nfs("nas:/one-more"))), Refusal::TooManyTargets);
}

#[test]
fn full_type_refuses_projects_and_metadata_and_names_the_limit() {
    let mut content = Content::of([nfs("nas:/a")]);
    let id = content.type_id(0, 0);
    let full = TypeChange {
        add_projects: (0..TYPE_PROJECTS_MAX as u128).map(project).collect(),
        set_metadata: (0..TYPE_METADATA_MAX).map(|n| (n.to_string(), "x".to_owned())).collect(),
        ..TypeChange::default()
    };
    let kept = content.modify_type(id, full);
    assert_eq!((kept.projects.len(), kept.metadata.len()), (1000, 64));
    for (change, limit) in [
        (TypeChange { add_projects: vec![project(5000)], ..TypeChange::default() }, "1000 is the limit"),
        (TypeChange { set_metadata: metadata(&[("more", "x")]), ..TypeChange::default() }, "64 is the limit"),
    ] {
        let refusal = content.type_refusal(id, change).to_string();
        assert!(refusal.contains(limit), "{refusal}");
    }
}

#[test]
fn registry_full_of_types_refuses_targets_and_types() {
    let mut content = Content::of([nfs("nas:/a")]);
    let target_id = content.ids()[0];
    let mut types = content.0.targets()[0].types.to_vec();
    types.extend((1..TYPES_MAX).map(|n| Arc::new(new_type(target_id, &format!("type {n}")))));
    let registered = RegisteredTarget { target: content.0.targets()[0].target.clone(), types: types.into() };
    content.0 = Snapshot::new(vec![registered]);
    assert_eq!(content.refusal(create_target(nfs("nas:/one-more"))), Refusal::TooManyTypes);
    let refusal = content.refusal(Change::CreateType(new_type(target_id, "one more")));
    assert_eq!(refusal, Refusal::TooManyTypes);
    assert!(refusal.to_string().contains("20000"), "{refusal}");
}

#[test]
fn all_types_together_have_limits_of_projects_and_metadata() {
    let mut content = Content::of([nfs("nas:/a"), nfs("nas:/full")]);
    let (target_id, id) = (content.ids()[0], content.type_id(0, 0));
    // One type that nearly reaches the total, like a hundred types at their own limit.
    let full = TargetType {
        projects: (0..ASSIGNMENTS_MAX as u128 - 2).map(|n| project(n + 1_000_000)).collect(),
        metadata: (0..TYPE_METADATA_TOTAL_MAX - 2).map(|n| (n.to_string(), String::new())).collect(),
        ..target_type(&content.0, content.type_id(1, 0)).clone()
    };
    content.0 = content.0.apply(&[Write::PutType(Arc::new(full))], content.0.revision().next());
    let give = |range: std::ops::Range<u128>| TypeChange {
        add_projects: range.map(project).collect(),
        ..TypeChange::default()
    };
    let set = |pairs: &[(&str, &str)]| TypeChange { set_metadata: metadata(pairs), ..TypeChange::default() };
    // The rest fits exactly.
    let refusal = content.type_refusal(id, give(0..3)).to_string();
    assert!(refusal.contains("100001 projects: 100000 is the limit"), "{refusal}");
    assert_eq!(content.modify_type(id, give(0..2)).projects.len(), 2);
    let refusal = content.type_refusal(id, set(&[("a", ""), ("b", ""), ("c", "")])).to_string();
    assert!(refusal.contains("100001 metadata entries: 100000 is the limit"), "{refusal}");
    assert_eq!(content.modify_type(id, set(&[("a", ""), ("b", "")])).metadata.len(), 2);

    // A new type is refused too, and a change that does not grow a type is not.
    let mut new = new_type(target_id, "new");
    (new.is_public, new.projects) = (false, vec![project(9)]);
    let refusal = content.refusal(Change::CreateType(new.clone()));
    assert_eq!(refusal, Refusal::TooManyAssignments(ASSIGNMENTS_MAX + 1));
    (new.is_public, new.projects, new.metadata) = (true, Vec::new(), metadata(&[("a", "b")]));
    let refusal = content.refusal(Change::CreateType(new.clone()));
    assert_eq!(refusal, Refusal::TooMuchMetadataInTotal(TYPE_METADATA_TOTAL_MAX + 1));
    new.metadata.clear();
    content.change(Change::CreateType(new));
    content.modify_type(id, set(&[("a", "b")]));
    content.modify_type(id, TypeChange { purge_projects: true, ..give(5..7) });
}

fn without_metadata(export: &str) -> (Target, TargetType) {
    let (target, first_type) = nfs(export);
    (Target { metadata: BTreeMap::new(), ..target }, first_type)
}

/// A change that sets metadata of a target.
fn set_metadata(id: TargetId, metadata: impl IntoIterator<Item = (String, String)>) -> Change {
    let change = TargetChange { metadata: metadata.into_iter().collect(), ..TargetChange::default() };
    Change::ModifyTarget { id, change, now: at(9) }
}

#[test]
fn metadata_of_a_target_is_limited_over_several_changes() {
    let mut content = Content::of([without_metadata("nas:/a")]);
    let id = content.ids()[0];
    let entry = |number: usize, length: usize| (format!("{number:02}"), "x".repeat(length));
    for number in 0..METADATA_MAX {
        content.change(set_metadata(id, [entry(number, 1)]));
    }
    let refusal = content.refusal(set_metadata(id, [entry(METADATA_MAX, 1)]));
    assert_eq!(refusal, Refusal::TooManyTargetEntries(METADATA_MAX + 1));
    let length = TARGET_METADATA_MAX_BYTES / METADATA_MAX - 2;
    content.change(set_metadata(id, (0..METADATA_MAX).map(|number| entry(number, length))));
    let refusal = content.refusal(set_metadata(id, [entry(0, length + 1)]));
    assert_eq!(refusal, Refusal::TargetMetadataTooLarge(TARGET_METADATA_MAX_BYTES + 1));
    let shorter_and_new = [entry(0, 1), entry(METADATA_MAX, 1)];
    let refusal = content.refusal(set_metadata(id, shorter_and_new));
    assert_eq!(refusal, Refusal::TooManyTargetEntries(METADATA_MAX + 1), "although there are fewer bytes");
    content.change(set_metadata(id, [entry(0, length - 1)]));
}

#[test]
fn target_with_too_much_metadata_may_keep_it_or_lose_some() {
    let (target, first_type) = nfs("nas:/a");
    let value = "x".repeat(TARGET_METADATA_MAX_BYTES);
    let metadata = (0..METADATA_MAX).map(|number| (number.to_string(), value.clone())).collect();
    let mut content = Content::of([(Target { metadata, ..target }, first_type)]);
    let id = content.ids()[0];
    let set = |key: &str, value: &str| set_metadata(id, [(key.to_owned(), value.to_owned())]);
    content.change(set("0", &value));
    content.change(set("0", "shorter"));
    assert_eq!(content.refusal(set("new", "x")), Refusal::TooManyTargetEntries(METADATA_MAX + 1));
    let refusal = content.refusal(set("0", "longer again"));
    assert!(matches!(refusal, Refusal::TargetMetadataTooLarge(_)), "{refusal}");
}

#[test]
fn metadata_of_all_targets_together_is_limited() {
    let full = TARGET_METADATA_TOTAL_MAX_BYTES / TARGET_METADATA_MAX_BYTES;
    let value = "x".repeat(TARGET_METADATA_MAX_BYTES - 1);
    let with_metadata = |number: usize| {
        let (target, first_type) = nfs(&format!("nas:/t{number}"));
        (Target { metadata: metadata(&[("a", &value)]), ..target }, first_type)
    };
    let mut content = Content::of((0..full).map(with_metadata));
    let refusal = content.refusal(create_target(with_metadata(full)));
    let total = TARGET_METADATA_TOTAL_MAX_BYTES + TARGET_METADATA_MAX_BYTES;
    assert_eq!(refusal, Refusal::TargetMetadataTooLargeInTotal(total));
    content.change(create_target(without_metadata("nas:/without")));
    let id = *content.ids().last().expect("a target");
    let refusal = content.refusal(set_metadata(id, [("a".to_owned(), "b".to_owned())]));
    assert_eq!(refusal, Refusal::TargetMetadataTooLargeInTotal(TARGET_METADATA_TOTAL_MAX_BYTES + 2));
}
