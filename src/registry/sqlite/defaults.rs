//! The defaults: one target, and one of its types.
//!
//! They move together. A type that becomes the default takes its target with it, and a target one of
//! its types: a client that names neither must reach one place, whichever of the two it asks for.

use jiff::Timestamp;
use rusqlite::Transaction;

use super::{rows, rules, storage, type_rows};
use crate::model::{TargetId, TargetTypeId};
use crate::registry::{Entry, RegistryError};

/// Makes a target and one of its types the default, and nothing else. Returns every entry that
/// changed, that of the target last, changed or not.
///
/// # Errors
/// [`RegistryError`] when there is no such target, or it cannot be written.
pub(super) fn switch(
    transaction: &Transaction<'_>,
    target_id: TargetId,
    type_id: TargetTypeId,
    now: Timestamp,
) -> Result<Vec<Entry>, RegistryError> {
    // What stops being the default goes first: there are never two.
    let former = demote(transaction, target_id, type_id, now)?;
    promote(transaction, former, target_id, type_id, now)
}

/// The first half of [`switch`], for a type that is written as the default: what is it now and is
/// not to be. Returns the other targets that changed.
///
/// # Errors
/// As [`switch`].
pub(super) fn demote(
    transaction: &Transaction<'_>,
    target_id: TargetId,
    type_id: TargetTypeId,
    now: Timestamp,
) -> Result<Vec<TargetId>, RegistryError> {
    let mut changed = Vec::new();
    for mut other in rows::load_defaults(transaction).map_err(storage)? {
        for kept in other.types.iter().filter(|kept| kept.is_default && kept.id != type_id) {
            type_rows::mark_default(transaction, kept.id, false, now).map_err(storage)?;
        }
        if other.target.is_default && other.target.id != target_id {
            other.target.is_default = false;
            other.target.updated_at = now;
            rows::update_target(transaction, &other.target).map_err(storage)?;
        }
        if other.target.id != target_id {
            changed.push(other.target.id);
        }
    }
    Ok(changed)
}

/// The second half of [`switch`]: a target and a type that are to be the default become it, if they
/// are not yet. Returns the entries of `changed` and, last, of the target.
///
/// # Errors
/// As [`switch`].
pub(super) fn promote(
    transaction: &Transaction<'_>,
    mut changed: Vec<TargetId>,
    target_id: TargetId,
    type_id: TargetTypeId,
    now: Timestamp,
) -> Result<Vec<Entry>, RegistryError> {
    let mut chosen = rules::find(transaction, target_id)?;
    if !chosen.target.is_default {
        chosen.target.is_default = true;
        chosen.target.updated_at = now;
        rows::update_target(transaction, &chosen.target).map_err(storage)?;
    }
    if !chosen.types.iter().any(|kept| kept.id == type_id && kept.is_default) {
        type_rows::mark_default(transaction, type_id, true, now).map_err(storage)?;
    }
    changed.push(target_id);
    changed.into_iter().map(|id| rules::find(transaction, id)).collect()
}
