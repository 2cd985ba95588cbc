//! Transitions: when a target became available or offline, and why.

use std::borrow::Cow;

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
    pub finding: Option<PastFinding>,
}

/// A finding as a history keeps it: perhaps with the code of another version of the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastFinding {
    /// The stable code, see [`super::Reason::code`].
    pub code: Cow<'static, str>,
    /// The sentence beside it.
    pub message: String,
}

impl From<Finding> for PastFinding {
    fn from(finding: Finding) -> Self {
        Self { code: finding.reason.code().into(), message: finding.message }
    }
}
