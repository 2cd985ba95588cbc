//! Whether the other nodes see this node, and why not.

use crate::model::NodePresence;

/// Whether the other nodes see this node, and why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PresenceStatus {
    /// They do.
    Present,
    /// They did. It is unknown whether they still do, for this reason.
    Uncertain(String),
    /// They do not, for this reason.
    Absent(String),
    /// Another process has the name of this node.
    DuplicateNodeId(String),
}

impl PresenceStatus {
    /// Returns both, the reason if there is one.
    #[must_use]
    pub fn parts(&self) -> (NodePresence, Option<&str>) {
        match self {
            Self::Present => (NodePresence::Present, None),
            Self::Uncertain(why) => (NodePresence::Uncertain, Some(why)),
            Self::Absent(why) => (NodePresence::Absent, Some(why)),
            Self::DuplicateNodeId(why) => (NodePresence::DuplicateNodeId, Some(why)),
        }
    }
}
