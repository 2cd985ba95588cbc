//! What tasks and use cases share.

use std::sync::Arc;

use tokio::sync::{OwnedMutexGuard, watch};

use super::error::AgentError;
use super::publisher::ViewPublisher;
use super::transition_log::TransitionLog;
use crate::driver::Host;
use crate::model::settings::AgentSettings;
use crate::registry::Registry;

/// Everything that outlives a single task or request.
pub(super) struct Shared {
    pub(super) registry: Registry,
    pub(super) host: Arc<Host>,
    pub(super) settings: watch::Sender<Arc<AgentSettings>>,
    pub(super) stopping: watch::Sender<bool>,
    pub(super) views: ViewPublisher,
    pub(super) transitions: TransitionLog,
    /// Held over a change of the registry: changes of one agent do not conflict with each other, and
    /// the agent stops between two of them. Never held while storage is waited for.
    changing: Arc<tokio::sync::Mutex<()>>,
}

impl Shared {
    pub(super) fn new(registry: Registry, host: Arc<Host>, settings: AgentSettings) -> Self {
        Self {
            transitions: TransitionLog::new(registry.clone()),
            registry,
            host,
            settings: watch::Sender::new(Arc::new(settings)),
            stopping: watch::Sender::new(false),
            views: ViewPublisher::default(),
            changing: Arc::default(),
        }
    }

    /// Waits for the turn to change the registry.
    ///
    /// # Errors
    /// [`AgentError::Stopping`] when the agent accepts no more changes.
    pub(super) async fn begin_change(&self) -> Result<OwnedMutexGuard<()>, AgentError> {
        let guard = self.changing.clone().lock_owned().await;
        if *self.stopping.borrow() { Err(AgentError::Stopping) } else { Ok(guard) }
    }
}
