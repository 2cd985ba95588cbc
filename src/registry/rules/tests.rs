//! Tests of the rules, change by change. [`properties`] tests that no sequence of changes breaks an invariant.

mod limits;
pub(in crate::registry) mod properties;
mod target_types;

use std::collections::BTreeMap;

use jiff::Timestamp;
use uuid::Uuid;

use super::*;
use crate::model::target_spec::{SpecField, SpecFields};
use crate::model::{Target, TargetId, TargetType};
use crate::registry::change::TargetChange;
use crate::registry::fixtures::{at, changed, create_target, metadata, nfs, s3, scope, snapshot_of, target};

/// A snapshot to which tests apply changes.
struct Content(Snapshot);

impl Content {
    fn of(targets: impl IntoIterator<Item = (Target, TargetType)>) -> Self {
        Self(snapshot_of(targets))
    }

    fn change(&mut self, change: Change) -> &Snapshot {
        self.0 = changed(&self.0, &change).expect("allowed");
        &self.0
    }

    fn refusal(&self, change: Change) -> Refusal {
        changed(&self.0, &change).expect_err("refused")
    }

    fn ids(&self) -> Vec<TargetId> {
        self.0.targets().iter().map(|registered| registered.target.id).collect()
    }

    fn modify(&mut self, id: TargetId, change: TargetChange, now: Timestamp) -> Target {
        Target::clone(&target(self.change(Change::ModifyTarget { id, change, now }), id).target)
    }

    /// Whether each target and each of its types is the default.
    fn defaults(&self) -> Vec<(bool, Vec<bool>)> {
        let types = |kept: &[std::sync::Arc<TargetType>]| kept.iter().map(|kept| kept.is_default).collect();
        self.0.targets().iter().map(|found| (found.target.is_default, types(&found.types))).collect()
    }
}

fn set_default(id: TargetId, now: Timestamp) -> Change {
    Change::ModifyTarget { id, change: TargetChange { is_default: Some(true), ..TargetChange::default() }, now }
}

#[test]
fn first_target_and_its_type_become_the_default() {
    let mut content = Content::of([]);
    content.change(create_target(nfs("nas:/a")));
    assert_eq!(content.defaults(), [(true, vec![true])]);
    let (target, mut second_type) = nfs("nas:/c");
    second_type.is_default = true;
    content.change(create_target((target, second_type)));
    assert_eq!(content.defaults(), [(true, vec![true]), (false, vec![false])]);

    let (mut target, first_type) = nfs("nas:/d");
    target.is_default = true;
    content.change(create_target((target, first_type)));
    let moved = [(false, vec![false]), (false, vec![false]), (true, vec![true])];
    assert_eq!(content.defaults(), moved, "a target that is created as the default becomes it");
}

#[test]
fn first_target_that_declines_the_default_is_not_the_default() {
    let declining = |new: (Target, TargetType)| match create_target(new) {
        Change::CreateTarget { target, first_type, .. } => {
            Change::CreateTarget { target, first_type, declines_default: true }
        }
        other => other,
    };
    let mut content = Content::of([]);
    content.change(declining(nfs("nas:/a")));
    content.change(declining(nfs("nas:/b")));
    assert_eq!(content.defaults(), [(false, vec![false]), (false, vec![false])]);
    content.change(create_target(nfs("nas:/c")));
    assert_eq!(content.defaults()[2], (true, vec![true]), "there was no default");
    content.change(declining(nfs("nas:/d")));
    let first = content.ids()[0];
    content.change(set_default(first, at(9)));
    assert_eq!(content.defaults().iter().filter(|found| found.0).count(), 1);
    assert_eq!(content.defaults()[0], (true, vec![true]));
}

#[test]
fn bucket_in_another_spelling_is_refused_for_a_new_or_changed_target() {
    let content =
        Content::of([s3("https://ceph.example/bucket"), s3("https://CEPH.example:443/bucket"), s3("backups")]);
    let [first, _, aws] = content.ids()[..] else { panic!("a registry of an earlier release") };
    for (export, other) in [
        ("HTTPS://ceph.example:443/bucket/", first),
        ("https://Ceph.Example./bucket", first),
        ("http://ceph.example:80/bucket", first),
        ("https://s3.eu-west-1.amazonaws.com/backups", aws),
    ] {
        let refusal = content.refusal(create_target(s3(export)));
        assert!(refusal.to_string().contains(&other.to_string()), "{export}: {refusal}");
    }
    let mut content = Content::of([s3("http://ceph.example:443/bucket"), s3("https://ceph.example/bucket")]);
    let [plain, with_tls] = content.ids()[..] else { panic!("two targets") };
    let endpoint = |url: &str| TargetChange {
        fields: SpecFields { s3_endpoint_url: Some(url.to_owned()), ..SpecFields::default() },
        ..TargetChange::default()
    };
    let change = endpoint("https://ceph.example:443");
    let refusal = content.refusal(Change::ModifyTarget { id: plain, change, now: at(5) });
    assert!(matches!(refusal, Refusal::StorageTaken { other_id, .. } if other_id == with_tls), "{refusal}");
    content.modify(with_tls, endpoint("http://ceph.example"), at(6));
}

