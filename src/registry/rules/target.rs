//! Rules of targets.

use std::sync::Arc;

use jiff::Timestamp;

use super::refusal::Refusal;
use super::{defaults, lookup, target_type};
use crate::model::target::METADATA_MAX;
use crate::model::{NodeScope, Target, TargetId, TargetType};
use crate::registry::change::TargetChange;
use crate::registry::limits::{TARGET_METADATA_MAX_BYTES, TARGET_METADATA_TOTAL_MAX_BYTES, TARGETS_MAX};
use crate::registry::snapshot::{RegisteredTarget, Snapshot, Write};

/// Decides `Change::CreateTarget`.
pub(super) fn create(
    snapshot: &Snapshot,
    target: &Target,
    first_type: &TargetType,
    declines_default: bool,
) -> Result<Vec<Write>, Refusal> {
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
    check_identity(snapshot, target)?;
    target_type::check_new(snapshot, "btt_name", &first_type.name)?;
    check_scope(target.scope.as_ref())?;
    check_size(snapshot, target, None)?;
    let mut writes = Vec::new();
    if target.is_default {
        writes = defaults::clear_others(snapshot, target.id, Some(first_type.id), target.created_at);
    }
    let is_default = target.is_default || (snapshot.default_target().is_none() && !declines_default);
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
    if !target.spec.is_same_storage(&before.spec) {
        check_identity(snapshot, &target)?;
    }
    if let Some(scope) = &change.scope {
        check_scope(scope.as_ref())?;
        target.scope.clone_from(scope);
    }
    check_size(snapshot, &target, Some(before))?;

    let mut writes = Vec::new();
    if change.is_default == Some(true) {
        target.is_default = true;
        writes = defaults::move_to_target(snapshot, registered, now);
    }
    if let (Some(name), Some(first)) = (&change.type_name, registered.types.first())
        && *name != first.name
    {
        target_type::check_name(snapshot, "name", name)?;
        let renamed = TargetType { name: name.clone(), updated_at: Some(now), ..TargetType::clone(first) };
        // Moving the default may already write this type.
        match writes.iter_mut().find(|write| matches!(write, Write::PutType(put) if put.id == first.id)) {
            Some(Write::PutType(put)) => *put = Arc::new(TargetType { is_default: put.is_default, ..renamed }),
            _ => writes.push(Write::PutType(Arc::new(renamed))),
        }
    }
    if target != *before {
        target.updated_at = now;
        writes.push(Write::PutTarget(Arc::new(target)));
    }
    Ok(writes)
}

/// Refuses a scope that contains no node, or whose names cannot be those of nodes.
fn check_scope(scope: Option<&NodeScope>) -> Result<(), Refusal> {
    scope.and_then(NodeScope::problem).map_or(Ok(()), |problem| Err(Refusal::InvalidScope(problem)))
}

/// Refuses a target whose storage another target has. Registries of earlier releases may have such targets.
fn check_identity(snapshot: &Snapshot, target: &Target) -> Result<(), Refusal> {
    let is_same = |other: &&Arc<RegisteredTarget>| {
        other.target.id != target.id && other.target.spec.is_same_storage(&target.spec)
    };
    match snapshot.targets().iter().find(is_same) {
        Some(other) => Err(Refusal::StorageTaken {
            export: target.spec.export(),
            other_id: other.target.id,
            other_export: other.target.spec.export(),
        }),
        None => Ok(()),
    }
}

/// Refuses a change that lets a target grow beyond a limit. A target that is too large already may keep its size or
/// shrink.
fn check_size(snapshot: &Snapshot, target: &Target, before: Option<&Target>) -> Result<(), Refusal> {
    let (entries, bytes) = (target.metadata.len(), client_bytes(target));
    if before.is_some_and(|before| entries <= before.metadata.len() && bytes <= client_bytes(before)) {
        return Ok(());
    }
    if entries > METADATA_MAX {
        return Err(Refusal::TooManyTargetEntries(entries));
    }
    if bytes > TARGET_METADATA_MAX_BYTES {
        return Err(Refusal::TargetMetadataTooLarge(bytes));
    }
    let others = snapshot.targets().iter().filter(|other| other.target.id != target.id);
    let total = bytes + others.map(|other| client_bytes(&other.target)).sum::<usize>();
    if total > TARGET_METADATA_TOTAL_MAX_BYTES {
        return Err(Refusal::TargetMetadataTooLargeInTotal(total));
    }
    Ok(())
}

/// Size of the text fields that a client can make large, in bytes: metadata, mount options, secret reference and scope.
fn client_bytes(target: &Target) -> usize {
    target.spec.option_bytes()
        + target.scope.as_ref().map_or(0, NodeScope::bytes)
        + target.metadata.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()
}

/// Decides `Change::DeleteTarget`.
pub(super) fn delete(snapshot: &Snapshot, id: TargetId) -> Result<Vec<Write>, Refusal> {
    if lookup::target(snapshot, id)?.target.is_default && snapshot.targets().len() > 1 {
        return Err(Refusal::DefaultInUse(id));
    }
    Ok(vec![Write::DeleteTarget(id)])
}
