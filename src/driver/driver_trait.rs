//! What the driver of each kind does: [`Driver`].

use std::time::Duration;

use async_trait::async_trait;

use crate::model::report::{Finding, KindFacts};
use crate::model::settings::AgentSettings;
use crate::model::{Capacity, CheckName, CheckResult, Outcome, Reason};

/// Result of one probe.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Probe {
    /// One result for each check of the plan, in its order.
    pub checks: Vec<CheckResult>,
    /// Measured capacity, if the check `capacity` got an answer.
    pub capacity: Option<Capacity>,
    /// Facts that only this kind of target has.
    pub facts: Option<KindFacts>,
}

impl Probe {
    /// The result of a probe that panicked. After a defect of the agent the previous verdict must not stay in force.
    pub(crate) fn panicked() -> Self {
        let finding = Finding::new(
            Reason::AgentError,
            "the probe panicked, which is a defect of the agent: report it with the source line from the agent's log",
        );
        // Every plan begins with this check.
        let check = CheckResult::new(CheckName::Reachable, Outcome::Failed, vec![finding], Duration::ZERO);
        Self { checks: vec![check], ..Self::default() }
    }
}

/// Why a target could not be detached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DetachError {
    /// A process on this host uses the mount, and the server is alive.
    #[error("a process on this host uses it: find it with `fuser -vm` on the mount path")]
    Busy,
    /// Detaching failed.
    #[error("{}", .0.message)]
    Failed(Finding),
}

/// How much a probe verifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Checks that are due. Expensive checks have their own intervals.
    Routine,
    /// Every check, for a requested probe.
    Full,
}

/// Kind-specific work for one target.
#[async_trait]
pub trait Driver: Send {
    /// Verifies the target. A kind that is attached to the host, such as a mount, is attached first. Ends within the
    /// deadlines of the settings whatever the storage does. Dropping the future at any await is safe.
    async fn probe(&mut self, settings: &AgentSettings, depth: Depth) -> Probe;

    /// Time from the start of one routine probe to the next.
    fn interval(&self, settings: &AgentSettings) -> Duration;

    /// Time between two canaries, which prove that backups can be written. `None` if it writes none.
    fn canary_interval(&self, _settings: &AgentSettings) -> Option<Duration> {
        None
    }

    /// Called when the settings differ from those of the latest probe.
    fn settings_changed(&mut self) {}

    /// Time until the driver must continue work that it began, such as a lock proof. `None` if the
    /// next routine probe is soon enough.
    fn next_due(&self) -> Option<Duration> {
        None
    }

    /// Waits until the latest report is outdated, for example because the target was unmounted. Returns at once if it
    /// already is. The default never returns: for most kinds, this host does not notice changes. Dropping the future is
    /// safe.
    async fn outdated(&mut self, _settings: &AgentSettings) {
        std::future::pending().await
    }

    /// Whether something is attached at the target's path on this host. Answers from memory.
    fn is_attached(&self, _settings: &AgentSettings) -> bool {
        false
    }

    /// Undoes what [`Self::probe`] did on this host and in the storage: unmounts, and removes canaries. Bounded like a
    /// probe. Returns a remark if a plain unmount was not enough or if something remains.
    ///
    /// # Errors
    /// [`DetachError`] when the target is still attached.
    async fn detach(&mut self, settings: &AgentSettings) -> Result<Option<String>, DetachError>;
}
