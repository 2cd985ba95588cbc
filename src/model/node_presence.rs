//! Whether the other nodes of a fleet see this node.

named! {
    /// Whether the other nodes see this node.
    NodePresence {
        /// They do.
        Present => "present",
        /// They did, and it is unknown whether they still do.
        Uncertain => "uncertain",
        /// They do not.
        Absent => "absent",
        /// Another process has the name of this node.
        DuplicateNodeId => "duplicate_node_id",
    }
}
