//! Limits of one registry. They bound memory on the node and the time of one change.

pub use crate::model::TARGETS_MAX;

/// Most target types of one registry: the first type of every target, and as many again.
pub const TYPES_MAX: usize = 2 * TARGETS_MAX;

/// Most assignments to projects of all types of one registry together. The limits of the individual types would add up
/// to more than a node can keep in memory.
pub const ASSIGNMENTS_MAX: usize = 100_000;

/// Most metadata entries of all types of one registry together, for the same reason.
pub const TYPE_METADATA_TOTAL_MAX: usize = 100_000;

/// Largest metadata of one target, keys and values together, in bytes.
pub const TARGET_METADATA_MAX_BYTES: usize = 64 << 10;

/// Largest metadata of all targets together, keys and values, in bytes. The limits of the individual targets would
/// add up to more than a node can keep in memory.
pub const TARGET_METADATA_TOTAL_MAX_BYTES: usize = 32 << 20;

/// Most transitions that are kept of one target. Older ones are removed.
pub const TRANSITIONS_MAX: usize = 500;
