//! Detection of a registry whose keys were deleted or imported in part.
//!
//! Every commit writes the keys of a target together. If some of them are missing, a node that followed the rest would
//! delete targets, with their histories and mounts.

use std::collections::BTreeSet;

use uuid::Uuid;

use crate::model::{TargetId, TargetTypeId};
use crate::registry::snapshot::RegisteredTarget;

/// The keys of a registry besides its targets.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Values of the keys of exports.
    pub(super) exports: Vec<String>,
    /// Value of the key of the default target.
    pub(super) default: Option<String>,
    /// Types whose target does not exist, each with the id of that target.
    pub(super) orphans: Vec<(TargetId, TargetTypeId)>,
}

/// Checks that the targets are exactly those of the index.
///
/// # Errors
/// What was found, and what was expected.
pub(super) fn verify(targets: &[RegisteredTarget], index: &Index) -> Result<(), String> {
    let id = |text: &String| {
        text.parse::<Uuid>().map_err(|_| format!("{text:?} is not the id of a target, expected a UUID"))
    };
    let indexed = index.exports.iter().map(id).collect::<Result<BTreeSet<_>, _>>()?;
    let found: BTreeSet<_> = targets.iter().map(|registered| registered.target.id).collect();
    if let Some(id) = indexed.difference(&found).next() {
        return Err(format!("there is a key in exports/ with the id {id}, expected a target with this id"));
    }
    if let Some(id) = found.difference(&indexed).next() {
        return Err(format!("there is the target {id}, expected a key in exports/ with its id"));
    }
    if let Some((target_id, id)) = index.orphans.first() {
        return Err(format!("there is the type {id} of the target {target_id}, expected this target"));
    }
    if let Some(registered) = targets.iter().find(|registered| registered.types.is_empty()) {
        return Err(format!("the target {} has no types, expected at least one", registered.target.id));
    }
    let defaults: BTreeSet<_> = targets
        .iter()
        .map(|registered| &registered.target)
        .filter(|target| target.is_default)
        .map(|target| target.id)
        .collect();
    let indexed = index.default.iter().map(id).collect::<Result<BTreeSet<_>, _>>()?;
    if defaults != indexed {
        let list = |ids: &BTreeSet<Uuid>| {
            let ids: Vec<String> = ids.iter().map(Uuid::to_string).collect();
            if ids.is_empty() { "none".to_owned() } else { ids.join(", ") }
        };
        return Err(format!(
            "default targets: {}, expected that of the key default: {}",
            list(&defaults),
            list(&indexed)
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::Target;
    use crate::registry::fixtures::nfs;

    fn registered(export: &str) -> RegisteredTarget {
        let (target, first_type) = nfs(export);
        RegisteredTarget { target: target.into(), types: [Arc::new(first_type)].into() }
    }

    #[test]
    fn inconsistent_registry_is_refused() {
        let (a, b) = (registered("nas:/a"), registered("nas:/b"));
        let a = RegisteredTarget { target: Arc::new(Target { is_default: true, ..Target::clone(&a.target) }), ..a };
        let b = RegisteredTarget { target: Arc::new(Target { is_default: false, ..Target::clone(&b.target) }), ..b };
        let [a_id, b_id] = [&a, &b].map(|one| one.target.id.to_string());
        let index = |exports: &[&String], default: Option<&String>| Index {
            exports: exports.iter().copied().cloned().collect(),
            default: default.cloned(),
            orphans: Vec::new(),
        };
        let both = [a.clone(), b.clone()];
        let complete = index(&[&b_id, &a_id], Some(&a_id));
        verify(&[], &Index::default()).expect("empty");
        verify(&both, &complete).expect("consistent");
        verify(&both[1..], &index(&[&b_id], None)).expect("consistent without a default");
        let orphan = Index { orphans: vec![(Uuid::new_v4(), Uuid::new_v4())], ..index(&[&b_id, &a_id], Some(&a_id)) };
        let second =
            RegisteredTarget { target: Arc::new(Target { is_default: true, ..Target::clone(&b.target) }), ..b.clone() };
        let no_types = RegisteredTarget { types: [].into(), ..b.clone() };
        for (targets, index, expected) in [
            (&[][..], &complete, "expected a target with this id"),
            (&both[..1], &complete, "expected a target with this id"),
            (&both, &index(&[&a_id], Some(&a_id)), "expected a key in exports/"),
            (&both, &index(&[&a_id, &b_id, &"x".to_owned()], Some(&a_id)), "expected a UUID"),
            (&both, &orphan, "expected this target"),
            (&[a.clone(), no_types], &complete, "has no types"),
            (&both, &index(&[&a_id, &b_id], None), "expected that of the key default: none"),
            (&both, &index(&[&a_id, &b_id], Some(&b_id)), "default targets: "),
            (&[a.clone(), second], &complete, "default targets: "),
            (&both[1..], &index(&[&b_id], Some(&a_id)), "default targets: none"),
        ] {
            let problem = verify(targets, index).expect_err(expected);
            assert!(problem.contains(expected), "{problem}");
        }
    }
}
