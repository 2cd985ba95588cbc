//! Rows of canary records: one document for each target.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::columns::{json, read};
use crate::model::{CanaryRecord, TargetId};

/// Replaces the record of a target, if the target exists.
///
/// # Errors
/// When it cannot be written.
pub(super) fn put(connection: &Connection, id: TargetId, record: &CanaryRecord) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO target_canary (target_id, record) SELECT ?1, ?2 WHERE EXISTS (SELECT 1 FROM target WHERE id = ?1)
             ON CONFLICT (target_id) DO UPDATE SET record = excluded.record",
        )?
        .execute(params![id.to_string(), json(record)?])?;
    Ok(())
}

/// Returns the record of a target.
///
/// # Errors
/// When the file cannot be read or the row is not a valid record.
pub(super) fn of_target(connection: &Connection, id: TargetId) -> rusqlite::Result<Option<CanaryRecord>> {
    let mut statement = connection.prepare_cached("SELECT record FROM target_canary WHERE target_id = ?1")?;
    let record = |row: &rusqlite::Row<'_>| read(row, "record", |text| serde_json::from_str(text));
    statement.query_row([id.to_string()], record).optional()
}
