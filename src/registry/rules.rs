//! The rules of targets and target types, as pure functions of a snapshot and a change.
//!
//! They hold in every registry:
//! - At most one target is the default. One of its types is the default type. Target and type become the default
//!   together, so a client that names neither always gets the same storage ([`defaults`]). There is a default unless
//!   every target was created with an explicit `is_default` of 0.
//! - No two targets share a mount directory, and no new target uses the storage of another one ([`target`]).
//! - Every target has a type, and no two types share a name ([`target_type`]).
//! - A type is public or assigned to projects, never both.
//! - Counts stay within [`limits`](super::limits).
//!
//! The writes of a change are ordered: the old default is cleared first, so that there are never two.

mod defaults;
mod lookup;
mod refusal;
mod target;
mod target_type;
#[cfg(test)]
pub(super) mod tests;

pub use refusal::Refusal;

use super::change::Change;
use super::snapshot::{Snapshot, Write};

/// Returns the writes that make a change. There are none if the content is already as requested.
///
/// # Errors
/// [`Refusal`] when a rule forbids the change.
pub fn decide(snapshot: &Snapshot, change: &Change) -> Result<Vec<Write>, Refusal> {
    match change {
        Change::CreateTarget { target, first_type, declines_default } => {
            target::create(snapshot, target, first_type, *declines_default)
        }
        Change::ModifyTarget { id, change, now } => target::modify(snapshot, *id, change, *now),
        Change::DeleteTarget(id) => target::delete(snapshot, *id),
        Change::CreateType(new) => target_type::create(snapshot, new),
        Change::ModifyType { id, change, now } => target_type::modify(snapshot, *id, change, *now),
        Change::DeleteType(id) => target_type::delete(snapshot, *id),
    }
}
