//! The view of the fleet: what follows from the latest answers of all nodes. This file is pure.
//!
//! Each target has one of these states on each node where it is expected:
//!
//! | state | meaning |
//! |---|---|
//! | `available` | the agent says so |
//! | `warning` | the agent says that it is available, with a warning |
//! | `offline` | the agent says so |
//! | `unknown` | the node does not answer, or its agent has not probed the target yet or does not any more |
//! | `missing` | the agent answers, but does not have the target |
//!
//! A target with a scope is expected only on the nodes of the scope. The agents say which node they are. Until then, a
//! node counts if the scope names its host, or if its agent has the target.
//!
//! An unknown state is never counted as available, and never as offline. The policy ([`AvailableWhen`]) makes the
//! status of the target out of the numbers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use utoipa::ToSchema;
use uuid::Uuid;

use super::answer::{NodeTarget, NodeTargetState};
use super::described::{Described, Sizes};
use super::node_snapshot::NodeSnapshot;
use super::outage::{self, LastAnswer};
use crate::api::wire;
use crate::model::settings::{AvailableWhen, ExpectedOn};
use crate::model::{NodeScope, Status};

/// Rules of the view.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// When a target is available.
    pub available_when: AvailableWhen,
    /// On which nodes it is expected.
    pub expected_on: ExpectedOn,
    /// Time between two polls.
    pub interval: Duration,
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

/// Number of nodes in each state, also on the wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeCounts {
    /// Nodes where the target is expected.
    pub expected: usize,
    /// Nodes where it is available, with and without a warning.
    pub available: usize,
    /// Nodes where it is available with a warning.
    pub warning: usize,
    /// Nodes where it is offline.
    pub offline: usize,
    /// Nodes that do not answer, or have not probed it yet or do not any more.
    pub unknown: usize,
    /// Nodes that answer, but do not have it.
    pub missing: usize,
}

impl NodeCounts {
    fn add(&mut self, state: NodeState) {
        self.expected += 1;
        *self.counter(state) += 1;
        if state == NodeState::Warning {
            self.available += 1;
        }
    }

    /// Takes back what [`NodeCounts::add`] added.
    fn remove(&mut self, state: NodeState) {
        self.expected -= 1;
        *self.counter(state) -= 1;
        if state == NodeState::Warning {
            self.available -= 1;
        }
    }

    fn counter(&mut self, state: NodeState) -> &mut usize {
        match state {
            NodeState::Available => &mut self.available,
            NodeState::Warning => &mut self.warning,
            NodeState::Offline => &mut self.offline,
            NodeState::Unknown => &mut self.unknown,
            NodeState::Missing => &mut self.missing,
        }
    }

    /// Number of nodes in exactly this state: those with a warning are not available here.
    #[must_use]
    pub fn of(self, state: NodeState) -> usize {
        match state {
            NodeState::Available => self.available - self.warning,
            NodeState::Warning => self.warning,
            NodeState::Offline => self.offline,
            NodeState::Unknown => self.unknown,
            NodeState::Missing => self.missing,
        }
    }
}

/// A target of the fleet.
#[derive(Debug)]
pub struct FleetTarget {
    /// Id in the registry that all nodes share. Without one, `id_by_export`.
    pub id: Uuid,
    /// Id that depends on the export alone, so that every aggregator gives the same one.
    id_by_export: Uuid,
    /// The target as one of the agents describes it.
    pub described: Arc<wire::Target>,
    /// Whether the node of the description finds the target available.
    pub(super) is_described_where_available: bool,
    /// Its last sizes.
    sizes: Option<Arc<Sizes>>,
    /// Time of the latest answer with these sizes. `None` if their node does not measure them any more.
    pub(super) sizes_confirmed_at: Option<Timestamp>,
    lock_proved_at: Option<Timestamp>,
    /// The nodes on which it is expected. `None`: all nodes.
    pub(super) scope: Option<NodeScope>,
    /// Status in the fleet, by policy.
    pub status: Status,
    /// Whether it would be available if the nodes that do not answer were not expected. `None` if no other node is.
    pub is_available_on_answering: Option<bool>,
    /// Number of nodes in each state.
    pub counts: NodeCounts,
    /// Number of nodes with each reason code.
    pub reasons: BTreeMap<Arc<str>, usize>,
    /// The nodes whose agents have it, in the order of the nodes. There is no entry for the others, because a view of
    /// many nodes and targets would become too large.
    present: Vec<OnNode>,
}

