//! Wire types of the aggregator: the JSON of its answers, which extend those of an agent.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::node_snapshot::NodeSnapshot;
use super::view::{FleetTarget as Target, FleetView, NodeCounts, NodeState, TargetOnNode};
use crate::api::wire::{self, timestamp};
use crate::model::Caller;

/// State of a target on a node.
pub type TargetNodeState = wire::Extensible<NodeState>;

impl wire::Vocabulary for NodeState {
    const NAME: &'static str = "TargetNodeState";
    const ALL: &'static [Self] = Self::ALL;

    fn text(self) -> &'static str {
        self.as_str()
    }
}

/// Largest number of nodes in the list of a target. `GET /backup_targets/{id}/nodes` answers with all of them.
pub const NOT_AVAILABLE_MAX: usize = 20;

/// How the aggregator knows the state of the nodes.
const SOURCE: &str = "poll";

/// Targets of the fleet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FleetTargetList {
    /// Oldest first.
    pub backup_targets: Vec<FleetTarget>,
    /// What the answer is based on.
    #[serde(flatten)]
    pub basis: AnswerBasis,
}

/// One target of the fleet. The plural key contains a single object, as in the answer of an agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OneFleetTarget {
    /// The target.
    pub backup_targets: FleetTarget,
    /// What the answer is based on.
    #[serde(flatten)]
    pub basis: AnswerBasis,
}

/// What an answer is based on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AnswerBasis {
    /// Time of the oldest answer of an agent in use. `null` without any.
    pub as_of: Option<String>,
    /// `poll`.
    pub source: String,
    /// Whether every node of the list has answered lately.
    pub complete: bool,
    /// A sentence if many nodes stopped answering together. `null` otherwise.
    pub notice: Option<String>,
}

/// A target in the form of the agents' API. Its `status` is that of the fleet, and its other fields are those of one
/// agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FleetTarget {
    /// The target.
    #[serde(flatten)]
    pub target: wire::Target,
    /// Node that measured `capacity` and `used`. `null` without them, and for callers that are not admins.
    pub sizes_node: Option<String>,
    /// Time at which `capacity` and `used` were last known to be right, if that node does not measure them any more and
    /// no other node has yet. `null` if they are current.
    pub sizes_as_of: Option<String>,
    /// Number of nodes in each state.
    pub nodes: NodeCounts,
    /// Nodes where it is not available or has a warning, worst first, at most [`NOT_AVAILABLE_MAX`]. Empty for callers
    /// that are not admins.
    pub not_available: Vec<TargetNode>,
    /// Number of nodes with each reason code.
    pub reasons: BTreeMap<String, usize>,
}

/// A target on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TargetNode {
    /// Name of the node: host and port.
    pub node: String,
    /// State of the target there.
    pub state: TargetNodeState,
    /// Reason code of the agent.
    pub reason: Option<wire::Reason>,
    /// Since when the target has its status there. For a node that does not answer, the time of its latest answer.
    /// `null` if there is none.
    pub since: Option<String>,
    /// What happened, and what to do.
    pub message: Option<String>,
}

/// The nodes of a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TargetNodes {
    /// The nodes, ordered by name, with the time of their latest probe.
    pub nodes: Vec<ProbedTargetNode>,
}

/// A target on a node, with the time of the latest probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProbedTargetNode {
    /// The target on the node.
    #[serde(flatten)]
    pub node: TargetNode,
    /// Time at which the node last answered with this state. With an agent of an earlier release, the end of the latest
    /// known probe, according to the clock of the node.
    pub observed_at: Option<String>,
}

/// Nodes of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeList {
    /// Ordered by name.
    pub nodes: Vec<Node>,
}

/// A node of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// Name: host and port.
    pub node: String,
    /// `answering` or `unknown`.
    pub state: String,
    /// Time of its latest answer. `null` without any.
    pub answered_at: Option<String>,
    /// Number of targets in its latest answer.
    pub targets: usize,
    /// Why the latest poll failed, and what to do. `null` if it succeeded.
    pub message: Option<String>,
    /// The node as the scopes of targets name it. `null` until its agent has said so.
    #[serde(default)]
    pub fleet: Option<wire::FleetNode>,
}

