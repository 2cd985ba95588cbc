//! Rules of targets.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::refusal::Refusal;
use super::{defaults, lookup, target_type};
use crate::model::target::METADATA_MAX;
use crate::model::{Target, TargetId, TargetType};
use crate::registry::change::TargetChange;
use crate::registry::limits::{TARGET_METADATA_MAX_BYTES, TARGET_METADATA_TOTAL_MAX_BYTES, TARGETS_MAX};
use crate::registry::snapshot::{RegisteredTarget, Snapshot, Write};

/// Decides `Change::CreateTarget`.
pub(super) fn create(snapshot: &Snapshot, target: &Target, first_type: &TargetType) -> Result<Vec<Write>, Refusal> {
    target.spec.check_new()?;
    if snapshot.targets().len() >= TARGETS_MAX {
        return Err(Refusal::TooManyTargets);
    }
    let collides = |other: &&Arc<RegisteredTarget>| other.target.mount_name.collides_with(&target.mount_name);
    if let Some(other) = snapshot.targets().iter().find(collides) {
        return Err(Refusal::MountPathTaken {
            export: target.spec.export(),
            mount_name: target.mount_name.to_string(),
            other_id: other.target.id,
            other_export: other.target.spec.export(),
        });
    }
    target_type::check_new(snapshot, "btt_name", &first_type.name)?;
    check_metadata(snapshot, target, &BTreeMap::new())?;
    let mut writes = Vec::new();
    if target.is_default {
        writes = defaults::clear_others(snapshot, target.id, Some(first_type.id), target.created_at);
    }
    let is_default = target.is_default || snapshot.default_target().is_none();
    writes.extend([
        Write::PutTarget(Arc::new(Target { is_default, ..target.clone() })),
        Write::PutType(Arc::new(TargetType { is_default, target_id: target.id, ..first_type.clone() })),
    ]);
    Ok(writes)
}

/// Decides `Change::ModifyTarget`.
pub(super) fn modify(
    snapshot: &Snapshot,
    id: TargetId,
    change: &TargetChange,
    now: Timestamp,
) -> Result<Vec<Write>, Refusal> {
    let registered = lookup::target(snapshot, id)?;
    let before = &*registered.target;
    if before.is_default && change.is_default == Some(false) {
        return Err(Refusal::DefaultStays(id));
    }
    let mut target = Target { spec: before.spec.with_fields(&change.fields)?, ..before.clone() };
    if change.purge_metadata {
        target.metadata.clear();
    }
    target.metadata.extend(change.metadata.clone());
    check_metadata(snapshot, &target, &before.metadata)?;

    let mut writes = Vec::new();
    if change.is_default == Some(true) {
        target.is_default = true;
        writes = defaults::move_to_target(snapshot, registered, now);
    }
    if target != *before {
        target.updated_at = now;
        writes.push(Write::PutTarget(Arc::new(target)));
    }
    Ok(writes)
}

/// Refuses a change that lets metadata grow beyond a limit. A target that has too much already may keep or lose some.
fn check_metadata(snapshot: &Snapshot, target: &Target, before: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let (entries, bytes) = (target.metadata.len(), metadata_bytes(&target.metadata));
    if entries <= before.len() && bytes <= metadata_bytes(before) {
        return Ok(());
    }
    if entries > METADATA_MAX {
        return Err(Refusal::TooManyTargetEntries(entries));
    }
    if bytes > TARGET_METADATA_MAX_BYTES {
        return Err(Refusal::TargetMetadataTooLarge(bytes));
    }
    let others = snapshot.targets().iter().filter(|other| other.target.id != target.id);
    let total = bytes + others.map(|other| metadata_bytes(&other.target.metadata)).sum::<usize>();
    if total > TARGET_METADATA_TOTAL_MAX_BYTES {
        return Err(Refusal::TargetMetadataTooLargeInTotal(total));
    }
    Ok(())
}

fn metadata_bytes(metadata: &BTreeMap<String, String>) -> usize {
    metadata.iter().map(|(key, value)| key.len() + value.len()).sum()
}

/// Decides `Change::DeleteTarget`.
pub(super) fn delete(snapshot: &Snapshot, id: TargetId) -> Result<Vec<Write>, Refusal> {
    if lookup::target(snapshot, id)?.target.is_default && snapshot.targets().len() > 1 {
        return Err(Refusal::DefaultInUse(id));
    }
    Ok(vec![Write::DeleteTarget(id)])
}
