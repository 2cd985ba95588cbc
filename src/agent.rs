//! The agent: one task per target, and the use cases that API and command line call.
//!
//! Reading is from memory: [`Agent::view`] is a snapshot that tasks replace when something
//! changed, so no reader waits for storage, the registry or another reader. Changing goes through
//! the registry first and becomes visible when it is durable. Probing belongs to the target's own
//! task ([`task`]), which owns the driver: a probe, a mount and an unmount of one target never
//! overlap, and a target that hangs delays nobody else.

pub mod error;
pub mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{TargetId, TargetSpec};
use crate::registry::TargetChange;

pub use error::AgentError;
pub use view::{TargetStatus, TargetView, View};

/// What a client asks for when it creates a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTarget {
    /// Its storage.
    pub spec: TargetSpec,
    /// The name of its first target type; the export if none.
    pub type_name: Option<String>,
    /// Whether it is to be the default target.
    pub is_default: bool,
    /// Notes about it.
    pub metadata: BTreeMap<String, String>,
    /// Who creates it, where authentication tells.
    pub user_id: Option<String>,
}

/// The running agent. Cheap to clone; all clones are the same agent.
#[derive(Clone)]
pub struct Agent {}

impl Agent {
    /// All targets as they are now.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        todo!()
    }

    /// Creates a target. Never waits for storage.
    ///
    /// # Errors
    /// [`AgentError`] when a rule of the registry forbids it or it cannot be made durable.
    pub async fn create_target(&self, _new: NewTarget) -> Result<Arc<TargetView>, AgentError> {
        todo!()
    }

    /// Changes a target and, with `make_default`, makes it the default. Never waits for storage.
    ///
    /// # Errors
    /// [`AgentError`] when there is no such target, a rule forbids it, or it cannot be made durable.
    pub async fn modify_target(
        &self,
        _id: TargetId,
        _change: TargetChange,
        _make_default: bool,
    ) -> Result<Arc<TargetView>, AgentError> {
        todo!()
    }

    /// Makes a target the default, and no other. Never waits for storage.
    ///
    /// # Errors
    /// [`AgentError`] when there is no such target or it cannot be made durable.
    pub async fn set_default_target(&self, _id: TargetId) -> Result<Arc<TargetView>, AgentError> {
        todo!()
    }

    /// Unmounts a target and removes it from the registry. Waits for the unmount, bounded.
    ///
    /// # Errors
    /// [`AgentError::Busy`] when its mount is in use on a live server, [`AgentError`] when a rule
    /// forbids it or it cannot be made durable.
    pub async fn delete_target(&self, _id: TargetId) -> Result<(), AgentError> {
        todo!()
    }

    /// Probes a target now and returns it with the report of a probe that began after this call.
    /// The wait is bounded by the deadlines of the probe.
    ///
    /// # Errors
    /// [`AgentError`] when there is no such target or the agent is stopping.
    pub async fn check_now(&self, _id: TargetId) -> Result<Arc<TargetView>, AgentError> {
        todo!()
    }
}
