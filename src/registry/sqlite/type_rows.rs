//! Rows of target types, of their projects and of their metadata.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, Row, named_params, params};
use uuid::Uuid;

use super::columns::{parsed, unreadable};
use crate::model::{TargetId, TargetType, TargetTypeId, TypeProject};

/// Returns every target type by its target, oldest first.
///
/// # Errors
/// When the file cannot be read or a row is not a valid target type.
pub(super) fn load(connection: &Connection) -> rusqlite::Result<HashMap<TargetId, Vec<Arc<TargetType>>>> {
    let mut projects: HashMap<TargetTypeId, Vec<TypeProject>> = HashMap::new();
    let mut statement = connection.prepare_cached("SELECT * FROM target_type_project ORDER BY position")?;
    for found in statement.query_map([], |row| Ok((parsed(row, "target_type_id")?, project(row)?)))? {
        let (id, project) = found?;
        projects.entry(id).or_default().push(project);
    }
    let mut metadata: HashMap<TargetTypeId, BTreeMap<String, String>> = HashMap::new();
    let mut statement = connection.prepare_cached("SELECT * FROM target_type_metadata")?;
    for found in statement.query_map([], |row| Ok((parsed(row, "target_type_id")?, metadata_entry(row)?)))? {
        let (id, (key, value)) = found?;
        metadata.entry(id).or_default().insert(key, value);
    }
    let mut types: HashMap<TargetId, Vec<Arc<TargetType>>> = HashMap::new();
    let mut statement = connection.prepare_cached("SELECT * FROM target_type ORDER BY position")?;
    for found in statement.query_map([], target_type)? {
        let mut found = found?;
        found.projects = projects.remove(&found.id).unwrap_or_default();
        found.metadata = metadata.remove(&found.id).unwrap_or_default();
        types.entry(found.target_id).or_default().push(Arc::new(found));
    }
    Ok(types)
}

/// Writes a target type with its projects and metadata: new rows, or those with its id.
///
/// # Errors
/// When it cannot be written or a constraint forbids it.
pub(super) fn put(connection: &Connection, target_type: &TargetType) -> rusqlite::Result<()> {
    let id = target_type.id.to_string();
    connection
        .prepare_cached(
            "INSERT INTO target_type (id, target_id, name, description, is_public, is_default, user_id, created_at,
                                      updated_at, version)
             VALUES (:id, :target_id, :name, :description, :is_public, :is_default, :user_id, :created_at,
                     :updated_at, :version)
             ON CONFLICT (id) DO UPDATE SET
                 target_id = excluded.target_id, name = excluded.name, description = excluded.description,
                 is_public = excluded.is_public, is_default = excluded.is_default, user_id = excluded.user_id,
                 created_at = excluded.created_at, updated_at = excluded.updated_at, version = excluded.version",
        )?
        .execute(named_params! {
            ":id": id,
            ":target_id": target_type.target_id.to_string(),
            ":name": target_type.name,
            ":description": target_type.description,
            ":is_public": target_type.is_public,
            ":is_default": target_type.is_default,
            ":user_id": target_type.user_id,
            ":created_at": target_type.created_at.to_string(),
            ":updated_at": target_type.updated_at.map(|at| at.to_string()),
            ":version": target_type.version,
        })?;
    connection.prepare_cached("DELETE FROM target_type_project WHERE target_type_id = ?1")?.execute([&id])?;
    connection.prepare_cached("DELETE FROM target_type_metadata WHERE target_type_id = ?1")?.execute([&id])?;
    let mut statement = connection.prepare_cached(
        "INSERT INTO target_type_project (id, target_type_id, project_id, created_at, updated_at, version)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for project in &target_type.projects {
        statement.execute(params![
            project.id.to_string(),
            id,
            project.project_id.as_str(),
            project.created_at.to_string(),
            project.updated_at.map(|at| at.to_string()),
            project.version,
        ])?;
    }
    let mut statement = connection
        .prepare_cached("INSERT INTO target_type_metadata (target_type_id, key, value) VALUES (?1, ?2, ?3)")?;
    for (key, value) in &target_type.metadata {
        statement.execute(params![id, key, value])?;
    }
    Ok(())
}

/// Removes a target type. Its projects and metadata go with it (`ON DELETE CASCADE`).
///
/// # Errors
/// As [`put`].
pub(super) fn delete(connection: &Connection, id: TargetTypeId) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM target_type WHERE id = ?1")?.execute([id.to_string()])?;
    Ok(())
}

/// Reads a type without its projects and metadata, which are in other tables.
fn target_type(row: &Row<'_>) -> rusqlite::Result<TargetType> {
    Ok(TargetType {
        id: parsed(row, "id")?,
        target_id: parsed(row, "target_id")?,
        name: row.get("name")?,
        description: row.get("description")?,
        is_public: row.get("is_public")?,
        is_default: row.get("is_default")?,
        user_id: row.get("user_id")?,
        created_at: parsed(row, "created_at")?,
        updated_at: updated_at(row)?,
        version: row.get("version")?,
        projects: Vec::new(),
        metadata: BTreeMap::new(),
    })
}

fn project(row: &Row<'_>) -> rusqlite::Result<TypeProject> {
    Ok(TypeProject {
        id: parsed::<Uuid>(row, "id")?,
        project_id: parsed(row, "project_id")?,
        created_at: parsed(row, "created_at")?,
        updated_at: updated_at(row)?,
        version: row.get("version")?,
    })
}

fn metadata_entry(row: &Row<'_>) -> rusqlite::Result<(String, String)> {
    Ok((row.get("key")?, row.get("value")?))
}

fn updated_at(row: &Row<'_>) -> rusqlite::Result<Option<Timestamp>> {
    let text: Option<String> = row.get("updated_at")?;
    text.map(|text| text.parse().map_err(|error: jiff::Error| unreadable("updated_at", error))).transpose()
}
