//! Checks. Each verifies one named property of a target and has its own file.
//!
//! A check is an async function that asks the storage one question and returns a [`Checked`]. A failed
//! check is data, with a reason code and a sentence, and never an `Err`. A check keeps every problem that it
//! finds, as a list of findings. A driver declares its checks as a plan, and runs them through a
//! [`CheckLog`]. The log times them. Checks that did not run because of an earlier failure are reported as skipped.
//!
//! To add a check: a file here, a [`CheckName`], and an entry in the plan of each driver that runs it.

pub mod bucket;
pub mod canary;
pub mod capacity;
pub mod expected_mount;
pub mod exported;
#[cfg(test)]
pub(crate) mod fake;
pub mod lock_proof;
pub mod mount_capacity;
mod mount_failure;
pub mod mount_host;
pub mod mount_traffic;
pub mod mounted;
pub mod nfs_reachable;
pub mod object_canary;
pub mod object_lock;
pub mod own_mounts;
pub mod server_addresses;
pub mod storage_failure;
pub mod tcp_reachable;
pub mod usage_listing;
pub mod versioning;
pub mod visible;
pub mod write_canary;

use std::future::Future;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::model::report::{Finding, Scope, finding};
use crate::model::{CheckName, CheckResult, Outcome, Reason};

/// Result of a check: an outcome, its findings, and a fact of type `T`. A check that passed always has a
/// fact, which later checks use. A check that failed has a fact only if that fact is the problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked<T = ()> {
    outcome: Outcome,
    findings: Vec<Finding>,
    detail: Option<String>,
    fact: Option<T>,
}

impl<T> Checked<T> {
    fn new(outcome: Outcome, findings: Vec<Finding>) -> Self {
        Self { outcome, findings, detail: None, fact: None }
    }

    /// A check that passed.
    pub fn passed(fact: T) -> Self {
        Self::new(Outcome::Passed, Vec::new()).with_fact(fact)
    }

    /// A check that found a definite problem.
    #[must_use]
    pub fn failed(finding: Finding) -> Self {
        Self::new(Outcome::Failed, vec![finding])
    }

    /// A check that got no answer within its deadline.
    #[must_use]
    pub fn timed_out(finding: Finding) -> Self {
        Self::new(Outcome::TimedOut, vec![finding])
    }

    /// A check that should have run but did not, which is a warning.
    #[must_use]
    pub fn skipped(finding: Finding) -> Self {
        Self::new(Outcome::Skipped, vec![finding.into_warning()])
    }

    /// A check that got no answer, on a target that does not need one.
    #[must_use]
    pub fn not_needed(why: impl Into<String>) -> Self {
        Self::new(Outcome::Skipped, Vec::new()).detail(why)
    }

    /// Adds warnings. They do not change the outcome.
    #[must_use]
    pub fn with_warnings(mut self, findings: impl IntoIterator<Item = Finding>) -> Self {
        self.findings.extend(findings.into_iter().map(Finding::into_warning));
        self
    }

    /// Adds the findings of another part of the same check. The check fails if either part failed. Otherwise it times
    /// out if either part timed out.
    #[must_use]
    pub fn and<U>(mut self, part: Checked<U>) -> Self {
        self.findings.extend(part.findings);
        let worst = [Outcome::Failed, Outcome::TimedOut];
        let worst = worst.into_iter().find(|outcome| [self.outcome, part.outcome].contains(outcome));
        self.outcome = worst.unwrap_or(self.outcome);
        self
    }

    /// Adds the fact to a check that failed because of that fact.
    #[must_use]
    pub fn with_fact(mut self, fact: T) -> Self {
        self.fact = Some(fact);
        self
    }

    /// Converts the fact.
    pub fn map<U>(self, convert: impl FnOnce(T) -> U) -> Checked<U> {
        let Self { outcome, findings, detail, fact } = self;
        Checked { outcome, findings, detail, fact: fact.map(convert) }
    }

    /// Adds a fact for the reader of the report.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds to the detail when the fact was read, for a fact from a cache.
    #[must_use]
    pub fn read_at(self, at: Timestamp) -> Self {
        let before = self.detail.as_ref().map(|detail| format!("{detail}, ")).unwrap_or_default();
        self.detail(format!("{before}as read at {at:.0}"))
    }

