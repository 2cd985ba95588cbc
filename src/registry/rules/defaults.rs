//! The default target and the default type, which move together.

use std::sync::Arc;

use jiff::Timestamp;

use crate::model::{Target, TargetId, TargetType, TargetTypeId};
use crate::registry::snapshot::{RegisteredTarget, Snapshot, Write};

/// Returns the writes that make one of a target's types the default type, and clear the default of every other target
/// and type. The caller writes the target itself.
pub(super) fn move_to_target(snapshot: &Snapshot, registered: &RegisteredTarget, now: Timestamp) -> Vec<Write> {
    let RegisteredTarget { target, types } = registered;
    let public = || types.iter().find(|kept| kept.is_public);
    let chosen = types.iter().find(|kept| kept.is_default).or_else(public).or(types.first());
    let mut writes = clear_others(snapshot, target.id, chosen.map(|chosen| chosen.id), now);
    writes.extend(chosen.filter(|chosen| !chosen.is_default).map(|chosen| put_type(chosen, true, now)));
    writes
}

/// Returns the writes that make the target of a type the default, and clear the default of every other target and type.
/// The caller writes the type itself.
pub(super) fn move_to_type(snapshot: &Snapshot, target: &Target, type_id: TargetTypeId, now: Timestamp) -> Vec<Write> {
    let mut writes = clear_others(snapshot, target.id, Some(type_id), now);
    if !target.is_default {
        writes.push(put_target(target, true, now));
    }
    writes
}

/// Returns the writes that clear the default of every other target and type.
pub(super) fn clear_others(
    snapshot: &Snapshot,
    target_id: TargetId,
    type_id: Option<TargetTypeId>,
    now: Timestamp,
) -> Vec<Write> {
    let targets = snapshot.targets().iter().map(|registered| &registered.target);
    let targets = targets.filter(|other| other.is_default && other.id != target_id);
    let types = snapshot.types().filter(|other| other.is_default && Some(other.id) != type_id);
    let targets = targets.map(|other| put_target(other, false, now));
    targets.chain(types.map(|other| put_type(other, false, now))).collect()
}

fn put_target(target: &Target, is_default: bool, now: Timestamp) -> Write {
    Write::PutTarget(Arc::new(Target { is_default, updated_at: now, ..target.clone() }))
}

fn put_type(target_type: &TargetType, is_default: bool, now: Timestamp) -> Write {
    Write::PutType(Arc::new(TargetType { is_default, updated_at: Some(now), ..target_type.clone() }))
}
