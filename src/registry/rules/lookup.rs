//! Finding the target and the type that a change names.

use super::refusal::Refusal;
use crate::model::{TargetId, TargetType, TargetTypeId};
use crate::registry::snapshot::{RegisteredTarget, Snapshot};

/// Returns the target with this id.
pub(super) fn target(snapshot: &Snapshot, id: TargetId) -> Result<&RegisteredTarget, Refusal> {
    snapshot.target(id).map(|found| &**found).ok_or(Refusal::TargetNotFound(id))
}

/// Returns the target type with this id.
pub(super) fn target_type(snapshot: &Snapshot, id: TargetTypeId) -> Result<&TargetType, Refusal> {
    snapshot.target_type(id).map(|found| &**found).ok_or(Refusal::TypeNotFound(id))
}
