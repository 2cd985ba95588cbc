//! Requests that create or change a target type.

use std::collections::{BTreeMap, BTreeSet};

use super::decode::{decode, decode_projects};
use crate::agent::{NewType, TypeUpdate};
use crate::api::fault::Fault;
use crate::api::wire::{
    MetadataBody, MetadataEntry, MetadataPair, MetadataRemovalBody, NewTypeBody, ProjectsBody, TypeUpdateBody,
};
use crate::model::{ProjectId, TargetId, TargetType};
use crate::registry::TypeChange;

/// Decodes the body of a create.
pub(in crate::api) fn new_type(bytes: &[u8]) -> Result<NewType, Fault> {
    let NewTypeBody { backup_target_type: fields } = decode(bytes)?;
    Ok(NewType {
        target_id: target_id(&fields.backup_targets_id)?,
        name: fields.name,
        description: fields.description,
        is_default: fields.is_default.unwrap_or(false),
        is_public: fields.is_public,
        projects: projects(&fields.project_list)?,
        metadata: map(fields.metadata),
        user_id: None,
    })
}

/// Decodes the body of a change of `target_type`.
pub(in crate::api) fn type_update(bytes: &[u8], target_type: &TargetType) -> Result<TypeUpdate, Fault> {
    let TypeUpdateBody { backup_target_type: fields } = decode(bytes)?;
    same_type(fields.backup_target_type_id.as_deref(), target_type)?;
    if let Some(text) = fields.backup_targets_id
        && target_id(&text)? != target_type.target_id
    {
        let current = target_type.target_id;
        let message =
            format!("backup_targets_id: {current} cannot be changed to {text:?}, create another backup target type");
        return Err(Fault::bad_request(message));
    }
    Ok(TypeUpdate {
        add_projects: projects(&fields.project_list)?,
        change: TypeChange {
            name: fields.name,
            description: fields.description,
            is_public: fields.is_public,
            is_default: fields.is_default,
            purge_projects: fields.purge_projects.unwrap_or(false),
            purge_metadata: fields.purge_metadata.unwrap_or(false),
            set_metadata: map(fields.metadata),
            ..TypeChange::default()
        },
    })
}

/// Decodes the body of `add_projects`.
pub(in crate::api) fn projects_to_add(bytes: &[u8], target_type: &TargetType) -> Result<TypeUpdate, Fault> {
    let add_projects = project_list(bytes, target_type, "add_projects")?;
    Ok(TypeUpdate { add_projects, ..TypeUpdate::default() })
}

/// Decodes the body of `remove_projects`.
pub(in crate::api) fn projects_to_remove(bytes: &[u8], target_type: &TargetType) -> Result<TypeUpdate, Fault> {
    let remove_projects = project_list(bytes, target_type, "remove_projects")?;
    Ok(TypeUpdate { change: TypeChange { remove_projects, ..TypeChange::default() }, ..TypeUpdate::default() })
}

/// Decodes the body of `add_metadata`.
pub(in crate::api) fn metadata_to_add(bytes: &[u8], target_type: &TargetType) -> Result<TypeUpdate, Fault> {
    let MetadataBody { backup_target_type: fields } = decode(bytes)?;
    same_type(fields.backup_target_type_id.as_deref(), target_type)?;
    let change = TypeChange { set_metadata: map(fields.metadata), ..TypeChange::default() };
    Ok(TypeUpdate { change, ..TypeUpdate::default() })
}

/// Decodes the body of `remove_metadata`. A pair is removed only with the given value, and a key alone with any value.
pub(in crate::api) fn metadata_to_remove(bytes: &[u8], target_type: &TargetType) -> Result<TypeUpdate, Fault> {
    let MetadataRemovalBody { backup_target_type: fields } = decode(bytes)?;
    same_type(fields.backup_target_type_id.as_deref(), target_type)?;
    let remove_metadata = fields.metadata.into_iter().map(|MetadataPair { key, value }| (key, value)).collect();
    let change = TypeChange { remove_metadata, ..TypeChange::default() };
    Ok(TypeUpdate { change, ..TypeUpdate::default() })
}

fn project_list(bytes: &[u8], target_type: &TargetType, alias: &'static str) -> Result<BTreeSet<ProjectId>, Fault> {
    let ProjectsBody { backup_target_type: fields } = decode_projects(bytes, alias)?;
    same_type(fields.backup_target_type_id.as_deref(), target_type)?;
    projects(&fields.project_list)
}

fn projects(list: &[String]) -> Result<BTreeSet<ProjectId>, Fault> {
    let parsed = |(index, text): (usize, &String)| {
        text.parse().map_err(|error| Fault::bad_request(format!("project_list[{index}]: {error}")))
    };
    list.iter().enumerate().map(parsed).collect()
}

fn target_id(text: &str) -> Result<TargetId, Fault> {
    let expected = "expected the id of a backup target (GET /backup_targets shows them)";
    text.parse().map_err(|_| Fault::bad_request(format!("backup_targets_id: {text:?} is not an id, {expected}")))
}

/// Refuses a body that names another type than the path does.
fn same_type(given: Option<&str>, target_type: &TargetType) -> Result<(), Fault> {
    match given {
        Some(text) if text.parse() != Ok(target_type.id) => Err(Fault::bad_request(format!(
            "backup_target_type_id: {text:?} is not {}, which the path names, leave it out",
            target_type.id
        ))),
        _ => Ok(()),
    }
}

fn map(list: Vec<MetadataEntry>) -> BTreeMap<String, String> {
    list.into_iter().map(|MetadataEntry { key, value }| (key, value)).collect()
}

#[cfg(test)]
mod tests;