/// A target on a node: the indexes of the node, and of the target in its answer.
#[derive(Debug, Clone, Copy)]
struct OnNode {
    node: u32,
    target: u32,
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
    /// Reason code and message of the agent. `None` unless its answer counts.
    #[must_use]
    pub fn problem(&self) -> Option<(&'a str, &'a str)> {
        let (reason, message) = self.current()?.problem.as_ref()?;
        Some((reason, message))
    }

    /// Since when the target has its status on this node, or since when the node does not answer.
    #[must_use]
    pub fn since(&self) -> Option<Timestamp> {
        if self.node.is_answering { self.target?.since } else { self.node.answered_at }
    }

    /// When the latest probe of this node ended, or if that is not known, when the node last answered with this state.
    #[must_use]
    pub fn observed_at(&self) -> Option<Timestamp> {
        self.target?.observed_at.or(self.node.answered_at)
    }

    /// Whether the agent answers, but its probes of the target do not end any more.
    #[must_use]
    pub fn is_overdue(&self) -> bool {
        self.current().is_some_and(|target| target.state == NodeTargetState::Overdue)
    }

    fn current(&self) -> Option<&'a NodeTarget> {
        self.target.filter(|_| self.node.is_answering)
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
    /// A sentence if many nodes stopped answering together.
    pub notice: Option<String>,
    /// Whether a node has answered since the start of the aggregator.
    pub has_answers: bool,
    /// Number of targets in all answers together.
    pub(super) node_targets: usize,
    /// When it was made.
    pub made_at: Instant,
    /// All nodes of the list, by name.
    pub nodes: Vec<NodeSnapshot>,
    expected_on: ExpectedOn,
    /// All targets that a node has, oldest first.
    pub targets: Vec<FleetTarget>,
}

impl FleetView {
    /// Combines the answers. `registered` are the targets of the registry that all nodes share. `described` returns the
    /// description of an export.
    pub(super) fn new(
        nodes: Vec<NodeSnapshot>,
        policy: Policy,
        registered: &[Arc<wire::Target>],
        described: impl Fn(&str) -> Option<Described>,
    ) -> Self {
        let mut indexes: HashMap<&str, usize> = HashMap::new();
        let mut found: Vec<(Arc<str>, Vec<OnNode>)> = Vec::new();
        for (node, snapshot) in (0..).zip(&nodes) {
            for (target, at_node) in (0..).zip(&*snapshot.targets) {
                let index = *indexes.entry(&at_node.export).or_insert_with(|| {
                    found.push((at_node.export.clone(), Vec::new()));
                    found.len() - 1
                });
                found[index].1.push(OnNode { node, target });
            }
        }
        let registered: HashMap<&str, &Arc<wire::Target>> =
            registered.iter().map(|target| (&*target.filesystem_export, target)).collect();
        let without_agents = registered.keys().filter(|export| !indexes.contains_key(**export));
        found.extend(without_agents.map(|export| ((*export).into(), Vec::new())));
        // Most targets have one of a few scopes.
        let mut without: HashMap<Option<NodeScope>, Without> = HashMap::new();
        let targets = found.into_iter().filter_map(|(export, present)| {
            let registered = registered.get(&*export);
            let described =
                described(&export).or_else(|| registered.map(|target| Described::registered((*target).clone())))?;
            let id_by_export = id_by_export(&export);
            let id = registered.and_then(|target| target.id.parse().ok()).unwrap_or(id_by_export);
            // The agents learn later of a change.
            let scope = registered.map_or(&described.target.scope, |target| &target.scope).clone();
            let without = *without.entry(scope.clone()).or_insert_with_key(|scope| Without::new(&nodes, scope, policy));
            Some(FleetTarget {
                id,
                ..FleetTarget::new(id_by_export, described, scope, present, without, &nodes, policy)
            })
        });
        let mut targets: Vec<FleetTarget> = targets.collect();
        targets.sort_by_cached_key(|target| (target.described.created_at.clone(), target.id));
        let answering = nodes.iter().filter(|node| node.is_answering);
        let others = nodes.iter().filter(|node| !node.is_answering);
        Self {
            as_of: answering.filter_map(|node| node.answered_at).min(),
            is_complete: !nodes.is_empty() && nodes.iter().all(|node| node.is_answering),
            is_polled: nodes.iter().all(|node| node.is_polled),
            has_answers: nodes.iter().any(|node| node.answered_at.is_some()),
            notice: outage::notice(others.filter_map(last_answer).collect(), nodes.len(), policy.interval),
            node_targets: nodes.iter().map(|node| node.targets.len()).sum(),
            made_at: Instant::now(),
            nodes,
            expected_on: policy.expected_on,
            targets,
        }
    }

