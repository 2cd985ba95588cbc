//! The writes that make a copy equal to the shared content.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::{Target, TargetId, TargetType, TargetTypeId};
use crate::registry::snapshot::{RegisteredTarget, Snapshot, Write};

/// Returns the writes that make the copy equal to the shared content, oldest target first. They are ordered so that no
/// name is used twice and no two defaults exist after any of them. Unchanged targets are not written.
pub(super) fn writes(copy: &Snapshot, shared: &[RegisteredTarget]) -> Vec<Write> {
    let old_targets: HashMap<TargetId, &Target> =
        copy.targets().iter().map(|registered| (registered.target.id, &*registered.target)).collect();
    let old_types: HashMap<TargetTypeId, &TargetType> = copy.types().map(|old| (old.id, &**old)).collect();
    let new_targets: HashMap<TargetId, &Arc<Target>> =
        shared.iter().map(|registered| (registered.target.id, &registered.target)).collect();
    let shared_types = || shared.iter().flat_map(|registered| registered.types.iter());
    let new_types: HashMap<TargetTypeId, &Arc<TargetType>> = shared_types().map(|new| (new.id, new)).collect();

    let mut writes = Vec::new();
    let is_gone = |id: &TargetId| !new_targets.contains_key(id);
    writes.extend(old_targets.keys().filter(|id| is_gone(id)).map(|id| Write::DeleteTarget(*id)));
    // The types of deleted targets went with them.
    let is_kept = |old: &TargetType| new_types.get(&old.id).is_some_and(|new| new.target_id == old.target_id);
    let removed = old_types.values().filter(|old| !is_gone(&old.target_id) && !is_kept(old));
    writes.extend(removed.map(|old| Write::DeleteType(old.id)));

    // Changed types first get a name that no other type has.
    let changed_types =
        || shared_types().filter(|new| old_types.get(&new.id).is_some_and(|old| is_kept(old) && **old != ***new));
    writes.extend(changed_types().filter(|new| is_identified_anew(old_types[&new.id], new)).map(|new| {
        let free = TargetType { name: new.id.to_string(), is_default: false, ..old_types[&new.id].clone() };
        Write::PutType(free.into())
    }));
    let changed_targets = shared.iter().map(|registered| &registered.target);
    let changed_targets = changed_targets.filter(|new| old_targets.get(&new.id).is_some_and(|old| **old != ***new));
    let (new_defaults, others): (Vec<_>, Vec<_>) = changed_targets.partition(|new| new.is_default);
    writes.extend(others.into_iter().chain(new_defaults).map(|new| Write::PutTarget(new.clone())));
    writes.extend(changed_types().map(|new| Write::PutType(new.clone())));

    for registered in shared {
        if !old_targets.contains_key(&registered.target.id) {
            writes.push(Write::PutTarget(registered.target.clone()));
        }
        let added = registered.types.iter().filter(|new| !old_types.get(&new.id).is_some_and(|old| is_kept(old)));
        writes.extend(added.map(|new| Write::PutType(new.clone())));
    }
    writes
}

/// Whether a type has another name, or is no longer or newly the default.
fn is_identified_anew(old: &TargetType, new: &TargetType) -> bool {
    old.name != new.name || old.is_default != new.is_default
}