#[test]
fn type_name_in_a_change_renames_the_first_type() {
    let mut content = Content::of([nfs("nas:/a"), nfs("nas:/b")]);
    let [first, second] = content.ids()[..] else { panic!("two targets") };
    let named = |name: &str| TargetChange { type_name: Some(name.to_owned()), ..TargetChange::default() };
    let change = TargetChange { is_default: Some(true), ..named("gold") };
    content.modify(second, change, at(5));
    let renamed = &target(&content.0, second).types[0];
    assert_eq!((renamed.name.as_str(), renamed.is_default, renamed.updated_at), ("gold", true, Some(at(5))));
    let again = Change::ModifyTarget { id: second, change: named("gold"), now: at(6) };
    assert_eq!(decide(&content.0, &again), Ok(Vec::new()), "nothing changes");
    let taken = content.refusal(Change::ModifyTarget { id: first, change: named("gold"), now: at(7) });
    assert_eq!(taken, Refusal::TypeNameTaken { field: "name", name: "gold".to_owned() });
}

#[test]
fn set_default_moves_target_and_type_and_is_idempotent() {
    let mut content = Content::of([nfs("nas:/a"), nfs("nas:/c")]);
    let second = content.ids()[1];
    content.change(set_default(second, at(9)));
    assert_eq!(content.defaults(), [(false, vec![false]), (true, vec![true])]);
    for registered in content.0.targets() {
        assert_eq!((registered.target.updated_at, registered.types[0].updated_at), (at(9), Some(at(9))));
    }
    assert_eq!(decide(&content.0, &set_default(second, at(10))), Ok(Vec::new()), "nothing changes");
    let unknown = Uuid::new_v4();
    assert_eq!(content.refusal(set_default(unknown, at(11))), Refusal::TargetNotFound(unknown));
}

#[test]
fn two_targets_never_share_a_directory_or_a_type_name() {
    let content = Content::of([nfs("nas:/b?")]);
    for export in ["other:/b?", "other:/b?abc"] {
        let refusal = content.refusal(create_target(nfs(export)));
        assert!(
            matches!(&refusal, Refusal::MountPathTaken { other_id, other_export, .. }
                if *other_id == content.ids()[0] && other_export == "nas:/b?"),
            "{refusal}"
        );
    }
    let (target, mut same_name) = nfs("nas:/c");
    same_name.name = "nas:/b?".to_owned();
    let refusal = content.refusal(create_target((target, same_name)));
    assert_eq!(refusal, Refusal::TypeNameTaken { field: "btt_name", name: "nas:/b?".to_owned() });
}

#[test]
fn ambiguous_export_is_refused_for_a_new_target_only() {
    let mut content = Content::of([nfs("nas:/a//b")]);
    for export in ["nas:/c//d", "nfs://nas/c", "nas:/c\u{202e}d"] {
        let refusal = content.refusal(create_target(nfs(export)));
        assert!(
            matches!(&refusal, Refusal::InvalidFields(error) if error.field == SpecField::FilesystemExport),
            "{refusal}"
        );
    }
    let id = content.ids()[0];
    assert_eq!(content.modify(id, TargetChange::default(), at(5)).spec.export(), "nas:/a//b");
}

#[test]
fn default_target_is_deleted_last() {
    let mut content = Content::of([nfs("nas:/a"), nfs("nas:/c")]);
    let [first, second] = content.ids()[..] else { panic!("two targets") };
    assert_eq!(content.refusal(Change::DeleteTarget(first)), Refusal::DefaultInUse(first));
    content.change(Change::DeleteTarget(second));
    content.change(Change::DeleteTarget(first));
    assert_eq!(content.refusal(Change::DeleteTarget(first)), Refusal::TargetNotFound(first));
    content.change(create_target(nfs("nas:/a")));
    assert_eq!(content.defaults(), [(true, vec![true])], "the names are free, and there is no default");
}

