//! Rows of targets and the values that they stand for.
//!
//! What is read goes through the same parsers as what a client sends: a row that is not a sound
//! target is an error, not a target.

use std::fmt::Display;
use std::str::FromStr;

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};

use super::{Entry, type_rows};
use crate::model::{MountName, S3Endpoint, S3Target, SpecFields, Target, TargetId, TargetSpec};

/// Every target with its types, oldest first.
///
/// # Errors
/// When the file cannot be read or a row is not a sound target.
pub(super) fn load(connection: &Connection) -> rusqlite::Result<Vec<Entry>> {
    let mut types = type_rows::load(connection)?;
    let mut statement = connection.prepare_cached("SELECT * FROM target ORDER BY position")?;
    statement
        .query_map([], target)?
        .map(|found| found.map(|target| Entry { types: types.remove(&target.id).unwrap_or_default(), target }))
        .collect()
}

/// One target with its types.
///
/// # Errors
/// As [`load`].
pub(super) fn find(connection: &Connection, id: TargetId) -> rusqlite::Result<Option<Entry>> {
    let found = connection
        .prepare_cached("SELECT * FROM target WHERE id = ?1")?
        .query_row([id.to_string()], target)
        .optional()?;
    let Some(target) = found else {
        return Ok(None);
    };
    let types = type_rows::of_target(connection, id)?;
    Ok(Some(Entry { target, types }))
}

/// The mount names of all targets.
///
/// # Errors
/// As [`load`].
pub(super) fn load_mount_names(connection: &Connection) -> rusqlite::Result<Vec<(TargetId, MountName)>> {
    let mut statement = connection.prepare_cached("SELECT id, mount_name FROM target")?;
    let name = |row: &Row<'_>| Ok((parsed(row, "id")?, read(row, "mount_name", MountName::from_stored)?));
    statement.query_map([], name)?.collect()
}

/// The default target, if there is any target.
///
/// # Errors
/// As [`load`].
pub(super) fn find_default(connection: &Connection) -> rusqlite::Result<Option<Target>> {
    connection.prepare_cached("SELECT * FROM target WHERE is_default = 1")?.query_row([], target).optional()
}

/// The targets that are the default, or have the default type: one, as long as the rules hold.
///
/// # Errors
/// As [`load`].
pub(super) fn load_defaults(connection: &Connection) -> rusqlite::Result<Vec<Entry>> {
    let mut statement = connection.prepare_cached(
        "SELECT * FROM target
         WHERE is_default = 1 OR id IN (SELECT target_id FROM target_type WHERE is_default = 1) ORDER BY position",
    )?;
    let targets: Vec<Target> = statement.query_map([], target)?.collect::<Result<_, _>>()?;
    let with_types = |target: Target| Ok(Entry { types: type_rows::of_target(connection, target.id)?, target });
    targets.into_iter().map(with_types).collect()
}

/// Writes a new target.
///
/// # Errors
/// When it cannot be written or a constraint forbids it.
pub(super) fn insert_target(connection: &Connection, target: &Target) -> rusqlite::Result<()> {
    let (export, endpoint, bucket) = match &target.spec {
        TargetSpec::Nfs(nfs) => (Some(nfs.export.to_string()), None, None),
        TargetSpec::S3(S3Target { location, .. }) => {
            (None, location.endpoint().map(S3Endpoint::url), Some(location.bucket().to_owned()))
        }
    };
    connection
        .prepare_cached(
            "INSERT INTO target (id, kind, nfs_export, s3_endpoint, s3_bucket, immutable, mount_name, is_default,
                                 created_at, updated_at, version, metadata)
             VALUES (:id, :kind, :nfs_export, :s3_endpoint, :s3_bucket, :immutable, :mount_name, :is_default,
                     :created_at, :updated_at, :version, :metadata)",
        )?
        .execute(named_params! {
            ":id": target.id.to_string(),
            ":kind": target.spec.kind().as_str(),
            ":nfs_export": export,
            ":s3_endpoint": endpoint,
            ":s3_bucket": bucket,
            ":immutable": target.spec.is_immutable(),
            ":mount_name": target.mount_name.as_str(),
            ":is_default": target.is_default,
            ":created_at": target.created_at.to_string(),
            ":updated_at": target.updated_at.to_string(),
            ":version": target.version,
            ":metadata": metadata_text(target)?,
        })?;
    Ok(())
}

/// Writes what can change about a target.
///
/// # Errors
/// As [`insert_target`].
pub(super) fn update_target(connection: &Connection, target: &Target) -> rusqlite::Result<()> {
    let endpoint = match &target.spec {
        TargetSpec::S3(s3) => s3.location.endpoint().map(S3Endpoint::url),
        TargetSpec::Nfs(_) => None,
    };
    connection
        .prepare_cached(
            "UPDATE target SET s3_endpoint = ?2, immutable = ?3, is_default = ?4, updated_at = ?5, metadata = ?6
             WHERE id = ?1",
        )?
        .execute(params![
            target.id.to_string(),
            endpoint,
            target.spec.is_immutable(),
            target.is_default,
            target.updated_at.to_string(),
            metadata_text(target)?,
        ])?;
    Ok(())
}

fn target(row: &Row<'_>) -> rusqlite::Result<Target> {
    let text = |column: &str| row.get::<_, Option<String>>(column);
    let (kind, export, endpoint, bucket) =
        (text("kind")?, text("nfs_export")?, text("s3_endpoint")?, text("s3_bucket")?);
    let fields = SpecFields {
        kind: kind.as_deref(),
        filesystem_export: export.as_deref(),
        s3_endpoint_url: endpoint.as_deref(),
        s3_bucket: bucket.as_deref(),
        immutable: row.get("immutable")?,
    };
    let spec = TargetSpec::from_fields(fields).map_err(|error| unreadable(error.field.as_str(), error.problem))?;
    Ok(Target {
        id: parsed(row, "id")?,
        spec,
        mount_name: read(row, "mount_name", MountName::from_stored)?,
        is_default: row.get("is_default")?,
        created_at: parsed(row, "created_at")?,
        updated_at: parsed(row, "updated_at")?,
        version: row.get("version")?,
        metadata: read(row, "metadata", |text| serde_json::from_str(text))?,
    })
}

pub(super) fn parsed<T: FromStr<Err: Display>>(row: &Row<'_>, column: &'static str) -> rusqlite::Result<T> {
    read(row, column, T::from_str)
}

pub(super) fn read<T, E: Display>(
    row: &Row<'_>,
    column: &'static str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> rusqlite::Result<T> {
    parse(&row.get::<_, String>(column)?).map_err(|error| unreadable(column, error))
}

pub(super) fn unreadable(column: &str, error: impl Display) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, format!("{column}: {error}").into())
}

fn metadata_text(target: &Target) -> rusqlite::Result<String> {
    serde_json::to_string(&target.metadata).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}
