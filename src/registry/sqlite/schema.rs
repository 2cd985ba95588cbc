//! The schema, as a list of steps.
//!
//! `user_version` is the number of steps that a file has. A release that changes the schema appends a
//! step and changes none of the others, so a file of any older release gets the missing steps when it
//! is opened.

use rusqlite::{Connection, TransactionBehavior};

/// `application_id` of a registry ("tgtw"). Distinguishes it from databases of other programs.
pub(super) const APPLICATION_ID: u32 = 0x7467_7477;

/// Newest schema that this agent knows, which is the number of steps.
pub(super) const KNOWN: i64 = STEPS.len() as i64;

/// The steps. Rules that SQL can express are constraints here too, in case a defect bypasses
/// `registry::rules`.
const STEPS: &[&str] = &[
    "
    CREATE TABLE target (
        position    INTEGER PRIMARY KEY,
        id          TEXT NOT NULL UNIQUE,
        kind        TEXT NOT NULL CHECK (kind IN ('nfs', 's3')),
        nfs_export  TEXT CHECK ((kind = 'nfs') = (nfs_export IS NOT NULL)),
        s3_endpoint TEXT CHECK (kind = 's3' OR s3_endpoint IS NULL),
        s3_bucket   TEXT CHECK ((kind = 's3') = (s3_bucket IS NOT NULL)),
        immutable   INTEGER NOT NULL CHECK (immutable IN (0, 1)),
        mount_name  TEXT NOT NULL UNIQUE,
        is_default  INTEGER NOT NULL CHECK (is_default IN (0, 1)),
        created_at  TEXT NOT NULL,
        updated_at  TEXT NOT NULL,
        version     TEXT NOT NULL,
        metadata    TEXT NOT NULL CHECK (json_valid(metadata))
    ) STRICT;
    CREATE UNIQUE INDEX target_one_default ON target (is_default) WHERE is_default = 1;
    CREATE TABLE target_type (
        position    INTEGER PRIMARY KEY,
        id          TEXT NOT NULL UNIQUE,
        target_id   TEXT NOT NULL REFERENCES target (id) ON DELETE CASCADE,
        name        TEXT NOT NULL UNIQUE,
        description TEXT,
        is_public   INTEGER NOT NULL CHECK (is_public IN (0, 1)),
        is_default  INTEGER NOT NULL CHECK (is_default IN (0, 1)),
        user_id     TEXT,
        created_at  TEXT NOT NULL,
        updated_at  TEXT,
        version     TEXT NOT NULL
    ) STRICT;
    CREATE INDEX target_type_by_target ON target_type (target_id);
    CREATE UNIQUE INDEX target_type_one_default ON target_type (is_default) WHERE is_default = 1;
    ",
    "
    CREATE TABLE target_type_project (
        position       INTEGER PRIMARY KEY,
        id             TEXT NOT NULL UNIQUE,
        target_type_id TEXT NOT NULL REFERENCES target_type (id) ON DELETE CASCADE,
        project_id     TEXT NOT NULL CHECK (length(project_id) = 32),
        created_at     TEXT NOT NULL,
        updated_at     TEXT,
        version        TEXT NOT NULL,
        UNIQUE (target_type_id, project_id)
    ) STRICT;
    CREATE TABLE target_type_metadata (
        target_type_id TEXT NOT NULL REFERENCES target_type (id) ON DELETE CASCADE,
        key            TEXT NOT NULL,
        value          TEXT NOT NULL,
        PRIMARY KEY (target_type_id, key)
    ) STRICT, WITHOUT ROWID;
    ",
    "
    CREATE TABLE target_transition (
        position    INTEGER PRIMARY KEY,
        target_id   TEXT NOT NULL REFERENCES target (id) ON DELETE CASCADE,
        at          TEXT NOT NULL,
        from_status TEXT CHECK (from_status IN ('available', 'offline')),
        to_status   TEXT NOT NULL CHECK (to_status IN ('available', 'offline')),
        reason      TEXT,
        message     TEXT CHECK ((reason IS NULL) = (message IS NULL))
    ) STRICT;
    CREATE INDEX target_transition_by_target ON target_transition (target_id, position);
    ",
    // The storage of a target as one document of its fields, so that a new kind or field does not need a step.
    // SQLite cannot drop a constraint, so the table is copied: https://www.sqlite.org/lang_altertable.html#otheralter
    "
    CREATE TABLE new_target (
        position    INTEGER PRIMARY KEY,
        id          TEXT NOT NULL UNIQUE,
        spec        TEXT NOT NULL CHECK (json_valid(spec)),
        mount_name  TEXT NOT NULL UNIQUE,
        is_default  INTEGER NOT NULL CHECK (is_default IN (0, 1)),
        created_at  TEXT NOT NULL,
        updated_at  TEXT NOT NULL,
        version     TEXT NOT NULL,
        metadata    TEXT NOT NULL CHECK (json_valid(metadata))
    ) STRICT;
    INSERT INTO new_target
        SELECT position, id,
               json_object('type', kind, 'filesystem_export', nfs_export, 's3_endpoint_url', s3_endpoint,
                           's3_bucket', s3_bucket, 'immutable', json(iif(immutable, 'true', 'false'))),
               mount_name, is_default, created_at, updated_at, version, metadata
        FROM target;
    DROP TABLE target;
    ALTER TABLE new_target RENAME TO target;
    CREATE UNIQUE INDEX target_one_default ON target (is_default) WHERE is_default = 1;
    ",
    // One row, described in `generation.rs`.
    "
    CREATE TABLE generation (
        registry_id TEXT NOT NULL,
        number      INTEGER NOT NULL
    ) STRICT;
    INSERT INTO generation VALUES (lower(hex(randomblob(16))), 0);
    ",
    // A document for each target: the canary objects that may still exist.
    "
    CREATE TABLE target_canary (
        target_id TEXT NOT NULL PRIMARY KEY REFERENCES target (id) ON DELETE CASCADE,
        record    TEXT NOT NULL CHECK (json_valid(record))
    ) STRICT, WITHOUT ROWID;
    ",
    // A document for each target: the identity of the mount that the agent made.
    "
    CREATE TABLE own_mount (
        target_id TEXT NOT NULL PRIMARY KEY REFERENCES target (id) ON DELETE CASCADE,
        mount     TEXT NOT NULL CHECK (json_valid(mount))
    ) STRICT, WITHOUT ROWID;
    ",
    // The shared registry that the node has joined, in at most one row, and the former ids of targets and types.
    "
    CREATE TABLE membership (
        cloud_id TEXT NOT NULL
    ) STRICT;
    CREATE TABLE alias (
        id             TEXT NOT NULL PRIMARY KEY,
        target_id      TEXT REFERENCES target (id) ON DELETE CASCADE,
        target_type_id TEXT REFERENCES target_type (id) ON DELETE CASCADE,
        CHECK ((target_id IS NULL) <> (target_type_id IS NULL))
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX alias_by_target ON alias (target_id);
    CREATE INDEX alias_by_target_type ON alias (target_type_id);
    ",
];

/// Returns the schema of an open file.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Applies the steps that the file does not have, all or none, and returns what `read` reads afterwards.
///
/// # Errors
/// When the file cannot be changed or `read` fails. The file is unchanged then.
pub(super) fn upgrade<T>(
    connection: &mut Connection,
    read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    // Otherwise a step that drops a table would delete the rows that refer to it. SQLite ignores this pragma inside a
    // transaction.
    connection.pragma_update(None, "foreign_keys", false)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let from = usize::try_from(version(&transaction)?).unwrap_or_default();
    for step in STEPS.iter().skip(from) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", KNOWN)?;
    let content = read(&transaction)?;
    transaction.commit()?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(content)
}

/// Applies only the first steps, as an older release did.
#[cfg(test)]
pub(super) fn of_older_release(connection: &Connection, steps: i64) -> rusqlite::Result<()> {
    for step in STEPS.iter().take(usize::try_from(steps).unwrap_or_default()) {
        connection.execute_batch(step)?;
    }
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", steps)
}
