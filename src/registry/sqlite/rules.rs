//! The changes of targets, each one transaction with the rules that it must keep.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior};

use super::{defaults, rows, storage, type_rows, type_rules};
use crate::model::{S3Endpoint, S3Location, Target, TargetId, TargetSpec, TargetType};
use crate::registry::{Entry, RegistryError, TARGETS_MAX, TYPES_MAX, TargetChange};

/// Adds a target; see `Registry::create_target`.
pub(super) fn create_target(
    connection: &mut Connection,
    mut target: Target,
    mut first_type: TargetType,
) -> Result<Entry, RegistryError> {
    let transaction = begin(connection)?;
    let names = rows::load_mount_names(&transaction).map_err(storage)?;
    if names.len() >= TARGETS_MAX {
        return Err(RegistryError::TooManyTargets);
    }
    if let Some((other_id, _)) = names.iter().find(|(_, other)| other.collides_with(&target.mount_name)) {
        return Err(RegistryError::MountPathTaken {
            export: target.spec.export(),
            mount_name: target.mount_name.to_string(),
            other_id: *other_id,
            other_export: find(&transaction, *other_id)?.target.spec.export(),
        });
    }
    if type_rows::count(&transaction).map_err(storage)? >= TYPES_MAX {
        return Err(RegistryError::TooManyTypes);
    }
    type_rules::free_name(&transaction, "btt_name", &first_type.name)?;
    match rows::find_default(&transaction).map_err(storage)? {
        Some(default) if target.is_default => {
            return Err(RegistryError::DefaultTaken { other_id: default.id, other_export: default.spec.export() });
        }
        default => target.is_default = default.is_none(),
    }
    first_type.is_default = target.is_default;
    first_type.target_id = target.id;
    rows::insert_target(&transaction, &target).map_err(storage)?;
    type_rows::insert(&transaction, &first_type).map_err(storage)?;
    transaction.commit().map_err(storage)?;
    Ok(Entry { target, types: vec![first_type] })
}

/// Changes a target; see `Registry::modify_target`.
pub(super) fn modify_target(
    connection: &mut Connection,
    id: TargetId,
    change: TargetChange,
    now: Timestamp,
) -> Result<Vec<Entry>, RegistryError> {
    let transaction = begin(connection)?;
    let mut entry = find(&transaction, id)?;
    if entry.target.is_default && change.is_default == Some(false) {
        return Err(RegistryError::DefaultStays(id));
    }
    let before = entry.target.clone();
    if let Some(declared) = change.immutable {
        match &mut entry.target.spec {
            TargetSpec::S3(s3) => s3.immutable = declared,
            TargetSpec::Nfs(_) => return Err(RegistryError::NotS3 { id, field: "immutable" }),
        }
    }
    if let Some(endpoint) = change.endpoint {
        match &mut entry.target.spec {
            TargetSpec::S3(s3) => s3.location = with_endpoint(id, &s3.location, endpoint)?,
            TargetSpec::Nfs(_) => return Err(RegistryError::NotS3 { id, field: "s3_endpoint_url" }),
        }
    }
    if change.purge_metadata {
        entry.target.metadata.clear();
    }
    entry.target.metadata.extend(change.metadata);
    if entry.target != before {
        entry.target.updated_at = now;
        rows::update_target(&transaction, &entry.target).map_err(storage)?;
    }
    let changed = match change.is_default {
        Some(true) => make_default(&transaction, &entry, now)?,
        Some(false) | None => vec![entry],
    };
    transaction.commit().map_err(storage)?;
    Ok(changed)
}

/// Makes a target the default; see `Registry::set_default_target`.
pub(super) fn set_default_target(
    connection: &mut Connection,
    id: TargetId,
    now: Timestamp,
) -> Result<Vec<Entry>, RegistryError> {
    let transaction = begin(connection)?;
    let entry = find(&transaction, id)?;
    let changed = make_default(&transaction, &entry, now)?;
    transaction.commit().map_err(storage)?;
    Ok(changed)
}

/// Makes a target the default, with the type that most can use.
fn make_default(transaction: &Transaction<'_>, entry: &Entry, now: Timestamp) -> Result<Vec<Entry>, RegistryError> {
    let Entry { target, types } = entry;
    let public = || types.iter().find(|kept| kept.is_public);
    let chosen = types.iter().find(|kept| kept.is_default).or_else(public).or(types.first());
    let type_id = chosen.ok_or_else(|| storage(format!("backup target {} has no type", target.id)))?.id;
    defaults::switch(transaction, target.id, type_id, now)
}

/// Whether a target could be deleted; see `Registry::may_delete_target`.
pub(super) fn may_delete_target(connection: &Connection, id: TargetId) -> Result<(), RegistryError> {
    let found: Option<bool> = connection
        .query_row("SELECT is_default FROM target WHERE id = ?1", [id.to_string()], |row| row.get(0))
        .optional()
        .map_err(storage)?;
    let count: i64 = connection.query_row("SELECT count(*) FROM target", [], |row| row.get(0)).map_err(storage)?;
    match found {
        None => Err(RegistryError::TargetNotFound(id)),
        Some(true) if count > 1 => Err(RegistryError::DefaultInUse(id)),
        Some(_) => Ok(()),
    }
}

/// Removes a target; see `Registry::delete_target`.
pub(super) fn delete_target(connection: &mut Connection, id: TargetId) -> Result<(), RegistryError> {
    let transaction = begin(connection)?;
    may_delete_target(&transaction, id)?;
    transaction.execute("DELETE FROM target WHERE id = ?1", [id.to_string()]).map_err(storage)?;
    transaction.commit().map_err(storage)
}

pub(super) fn begin(connection: &mut Connection) -> Result<Transaction<'_>, RegistryError> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(storage)
}

pub(super) fn find(transaction: &Transaction<'_>, id: TargetId) -> Result<Entry, RegistryError> {
    rows::find(transaction, id).map_err(storage)?.ok_or(RegistryError::TargetNotFound(id))
}

/// The same export by another scheme.
fn with_endpoint(id: TargetId, location: &S3Location, endpoint: S3Endpoint) -> Result<S3Location, RegistryError> {
    let given = endpoint.url();
    S3Location::new(Some(endpoint), location.bucket())
        .ok()
        .filter(|other| other.to_string() == location.to_string())
        .ok_or_else(|| RegistryError::ExportFixed { id, given, export: location.to_string() })
}
