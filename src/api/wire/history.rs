//! Histories of targets on the wire.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::extensible::{Reason, Status};
use super::timestamp::timestamp;
use crate::model::{self, TargetId};

/// When a target became available or offline on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct History {
    /// The target.
    pub backup_target_id: String,
    /// Newest first.
    pub transitions: Vec<Transition>,
}

/// One change of a status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Transition {
    /// End of the probe that caused it, by this node's clock.
    pub at: String,
    /// The status before. `null` for the first verdict after the creation or the start of the agent.
    pub from: Option<Status>,
    /// The status after.
    pub to: Status,
    /// Reason code of the failure, or of a warning when the target is available.
    pub reason: Option<Reason>,
    /// Problem, and what to do.
    pub message: Option<String>,
}

impl History {
    /// A history, newest first.
    #[must_use]
    pub fn new(id: TargetId, transitions: &[model::Transition]) -> Self {
        let transitions = transitions.iter().map(Transition::from).collect();
        Self { backup_target_id: id.to_string(), transitions }
    }
}

impl From<&model::Transition> for Transition {
    fn from(transition: &model::Transition) -> Self {
        let model::Transition { at, from, to, finding, .. } = transition;
        Self {
            at: timestamp(*at),
            from: from.map(Status::from),
            to: (*to).into(),
            reason: finding.as_ref().map(|finding| finding.code.clone().into()),
            message: finding.as_ref().map(|finding| finding.message.clone()),
        }
    }
}
