//! Errors of the agent's use cases.

use std::path::PathBuf;
use std::time::Duration;

use crate::model::TargetId;
use crate::model::mount_name::MountNameError;
use crate::model::report::Finding;
use crate::registry::RegistryError;

/// Why a use case failed. Nothing was changed, unless the message says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// No target has this id.
    #[error("there is no backup target {0}")]
    TargetNotFound(TargetId),
    /// The target is not one of this node.
    #[error(
        "backup target {id} is not in the scope of this node ({node}), which neither mounts nor probes it. It can be changed and deleted here"
    )]
    OutOfScope {
        /// The target.
        id: TargetId,
        /// Name of this node.
        node: String,
    },
    /// No directory name can be derived from the export.
    #[error("filesystem_export: {0}")]
    MountName(#[from] MountNameError),
    /// A rule of the registry forbids the change, or it could not be made durable.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A process on this host uses the mount, and the server is alive.
    #[error("backup target {id} is in use: {path} is busy. Stop what uses it (fuser -vm {path}), then delete again")]
    Busy {
        /// The target.
        id: TargetId,
        /// Its mount path.
        path: PathBuf,
    },
    /// The target could not be unmounted. It stays.
    #[error("backup target {id} could not be unmounted: {}", finding.message)]
    Detach {
        /// The target.
        id: TargetId,
        /// Why.
        finding: Finding,
    },
    /// A requested probe did not finish in time.
    #[error("the probe of backup target {id} did not finish within {} s: request its latest report instead", after.as_secs())]
    CheckTimedOut {
        /// The target.
        id: TargetId,
        /// Longest wait.
        after: Duration,
    },
    /// The registry did not return the history.
    #[error("the history of backup target {id} cannot be read now: {detail}. Its latest report is not affected")]
    NoHistory {
        /// The target.
        id: TargetId,
        /// The error of the registry.
        detail: String,
    },
    /// The agent is stopping and accepts no more changes.
    #[error("the agent is stopping: repeat the request after its restart")]
    Stopping,
}
