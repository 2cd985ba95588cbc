//! The view of the fleet: what follows from the latest answers of all nodes. This file is pure.
//!
//! Each target has one of these states on each node where it is expected:
//!
//! | state | meaning |
//! |---|---|
//! | `available` | the agent says so |
//! | `warning` | the agent says that it is available, with a warning |
//! | `offline` | the agent says so |
//! | `unknown` | the node is silent, or its agent has not probed the target yet |
//! | `missing` | the agent answers, but does not have the target |
//!
//! An unknown state is never counted as available, and never as offline. The policy ([`AvailableWhen`]) makes the status
//! of the target out of the numbers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::answer::{NodeTarget, NodeTargetState};
use super::silence;
use crate::api::wire;
use crate::model::Status;
use crate::model::settings::{AvailableWhen, ExpectedOn};

/// What is known of a node.
#[derive(Debug, Clone)]
pub struct NodeSnapshot {
    /// Name of the node: host and port.
    pub name: Arc<str>,
    /// Whether the node has been polled since the start of the aggregator.
    pub is_polled: bool,
    /// Whether its latest answer is too old to be used, or there is none.
    pub is_silent: bool,
    /// Time of its latest answer.
    pub answered_at: Option<Timestamp>,
    /// Why the latest poll failed, and what to do.
    pub failure: Option<Arc<str>>,
    pub(super) targets: Arc<[NodeTarget]>,
}

/// Rules of the view.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// When a target is available.
    pub available_when: AvailableWhen,
    /// On which nodes it is expected.
    pub expected_on: ExpectedOn,
}

/// State of a target on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeState {
    /// Offline.
    Offline,
    /// The agent answers, but does not have the target.
    Missing,
    /// Not known.
    Unknown,
    /// Available, with a warning.
    Warning,
    /// Available.
    Available,
}

impl NodeState {
    /// All states, worst first.
    pub const ALL: &'static [Self] = &[Self::Offline, Self::Missing, Self::Unknown, Self::Warning, Self::Available];

    /// Stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Missing => "missing",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Available => "available",
        }
    }
}

/// Number of nodes in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Nodes where the target is expected.
    pub expected: usize,
    /// Nodes where it is available, with and without a warning.
    pub available: usize,
    /// Nodes where it is available with a warning.
    pub warning: usize,
    /// Nodes where it is offline.
    pub offline: usize,
    /// Nodes where its state is not known.
    pub unknown: usize,
    /// Nodes whose agent does not have it.
    pub missing: usize,
}

impl Counts {
    fn add(&mut self, state: NodeState) {
        self.expected += 1;
        match state {
            NodeState::Available => self.available += 1,
            NodeState::Warning => {
                self.available += 1;
                self.warning += 1;
            }
            NodeState::Offline => self.offline += 1,
            NodeState::Unknown => self.unknown += 1,
            NodeState::Missing => self.missing += 1,
        }
    }
}

/// A target of the fleet.
#[derive(Debug)]
pub struct FleetTarget {
    /// Id in the fleet. It depends on the export alone, so every aggregator gives the same one.
    pub id: Uuid,
    /// The target as one of the agents describes it.
    pub described: Arc<wire::Target>,
    /// Status in the fleet, by policy.
    pub status: Status,
    /// Number of nodes in each state.
    pub counts: Counts,
    /// Number of nodes with each reason code.
    pub reasons: BTreeMap<Arc<str>, usize>,
    /// Where it is expected, in the order of the nodes.
    nodes: Vec<OnNode>,
}

/// A target on a node: the state, and where the agent's words are.
#[derive(Debug, Clone, Copy)]
struct OnNode {
    state: NodeState,
    node: usize,
    target: Option<usize>,
}

/// A target on a node.
#[derive(Debug, Clone, Copy)]
pub struct TargetOnNode<'a> {
    /// State.
    pub state: NodeState,
    /// The node.
    pub node: &'a NodeSnapshot,
    target: Option<&'a NodeTarget>,
}

impl<'a> TargetOnNode<'a> {
    /// Reason code and message of the agent. `None` unless the agent's words are current.
    #[must_use]
    pub fn problem(&self) -> Option<(&'a str, &'a str)> {
        let (reason, message) = &**self.current()?.problem.as_ref()?;
        Some((reason, message))
    }

    /// Since when the target has its status on this node, or since when the node is silent.
    #[must_use]
    pub fn since(&self) -> Option<Timestamp> {
        if self.node.is_silent { self.node.answered_at } else { self.target?.since }
    }

    /// When the latest probe of this node ended.
    #[must_use]
    pub fn observed_at(&self) -> Option<Timestamp> {
        self.target?.observed_at
    }

    fn current(&self) -> Option<&'a NodeTarget> {
        self.target.filter(|_| !self.node.is_silent)
    }
}

/// The state of all nodes and targets at one moment.
#[derive(Debug)]
pub struct FleetView {
    /// Time of the oldest answer in use. `None` without answers.
    pub as_of: Option<Timestamp>,
    /// Whether every node has answered lately.
    pub is_complete: bool,
    /// Whether every node has been polled since the start of the aggregator.
    pub is_polled: bool,
    /// Why so many nodes are silent, if more than usual fell silent together.
    pub notice: Option<String>,
    /// All nodes of the list, by name.
    pub nodes: Vec<NodeSnapshot>,
    /// All targets that a node has, oldest first.
    pub targets: Vec<FleetTarget>,
}