#[test]
fn modify_changes_endpoint_scheme_immutable_and_metadata() {
    let mut content = Content::of([s3("https://ceph.example/bucket"), nfs("nas:/a")]);
    let [bucket, export] = content.ids()[..] else { panic!("two targets") };
    let endpoint = |url: &str| SpecFields { s3_endpoint_url: Some(url.to_owned()), ..SpecFields::default() };
    let change = TargetChange {
        fields: SpecFields { immutable: Some(true), ..endpoint("http://ceph.example") },
        metadata: metadata(&[("rack", "7")]),
        purge_metadata: false,
        ..TargetChange::default()
    };
    let modified = content.modify(bucket, change, at(5));
    assert!(modified.spec.is_immutable());
    assert_eq!((modified.metadata.len(), modified.metadata["rack"].as_str(), modified.updated_at), (2, "7", at(5)));
    assert_eq!(modified.spec.export(), "ceph.example/bucket");

    assert_eq!(content.modify(bucket, TargetChange::default(), at(6)), modified, "not even its time");
    let purge = TargetChange { purge_metadata: true, metadata: metadata(&[("a", "b")]), ..TargetChange::default() };
    assert_eq!(content.modify(bucket, purge, at(7)).metadata, metadata(&[("a", "b")]));

    for (id, other) in [(bucket, "https://other.example"), (export, "https://x")] {
        let change = TargetChange { fields: endpoint(other), ..TargetChange::default() };
        let refusal = content.refusal(Change::ModifyTarget { id, change, now: at(8) });
        assert!(
            matches!(&refusal, Refusal::InvalidFields(error) if error.field == SpecField::S3EndpointUrl),
            "{refusal}"
        );
    }
}

#[test]
fn target_becomes_the_default_together_with_its_other_changes() {
    let mut content = Content::of([nfs("nas:/a"), nfs("nas:/b")]);
    let [first, second] = content.ids()[..] else { panic!("two targets") };
    let rack = BTreeMap::from([("rack".to_owned(), "7".to_owned())]);
    let change = TargetChange { metadata: rack, is_default: Some(true), ..TargetChange::default() };
    let fields = SpecFields { immutable: Some(true), ..SpecFields::default() };
    let refused = TargetChange { fields, ..change.clone() };
    content.refusal(Change::ModifyTarget { id: second, change: refused, now: at(4) });

    assert_eq!(content.modify(second, change, at(5)).metadata["rack"], "7");
    assert_eq!(content.defaults(), [(false, vec![false]), (true, vec![true])]);

    let not_default = || TargetChange { is_default: Some(false), ..TargetChange::default() };
    let refusal = content.refusal(Change::ModifyTarget { id: second, change: not_default(), now: at(6) });
    assert_eq!(refusal, Refusal::DefaultStays(second));
    let change = Change::ModifyTarget { id: first, change: not_default(), now: at(6) };
    assert_eq!(decide(&content.0, &change), Ok(Vec::new()), "it is not the default");
}

#[test]
fn scope_is_replaced_and_reset_and_an_empty_one_is_refused() {
    let mut content = Content::of([nfs("nas:/a")]);
    let id = content.ids()[0];
    let change = |scope| TargetChange { scope: Some(scope), ..TargetChange::default() };
    for new in [Some(scope(&["a"], &[])), Some(scope(&[], &[("rack", "1")])), None] {
        let modified = content.modify(id, change(new.clone()), at(5));
        assert_eq!(modified.scope, new);
        assert_eq!(content.modify(id, TargetChange::default(), at(6)), modified, "without a scope it stays");
    }
    for (wrong, part) in [(scope(&[], &[]), "delete it"), (scope(&["a b"], &[]), "nodes: \"a b\"")] {
        let refused = Change::ModifyTarget { id, change: change(Some(wrong.clone())), now: at(7) };
        let (target, first_type) = nfs("nas:/b");
        let created = create_target((Target { scope: Some(wrong), ..target }, first_type));
        for refusal in [content.refusal(refused), content.refusal(created)] {
            let message = refusal.to_string();
            assert!(message.starts_with("scope: ") && message.contains(part), "{message}");
        }
    }
}

#[test]
fn scope_counts_toward_the_size_of_a_target() {
    let content = Content::of([nfs("nas:/a")]);
    let names: Vec<String> = (0..1000).map(|number| format!("{number:0>200}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let change = TargetChange { scope: Some(Some(scope(&names, &[]))), ..TargetChange::default() };
    let refusal = content.refusal(Change::ModifyTarget { id: content.ids()[0], change, now: at(5) });
    assert!(matches!(refusal, Refusal::TargetMetadataTooLarge(bytes) if bytes > 200_000), "{refusal}");
}

#[test]
fn targets_of_other_scopes_are_unique_too() {
    let elsewhere = |export| {
        let (target, first_type) = nfs(export);
        (Target { scope: Some(scope(&["other"], &[])), ..target }, first_type)
    };
    let content = Content::of([elsewhere("nas:/a")]);
    let refusal = content.refusal(create_target(elsewhere("nas2:/a")));
    assert!(matches!(refusal, Refusal::MountPathTaken { .. }), "{refusal}");
}

#[test]
fn unchanged_targets_are_shared_between_snapshots() {
    let before = snapshot_of((0..100).map(|n| nfs(&format!("nas:/t{n}"))));
    let after = changed(&before, &set_default(before.targets()[7].target.id, at(3))).expect("allowed");
    let is_shared = |(n, _): &(usize, _)| std::sync::Arc::ptr_eq(&before.targets()[*n], &after.targets()[*n]);
    assert_eq!(after.targets().iter().enumerate().filter(is_shared).count(), 98, "all but both defaults");
    assert_eq!(after.differences_from(&before).len(), 2);
}
