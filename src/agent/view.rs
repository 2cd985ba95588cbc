//! Views: the targets as readers see them, replaced whole and never changed in place.

use std::path::PathBuf;
use std::sync::Arc;

use super::status::TargetStatus;
use crate::model::{Report, Target, TargetId, TargetType, TargetTypeId};

/// All targets at one moment.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Grows with every change of anything below; what was made from a view of the same
    /// generation is still right.
    pub generation: u64,
    /// The generation in which targets or types were changed last, and not only probed.
    pub types_generation: u64,
    /// The targets, oldest first.
    pub targets: Vec<Arc<TargetView>>,
}

impl View {
    /// The target of an id.
    #[must_use]
    pub fn target(&self, id: TargetId) -> Option<&Arc<TargetView>> {
        self.targets.iter().find(|view| view.target.id == id)
    }

    /// The target type of an id.
    #[must_use]
    pub fn target_type(&self, id: TargetTypeId) -> Option<&Arc<TargetType>> {
        self.targets.iter().flat_map(|view| view.types.iter()).find(|found| found.id == id)
    }

    /// Every target type, oldest first.
    #[must_use]
    pub fn target_types(&self) -> Vec<&TargetType> {
        let mut types: Vec<&TargetType> =
            self.targets.iter().flat_map(|view| view.types.iter()).map(|found| &**found).collect();
        types.sort_by_key(|found| found.created_at);
        types
    }

    /// Whether every target has had its first verdict.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.targets.iter().all(|view| view.report.is_some())
    }
}

/// One target at one moment.
#[derive(Debug, Clone)]
pub struct TargetView {
    /// The target as the registry keeps it.
    pub target: Arc<Target>,
    /// Its types, oldest first.
    pub types: Arc<[Arc<TargetType>]>,
    /// Where it is or would be mounted.
    pub mount_path: PathBuf,
    /// What its reports, with hysteresis, make of it.
    pub status: TargetStatus,
    /// The latest report; `None` until the first probe ends.
    pub report: Option<Arc<Report>>,
}
