//! Rules of target types.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::refusal::Refusal;
use super::{defaults, lookup};
use crate::model::target_type::{TYPE_METADATA_MAX, TYPE_PROJECTS_MAX};
use crate::model::{TargetType, TargetTypeId};
use crate::registry::change::TypeChange;
use crate::registry::limits::{ASSIGNMENTS_MAX, TYPE_METADATA_TOTAL_MAX, TYPES_MAX};
use crate::registry::snapshot::{Snapshot, Write};

/// The smallest difference of two times that the API shows.
const TIME_STEP: SignedDuration = SignedDuration::from_micros(1);

/// Decides `Change::CreateType`.
pub(super) fn create(snapshot: &Snapshot, new: &TargetType) -> Result<Vec<Write>, Refusal> {
    let registered = lookup::target(snapshot, new.target_id)?;
    check_new(snapshot, "name", &new.name)?;
    if new.is_public && !new.projects.is_empty() {
        return Err(Refusal::PublicWithProjects);
    }
    let mut new = new.clone();
    remove_duplicate_projects(&mut new);
    // Types are ordered by this time, and the first one names the target. The clocks of two nodes may differ.
    let latest = registered.types.iter().map(|other| other.created_at).max();
    if let Some(after) = latest.and_then(|latest| latest.checked_add(TIME_STEP).ok()) {
        new.created_at = new.created_at.max(after);
    }
    check_sizes(snapshot, None, &new)?;
    let mut writes = Vec::new();
    if new.is_default {
        writes = defaults::move_to_type(snapshot, &registered.target, new.id, new.created_at);
    }
    writes.push(Write::PutType(Arc::new(new)));
    Ok(writes)
}

/// Decides `Change::ModifyType`.
pub(super) fn modify(
    snapshot: &Snapshot,
    id: TargetTypeId,
    change: &TypeChange,
    now: Timestamp,
) -> Result<Vec<Write>, Refusal> {
    let before = lookup::target_type(snapshot, id)?;
    if before.is_default && change.is_default == Some(false) {
        return Err(Refusal::DefaultTypeStays { id, name: before.name.clone() });
    }
    let mut changed = before.clone();
    apply(&mut changed, change)?;
    if changed.name != before.name {
        check_name(snapshot, "name", &changed.name)?;
    }
    check_sizes(snapshot, Some(before), &changed)?;
    let mut writes = Vec::new();
    if change.is_default == Some(true) {
        changed.is_default = true;
        let registered = lookup::target(snapshot, changed.target_id)?;
        writes = defaults::move_to_type(snapshot, &registered.target, id, now);
    }
    if changed != *before {
        changed.updated_at = Some(now);
        writes.push(Write::PutType(Arc::new(changed)));
    }
    Ok(writes)
}

/// Decides `Change::DeleteType`.
pub(super) fn delete(snapshot: &Snapshot, id: TargetTypeId) -> Result<Vec<Write>, Refusal> {
    let TargetType { target_id, name, is_default, .. } = lookup::target_type(snapshot, id)?;
    if lookup::target(snapshot, *target_id)?.types.len() == 1 {
        return Err(Refusal::LastType { id, name: name.clone(), target_id: *target_id });
    }
    if *is_default {
        return Err(Refusal::DefaultTypeInUse { id, name: name.clone() });
    }
    Ok(vec![Write::DeleteType(id)])
}

/// Refuses a new type if the registry is full or another type has this name. `field` is the request field of the name.
pub(super) fn check_new(snapshot: &Snapshot, field: &'static str, name: &str) -> Result<(), Refusal> {
    if snapshot.types().count() >= TYPES_MAX {
        return Err(Refusal::TooManyTypes);
    }
    check_name(snapshot, field, name)
}

/// Refuses a name that another type has.
pub(super) fn check_name(snapshot: &Snapshot, field: &'static str, name: &str) -> Result<(), Refusal> {
    if snapshot.types().any(|other| other.name == name) {
        return Err(Refusal::TypeNameTaken { field, name: name.to_owned() });
    }
    Ok(())
}

fn apply(changed: &mut TargetType, change: &TypeChange) -> Result<(), Refusal> {
    if change.is_public == Some(true) && !change.add_projects.is_empty() {
        return Err(Refusal::PublicWithProjects);
    }
    if let Some(name) = &change.name {
        changed.name.clone_from(name);
    }
    if let Some(description) = &change.description {
        changed.description = Some(description.clone()).filter(|text| !text.is_empty());
    }
    changed.is_public = change.is_public.unwrap_or(changed.is_public && change.add_projects.is_empty());
    if change.purge_projects || changed.is_public {
        changed.projects.clear();
    }
    changed.projects.retain(|assigned| !change.remove_projects.contains(&assigned.project_id));
    changed.projects.extend(change.add_projects.iter().cloned());
    remove_duplicate_projects(changed);
    if change.purge_metadata {
        changed.metadata.clear();
    }
    changed.metadata.retain(|key, value| match change.remove_metadata.get(key) {
        Some(Some(only)) => only != value,
        Some(None) => false,
        None => true,
    });
    changed.metadata.extend(change.set_metadata.clone());
    Ok(())
}

/// Keeps the first assignment of each project.
fn remove_duplicate_projects(target_type: &mut TargetType) {
    let mut seen = HashSet::new();
    target_type.projects.retain(|assigned| seen.insert(assigned.project_id.clone()));
}

/// Refuses a type that is too large, and one that makes all types together too large. A type that does
/// not grow is never refused for the totals.
fn check_sizes(snapshot: &Snapshot, before: Option<&TargetType>, changed: &TargetType) -> Result<(), Refusal> {
    let (projects, metadata) = (changed.projects.len(), changed.metadata.len());
    if projects > TYPE_PROJECTS_MAX {
        return Err(Refusal::TooManyProjects(projects));
    }
    if metadata > TYPE_METADATA_MAX {
        return Err(Refusal::TooMuchMetadata(metadata));
    }
    let projects_before = before.map_or(0, |before| before.projects.len());
    if projects > projects_before {
        let others = snapshot.types().map(|other| other.projects.len()).sum::<usize>() - projects_before;
        if others + projects > ASSIGNMENTS_MAX {
            return Err(Refusal::TooManyAssignments(others + projects));
        }
    }
    let metadata_before = before.map_or(0, |before| before.metadata.len());
    if metadata > metadata_before {
        let others = snapshot.types().map(|other| other.metadata.len()).sum::<usize>() - metadata_before;
        if others + metadata > TYPE_METADATA_TOTAL_MAX {
            return Err(Refusal::TooMuchMetadataInTotal(others + metadata));
        }
    }
    Ok(())
}
