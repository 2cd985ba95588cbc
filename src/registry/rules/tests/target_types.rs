//! Rules of target types.

use std::collections::BTreeMap;

use super::*;
use crate::model::{ProjectId, TargetTypeId};
use crate::registry::change::TypeChange;
use crate::registry::fixtures::{new_type, project, project_id, target_type};

impl Content {
    pub(super) fn type_id(&self, target: usize, n: usize) -> TargetTypeId {
        self.0.targets()[target].types[n].id
    }

    pub(super) fn modify_type(&mut self, id: TargetTypeId, change: TypeChange) -> TargetType {
        target_type(self.change(Change::ModifyType { id, change, now: at(7) }), id).clone()
    }

    pub(super) fn type_refusal(&self, id: TargetTypeId, change: TypeChange) -> Refusal {
        self.refusal(Change::ModifyType { id, change, now: at(8) })
    }
}

fn make_default() -> TypeChange {
    TypeChange { is_default: Some(true), ..TypeChange::default() }
}

#[test]
fn type_needs_a_target_and_a_free_name() {
    let mut content = Content::of([nfs("nas:/a")]);
    let (target_id, unknown) = (content.ids()[0], Uuid::new_v4());
    assert_eq!(content.refusal(Change::CreateType(new_type(unknown, "x"))), Refusal::TargetNotFound(unknown));
    let taken = || Refusal::TypeNameTaken { field: "name", name: "nas:/a".to_owned() };
    assert_eq!(content.refusal(Change::CreateType(new_type(target_id, "nas:/a"))), taken());
    let second = new_type(target_id, "x");
    content.change(Change::CreateType(second.clone()));
    let rename = |name: &str| TypeChange { name: Some(name.to_owned()), ..TypeChange::default() };
    assert_eq!(content.type_refusal(second.id, rename("nas:/a")), taken());
    assert_eq!(content.modify_type(second.id, rename("x")).updated_at, None, "its own name is not a change");
    assert_eq!(content.modify_type(second.id, rename("y")).name, "y");
    content.change(Change::DeleteTarget(target_id));
    assert_eq!(content.type_refusal(second.id, rename("z")), Refusal::TypeNotFound(second.id));
}

#[test]
fn default_type_makes_its_target_the_default() {
    let mut content = Content::of([nfs("nas:/a"), nfs("nas:/b")]);
    let second = content.ids()[1];
    let new = TargetType { is_default: true, ..new_type(second, "x") };
    content.change(Change::CreateType(new.clone()));
    assert_eq!(*content.0.targets()[1].types[1], new, "it is new, and was not changed");
    assert_eq!(content.0.targets()[0].types[0].updated_at, Some(new.created_at));
    assert_eq!(content.defaults(), [(false, vec![false]), (true, vec![false, true])]);

    // A target that is the default already keeps the type that was chosen.
    assert_eq!(decide(&content.0, &set_default(second, at(5))), Ok(Vec::new()));

    content.modify_type(content.type_id(1, 0), make_default());
    assert_eq!(content.defaults(), [(false, vec![false]), (true, vec![true, false])]);
    content.modify_type(content.type_id(0, 0), make_default());
    assert_eq!(content.0.targets()[0].target.updated_at, at(7));
    assert_eq!(content.defaults(), [(true, vec![true]), (false, vec![false, false])]);
}

#[test]
fn target_that_becomes_the_default_prefers_a_public_type() {
    let mut content = Content::of([nfs("nas:/a"), nfs("nas:/b")]);
    let [first, second] = content.ids()[..] else { panic!("two targets") };
    let private = TypeChange { is_public: Some(false), ..TypeChange::default() };
    content.modify_type(content.type_id(1, 0), private.clone());
    content.change(set_default(second, at(3)));
    assert_eq!(content.defaults()[1], (true, vec![true]), "there is no other");
    content.change(set_default(first, at(4)));
    let public = new_type(second, "public");
    content.change(Change::CreateType(public.clone()));
    content.change(set_default(second, at(5)));
    assert_eq!(content.defaults()[1], (true, vec![false, true]));

    // The chosen type stays the default even when it is not public any more.
    content.modify_type(public.id, private);
    content.change(set_default(second, at(6)));
    assert_eq!(content.defaults()[1], (true, vec![false, true]));
}