    /// Returns the fact of a check that passed.
    ///
    /// # Errors
    /// The check with the same outcome and findings, as another type, when it did not pass.
    pub fn into_fact<U>(self) -> Result<T, Checked<U>> {
        let Self { outcome, findings, detail, fact } = self;
        match fact {
            Some(fact) if outcome == Outcome::Passed => Ok(fact),
            _ => Err(Checked { outcome, findings, detail, fact: None }),
        }
    }

    /// The outcome.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The findings, in the order in which they were added.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The first finding.
    #[must_use]
    pub fn finding(&self) -> Option<&Finding> {
        self.findings.first()
    }

    /// The reason code of the first finding.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        self.finding().map(|finding| finding.reason)
    }
}

/// The results of the checks of one probe, each with its duration.
#[derive(Debug)]
pub struct CheckLog {
    plan: &'static [CheckName],
    slow_after: Duration,
    /// Scope of the checks that may be recorded now. `None` for a driver that is not split by scope.
    scope: Option<Scope>,
    results: Vec<CheckResult>,
}

impl CheckLog {
    /// An empty log of the checks in `plan`, in the order of the report. A check that passes and takes longer
    /// than `slow_after` gets a warning.
    #[must_use]
    pub fn new(plan: &'static [CheckName], slow_after: Duration) -> Self {
        Self { plan, slow_after, scope: None, results: Vec::with_capacity(plan.len()) }
    }

    /// Returns the log for the checks of one scope. Recording another check is then a defect.
    pub fn of(&mut self, scope: Scope) -> &mut Self {
        self.scope = Some(scope);
        self
    }

    /// Runs a check and records its result. Returns its fact.
    pub async fn run<T>(&mut self, check: CheckName, checked: impl Future<Output = Checked<T>>) -> Option<T> {
        let began = Instant::now();
        let mut checked = checked.await;
        let duration = began.elapsed();
        if checked.outcome == Outcome::Passed && duration > self.slow_after {
            checked = checked.with_warnings([slow(check, duration, self.slow_after)]);
        }
        self.record(check, checked, duration)
    }

    /// Records a check that is not due now, and why.
    pub fn skip(&mut self, check: CheckName, why: impl Into<String>) {
        self.record(check, Checked::<()>::not_needed(why), Duration::ZERO);
    }

    fn record<T>(&mut self, check: CheckName, checked: Checked<T>, duration: Duration) -> Option<T> {
        debug_assert!(self.plan.contains(&check), "{check} is not in the plan {:?}", self.plan);
        debug_assert!(self.scope.is_none_or(|scope| scope == check.scope()), "{check} is not of {:?}", self.scope);
        let Checked { outcome, findings, detail, fact } = checked;
        let mut result = CheckResult::new(check, outcome, findings, duration);
        result.detail = detail;
        self.results.push(result);
        fact
    }

    /// Whether the latest check failed with this reason.
    #[must_use]
    pub fn just_failed_with(&self, reason: Reason) -> bool {
        let latest = self.results.last().filter(|result| result.is_failure());
        latest.is_some_and(|result| result.findings().iter().any(|finding| finding.reason == reason))
    }

    /// Returns the detail of a check that ran.
    #[must_use]
    pub fn detail(&self, check: CheckName) -> Option<&str> {
        self.results.iter().find(|result| result.check == check)?.detail.as_deref()
    }

    /// Whether a check failed or timed out.
    #[must_use]
    pub fn has_failure(&self) -> bool {
        self.results.iter().any(CheckResult::is_failure)
    }

    /// Drops the results of a check and of all later ones, so that they can run again.
    pub fn drop_from(&mut self, check: CheckName) {
        if let Some(at) = self.results.iter().position(|result| result.check == check) {
            self.results.truncate(at);
        }
    }

    /// Ends the log. Returns one result for each check of the plan, in its order. A check that did not run is
    /// `skipped` with [`Reason::EarlierCheckFailed`].
    #[must_use]
    pub fn finish(mut self) -> Vec<CheckResult> {
        let not_run = match self.results.iter().find(|result| result.is_failure()) {
            Some(failed) => {
                finding!(Reason::EarlierCheckFailed, "not run, because the check {} did not pass", failed.check)
            }
            None => Finding::new(Reason::AgentError, "not run, and no check failed: this is a defect of the agent")
                .into_warning(),
        };
        let mut results = Vec::with_capacity(self.plan.len());
        for &check in self.plan {
            let result = self.results.iter().position(|result| result.check == check);
            results.push(match result {
                Some(at) => self.results.swap_remove(at),
                None => CheckResult::new(check, Outcome::Skipped, vec![not_run.clone()], Duration::ZERO),
            });
        }
        results
    }
}