impl FleetView {
    /// Combines the answers. `described` returns the description of an export.
    pub(super) fn new(
        nodes: Vec<NodeSnapshot>,
        policy: Policy,
        described: impl Fn(&str) -> Option<Arc<wire::Target>>,
    ) -> Self {
        let mut indexes: HashMap<&str, usize> = HashMap::new();
        let mut found: Vec<(Arc<str>, Vec<OnNode>)> = Vec::new();
        for (node, snapshot) in nodes.iter().enumerate() {
            for (target, at_node) in snapshot.targets.iter().enumerate() {
                let index = *indexes.entry(&at_node.export).or_insert_with(|| {
                    found.push((at_node.export.clone(), Vec::new()));
                    found.len() - 1
                });
                let state = state(snapshot, at_node);
                found[index].1.push(OnNode { state, node, target: Some(target) });
            }
        }
        let with_all = |present: Vec<OnNode>| match policy.expected_on {
            ExpectedOn::Reporting => present,
            ExpectedOn::All => with_missing(present, &nodes),
        };
        let targets = found.into_iter().filter_map(|(export, present)| {
            let described = described(&export)?;
            Some(FleetTarget::new(&export, described, with_all(present), &nodes, policy.available_when))
        });
        let mut targets: Vec<FleetTarget> = targets.collect();
        targets.sort_by(|one, other| {
            let key = |target: &FleetTarget| (target.described.created_at.clone(), target.id);
            key(one).cmp(&key(other))
        });
        let silent = nodes.iter().filter(|node| node.is_silent);
        let notice = silence::notice(silent.filter_map(|node| node.answered_at).collect(), nodes.len());
        let heard = nodes.iter().filter(|node| !node.is_silent);
        Self {
            as_of: heard.filter_map(|node| node.answered_at).min(),
            is_complete: nodes.iter().all(|node| !node.is_silent),
            is_polled: nodes.iter().all(|node| node.is_polled),
            notice,
            nodes,
            targets,
        }
    }

    /// Returns the target with this id: that of the fleet, or one that an agent gave it.
    #[must_use]
    pub fn target(&self, id: Uuid) -> Option<&FleetTarget> {
        let by_fleet = self.targets.iter().find(|target| target.id == id);
        by_fleet.or_else(|| {
            let mut known = self.nodes.iter().flat_map(|node| node.targets.iter());
            let export = &known.find(|target| target.id == id)?.export;
            self.targets.iter().find(|target| target.described.filesystem_export == **export)
        })
    }

    /// Returns a target on each node where it is expected.
    pub fn on_nodes<'a>(&'a self, target: &'a FleetTarget) -> impl Iterator<Item = TargetOnNode<'a>> {
        target.nodes.iter().map(|on_node| {
            let node = &self.nodes[on_node.node];
            TargetOnNode { state: on_node.state, node, target: on_node.target.map(|target| &node.targets[target]) }
        })
    }
}

impl FleetTarget {
    fn new(
        export: &str,
        described: Arc<wire::Target>,
        on_nodes: Vec<OnNode>,
        nodes: &[NodeSnapshot],
        policy: AvailableWhen,
    ) -> Self {
        let (mut counts, mut reasons) = (Counts::default(), BTreeMap::new());
        for on_node in &on_nodes {
            counts.add(on_node.state);
            let node = &nodes[on_node.node];
            let words = on_node.target.map(|target| &node.targets[target]).filter(|_| !node.is_silent);
            if let Some(problem) = words.and_then(|target| target.problem.as_ref()) {
                *reasons.entry(problem.0.clone()).or_default() += 1;
            }
        }
        let is_available = policy.is_met(counts.available, counts.expected);
        let status = if is_available { Status::Available } else { Status::Offline };
        Self { id: id(export), described, status, counts, reasons, nodes: on_nodes }
    }
}

fn state(node: &NodeSnapshot, target: &NodeTarget) -> NodeState {
    match target.state {
        _ if node.is_silent => NodeState::Unknown,
        NodeTargetState::NotProbed => NodeState::Unknown,
        NodeTargetState::Offline => NodeState::Offline,
        NodeTargetState::Warning => NodeState::Warning,
        NodeTargetState::Available => NodeState::Available,
    }
}

/// Adds the nodes that do not have the target. `present` is in the order of the nodes.
fn with_missing(present: Vec<OnNode>, nodes: &[NodeSnapshot]) -> Vec<OnNode> {
    let mut all = Vec::with_capacity(nodes.len());
    let mut present = present.into_iter().peekable();
    for (node, snapshot) in nodes.iter().enumerate() {
        match present.next_if(|on_node| on_node.node == node) {
            Some(on_node) => all.push(on_node),
            None => {
                let state = if snapshot.is_silent { NodeState::Unknown } else { NodeState::Missing };
                all.push(OnNode { state, node, target: None });
            }
        }
    }
    all
}

/// Id of a target in the fleet: a UUID of version 8 (RFC 9562 §5.8) from the SHA-256 of its export.
fn id(export: &str) -> Uuid {
    let digest = Sha256::digest(export.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Uuid::new_v8(bytes)
}

#[cfg(test)]
mod tests;
