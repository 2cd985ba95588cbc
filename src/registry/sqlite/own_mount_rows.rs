//! Rows of mounts that this host's agent made, one for each target at most.

use rusqlite::{Connection, Row, TransactionBehavior, params};

use super::columns::{json, parsed, read};
use crate::model::{MountName, OwnMountId, TargetId};

/// Stores or removes mounts in one transaction, as `Store::put_own_mounts` says.
///
/// # Errors
/// When one of them cannot be written; none is changed then.
pub(super) fn put(connection: &mut Connection, mounts: &[(TargetId, Option<OwnMountId>)]) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for (id, mount) in mounts {
        let id = id.to_string();
        transaction.prepare_cached("DELETE FROM own_mount WHERE target_id = ?1")?.execute([&id])?;
        if let Some(mount) = mount {
            transaction
                .prepare_cached(
                    "INSERT INTO own_mount (target_id, mount)
                     SELECT ?1, ?2 WHERE EXISTS (SELECT 1 FROM target WHERE id = ?1)",
                )?
                .execute(params![id, json(mount)?])?;
        }
    }
    transaction.commit()
}

/// Returns every mount. A mount that cannot be parsed is left out, because a newer agent may have written it.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn load(connection: &Connection) -> rusqlite::Result<Vec<(TargetId, OwnMountId)>> {
    let mut statement = connection.prepare_cached("SELECT * FROM own_mount")?;
    let rows = statement.query_map([], |row| Ok(own_mount(row).ok()))?;
    rows.filter_map(Result::transpose).collect()
}

/// Returns the mount of the NFS target with this mount name and this export, as text.
///
/// # Errors
/// When the file cannot be read, or has no such rows.
pub(super) fn of_export(
    connection: &Connection,
    mount_name: &MountName,
    export: &str,
) -> rusqlite::Result<Option<OwnMountId>> {
    let mut statement = connection.prepare(
        "SELECT own_mount.* FROM own_mount JOIN target ON target.id = own_mount.target_id
         WHERE target.mount_name = ?1 AND target.spec ->> '$.filesystem_export' = ?2",
    )?;
    let mut rows = statement.query_map([mount_name.as_str(), export], |row| Ok(own_mount(row)?.1))?;
    rows.next().transpose()
}

fn own_mount(row: &Row<'_>) -> rusqlite::Result<(TargetId, OwnMountId)> {
    Ok((parsed(row, "target_id")?, read(row, "mount", |text| serde_json::from_str(text))?))
}
