//! The schema, in steps: each turns a registry of one version into the next, in one transaction.
//!
//! A released step is never changed; what is to be different is another step.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use crate::registry::RegistryError;

/// Marks a file as a registry of this product (`PRAGMA application_id`): "tgtw".
const APPLICATION_ID: i64 = 0x7467_7477;

/// The steps; a registry's version (`PRAGMA user_version`) is how many of them it has had.
const STEPS: &[&str] = &[
    // 1: targets and their types.
    "CREATE TABLE target (
        id TEXT PRIMARY KEY NOT NULL,
        kind TEXT NOT NULL,
        export TEXT NOT NULL,
        endpoint_url TEXT,
        bucket TEXT,
        immutable INTEGER NOT NULL,
        mount_name TEXT NOT NULL UNIQUE,
        is_default INTEGER NOT NULL,
        created_at TEXT NOT NULL,
        updated_at TEXT NOT NULL,
        version TEXT NOT NULL,
        position INTEGER NOT NULL UNIQUE
    ) STRICT;
    CREATE UNIQUE INDEX one_default_target ON target (is_default) WHERE is_default = 1;
    CREATE TABLE target_metadata (
        target_id TEXT NOT NULL REFERENCES target (id) ON DELETE CASCADE,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (target_id, key)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE target_type (
        id TEXT PRIMARY KEY NOT NULL,
        target_id TEXT NOT NULL REFERENCES target (id) ON DELETE CASCADE,
        name TEXT NOT NULL UNIQUE,
        description TEXT,
        is_public INTEGER NOT NULL,
        is_default INTEGER NOT NULL,
        user_id TEXT,
        created_at TEXT NOT NULL,
        updated_at TEXT,
        version TEXT NOT NULL,
        position INTEGER NOT NULL UNIQUE
    ) STRICT;
    CREATE UNIQUE INDEX one_default_type ON target_type (is_default) WHERE is_default = 1;
    CREATE INDEX types_of_target ON target_type (target_id);",
];

/// Whether the file is empty, or a registry that this agent knows. Only reads.
pub(super) fn verify(connection: &Connection, path: &Path) -> Result<(), RegistryError> {
    let failed = |error: rusqlite::Error| super::open_failure(path, &error);
    let application: i64 = pragma(connection, "application_id").map_err(failed)?;
    let found = version(connection).map_err(failed)?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    let is_empty = application == 0 && found == 0 && tables == 0;
    if !is_empty && application != APPLICATION_ID {
        let detail = "it is a database of another program".to_owned();
        return Err(RegistryError::NotARegistry { path: path.to_owned(), detail });
    }
    let known = known();
    if found > known {
        return Err(RegistryError::NewerSchema { path: path.to_owned(), found, known });
    }
    Ok(())
}

/// Takes the steps that are missing.
pub(super) fn bring_up_to_date(connection: &mut Connection) -> rusqlite::Result<()> {
    // Immediate also when there is nothing to do: a file that cannot be written is found now.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = version(&transaction)?;
    let missing = STEPS.iter().skip(usize::try_from(found).unwrap_or(STEPS.len()));
    let mut is_new = false;
    for step in missing {
        transaction.execute_batch(step)?;
        is_new = true;
    }
    if is_new {
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", known())?;
    }
    transaction.commit()
}

fn known() -> i64 {
    i64::try_from(STEPS.len()).unwrap_or(i64::MAX)
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    pragma(connection, "user_version")
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}
