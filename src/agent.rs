//! The agent: one task per target, and the use cases that API and command line call.
//!
//! ```text
//!              commit                      watch
//! use case ───────────► registry ──► snapshot ──► reconciler ──► tasks: start, change, end
//!                                                     │             │ reports
//!                                                     └──► view ◄───┘
//! ```
//!
//! The registry determines which tasks run. The reconciler (`reconcile`) applies each snapshot of the registry to the
//! tasks and the view, whatever made the change. A use case changes the registry, and returns when its change is
//! visible in the view.
//!
//! Reads come from memory. A view ([`Agent::view`]) is immutable, and each change publishes a new view. So no reader
//! waits for storage, the registry or another reader. Each target has a task (`task`), which owns its driver. So a
//! probe, a mount and an unmount of one target never overlap, and a target that hangs delays nothing else. Target types
//! have no task.

mod canary_store;
mod error;
mod lifecycle;
mod overdue;
mod own_mount_log;
mod private_mounts;
mod publisher;
mod reconcile;
mod record;
mod shared;
mod statistics;
mod status;
mod target_types;
mod targets;
mod task;
mod transition_log;
mod view;

/// What [`Agent::start`] needs of the host.
pub use crate::driver::{Host, ProcessRole};
pub use error::AgentError;
pub use lifecycle::Agent;
pub use own_mount_log::recall as recall_own_mounts;
pub use publisher::{AVAILABLE_EVENT, OFFLINE_EVENT, StatusChange};
pub use record::{Intervals, ProbeRecord, REASONS_MAX, RecordedReason, warnings};
pub use statistics::ProbeStatistics;
pub use status::TargetStatus;
pub use target_types::{NewType, TypeUpdate};
pub use targets::NewTarget;
pub use view::{TargetView, View};
