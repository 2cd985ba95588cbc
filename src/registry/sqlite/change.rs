//! Changes, each with the rules that must hold when it is committed.

use jiff::Timestamp;
use rusqlite::Transaction;

use super::rows;
use crate::model::{S3Location, Target, TargetId, TargetSpec, TargetType};
use crate::registry::{Entry, RegistryError, TARGETS_MAX, TargetChange};

pub(super) fn create(
    transaction: &Transaction<'_>,
    mut target: Target,
    mut first_type: TargetType,
) -> Result<Entry, RegistryError> {
    let entries = rows::entries(transaction)?;
    if entries.len() >= TARGETS_MAX {
        return Err(RegistryError::TooManyTargets);
    }
    if let Some(other) = entries.iter().find(|entry| entry.target.mount_name.collides_with(&target.mount_name)) {
        return Err(RegistryError::MountPathTaken {
            export: target.spec.export(),
            mount_name: target.mount_name.to_string(),
            other_id: other.target.id,
            other_export: other.target.spec.export(),
        });
    }
    if entries.iter().flat_map(|entry| &entry.types).any(|other| other.name == first_type.name) {
        return Err(RegistryError::TypeNameTaken(first_type.name));
    }
    if let Some(default) = entries.iter().find(|entry| target.is_default && entry.target.is_default) {
        let (other_id, other_export) = (default.target.id, default.target.spec.export());
        return Err(RegistryError::DefaultTaken { other_id, other_export });
    }
    if entries.is_empty() {
        target.is_default = true;
    }
    first_type.is_default = target.is_default;
    rows::insert_target(transaction, &target)?;
    rows::insert_type(transaction, &first_type)?;
    Ok(Entry { target, types: vec![first_type] })
}

pub(super) fn modify(
    transaction: &Transaction<'_>,
    id: TargetId,
    change: TargetChange,
    now: Timestamp,
) -> Result<Entry, RegistryError> {
    let target = rows::entry(transaction, id)?.target;
    let not_s3 = |field| RegistryError::NotS3 { id, field };
    if let Some(immutable) = change.immutable {
        let TargetSpec::S3 { .. } = target.spec else {
            return Err(not_s3("immutable"));
        };
        transaction.execute("UPDATE target SET immutable = ?2 WHERE id = ?1", (id.to_string(), immutable))?;
    }
    if let Some(endpoint) = change.endpoint {
        let TargetSpec::S3 { location, .. } = &target.spec else {
            return Err(not_s3("s3_endpoint_url"));
        };
        let given = endpoint.url();
        let moved = S3Location::new(Some(endpoint), location.bucket());
        if moved.is_ok_and(|moved| moved.to_string() != location.to_string()) {
            return Err(RegistryError::ExportFixed { id, given, export: target.spec.export() });
        }
        transaction.execute("UPDATE target SET endpoint_url = ?2 WHERE id = ?1", (id.to_string(), given))?;
    }
    if change.purge_metadata {
        transaction.execute("DELETE FROM target_metadata WHERE target_id = ?1", [id.to_string()])?;
    }
    rows::set_metadata(transaction, id, &change.metadata)?;
    touch(transaction, "target", &id.to_string(), now)?;
    rows::entry(transaction, id)
}

pub(super) fn set_default(
    transaction: &Transaction<'_>,
    id: TargetId,
    now: Timestamp,
) -> Result<Vec<Entry>, RegistryError> {
    let before = rows::entries(transaction)?;
    let chosen = before.iter().find(|entry| entry.target.id == id).ok_or(RegistryError::TargetNotFound(id))?;
    let first_type = chosen.types.first().map(|first| first.id.to_string());
    let changes: [(&str, String); 2] = [("target", id.to_string()), ("target_type", first_type.unwrap_or_default())];
    for (table, chosen) in changes {
        let former: Option<String> = {
            let mut statement = transaction.prepare(&format!("SELECT id FROM {table} WHERE is_default = 1"))?;
            let mut rows = statement.query([])?;
            rows.next()?.map(|row| row.get(0)).transpose()?
        };
        if former.as_ref() == Some(&chosen) {
            continue;
        }
        // The former goes first: at no moment are there two.
        for (id, is_default) in former.iter().map(|id| (id, false)).chain([(&chosen, true)]) {
            transaction.execute(&format!("UPDATE {table} SET is_default = ?2 WHERE id = ?1"), (id, is_default))?;
            touch(transaction, table, id, now)?;
        }
    }
    let mut changed: Vec<Entry> = rows::entries(transaction)?
        .into_iter()
        .filter(|entry| !before.contains(entry) || entry.target.id == id)
        .collect();
    changed.sort_by_key(|entry| entry.target.id == id);
    Ok(changed)
}

pub(super) fn may_delete(transaction: &Transaction<'_>, id: TargetId) -> Result<(), RegistryError> {
    let entries = rows::entries(transaction)?;
    let entry = entries.iter().find(|entry| entry.target.id == id).ok_or(RegistryError::TargetNotFound(id))?;
    if entry.target.is_default && entries.len() > 1 { Err(RegistryError::DefaultInUse(id)) } else { Ok(()) }
}

pub(super) fn delete(transaction: &Transaction<'_>, id: TargetId) -> Result<(), RegistryError> {
    may_delete(transaction, id)?;
    transaction.execute("DELETE FROM target WHERE id = ?1", [id.to_string()])?;
    Ok(())
}

fn touch(transaction: &Transaction<'_>, table: &str, id: &str, now: Timestamp) -> Result<(), RegistryError> {
    transaction.execute(&format!("UPDATE {table} SET updated_at = ?2 WHERE id = ?1"), (id, now.to_string()))?;
    Ok(())
}