fn slow(check: CheckName, duration: Duration, slow_after: Duration) -> Finding {
    finding!(
        Reason::Slow,
        "{check} passed but took {} ms, more than the {} ms of [probe] slow_after: look at the load of the storage and of the network to it",
        duration.as_millis(),
        slow_after.as_millis()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::report::Severity;

    const PLAN: &[CheckName] = &[CheckName::Reachable, CheckName::Bucket, CheckName::Versioning, CheckName::Capacity];

    fn reasons(findings: &[Finding]) -> Vec<Reason> {
        findings.iter().map(|finding| finding.reason).collect()
    }

    #[tokio::test]
    async fn checks_not_run_are_skipped_in_plan_order_and_name_the_failed_check() {
        let mut log = CheckLog::new(PLAN, Duration::MAX);
        assert_eq!(log.run(CheckName::Reachable, async { Checked::passed(7) }).await, Some(7));
        let failed = Checked::failed(Finding::new(Reason::VersioningDisabled, "no")).with_fact(7);
        assert_eq!(log.run(CheckName::Versioning, async { failed }).await, Some(7));
        assert!(log.has_failure() && log.just_failed_with(Reason::VersioningDisabled));
        let results = log.finish();
        assert_eq!(results.iter().map(|result| result.check).collect::<Vec<_>>(), PLAN);
        for skipped in [&results[1], &results[3]] {
            assert_eq!(skipped.outcome, Outcome::Skipped);
            assert_eq!(reasons(skipped.findings()), [Reason::EarlierCheckFailed]);
            assert!(skipped.findings()[0].message.contains("the check versioning did not pass"));
        }
    }

    #[tokio::test]
    async fn check_not_run_without_a_failure_is_reported_as_a_defect() {
        let mut log = CheckLog::new(&PLAN[..2], Duration::MAX);
        log.skip(CheckName::Reachable, "not due");
        let results = log.finish();
        assert_eq!((results[0].outcome, results[0].findings().len()), (Outcome::Skipped, 0));
        assert_eq!(reasons(results[1].findings()), [Reason::AgentError]);
        assert_eq!(results[1].findings()[0].severity, Severity::Warning);
    }

    #[tokio::test]
    #[should_panic(expected = "capacity is not in the plan")]
    async fn check_outside_the_plan_is_a_defect() {
        CheckLog::new(&[CheckName::Reachable], Duration::MAX).skip(CheckName::Capacity, "not due");
    }

    #[tokio::test]
    #[should_panic(expected = "bucket is not of Some(Target)")]
    async fn check_of_another_scope_is_a_defect() {
        CheckLog::new(PLAN, Duration::MAX).of(Scope::Target).skip(CheckName::Bucket, "not due");
    }

    #[tokio::test]
    async fn slow_pass_is_a_warning_besides_other_warnings() {
        let mut log = CheckLog::new(&[CheckName::Capacity], Duration::ZERO);
        let full = Checked::passed(()).with_warnings([Finding::new(Reason::NearlyFull, "full")]);
        log.run(CheckName::Capacity, async { full }).await;
        let results = log.finish();
        assert_eq!(reasons(results[0].findings()), [Reason::NearlyFull, Reason::Slow]);
        assert!(results[0].findings().iter().all(|finding| finding.severity == Severity::Warning));
    }

    #[test]
    fn parts_of_a_check_keep_all_findings_and_the_worst_outcome() {
        let warned = Checked::passed(()).with_warnings([Finding::new(Reason::MountStacked, "two")]);
        let late = Checked::<()>::timed_out(Finding::new(Reason::ServerMoved, "late"));
        let failed = Checked::<()>::failed(Finding::new(Reason::ReadOnly, "ro"));
        let timed_out = warned.and(late);
        assert_eq!(timed_out.outcome(), Outcome::TimedOut);
        for worst in [timed_out.clone().and(failed.clone()), failed.and(timed_out)] {
            assert_eq!((worst.outcome(), worst.findings().len()), (Outcome::Failed, 3));
        }
        assert_eq!(Checked::passed(()).and(Checked::passed(())).outcome(), Outcome::Passed);
    }
}