/// Whether the nodes have been polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Readiness {
    /// Whether the list of targets is answered.
    pub ready: bool,
    /// Number of nodes.
    pub nodes: usize,
    /// Number of nodes that answer.
    pub answering: usize,
}

impl FleetTargetList {
    pub(super) fn seen_by(caller: &Caller, view: &FleetView, targets: &[Target]) -> Self {
        let targets = targets.iter().map(|target| FleetTarget::seen_by(caller, view, target));
        Self { backup_targets: targets.collect(), basis: AnswerBasis::from(view) }
    }
}

impl OneFleetTarget {
    pub(super) fn seen_by(caller: &Caller, view: &FleetView, target: &Target) -> Self {
        Self { backup_targets: FleetTarget::seen_by(caller, view, target), basis: AnswerBasis::from(view) }
    }
}

impl From<&FleetView> for AnswerBasis {
    fn from(view: &FleetView) -> Self {
        Self {
            as_of: view.as_of.map(timestamp),
            source: SOURCE.to_owned(),
            complete: view.is_complete,
            notice: view.notice.clone(),
        }
    }
}

impl FleetTarget {
    fn seen_by(caller: &Caller, view: &FleetView, target: &Target) -> Self {
        let mut described = wire::Target::clone(&target.described);
        described.id = target.id.to_string();
        described.status = target.status.into();
        described.scope.clone_from(&target.scope);
        let (used, capacity) = target.sizes();
        (described.used, described.capacity) = (used.map(str::to_owned), capacity.map(str::to_owned));
        if !caller.is_admin {
            // Agents do not say which projects may see a private type.
            described.backup_target_types.retain(|found| found.is_public);
        }
        // Only admins learn the names of nodes, as with hypervisors in OpenStack.
        let shown = if caller.is_admin { NOT_AVAILABLE_MAX } else { 0 };
        let not_available = view.not_available(target, shown);
        Self {
            target: described,
            sizes_node: target.sizes_node().filter(|_| caller.is_admin).map(str::to_owned),
            sizes_as_of: target.sizes_as_of().map(timestamp),
            nodes: target.counts,
            not_available: not_available.into_iter().map(TargetNode::from).collect(),
            reasons: target.reasons.iter().map(|(reason, count)| (reason.to_string(), *count)).collect(),
        }
    }
}

impl From<TargetOnNode<'_>> for TargetNode {
    fn from(on_node: TargetOnNode<'_>) -> Self {
        let problem = on_node.problem();
        let own = match on_node.state {
            NodeState::Missing => Some(on_node.node.missing_target_message().to_owned()),
            NodeState::Unknown if !on_node.node.is_answering => Some(no_answer(on_node.node)),
            NodeState::Unknown if on_node.is_overdue() => None,
            NodeState::Unknown => Some("The agent has not probed this target yet".to_owned()),
            NodeState::Available | NodeState::Warning | NodeState::Offline => None,
        };
        Self {
            node: on_node.node.name.to_string(),
            state: on_node.state.into(),
            reason: problem.map(|(reason, _)| Cow::Borrowed(reason).into()),
            since: on_node.since().map(timestamp),
            message: own.or_else(|| problem.map(|(_, message)| message.to_owned())),
        }
    }
}

/// Why a node does not answer.
fn no_answer(node: &NodeSnapshot) -> String {
    match (&node.failure, node.answered_at) {
        (Some(failure), _) => format!("The node does not answer: {failure}"),
        (None, Some(_)) => "The latest answer of the node is too old".to_owned(),
        (None, None) => "The node has not been polled yet".to_owned(),
    }
}

impl From<TargetOnNode<'_>> for ProbedTargetNode {
    fn from(on_node: TargetOnNode<'_>) -> Self {
        Self { node: TargetNode::from(on_node), observed_at: on_node.observed_at().map(timestamp) }
    }
}

impl From<&NodeSnapshot> for Node {
    fn from(node: &NodeSnapshot) -> Self {
        Self {
            node: node.name.to_string(),
            state: if node.is_answering { "answering" } else { "unknown" }.to_owned(),
            answered_at: node.answered_at.map(timestamp),
            targets: node.targets.len(),
            message: node.failure.as_ref().map(ToString::to_string),
            fleet: node.fleet_node.as_deref().map(wire::FleetNode::from),
        }
    }
}
