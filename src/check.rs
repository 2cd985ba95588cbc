//! Checks: one named thing verified about a target, one file each.
//!
//! A check is an async function that asks the storage one question and gives a [`Checked`]: a
//! failure is data, with a reason and a sentence, never an `Err`. A driver runs the checks of its
//! kind in order through a [`CheckLog`], which times them and stops asking once an answer made
//! the next question pointless. To add a check: a file here, a [`CheckName`], and a line in the
//! driver that wants it.

pub mod bucket;
pub mod canary;
pub mod capacity;
pub mod exported;
#[cfg(test)]
pub(crate) mod fake;
pub mod lock_proof;
pub mod mount_capacity;
pub mod mount_place;
pub mod mount_traffic;
pub mod mounted;
pub mod nfs_reachable;
pub mod object_canary;
pub mod object_lock;
pub mod server_addresses;
pub mod storage_failure;
pub mod tcp_reachable;
pub mod usage_listing;
pub mod versioning;
pub mod write_canary;

use std::future::Future;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::model::report::Finding;
use crate::model::{CheckName, CheckResult, Outcome, Reason};

/// What a check found: an outcome, and a fact of type `T`. A check that passed always has one, on
/// which later checks build; one that failed has it only if that is what was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked<T = ()> {
    outcome: Outcome,
    finding: Option<Finding>,
    detail: Option<String>,
    fact: Option<T>,
}

impl<T> Checked<T> {
    /// Verified.
    pub fn passed(fact: T) -> Self {
        Self { outcome: Outcome::Passed, finding: None, detail: None, fact: Some(fact) }
    }

    /// Verified to be wrong.
    #[must_use]
    pub fn failed(finding: Finding) -> Self {
        Self { outcome: Outcome::Failed, finding: Some(finding), detail: None, fact: None }
    }

    /// No answer within the deadline.
    #[must_use]
    pub fn timed_out(finding: Finding) -> Self {
        Self { outcome: Outcome::TimedOut, finding: Some(finding), detail: None, fact: None }
    }

    /// Not tried, though it should be: a warning.
    #[must_use]
    pub fn skipped(finding: Finding) -> Self {
        Self { outcome: Outcome::Skipped, finding: Some(finding), detail: None, fact: None }
    }

    /// Not found out, and this target does not need it.
    #[must_use]
    pub fn not_needed(why: impl Into<String>) -> Self {
        Self { outcome: Outcome::Skipped, finding: None, detail: Some(why.into()), fact: None }
    }

    /// Adds a reservation: a check that passed with one is a warning.
    #[must_use]
    pub fn warning(mut self, finding: Option<Finding>) -> Self {
        self.finding = self.finding.or(finding);
        self
    }

    /// Adds the fact to a check that failed because of what it learnt: it is known all the same.
    #[must_use]
    pub fn learnt(mut self, fact: T) -> Self {
        self.fact = Some(fact);
        self
    }

    /// Adds a fact for the reader of the report.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds when what it says was learnt, where that was not just now.
    #[must_use]
    pub fn as_of(self, at: Timestamp) -> Self {
        let before = self.detail.as_ref().map(|detail| format!("{detail}, ")).unwrap_or_default();
        self.detail(format!("{before}as read at {at:.0}"))
    }

    /// The fact, or the same failure as another check's.
    ///
    /// # Errors
    /// With what it was instead, when it did not pass.
    pub fn into_fact<U>(self) -> Result<T, Checked<U>> {
        let Self { outcome, finding, detail, fact } = self;
        match fact {
            Some(fact) if outcome == Outcome::Passed => Ok(fact),
            _ => Err(Checked { outcome, finding, detail, fact: None }),
        }
    }

    /// What came of it.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The reason code, if it did not simply pass.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        self.finding.as_ref().map(|finding| finding.reason)
    }

    /// The finding, if it did not simply pass.
    #[must_use]
    pub fn finding(&self) -> Option<&Finding> {
        self.finding.as_ref()
    }
}