    /// Returns the target with this id: that of the registry, the one that depends on the export alone, or one that an
    /// agent gave it.
    #[must_use]
    pub fn target(&self, id: Uuid) -> Option<&FleetTarget> {
        let by_fleet = self.targets.iter().find(|target| target.id == id || target.id_by_export == id);
        by_fleet.or_else(|| {
            let mut known = self.nodes.iter().flat_map(|node| node.targets.iter());
            let export = &known.find(|target| target.id == id)?.export;
            self.targets.iter().find(|target| target.described.filesystem_export == **export)
        })
    }

    /// Returns a target on each node where it is expected, in the order of the nodes.
    pub fn on_nodes<'a>(&'a self, target: &'a FleetTarget) -> impl Iterator<Item = TargetOnNode<'a>> {
        let (mut present, scope) = (target.present.iter().peekable(), &target.scope);
        (0..).zip(&self.nodes).filter_map(move |(index, node)| {
            let found = present.next_if(|on_node| on_node.node == index);
            let target = found.and_then(|on_node| node.targets.get(on_node.target as usize));
            node.is_expected(scope, target.is_some(), self.expected_on).then(|| TargetOnNode {
                state: state(node, target),
                node,
                target,
            })
        })
    }

    /// Index of a node where the target is available.
    pub(super) fn node_with(&self, target: &FleetTarget) -> Option<usize> {
        let is_available = |found: &&OnNode| {
            let node = self.nodes.get(found.node as usize);
            let state = node.map(|node| state(node, node.targets.get(found.target as usize)));
            matches!(state, Some(NodeState::Available | NodeState::Warning))
        };
        target.present.iter().find(is_available).map(|found| found.node as usize)
    }

    /// Returns up to `max` nodes where a target is not available or has a warning, the worst first.
    pub(super) fn not_available<'a>(&'a self, target: &'a FleetTarget, max: usize) -> Vec<TargetOnNode<'a>> {
        let mut found = Vec::new();
        for state in NodeState::ALL.iter().filter(|state| **state != NodeState::Available) {
            if found.len() < max && target.counts.of(*state) > 0 {
                let in_state = self.on_nodes(target).filter(|on_node| on_node.state == *state);
                found.extend(in_state.take(max - found.len()));
            }
        }
        found
    }
}

/// The nodes of a scope as if no agent had a target.
#[derive(Debug, Clone, Copy)]
struct Without {
    counts: NodeCounts,
    /// Number of expected nodes that do not answer.
    silent: usize,
}

impl Without {
    fn new(nodes: &[NodeSnapshot], scope: &Option<NodeScope>, policy: Policy) -> Self {
        let mut without = Self { counts: NodeCounts::default(), silent: 0 };
        for node in nodes.iter().filter(|node| node.is_expected(scope, false, policy.expected_on)) {
            without.counts.add(state(node, None));
            without.silent += usize::from(!node.is_answering);
        }
        without
    }
}

