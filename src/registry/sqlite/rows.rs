//! Rows: between tables and the types of the model.
//!
//! What is read is validated by the same constructors that validate input: a registry that was
//! edited by hand is refused with the value that is wrong, and not acted upon.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use jiff::Timestamp;
use rusqlite::{Row, Transaction, named_params};

use crate::model::{
    MountName, NfsExport, S3Endpoint, S3Location, Target, TargetId, TargetKind, TargetSpec, TargetType,
};
use crate::registry::{Entry, RegistryError};

/// Every target with its types, oldest first.
pub(super) fn entries(transaction: &Transaction<'_>) -> Result<Vec<Entry>, RegistryError> {
    let mut types = types(transaction)?;
    let mut metadata = metadata(transaction)?;
    let mut statement = transaction.prepare_cached("SELECT * FROM target ORDER BY position")?;
    let mut rows = statement.query([])?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        let id = parsed(row, "id")?;
        let target = target(row, id, metadata.remove(&id).unwrap_or_default())?;
        let types = types.remove(&id).unwrap_or_default();
        if types.is_empty() {
            return Err(RegistryError::Storage(format!("backup target {id} has no type")));
        }
        entries.push(Entry { target, types });
    }
    Ok(entries)
}

/// One target with its types.
pub(super) fn entry(transaction: &Transaction<'_>, id: TargetId) -> Result<Entry, RegistryError> {
    let found = entries(transaction)?.into_iter().find(|entry| entry.target.id == id);
    found.ok_or(RegistryError::TargetNotFound(id))
}

pub(super) fn insert_target(transaction: &Transaction<'_>, target: &Target) -> Result<(), RegistryError> {
    let (endpoint_url, bucket) = match &target.spec {
        TargetSpec::Nfs(_) => (None, None),
        TargetSpec::S3 { location, .. } => {
            (location.endpoint().map(S3Endpoint::url), Some(location.bucket().to_owned()))
        }
    };
    transaction
        .prepare_cached(
            "INSERT INTO target (id, kind, export, endpoint_url, bucket, immutable, mount_name, is_default, created_at,
                updated_at, version, position)
             VALUES (:id, :kind, :export, :endpoint_url, :bucket, :immutable, :mount_name, :is_default, :created_at,
                :updated_at, :version, (SELECT coalesce(max(position), 0) + 1 FROM target))",
        )?
        .execute(named_params! {
            ":id": target.id.to_string(),
            ":kind": target.spec.kind().as_str(),
            ":export": target.spec.export(),
            ":endpoint_url": endpoint_url,
            ":bucket": bucket,
            ":immutable": target.spec.is_immutable(),
            ":mount_name": target.mount_name.as_str(),
            ":is_default": target.is_default,
            ":created_at": target.created_at.to_string(),
            ":updated_at": target.updated_at.to_string(),
            ":version": target.version,
        })?;
    set_metadata(transaction, target.id, &target.metadata)
}

pub(super) fn set_metadata(
    transaction: &Transaction<'_>,
    id: TargetId,
    metadata: &BTreeMap<String, String>,
) -> Result<(), RegistryError> {
    let mut statement = transaction.prepare_cached(
        "INSERT INTO target_metadata (target_id, key, value) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET value = excluded.value",
    )?;
    for (key, value) in metadata {
        statement.execute((id.to_string(), key, value))?;
    }
    Ok(())
}

pub(super) fn insert_type(transaction: &Transaction<'_>, new: &TargetType) -> Result<(), RegistryError> {
    transaction
        .prepare_cached(
            "INSERT INTO target_type (id, target_id, name, description, is_public, is_default, user_id, created_at,
                updated_at, version, position)
             VALUES (:id, :target_id, :name, :description, :is_public, :is_default, :user_id, :created_at,
                :updated_at, :version, (SELECT coalesce(max(position), 0) + 1 FROM target_type))",
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
    Ok(())
}

fn target(row: &Row<'_>, id: TargetId, metadata: BTreeMap<String, String>) -> Result<Target, RegistryError> {
    let mount_name: String = row.get("mount_name")?;
    Ok(Target {
        id,
        spec: spec(row)?,
        mount_name: MountName::from_stored(&mount_name).map_err(|error| wrong("mount_name", &mount_name, &error))?,
        is_default: row.get("is_default")?,
        created_at: parsed(row, "created_at")?,
        updated_at: parsed(row, "updated_at")?,
        version: row.get("version")?,
        metadata,
    })
}

fn spec(row: &Row<'_>) -> Result<TargetSpec, RegistryError> {
    match parsed(row, "kind")? {
        TargetKind::Nfs => {
            let export: String = row.get("export")?;
            NfsExport::parse(&export).map(TargetSpec::Nfs).map_err(|error| wrong("export", &export, &error))
        }
        TargetKind::S3 => {
            let url: Option<String> = row.get("endpoint_url")?;
            let endpoint = url
                .map(|url| S3Endpoint::parse(&url).map_err(|error| wrong("endpoint_url", &url, &error)))
                .transpose()?;
            let bucket: String = row.get("bucket")?;
            let location = S3Location::new(endpoint, &bucket).map_err(|error| wrong("bucket", &bucket, &error))?;
            Ok(TargetSpec::S3 { location, immutable: row.get("immutable")? })
        }
    }
}

fn types(transaction: &Transaction<'_>) -> Result<BTreeMap<TargetId, Vec<TargetType>>, RegistryError> {
    let mut statement = transaction.prepare_cached("SELECT * FROM target_type ORDER BY position")?;
    let mut rows = statement.query([])?;
    let mut types: BTreeMap<TargetId, Vec<TargetType>> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let target_id = parsed(row, "target_id")?;
        let updated_at: Option<String> = row.get("updated_at")?;
        types.entry(target_id).or_default().push(TargetType {
            id: parsed(row, "id")?,
            target_id,
            name: row.get("name")?,
            description: row.get("description")?,
            is_public: row.get("is_public")?,
            is_default: row.get("is_default")?,
            user_id: row.get("user_id")?,
            created_at: parsed(row, "created_at")?,
            updated_at: updated_at
                .map(|text| text.parse::<Timestamp>().map_err(|error| wrong("updated_at", &text, &error)))
                .transpose()?,
            version: row.get("version")?,
        });
    }
    Ok(types)
}

fn metadata(transaction: &Transaction<'_>) -> Result<BTreeMap<TargetId, BTreeMap<String, String>>, RegistryError> {
    let mut statement = transaction.prepare_cached("SELECT target_id, key, value FROM target_metadata")?;
    let mut rows = statement.query([])?;
    let mut metadata: BTreeMap<TargetId, BTreeMap<String, String>> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        metadata.entry(parsed(row, "target_id")?).or_default().insert(row.get("key")?, row.get("value")?);
    }
    Ok(metadata)
}

fn parsed<T: FromStr<Err: Display>>(row: &Row<'_>, column: &str) -> Result<T, RegistryError> {
    let text: String = row.get(column)?;
    text.parse().map_err(|error: T::Err| wrong(column, &text, &error))
}

fn wrong(column: &str, value: &str, error: &dyn Display) -> RegistryError {
    RegistryError::Storage(format!("{column} holds {value:?}: {error}"))
}