/// The checks of one probe, in order, each timed.
#[derive(Debug)]
pub struct CheckLog {
    slow_after: Duration,
    results: Vec<CheckResult>,
}

impl CheckLog {
    /// An empty log; a passing check that takes longer than `slow_after` is a warning.
    #[must_use]
    pub fn new(slow_after: Duration) -> Self {
        Self { slow_after, results: Vec::new() }
    }

    /// Runs a check and records it. Returns its fact, which it has when it passed.
    pub async fn run<T>(&mut self, check: CheckName, checked: impl Future<Output = Checked<T>>) -> Option<T> {
        let began = Instant::now();
        let Checked { outcome, mut finding, detail, fact } = checked.await;
        let duration = began.elapsed();
        if outcome == Outcome::Passed && finding.is_none() && duration > self.slow_after {
            finding = Some(Finding::new(
                Reason::Slow,
                format!(
                    "{check} passed but took {} ms, more than the {} ms of [probe] slow_after: look at the load of the storage and of the network to it",
                    duration.as_millis(),
                    self.slow_after.as_millis()
                ),
            ));
        }
        self.results.push(CheckResult { check, outcome, finding, detail, duration });
        fact
    }

    /// Why the latest check failed, if it did.
    #[must_use]
    pub fn latest_failure(&self) -> Option<&Finding> {
        let latest = self.results.last().filter(|result| result.outcome != Outcome::Passed)?;
        latest.finding.as_ref()
    }

    /// Whether a check so far did not pass.
    #[must_use]
    pub fn has_failure(&self) -> bool {
        self.results.iter().any(|result| matches!(result.outcome, Outcome::Failed | Outcome::TimedOut))
    }

    /// Takes back a check and everything after it, to do them again.
    pub fn take_back(&mut self, check: CheckName) {
        if let Some(at) = self.results.iter().position(|result| result.check == check) {
            self.results.truncate(at);
        }
    }

    /// Records a check that is not due now, and why.
    pub fn skip(&mut self, check: CheckName, detail: String) {
        let (outcome, finding, detail, duration) = (Outcome::Skipped, None, Some(detail), Duration::ZERO);
        self.results.push(CheckResult { check, outcome, finding, detail, duration });
    }

    /// Records checks that an earlier failure made pointless.
    pub fn skip_after_failure(&mut self, checks: &[CheckName]) {
        let failed = self
            .results
            .iter()
            .find(|result| matches!(result.outcome, Outcome::Failed | Outcome::TimedOut))
            .map_or("an earlier check", |result| result.check.as_str());
        for &check in checks {
            let finding = Finding::new(Reason::EarlierCheckFailed, format!("not tried, because {failed} did not pass"));
            let finding = Some(finding);
            self.results.push(CheckResult {
                check,
                outcome: Outcome::Skipped,
                finding,
                detail: None,
                duration: Duration::ZERO,
            });
        }
    }

    /// The results so far.
    #[must_use]
    pub fn into_results(self) -> Vec<CheckResult> {
        self.results
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_pass_is_a_warning_and_a_failure_names_what_it_prevents() {
        let mut log = CheckLog::new(Duration::ZERO);
        assert_eq!(log.run(CheckName::Reachable, async { Checked::passed(7) }).await, Some(7));
        let failed = Checked::<()>::failed(Finding::new(Reason::ExportDenied, "no"));
        assert_eq!(log.run(CheckName::Exported, async { failed }).await, None);
        let failed = Checked::failed(Finding::new(Reason::VersioningDisabled, "no")).learnt(7);
        assert_eq!(log.run(CheckName::Versioning, async { failed }).await, Some(7));
        log.skip_after_failure(&[CheckName::Capacity]);
        let results = log.into_results();
        assert_eq!(results[0].finding.as_ref().map(|finding| finding.reason), Some(Reason::Slow));
        assert!(results[0].is_warning());
        assert_eq!(results[2].outcome, Outcome::Failed);
        assert_eq!(results[3].outcome, Outcome::Skipped);
        assert!(results[3].finding.as_ref().is_some_and(|finding| finding.message.contains("exported")));
    }
}
