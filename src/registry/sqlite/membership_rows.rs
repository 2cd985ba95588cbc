//! Rows about the shared registry that the node has joined, and about former ids.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior};
use uuid::Uuid;

use super::columns::parsed;
use super::generation::Generation;
use super::target_rows;
use crate::registry::membership::{Adoption, Aliases};
use crate::registry::shared::CloudId;

/// Returns the id of the shared registry that the node has joined.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn cloud_id(connection: &Connection) -> rusqlite::Result<Option<CloudId>> {
    connection.query_row("SELECT cloud_id FROM membership", [], |row| parsed(row, "cloud_id").map(CloudId)).optional()
}

/// Stores the id of the shared registry that the node has joined. `None` for a single node.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn put(connection: &mut Connection, cloud_id: Option<CloudId>) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    put_in(&transaction, cloud_id)?;
    transaction.commit()
}

/// Stores that the file is the registry of a single node.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn clear(connection: &Connection) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM membership")?.execute([]).map(drop)
}

/// Makes the file the copy of a shared registry.
///
/// # Errors
/// When the file cannot be written. Nothing is changed then.
pub(super) fn adopt(connection: &mut Connection, adoption: &Adoption) -> rusqlite::Result<()> {
    let Adoption { cloud_id, renames, writes } = adoption;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Checked at the end of the transaction. SQLite resets this pragma then.
    transaction.pragma_update(None, "defer_foreign_keys", true)?;
    for (former, id) in &renames.types {
        rename(&transaction, TYPE_REFERENCES, former, id)?;
        alias(&transaction, "target_type_id", former, id)?;
    }
    for (former, id) in &renames.targets {
        rename(&transaction, TARGET_REFERENCES, former, id)?;
        alias(&transaction, "target_id", former, id)?;
    }
    target_rows::write(&transaction, writes)?;
    put_in(&transaction, Some(*cloud_id))?;
    Generation::increment(&transaction)?;
    transaction.commit()
}

/// Returns the former ids of targets and types.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn aliases(connection: &Connection) -> rusqlite::Result<Aliases> {
    let read = |column: &'static str| -> rusqlite::Result<HashMap<Uuid, Uuid>> {
        let mut statement =
            connection.prepare(&format!("SELECT id, {column} FROM alias WHERE {column} IS NOT NULL"))?;
        statement.query_map([], |row| Ok((parsed(row, "id")?, parsed(row, column)?)))?.collect()
    };
    Ok(Aliases { targets: read("target_id")?, types: read("target_type_id")? })
}

/// Columns that contain the id of a target.
const TARGET_REFERENCES: &[(&str, &str)] = &[
    ("target", "id"),
    ("target_type", "target_id"),
    ("target_transition", "target_id"),
    ("target_canary", "target_id"),
    ("own_mount", "target_id"),
    ("alias", "target_id"),
];

/// Columns that contain the id of a target type.
const TYPE_REFERENCES: &[(&str, &str)] = &[
    ("target_type", "id"),
    ("target_type_project", "target_type_id"),
    ("target_type_metadata", "target_type_id"),
    ("alias", "target_type_id"),
];

fn put_in(transaction: &Transaction<'_>, cloud_id: Option<CloudId>) -> rusqlite::Result<()> {
    clear(transaction)?;
    if let Some(CloudId(id)) = cloud_id {
        transaction.execute("INSERT INTO membership VALUES (?1)", [id.to_string()])?;
    }
    Ok(())
}

fn rename(transaction: &Transaction<'_>, columns: &[(&str, &str)], former: &Uuid, id: &Uuid) -> rusqlite::Result<()> {
    let (former, id) = (former.to_string(), id.to_string());
    for (table, column) in columns {
        transaction.execute(&format!("UPDATE {table} SET {column} = ?2 WHERE {column} = ?1"), [&former, &id])?;
    }
    Ok(())
}

fn alias(transaction: &Transaction<'_>, column: &str, former: &Uuid, id: &Uuid) -> rusqlite::Result<()> {
    let statement = format!("INSERT OR REPLACE INTO alias (id, {column}) VALUES (?1, ?2)");
    transaction.execute(&statement, [former.to_string(), id.to_string()]).map(drop)
}
