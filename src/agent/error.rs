//! What the agent's use cases can fail of.

use std::path::PathBuf;
use std::time::Duration;

use crate::model::TargetId;
use crate::model::mount_name::MountNameError;
use crate::model::report::Finding;
use crate::registry::RegistryError;

/// Why a use case failed. Nothing was changed, unless the variant says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// No target of that id.
    #[error("there is no backup target {0}")]
    TargetNotFound(TargetId),
    /// No directory name can be derived from the export.
    #[error("filesystem_export: {0}")]
    MountName(#[from] MountNameError),
    /// A rule of the registry forbids it, or it could not be made durable.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Something on this host uses the mount, and the server is alive.
    #[error("backup target {id} is in use: {path} is busy. Stop what uses it (fuser -vm {path}), then delete again")]
    Busy {
        /// The target.
        id: TargetId,
        /// Its mount path.
        path: PathBuf,
    },
    /// The mount could not be taken down; the target stays.
    #[error("backup target {id} could not be unmounted: {}", finding.message)]
    Detach {
        /// The target.
        id: TargetId,
        /// What went wrong.
        finding: Finding,
    },
    /// A probe that was asked for did not end in its time.
    #[error("the probe of backup target {id} did not end within {} s: ask for its latest report instead", after.as_secs())]
    CheckTimedOut {
        /// The target.
        id: TargetId,
        /// How long was waited.
        after: Duration,
    },
    /// The registry did not give a history.
    #[error("the history of backup target {id} cannot be read now: {detail}. Its report is there all the same")]
    NoHistory {
        /// The target.
        id: TargetId,
        /// What the registry says.
        detail: String,
    },
    /// The agent is stopping and takes no more changes.
    #[error("the agent is stopping: ask again when it is back")]
    Stopping,
}
