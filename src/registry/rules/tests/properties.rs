//! Invariants hold after any sequence of changes.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::*;
use crate::model::ProjectId;
use crate::registry::change::TypeChange;
use crate::registry::fixtures::{new_type, project, project_id};
use crate::registry::{Difference, RegisteredTarget};

/// A random change. Numbers select a target or type, and sometimes one that does not exist.
#[derive(Debug, Clone)]
pub(in crate::registry) enum Operation {
    CreateTarget(u8, bool),
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

pub(in crate::registry) fn operation() -> impl Strategy<Value = Operation> {
    let projects = || prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(0_u8..4, 1..3)];
    let rarely = || prop::bool::weighted(0.2);
    let which = || 0..=MISS;
    let name = || prop::option::weighted(0.3, 0_u8..9);
    prop_oneof![
        2 => (0_u8..4, rarely()).prop_map(|(n, declines_default)| Operation::CreateTarget(n, declines_default)),
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

/// The number that selects an unknown id. Every other number selects a known one.
const MISS: usize = 20;

fn selected(ids: &[Uuid], number: usize) -> Uuid {
    if number == MISS || ids.is_empty() { Uuid::new_v4() } else { ids[number % ids.len()] }
}

/// Returns the change that an operation describes, applied to the targets and types of a snapshot.
pub(in crate::registry) fn change_of(operation: Operation, snapshot: &Snapshot) -> Change {
    let targets: Vec<Uuid> = snapshot.targets().iter().map(|entry| entry.target.id).collect();
    let types: Vec<Uuid> = snapshot.types().map(|kept| kept.id).collect();
    let target = |number| selected(&targets, number);
    let kept = |number| selected(&types, number);
    let assigned = |projects: Vec<u8>| projects.into_iter().map(|n| project(n.into())).collect();
    match operation {
        Operation::CreateTarget(n, declines_default) => {
            let (target, first_type) = nfs(&format!("nas:/{n}"));
            Change::CreateTarget { target: target.into(), first_type, declines_default }
        }
        Operation::DeleteTarget(n) => Change::DeleteTarget(target(n)),
        Operation::SetDefault(n) => set_default(target(n), at(3)),
        Operation::CreateType { target: n, name, is_default, projects, is_public } => {
            let new = new_type(target(n), &format!("type {name}"));
            Change::CreateType(TargetType { is_default, projects: assigned(projects), is_public, ..new })
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
            Change::ModifyType { id: kept(which), change, now: at(4) }
        }
        Operation::DeleteType(n) => Change::DeleteType(kept(n)),
    }
}

fn assert_invariants(snapshot: &Snapshot, declined: &HashSet<Uuid>) -> TestCaseResult {
    let entries = snapshot.targets();
    let defaults: Vec<_> = entries.iter().filter(|entry| entry.target.is_default).collect();
    let have_all_declined = entries.iter().all(|entry| declined.contains(&entry.target.id));
    prop_assert!(defaults.len() == 1 || (defaults.is_empty() && have_all_declined), "one default target");
    let types: Vec<_> = snapshot.types().collect();
    let default_types: Vec<_> = types.iter().filter(|kept| kept.is_default).map(|kept| kept.target_id).collect();
    let expected: Vec<_> = defaults.iter().map(|entry| entry.target.id).collect();
    prop_assert_eq!(default_types, expected, "one default type, of the default target");
    prop_assert!(entries.iter().all(|entry| !entry.types.is_empty()), "a type for every target");
    let names: HashSet<&str> = types.iter().map(|kept| kept.name.as_str()).collect();
    prop_assert_eq!(names.len(), types.len(), "unique names");
    for kept in types {
        prop_assert!(!kept.is_public || kept.projects.is_empty(), "public or assigned: {:?}", kept);
        let ids: HashSet<&ProjectId> = kept.projects.iter().map(|assigned| &assigned.project_id).collect();
        prop_assert_eq!(ids.len(), kept.projects.len(), "a project once");
    }
    for (n, entry) in entries.iter().enumerate() {
        prop_assert!(entry.types.iter().all(|kept| kept.target_id == entry.target.id), "types of this target");
        let collides = |other: &&Arc<RegisteredTarget>| other.target.mount_name.collides_with(&entry.target.mount_name);
        prop_assert_eq!(entries[n + 1..].iter().find(collides), None, "a directory of its own");
    }
    Ok(())
}

/// Makes `older` equal to the snapshot that `differences` were made from.
fn patched(older: &Snapshot, differences: Vec<Difference>) -> Vec<Arc<RegisteredTarget>> {
    let mut targets = older.targets().to_vec();
    for difference in differences {
        match difference {
            Difference::Added(added) => targets.push(added),
            Difference::Changed(changed) => {
                let known = targets.iter().position(|kept| kept.target.id == changed.target.id).expect("known");
                targets[known] = changed;
            }
            Difference::Removed(removed) => targets.retain(|kept| kept.target.id != removed.target.id),
        }
    }
    targets
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_after_any_sequence_of_changes(operations in prop::collection::vec(operation(), 1..60)) {
        let mut snapshot = Snapshot::default();
        let mut declined = HashSet::new();
        let first = snapshot.clone();
        for operation in operations {
            let change = change_of(operation, &snapshot);
            let Ok(writes) = decide(&snapshot, &change) else {
                continue;
            };
            // Not even between two writes may there be two defaults.
            for written in 1..=writes.len() {
                let partial = snapshot.apply(&writes[..written], snapshot.revision());
                prop_assert!(partial.targets().iter().filter(|entry| entry.target.is_default).count() <= 1);
                prop_assert!(partial.types().filter(|kept| kept.is_default).count() <= 1);
            }
            if let Change::CreateTarget { target, declines_default: true, .. } = &change {
                declined.insert(target.id);
            }
            let next = snapshot.apply(&writes, snapshot.revision().next());
            assert_invariants(&next, &declined)?;
            prop_assert_eq!(writes.is_empty(), next.targets() == snapshot.targets(), "no write without a change");
            prop_assert_eq!(patched(&snapshot, next.differences_from(&snapshot)), next.targets());
            snapshot = next;
        }
        prop_assert_eq!(patched(&first, snapshot.differences_from(&first)), snapshot.targets());
    }
}
