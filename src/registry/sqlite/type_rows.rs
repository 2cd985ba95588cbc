//! Rows of target types, their projects and their metadata, and the values that they stand for.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};
use uuid::Uuid;

use super::rows::{parsed, unreadable};
use crate::model::{TargetId, TargetType, TargetTypeId, TypeProject};

/// Every target type under its target, oldest first.
///
/// # Errors
/// When the file cannot be read or a row is not a sound target type.
pub(super) fn load(connection: &Connection) -> rusqlite::Result<HashMap<TargetId, Vec<TargetType>>> {
    let mut projects: HashMap<TargetTypeId, Vec<TypeProject>> = HashMap::new();
    let mut statement = connection.prepare_cached("SELECT * FROM target_type_project ORDER BY position")?;
    for found in statement.query_map([], |row| Ok((parsed(row, "target_type_id")?, project(row)?)))? {
        let (id, project) = found?;
        projects.entry(id).or_default().push(project);
    }
    let mut metadata: HashMap<TargetTypeId, BTreeMap<String, String>> = HashMap::new();
    let mut statement = connection.prepare_cached("SELECT * FROM target_type_metadata")?;
    for found in statement.query_map([], |row| Ok((parsed(row, "target_type_id")?, note(row)?)))? {
        let (id, (key, value)) = found?;
        metadata.entry(id).or_default().insert(key, value);
    }
    let mut types: HashMap<TargetId, Vec<TargetType>> = HashMap::new();
    let mut statement = connection.prepare_cached("SELECT * FROM target_type ORDER BY position")?;
    for found in statement.query_map([], target_type)? {
        let mut found = found?;
        found.projects = projects.remove(&found.id).unwrap_or_default();
        found.metadata = metadata.remove(&found.id).unwrap_or_default();
        types.entry(found.target_id).or_default().push(found);
    }
    Ok(types)
}

/// The types of one target, oldest first.
///
/// # Errors
/// As [`load`].
pub(super) fn of_target(connection: &Connection, id: TargetId) -> rusqlite::Result<Vec<TargetType>> {
    let mut statement =
        connection.prepare_cached("SELECT * FROM target_type WHERE target_id = ?1 ORDER BY position")?;
    let types: Vec<TargetType> = statement.query_map([id.to_string()], target_type)?.collect::<Result<_, _>>()?;
    types.into_iter().map(|found| with_parts(connection, found)).collect()
}

/// One target type.
///
/// # Errors
/// As [`load`].
pub(super) fn find(connection: &Connection, id: TargetTypeId) -> rusqlite::Result<Option<TargetType>> {
    let found = connection
        .prepare_cached("SELECT * FROM target_type WHERE id = ?1")?
        .query_row([id.to_string()], target_type)
        .optional()?;
    found.map(|found| with_parts(connection, found)).transpose()
}

/// Whether a type has this name.
///
/// # Errors
/// As [`load`].
pub(super) fn is_name_taken(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM target_type WHERE name = ?1")?.exists([name])
}

/// How many types there are.
///
/// # Errors
/// As [`load`].
pub(super) fn count(connection: &Connection) -> rusqlite::Result<usize> {
    counted(connection, "SELECT count(*) FROM target_type")
}

/// How many projects all types together have.
///
/// # Errors
/// As [`load`].
pub(super) fn count_projects(connection: &Connection) -> rusqlite::Result<usize> {
    counted(connection, "SELECT count(*) FROM target_type_project")
}

/// How many metadata entries all types together have.
///
/// # Errors
/// As [`load`].
pub(super) fn count_metadata(connection: &Connection) -> rusqlite::Result<usize> {
    counted(connection, "SELECT count(*) FROM target_type_metadata")
}

fn counted(connection: &Connection, sql: &str) -> rusqlite::Result<usize> {
    let count: i64 = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// Writes a new target type, with its projects and metadata.
///
/// # Errors
/// When it cannot be written or a constraint forbids it.
pub(super) fn insert(connection: &Connection, new: &TargetType) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO target_type (id, target_id, name, description, is_public, is_default, user_id, created_at,
                                      updated_at, version)
             VALUES (:id, :target_id, :name, :description, :is_public, :is_default, :user_id, :created_at,
                     :updated_at, :version)",
        )?
        .execute(named_params! {
            ":id": new.id.to_string(),
            ":target_id": new.target_id.to_string(),
            ":name": new.name,
            ":description": new.description,
            ":is_public": new.is_public,
            ":is_default": new.is_default,
            ":user_id": new.user_id,
            ":created_at": new.created_at.to_string(),
            ":updated_at": new.updated_at.map(|at| at.to_string()),
            ":version": new.version,
        })?;
    insert_parts(connection, new)
}

/// Writes what can change about a target type, its projects and metadata with it.
///
/// # Errors
/// As [`insert`].
pub(super) fn update(connection: &Connection, changed: &TargetType) -> rusqlite::Result<()> {
    let id = changed.id.to_string();
    connection
        .prepare_cached(
            "UPDATE target_type SET name = ?2, description = ?3, is_public = ?4, is_default = ?5, updated_at = ?6
             WHERE id = ?1",
        )?
        .execute(params![
            id,
            changed.name,
            changed.description,
            changed.is_public,
            changed.is_default,
            changed.updated_at.map(|at| at.to_string()),
        ])?;
    connection.prepare_cached("DELETE FROM target_type_project WHERE target_type_id = ?1")?.execute([&id])?;
    connection.prepare_cached("DELETE FROM target_type_metadata WHERE target_type_id = ?1")?.execute([&id])?;
    insert_parts(connection, changed)
}

/// Writes whether a target type is the default.
///
/// # Errors
/// As [`insert`].
pub(super) fn mark_default(
    connection: &Connection,
    id: TargetTypeId,
    is_default: bool,
    now: Timestamp,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE target_type SET is_default = ?2, updated_at = ?3 WHERE id = ?1")?
        .execute(params![id.to_string(), is_default, now.to_string()])?;
    Ok(())
}

/// Removes a target type.
///
/// # Errors
/// As [`insert`].
pub(super) fn delete(connection: &Connection, id: TargetTypeId) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM target_type WHERE id = ?1")?.execute([id.to_string()])?;
    Ok(())
}

fn insert_parts(connection: &Connection, target_type: &TargetType) -> rusqlite::Result<()> {
    let id = target_type.id.to_string();
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

fn with_parts(connection: &Connection, mut target_type: TargetType) -> rusqlite::Result<TargetType> {
    let id = target_type.id.to_string();
    target_type.projects = connection
        .prepare_cached("SELECT * FROM target_type_project WHERE target_type_id = ?1 ORDER BY position")?
        .query_map([&id], project)?
        .collect::<Result<_, _>>()?;
    target_type.metadata = connection
        .prepare_cached("SELECT * FROM target_type_metadata WHERE target_type_id = ?1")?
        .query_map([&id], note)?
        .collect::<Result<_, _>>()?;
    Ok(target_type)
}

/// A type without its projects and metadata, which are in other tables.
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

fn note(row: &Row<'_>) -> rusqlite::Result<(String, String)> {
    Ok((row.get("key")?, row.get("value")?))
}

fn updated_at(row: &Row<'_>) -> rusqlite::Result<Option<Timestamp>> {
    let text: Option<String> = row.get("updated_at")?;
    text.map(|text| text.parse().map_err(|error: jiff::Error| unreadable("updated_at", error))).transpose()
}
