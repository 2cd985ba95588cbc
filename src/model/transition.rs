//! Transitions: when a target became available or offline, and why.

use jiff::Timestamp;

use super::report::Finding;
use super::{Status, TargetId};

/// One change of a target's status on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// The target.
    pub target_id: TargetId,
    /// When the probe ended that it follows from, by this host's clock.
    pub at: Timestamp,
    /// The status before; `None` for the first verdict after the creation or the agent's start,
    /// since nothing was known then.
    pub from: Option<Status>,
    /// The status after.
    pub to: Status,
    /// Why it is offline, or what to watch although it is available.
    pub finding: Option<Finding>,
}
