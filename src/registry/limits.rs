//! Limits of one registry. They bound memory on the node and the time of one change.

/// The most targets that one registry holds: what a node can probe in an interval, with room.
pub const TARGETS_MAX: usize = 10_000;

/// The most target types that one registry holds: the first type of every target, and as many again.
pub const TYPES_MAX: usize = 2 * TARGETS_MAX;

/// The most assignments to projects that all types of one registry have together. The limits of the
/// single types would add up to more than a node can keep in memory.
pub const ASSIGNMENTS_MAX: usize = 100_000;

/// The most metadata entries that all types of one registry have together, for the same reason.
pub const TYPE_METADATA_TOTAL_MAX: usize = 100_000;

/// Metadata of one target, keys and values together, in bytes, at most.
pub const TARGET_METADATA_MAX_BYTES: usize = 64 << 10;

/// Metadata of all targets together, keys and values, in bytes, at most. The limits of the single targets would
/// add up to more than a node can keep in memory.
pub const TARGET_METADATA_TOTAL_MAX_BYTES: usize = 32 << 20;

/// The most transitions of one target that are kept. Older ones are removed.
pub const TRANSITIONS_MAX: usize = 500;
