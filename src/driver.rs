//! Drivers: what it takes to verify one kind of target, and which checks in which order.
//!
//! A driver belongs to one target and is owned by that target's task, so its methods never run
//! at the same time. It may remember what it did (when the last canary was written, a client
//! that is costly to make); what it must not do is wait without a deadline. [`for_spec`] is the
//! one place that knows which kinds there are.

pub mod s3;

use async_trait::async_trait;

use crate::model::report::{BucketFacts, Finding, MountMode};
use crate::model::settings::AgentSettings;
use crate::model::{Capacity, CheckResult};

/// What one probe found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Probe {
    /// The checks in the order in which they ran.
    pub checks: Vec<CheckResult>,
    /// How an NFS target was verified.
    pub mode: Option<MountMode>,
    /// What was measured.
    pub capacity: Option<Capacity>,
    /// Facts about a bucket.
    pub bucket: Option<BucketFacts>,
}

/// Why a target was not detached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DetachError {
    /// Something on this host uses it, and its server is alive.
    Busy,
    /// It could not be done; the finding says why.
    Failed(Finding),
}

/// One target's kind-specific work.
#[async_trait]
pub trait Driver: Send {
    /// Verifies the target, attaching it first where that is part of verifying it. Ends within
    /// the deadlines of the settings whatever the storage does, and is safe to drop at any await.
    async fn probe(&mut self, settings: &AgentSettings) -> Probe;

    /// Takes down what [`Self::probe`] put up on this host. Bounded like a probe. Returns a
    /// sentence when it was not done the plain way.
    ///
    /// # Errors
    /// [`DetachError`] when it is still up.
    async fn detach(&mut self, settings: &AgentSettings) -> Result<Option<String>, DetachError>;
}
