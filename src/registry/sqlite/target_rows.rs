//! Rows of targets.
//!
//! Rows are read with the parsers that also read a client's requests: a row that is not a valid
//! target is an error.

use rusqlite::{Connection, Row, named_params};
use serde::{Deserialize, Serialize};

use super::columns::{json, parsed, read, unreadable};
use super::type_rows;
use crate::model::{MountName, NodeScope, SpecFields, Target, TargetId, TargetSpec};
use crate::registry::snapshot::{RegisteredTarget, Write};

/// Document of the column `spec`. Releases without scopes read and write only the fields of the storage.
#[derive(Serialize, Deserialize)]
struct SpecDocument {
    #[serde(flatten)]
    fields: SpecFields,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scope: Option<NodeScope>,
}

/// Returns every target with its types, oldest first.
///
/// # Errors
/// When the file cannot be read or a row is not a valid target.
pub(super) fn load(connection: &Connection) -> rusqlite::Result<Vec<RegisteredTarget>> {
    let mut types = type_rows::load(connection)?;
    let mut with_types = |target: Target| RegisteredTarget {
        types: types.remove(&target.id).unwrap_or_default().into(),
        target: target.into(),
    };
    let mut statement = connection.prepare_cached("SELECT * FROM target ORDER BY position")?;
    statement.query_map([], target)?.map(|found| found.map(&mut with_types)).collect()
}

/// Makes writes in this order.
///
/// # Errors
/// When one cannot be made. The caller discards the transaction then.
pub(super) fn write(connection: &Connection, writes: &[Write]) -> rusqlite::Result<()> {
    for write in writes {
        match write {
            Write::PutTarget(target) => put(connection, target)?,
            Write::DeleteTarget(id) => delete(connection, *id)?,
            Write::PutType(target_type) => type_rows::put(connection, target_type)?,
            Write::DeleteType(id) => type_rows::delete(connection, *id)?,
        }
    }
    Ok(())
}

/// Writes a target: a new row, or the one with its id.
///
/// # Errors
/// When it cannot be written or a constraint forbids it.
fn put(connection: &Connection, target: &Target) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO target (id, spec, mount_name, is_default, created_at, updated_at, version, metadata)
             VALUES (:id, :spec, :mount_name, :is_default, :created_at, :updated_at, :version, :metadata)
             ON CONFLICT (id) DO UPDATE SET
                 spec = excluded.spec, mount_name = excluded.mount_name, is_default = excluded.is_default,
                 created_at = excluded.created_at, updated_at = excluded.updated_at, version = excluded.version,
                 metadata = excluded.metadata",
        )?
        .execute(named_params! {
            ":id": target.id.to_string(),
            ":spec": json(&SpecDocument { fields: target.spec.to_fields(), scope: target.scope.clone() })?,
            ":mount_name": target.mount_name.as_str(),
            ":is_default": target.is_default,
            ":created_at": target.created_at.to_string(),
            ":updated_at": target.updated_at.to_string(),
            ":version": target.version,
            ":metadata": json(&target.metadata)?,
        })?;
    Ok(())
}

/// Removes a target. Its types and its history go with it (`ON DELETE CASCADE`).
///
/// # Errors
/// When it cannot be written.
fn delete(connection: &Connection, id: TargetId) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM target WHERE id = ?1")?.execute([id.to_string()])?;
    Ok(())
}

fn target(row: &Row<'_>) -> rusqlite::Result<Target> {
    let SpecDocument { fields, scope } = read(row, "spec", |text| serde_json::from_str(text))?;
    let spec = TargetSpec::from_fields(&fields).map_err(|error| unreadable("spec", error))?;
    Ok(Target {
        id: parsed(row, "id")?,
        spec,
        mount_name: read(row, "mount_name", MountName::from_stored)?,
        is_default: row.get("is_default")?,
        created_at: parsed(row, "created_at")?,
        updated_at: parsed(row, "updated_at")?,
        version: row.get("version")?,
        metadata: read(row, "metadata", |text| serde_json::from_str(text))?,
        scope,
    })
}
