//! The changes of target types, each one transaction with the rules that it must keep.

use std::collections::HashSet;

use jiff::Timestamp;
use rusqlite::{Connection, Transaction};

use super::rules::{begin, find};
use super::{defaults, storage, type_rows};
use crate::model::target_type::{TYPE_METADATA_MAX, TYPE_PROJECTS_MAX};
use crate::model::{TargetType, TargetTypeId};
use crate::registry::{ASSIGNMENTS_MAX, Entry, RegistryError, TYPE_NOTES_MAX, TYPES_MAX, TypeChange};

/// Adds a type; see `Registry::create_type`.
pub(super) fn create_type(connection: &mut Connection, mut new: TargetType) -> Result<Vec<Entry>, RegistryError> {
    let transaction = begin(connection)?;
    find(&transaction, new.target_id)?;
    if type_rows::count(&transaction).map_err(storage)? >= TYPES_MAX {
        return Err(RegistryError::TooManyTypes);
    }
    free_name(&transaction, "name", &new.name)?;
    if new.is_public && !new.projects.is_empty() {
        return Err(RegistryError::PublicWithProjects);
    }
    keep_once(&mut new);
    check_sizes(&new)?;
    let (id, target_id, now) = (new.id, new.target_id, new.created_at);
    // A type that is new was never changed: what is the default now makes room for it before.
    let former = if new.is_default { defaults::demote(&transaction, target_id, id, now)? } else { Vec::new() };
    type_rows::insert(&transaction, &new).map_err(storage)?;
    check_totals(&transaction, (0, 0), &new)?;
    let changed = if new.is_default {
        defaults::promote(&transaction, former, target_id, id, now)?
    } else {
        vec![find(&transaction, target_id)?]
    };
    transaction.commit().map_err(storage)?;
    Ok(changed)
}

/// Changes a type; see `Registry::modify_type`.
pub(super) fn modify_type(
    connection: &mut Connection,
    id: TargetTypeId,
    change: TypeChange,
    now: Timestamp,
) -> Result<Vec<Entry>, RegistryError> {
    let transaction = begin(connection)?;
    let before = find_type(&transaction, id)?;
    if before.is_default && change.is_default == Some(false) {
        return Err(RegistryError::DefaultTypeStays { id, name: before.name });
    }
    let make_default = change.is_default == Some(true);
    let mut changed = before.clone();
    apply(&mut changed, change)?;
    if changed.name != before.name {
        free_name(&transaction, "name", &changed.name)?;
    }
    check_sizes(&changed)?;
    if changed != before {
        changed.updated_at = Some(now);
        type_rows::update(&transaction, &changed).map_err(storage)?;
        check_totals(&transaction, (before.projects.len(), before.metadata.len()), &changed)?;
    }
    let entries = if make_default {
        defaults::switch(&transaction, changed.target_id, id, now)?
    } else {
        vec![find(&transaction, changed.target_id)?]
    };
    transaction.commit().map_err(storage)?;
    Ok(entries)
}

/// Removes a type; see `Registry::delete_type`.
pub(super) fn delete_type(connection: &mut Connection, id: TargetTypeId) -> Result<Entry, RegistryError> {
    let transaction = begin(connection)?;
    let TargetType { target_id, name, is_default, .. } = find_type(&transaction, id)?;
    if find(&transaction, target_id)?.types.len() == 1 {
        return Err(RegistryError::LastType { id, name, target_id });
    }
    if is_default {
        return Err(RegistryError::DefaultTypeInUse { id, name });
    }
    type_rows::delete(&transaction, id).map_err(storage)?;
    let left = find(&transaction, target_id)?;
    transaction.commit().map_err(storage)?;
    Ok(left)
}

/// Refuses a name that a type has; `field` is what the client called it.
pub(super) fn free_name(transaction: &Transaction<'_>, field: &'static str, name: &str) -> Result<(), RegistryError> {
    if type_rows::is_name_taken(transaction, name).map_err(storage)? {
        return Err(RegistryError::TypeNameTaken { field, name: name.to_owned() });
    }
    Ok(())
}

fn apply(changed: &mut TargetType, change: TypeChange) -> Result<(), RegistryError> {
    let TypeChange { name, description, is_public, .. } = &change;
    if *is_public == Some(true) && !change.add_projects.is_empty() {
        return Err(RegistryError::PublicWithProjects);
    }
    if let Some(name) = name {
        changed.name.clone_from(name);
    }
    if let Some(description) = description {
        changed.description = Some(description.clone()).filter(|text| !text.is_empty());
    }
    changed.is_public = is_public.unwrap_or(changed.is_public && change.add_projects.is_empty());
    if change.purge_projects || changed.is_public {
        changed.projects.clear();
    }
    changed.projects.retain(|assigned| !change.remove_projects.contains(&assigned.project_id));
    changed.projects.extend(change.add_projects);
    keep_once(changed);
    if change.purge_metadata {
        changed.metadata.clear();
    }
    changed.metadata.retain(|key, value| match change.remove_metadata.get(key) {
        Some(Some(only)) => only != value,
        Some(None) => false,
        None => true,
    });
    changed.metadata.extend(change.set_metadata);
    Ok(())
}

/// Keeps the first assignment of each project.
fn keep_once(target_type: &mut TargetType) {
    let mut seen = HashSet::new();
    target_type.projects.retain(|assigned| seen.insert(assigned.project_id.clone()));
}

fn check_sizes(target_type: &TargetType) -> Result<(), RegistryError> {
    match (target_type.projects.len(), target_type.metadata.len()) {
        (projects, _) if projects > TYPE_PROJECTS_MAX => Err(RegistryError::TooManyProjects(projects)),
        (_, entries) if entries > TYPE_METADATA_MAX => Err(RegistryError::TooMuchMetadata(entries)),
        _ => Ok(()),
    }
}

/// Refuses a type, as it is written now, that had `before` many projects and notes, when all types
/// together have too many. What has no more of them than before is never refused.
fn check_totals(
    transaction: &Transaction<'_>,
    before: (usize, usize),
    target_type: &TargetType,
) -> Result<(), RegistryError> {
    if target_type.projects.len() > before.0 {
        let total = type_rows::count_projects(transaction).map_err(storage)?;
        if total > ASSIGNMENTS_MAX {
            return Err(RegistryError::TooManyAssignments(total));
        }
    }
    if target_type.metadata.len() > before.1 {
        let total = type_rows::count_metadata(transaction).map_err(storage)?;
        if total > TYPE_NOTES_MAX {
            return Err(RegistryError::TooManyNotes(total));
        }
    }
    Ok(())
}

fn find_type(transaction: &Transaction<'_>, id: TargetTypeId) -> Result<TargetType, RegistryError> {
    type_rows::find(transaction, id).map_err(storage)?.ok_or(RegistryError::TypeNotFound(id))
}
