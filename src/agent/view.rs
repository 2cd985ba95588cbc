//! Views: the targets as readers see them. A view is immutable, and each change publishes a new view.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

use super::record::ProbeRecord;
use super::status::TargetStatus;
use crate::model::{Reason, Report, Target, TargetId, TargetType, TargetTypeId};
use crate::registry::RegisteredTarget;

/// All targets at one moment.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Number of views so far. A cached value is valid if it was made from a view of the same generation.
    pub generation: u64,
    /// Generation of the last change of targets or types. A report does not change it.
    pub types_generation: u64,
    /// Whether a type is not public, so that not all callers see the same targets. It changes with `types_generation`.
    pub has_restricted_types: bool,
    /// The targets, oldest first.
    pub targets: Vec<Arc<TargetView>>,
}

impl View {
    /// Returns the target with this id.
    #[must_use]
    pub fn target(&self, id: TargetId) -> Option<&Arc<TargetView>> {
        self.targets.iter().find(|view| view.target.id == id)
    }

    /// Returns the target type with this id.
    #[must_use]
    pub fn target_type(&self, id: TargetTypeId) -> Option<&Arc<TargetType>> {
        self.targets.iter().flat_map(|view| view.types.iter()).find(|found| found.id == id)
    }

    /// Returns every target type, oldest first.
    #[must_use]
    pub fn target_types(&self) -> Vec<&Arc<TargetType>> {
        let mut types: Vec<_> = self.targets.iter().flat_map(|view| view.types.iter()).collect();
        types.sort_by_key(|found| found.created_at);
        types
    }

    /// Whether every target has a report.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.targets.iter().all(|view| view.report.is_some())
    }
}

/// One target at one moment.
#[derive(Debug, Clone)]
pub struct TargetView {
    /// The target as the registry contains it.
    pub target: Arc<Target>,
    /// Its types, oldest first.
    pub types: Arc<[Arc<TargetType>]>,
    /// Directory in which it is or would be mounted.
    pub mount_path: PathBuf,
    /// Status that follows from its reports, with hysteresis.
    pub status: TargetStatus,
    /// Latest report. `None` until the first probe has finished.
    pub report: Option<Arc<Report>>,
    /// Record of its probes so far.
    pub record: Arc<ProbeRecord>,
    /// When the report is outdated unless another one follows. `None` until the first probe has finished.
    pub current_until: Option<Instant>,
}

impl TargetView {
    /// A target without a probe, which was created or changed at `since`.
    pub(super) fn not_checked(registered: &RegisteredTarget, mount_root: &Path, since: Timestamp) -> Self {
        let RegisteredTarget { target, types } = registered;
        Self {
            mount_path: target.mount_name.below(mount_root),
            target: target.clone(),
            types: types.clone(),
            status: TargetStatus::not_checked(since),
            report: None,
            record: Arc::default(),
            current_until: None,
        }
    }

    /// Whether the latest report is outdated, so that the status is not known any more.
    #[must_use]
    pub fn is_overdue(&self) -> bool {
        self.status.finding.as_ref().is_some_and(|finding| finding.reason == Reason::ProbeOverdue)
    }
}
