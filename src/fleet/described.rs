//! What the view shows of the description of a target.

use std::sync::Arc;

use jiff::Timestamp;

use super::answer::Figures;
use crate::api::wire::Target;

/// Sizes of a target, as a node measured them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Name of the node.
    pub(super) by: Arc<str>,
    /// Time of the latest answer of the node that had them.
    pub(super) at: Timestamp,
    /// Used space, as a text.
    pub(super) used: Option<String>,
    /// Size, as a text.
    pub(super) capacity: Option<String>,
    /// Used space, in bytes.
    pub(super) used_bytes: Option<u64>,
    /// Size, in bytes.
    pub(super) size_bytes: Option<u64>,
}

/// A description, as the view needs it.
#[derive(Debug, Clone)]
pub(super) struct Described {
    /// Name of the node whose agent it is from.
    pub(super) by: Arc<str>,
    /// The target.
    pub(super) target: Arc<Target>,
    /// Its last sizes.
    pub(super) sizes: Option<Arc<Sizes>>,
    /// Time of the latest proof of its object lock.
    pub(super) lock_proved_at: Option<Timestamp>,
}

impl Described {
    /// The description of a target that no agent has described yet.
    pub(super) fn registered(target: Arc<Target>) -> Self {
        Self { by: Arc::default(), target, sizes: None, lock_proved_at: None }
    }
}

impl Sizes {
    /// Sizes that a node measured now. `None` if it did not.
    pub(super) fn new(by: &Arc<str>, described: &Target, figures: Figures) -> Option<Self> {
        let Figures { size_bytes, used_bytes, .. } = figures;
        (size_bytes.is_some() || used_bytes.is_some()).then(|| Self {
            by: by.clone(),
            at: Timestamp::now(),
            used: described.used.clone(),
            capacity: described.capacity.clone(),
            used_bytes,
            size_bytes,
        })
    }
}
