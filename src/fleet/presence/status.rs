//! Whether the other nodes see this node.

/// Whether the other nodes see this node.
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
    /// Returns its name and the reason, if there is one.
    #[must_use]
    pub fn parts(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::Present => ("present", None),
            Self::Uncertain(why) => ("uncertain", Some(why)),
            Self::Absent(why) => ("absent", Some(why)),
            Self::DuplicateNodeId(why) => ("duplicate_node_id", Some(why)),
        }
    }
}
