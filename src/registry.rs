//! The registry: the targets and their types, durable over restarts and `kill -9`.
//!
//! ```text
//! Change ──► rules::decide(Snapshot) ──► [Write] ──► Store::commit(Revision) ──► Snapshot ──► watch
//!                      │                                   │
//!                      └─► Refusal                         └─► Conflict: decide again
//! ```
//!
//! Rules are pure functions ([`rules`]). A [`Store`] does not know them. It makes the writes of one change durable, if
//! it is still at the revision for which they were decided, and notifies its watchers. So several agents can share a
//! store without a lock, and a new store is one directory that passes the contract suite. [`Registry`] joins both and
//! is what the agent uses.
//!
//! Stores: a database file ([`SqliteStore`](sqlite::SqliteStore)), a copy of a registry that all nodes share
//! ([`ReplicaStore`]), and memory for tests ([`MemoryStore`]).

mod change;
#[cfg(test)]
mod contract;
mod error;
mod etcd;
#[cfg(test)]
pub(crate) mod fixtures;
mod handle;
pub mod limits;
mod membership;
mod memory;
mod open;
mod replica;
pub mod rules;
mod shared;
mod snapshot;
mod sqlite;
mod store;

pub use change::{Change, TargetChange, TypeChange};
pub use error::{MaintenanceError, OpenError};
pub use etcd::EtcdRegistry;
pub use handle::{Registry, RegistryError, WriteResult};
pub use limits::{ASSIGNMENTS_MAX, TARGETS_MAX, TRANSITIONS_MAX, TYPE_METADATA_TOTAL_MAX, TYPES_MAX};
pub use membership::{Aliases, Renames, ReplicaStatus};
pub use memory::MemoryStore;
pub use open::{file, open, open_copy};
pub use replica::join::{FormerRegistry, JoinAction, JoinError, JoinPlan, PlannedTarget};
pub use replica::{ReplicaStore, join};
pub use rules::Refusal;
pub use shared::{CloudId, SharedCommitError, SharedContent, SharedRegistry, SharedVersion, Unavailable};
pub use snapshot::{Difference, RegisteredTarget, Revision, Snapshot, Write};
pub use sqlite::{accept_loss, backup, inspect, lock_path, own_mount, read_copy, restore};
pub use store::{CommitError, CopyStore, SharedChangeError, StorageError, Store};
