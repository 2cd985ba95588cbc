//! What is known of a node at one moment, and whether a target is expected on it.

use std::sync::Arc;

use jiff::Timestamp;

use super::answer::NodeTarget;
use crate::model::settings::ExpectedOn;
use crate::model::{LabeledNode, NodeScope};

/// What is known of a node.
#[derive(Debug, Clone)]
pub struct NodeSnapshot {
    /// Name of the node: host and port.
    pub name: Arc<str>,
    /// Whether the node has been polled since the start of the aggregator.
    pub is_polled: bool,
    /// Whether it has answered lately, so that its latest answer counts.
    pub is_answering: bool,
    /// Time of its latest answer.
    pub answered_at: Option<Timestamp>,
    /// Start of the aggregator, if the node was silent since then. It may have been silent before.
    pub silent_since_start: Option<Timestamp>,
    /// Why the latest poll failed, and what to do.
    pub failure: Option<Arc<str>>,
    pub(super) targets: Arc<[NodeTarget]>,
    /// The node, as scopes name it. `None` until its agent has said so.
    pub(super) fleet_node: Option<Arc<LabeledNode>>,
}

impl NodeSnapshot {
    /// Whether a target with this scope is expected on the node, whose latest answer contains it or not. A node that
    /// has never answered may have it.
    pub(super) fn is_expected(&self, scope: &Option<NodeScope>, has_it: bool, expected_on: ExpectedOn) -> bool {
        match (self.is_in_scope(scope.as_ref()), expected_on) {
            (Some(false), _) => false,
            // Its agent ignores scopes, so what it says of the target counts.
            (None, _) => has_it,
            (Some(true), ExpectedOn::All) => true,
            (Some(true), ExpectedOn::Reporting) => has_it || self.answered_at.is_none(),
        }
    }

    /// Why the agent does not have a target, and what to do.
    pub(super) fn missing_target_message(&self) -> &'static str {
        match self.fleet_node {
            // Only agents with a shared registry have one.
            Some(_) => {
                "The agent does not have this target. It gets it from the shared registry within two intervals. If it does not, shared_registry of its GET /node says why"
            }
            None => "The agent does not have this target. Create it there",
        }
    }

    /// Whether the node is in a scope. `None` if that is not known, because its agent has not said which node it is.
    fn is_in_scope(&self, scope: Option<&NodeScope>) -> Option<bool> {
        let Some(scope) = scope else { return Some(true) };
        match &self.fleet_node {
            Some(fleet_node) => Some(scope.contains(fleet_node)),
            // Many nodes have the name of their host.
            None => self.name.rsplit_once(':').is_some_and(|(host, _)| scope.names(host)).then_some(true),
        }
    }
}
