//! The relation of a node's registry to a shared one.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use super::shared::CloudId;
use super::snapshot::Write;
use crate::model::{TargetId, TargetTypeId};

/// Former ids of targets and types, from before the node joined a shared registry. The API accepts them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Aliases {
    /// Ids of targets by their former ids.
    pub targets: HashMap<TargetId, TargetId>,
    /// Ids of types by their former ids.
    pub types: HashMap<TargetTypeId, TargetTypeId>,
}

/// Ids that become those of the shared registry: the former one and the new one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Renames {
    /// Ids of targets.
    pub targets: Vec<(TargetId, TargetId)>,
    /// Ids of types.
    pub types: Vec<(TargetTypeId, TargetTypeId)>,
}

/// How a node's registry becomes the copy of a shared one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adoption {
    /// The shared registry.
    pub cloud_id: CloudId,
    /// Ids that change. The former ones become aliases.
    pub renames: Renames,
    /// The writes that make the content equal afterwards.
    pub writes: Vec<Write>,
}

/// State of a registry that uses a shared one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Whether the content is a copy of the shared registry. Otherwise it is that of a single node.
    pub is_joined: bool,
    /// When a quorum of the shared registry last confirmed the content. Most comparisons do not ask a quorum.
    pub compared_at: Option<Timestamp>,
    /// Why the shared registry cannot be used now. `None` if it can.
    pub problem: Option<String>,
    /// Time between two comparisons.
    pub interval: Duration,
}