#[test]
fn default_type_stays_until_another_becomes_it() {
    let mut content = Content::of([nfs("nas:/a")]);
    let first = content.type_id(0, 0);
    let other = new_type(content.ids()[0], "x");
    content.change(Change::CreateType(other.clone()));
    let change =
        || TypeChange { is_default: Some(false), description: Some("never".to_owned()), ..TypeChange::default() };
    let refusal = content.type_refusal(first, change());
    assert!(matches!(&refusal, Refusal::DefaultTypeStays { id, .. } if *id == first), "{refusal}");
    assert_eq!(content.modify_type(other.id, change()).description.as_deref(), Some("never"));
}

#[test]
fn last_type_and_default_type_cannot_be_deleted() {
    let mut content = Content::of([nfs("nas:/a")]);
    let first = content.type_id(0, 0);
    let refusal = content.refusal(Change::DeleteType(first));
    assert!(matches!(&refusal, Refusal::LastType { id, .. } if *id == first), "{refusal}");
    assert!(refusal.to_string().contains("delete the backup target itself"), "{refusal}");
    let second = new_type(content.ids()[0], "x");
    content.change(Change::CreateType(second.clone()));
    let refusal = content.refusal(Change::DeleteType(first));
    assert!(matches!(&refusal, Refusal::DefaultTypeInUse { id, .. } if *id == first), "{refusal}");
    assert!(refusal.to_string().contains("PUT /backup_target_types/<id>"), "{refusal}");
    content.change(Change::DeleteType(second.id));
    assert_eq!(content.0.types().count(), 1);
    assert_eq!(content.refusal(Change::DeleteType(second.id)), Refusal::TypeNotFound(second.id));
}

#[test]
fn type_is_public_or_assigned_to_projects_and_never_both() {
    let mut content = Content::of([nfs("nas:/a")]);
    let id = content.type_id(0, 0);
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
        let kept = content.modify_type(id, change.clone());
        let expected: Vec<ProjectId> = projects.iter().copied().map(project_id).collect();
        let have: Vec<ProjectId> = kept.projects.into_iter().map(|assigned| assigned.project_id).collect();
        assert_eq!((kept.is_public, have), (is_public, expected), "{change:?}");
    }
    let contradiction = TypeChange { is_public: Some(true), ..give(&[1]) };
    assert_eq!(content.type_refusal(id, contradiction), Refusal::PublicWithProjects);
    let both = TargetType { projects: vec![project(1)], ..new_type(content.ids()[0], "both") };
    assert_eq!(content.refusal(Change::CreateType(both)), Refusal::PublicWithProjects);
}

#[test]
fn existing_assignment_is_left_as_it_is() {
    let mut content = Content::of([nfs("nas:/a")]);
    let id = content.type_id(0, 0);
    let give = || TypeChange { add_projects: vec![project(1)], ..TypeChange::default() };
    content.modify_type(id, give());
    let again = Change::ModifyType { id, change: give(), now: at(9) };
    assert_eq!(decide(&content.0, &again), Ok(Vec::new()), "neither the assignment nor the time of the type");
}

#[test]
fn description_is_replaced_kept_and_cleared() {
    let mut content = Content::of([nfs("nas:/a")]);
    let id = content.type_id(0, 0);
    for (description, expected) in [(Some("x"), Some("x")), (None, Some("x")), (Some(""), None), (None, None)] {
        let change = TypeChange { description: description.map(str::to_owned), ..TypeChange::default() };
        assert_eq!(content.modify_type(id, change).description.as_deref(), expected, "{description:?}");
    }
}

#[test]
fn type_metadata_is_set_removed_and_purged() {
    let mut content = Content::of([nfs("nas:/a")]);
    let id = content.type_id(0, 0);
    let set = |pairs: &[(&str, &str)]| TypeChange { set_metadata: metadata(pairs), ..TypeChange::default() };
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
        assert_eq!(content.modify_type(id, change.clone()).metadata, metadata(expected), "{change:?}");
    }
}