impl FleetTarget {
    /// A target that is `present` on some of the nodes.
    fn new(
        id_by_export: Uuid,
        described: Described,
        scope: Option<NodeScope>,
        mut present: Vec<OnNode>,
        without: Without,
        nodes: &[NodeSnapshot],
        policy: Policy,
    ) -> Self {
        let Described { by, target: described, sizes, lock_proved_at } = described;
        let Without { mut counts, mut silent } = without;
        let (mut reasons, mut is_described_where_available, mut sizes_confirmed_at) = (BTreeMap::new(), false, None);
        present.retain(|on_node| nodes[on_node.node as usize].is_expected(&scope, true, policy.expected_on));
        for on_node in &present {
            let node = &nodes[on_node.node as usize];
            let target = &node.targets[on_node.target as usize];
            if node.is_expected(&scope, false, policy.expected_on) {
                counts.remove(state(node, None));
            } else if !node.is_answering {
                silent += 1;
            }
            let state = state(node, Some(target));
            counts.add(state);
            if matches!(state, NodeState::Available | NodeState::Warning) {
                is_described_where_available |= Arc::ptr_eq(&by, &node.name);
                if sizes.as_ref().is_some_and(|sizes| Arc::ptr_eq(&sizes.by, &node.name)) {
                    sizes_confirmed_at = node.answered_at;
                }
            }
            if let Some(problem) = target.problem.as_ref().filter(|_| node.is_answering) {
                *reasons.entry(problem.0.clone()).or_default() += 1;
            }
        }
        let is_available = policy.available_when.is_met(counts.available, counts.expected);
        let status = if is_available { Status::Available } else { Status::Offline };
        let answering = counts.expected - silent;
        let is_available_on_answering =
            (answering > 0).then(|| policy.available_when.is_met(counts.available, answering));
        Self {
            id: id_by_export,
            id_by_export,
            described,
            is_described_where_available,
            sizes,
            sizes_confirmed_at,
            lock_proved_at,
            scope,
            status,
            is_available_on_answering,
            counts,
            reasons,
            present,
        }
    }

    /// Returns used space and size, as texts. Neither is known while the target is available nowhere: old figures would
    /// look as if they had just been measured.
    #[must_use]
    pub fn sizes(&self) -> (Option<&str>, Option<&str>) {
        self.known_sizes().map_or((None, None), |sizes| (sizes.used.as_deref(), sizes.capacity.as_deref()))
    }

    /// Returns the same in bytes.
    pub(super) fn sizes_in_bytes(&self) -> (Option<u64>, Option<u64>) {
        self.known_sizes().map_or((None, None), |sizes| (sizes.used_bytes, sizes.size_bytes))
    }

    /// Name of the node that measured the sizes.
    pub(super) fn sizes_node(&self) -> Option<&str> {
        self.known_sizes().map(|sizes| &*sizes.by)
    }

    /// When the sizes were last known to be right, if their node does not measure them any more.
    pub(super) fn sizes_as_of(&self) -> Option<Timestamp> {
        self.known_sizes().filter(|_| self.sizes_confirmed_at.is_none()).map(|sizes| sizes.at)
    }

    /// Time of the latest proof of its object lock on any node.
    pub(super) fn lock_proved_at(&self) -> Option<Timestamp> {
        self.lock_proved_at
    }

    fn known_sizes(&self) -> Option<&Sizes> {
        self.sizes.as_deref().filter(|_| self.counts.available > 0)
    }
}

/// Returns the time of the latest answer of a node. A node that has been silent since the start of the aggregator
/// answered before that start, if ever.
fn last_answer(node: &NodeSnapshot) -> Option<LastAnswer> {
    let answered = node.answered_at.map(|at| LastAnswer { at, is_before_start: false });
    answered.or_else(|| Some(LastAnswer { at: node.silent_since_start?, is_before_start: true }))
}

/// State of a target on a node, from the node's latest answer.
fn state(node: &NodeSnapshot, target: Option<&NodeTarget>) -> NodeState {
    match target.map(|target| target.state) {
        _ if !node.is_answering => NodeState::Unknown,
        None => NodeState::Missing,
        Some(NodeTargetState::NotProbed | NodeTargetState::Overdue) => NodeState::Unknown,
        Some(NodeTargetState::Offline) => NodeState::Offline,
        Some(NodeTargetState::Warning) => NodeState::Warning,
        Some(NodeTargetState::Available) => NodeState::Available,
    }
}

/// Id of a target that depends on its export alone: a UUID of version 8 (RFC 9562 §5.8) from the SHA-256 of its export.
fn id_by_export(export: &str) -> Uuid {
    let digest = Sha256::digest(export.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Uuid::new_v8(bytes)
}

#[cfg(test)]
pub(super) mod tests;
