//! The part of the daemon that makes this node a member of a fleet: its presence, and the facts that nodes share.

use std::sync::Arc;

use tokio::sync::watch;

use crate::agent::Agent;
use crate::driver::{FactBoard, FactCount, FactKind};
use crate::etcd::{FleetSize, KeyValueStore, ObservedKey};
use crate::fleet::claims::Claims;
use crate::fleet::presence::{NodeIdentity, Presence, PresenceStatus};
use crate::model::LabeledNode;
use crate::model::settings::SharedRegistrySettings;
use crate::sys::node::{self, FleetPlace, SharedFactCount};

/// Where the nodes of a fleet meet.
pub struct FleetStore {
    /// The store.
    pub store: Arc<dyn KeyValueStore>,
    /// Keys begin with it. It ends with `/`.
    pub prefix: String,
    /// This node.
    pub node: LabeledNode,
    /// Number of nodes, which this node counts.
    pub size: FleetSize,
    /// The generation of the registry, which the renewals of this node's lease read.
    pub generation: ObservedKey,
}

impl FleetStore {
    /// Where the nodes that share this registry meet. `generation` is that of the registry.
    #[must_use]
    pub fn new(store: Arc<dyn KeyValueStore>, settings: &SharedRegistrySettings, generation: ObservedKey) -> Self {
        let name = settings.node.clone().or_else(node::fleet_node_id).unwrap_or_else(node::hostname);
        let node = LabeledNode { name, labels: settings.labels.clone() };
        let prefix = format!("/{}/v1/", settings.prefix);
        Self { store, prefix, node, size: FleetSize::default(), generation }
    }
}

/// This node in a fleet. Its tasks end when it is dropped.
pub(super) struct FleetMember {
    node: LabeledNode,
    presence: Presence,
    board: Arc<FactBoard>,
    /// Keeps its task.
    _claims: Claims,
}

impl FleetMember {
    /// Announces this node, and exchanges the facts of `board`. Does not wait for the store.
    pub(super) fn start(fleet: FleetStore, agent: &Agent, board: Arc<FactBoard>) -> Self {
        let FleetStore { store, prefix, node, size, generation } = fleet;
        let identity = NodeIdentity {
            node: node.name.clone(),
            labels: node.labels.clone(),
            hostname: node::hostname(),
            boot_id: node::boot_id().unwrap_or_default(),
            version: node::VERSION.to_owned(),
        };
        let agent = agent.clone();
        let late_probe = Box::new(move || agent.overdue_probe());
        let presence = Presence::start(store.clone(), &*prefix, identity, late_probe, size, generation);
        let claims = Claims::start(store, prefix, &*node.name, presence.lease(), board.clone());
        Self { node, presence, board, _claims: claims }
    }

    /// Returns a function that reads the place of this node in the fleet.
    pub(super) fn facts(&self) -> impl Fn() -> FleetPlace + Send + Sync + 'static {
        let (node, status): (_, watch::Receiver<PresenceStatus>) = (self.node.clone(), self.presence.watch());
        let board = self.board.clone();
        move || {
            let facts = FactKind::ALL.map(|kind| {
                let FactCount { held, used, oldest } = board.count(kind);
                SharedFactCount { fact: kind.as_str(), held, used, oldest }
            });
            let status = status.borrow();
            let (state, problem) = status.parts();
            FleetPlace { node: node.clone(), state, problem: problem.map(str::to_owned), facts: facts.into() }
        }
    }

    /// Tells the other nodes that this one stops.
    pub(super) async fn stop(self) {
        self.presence.stop().await;
    }
}

#[cfg(test)]
mod tests;
