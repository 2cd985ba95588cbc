//! Results of the checks of one probe.

use std::future::Future;
use std::time::{Duration, Instant};

use super::checked::Checked;
use crate::model::report::{Finding, Scope, finding};
use crate::model::{CheckName, CheckResult, Outcome, Reason};

/// The results of the checks of one probe, each with its duration.
#[derive(Debug)]
pub struct CheckLog {
    plan: Vec<CheckName>,
    slow_after: Duration,
    /// Scope of the checks that may be recorded now. `None` for a driver that is not split by scope.
    scope: Option<Scope>,
    results: Vec<CheckResult>,
}

impl CheckLog {
    /// An empty log of the checks in `plan`, in the order of the report. A check that accesses storage, passes and
    /// takes longer than `slow_after` gets a warning.
    #[must_use]
    pub fn new(plan: impl Into<Vec<CheckName>>, slow_after: Duration) -> Self {
        let plan = plan.into();
        Self { slow_after, scope: None, results: Vec::with_capacity(plan.len()), plan }
    }

    /// Returns the log for the checks of one scope. Recording another check is then a defect.
    pub fn of(&mut self, scope: Scope) -> &mut Self {
        self.scope = Some(scope);
        self
    }

    /// Runs a check and records its result. Returns its fact.
    pub fn run<T>(
        &mut self,
        check: CheckName,
        checked: impl Future<Output = Checked<T>>,
    ) -> impl Future<Output = Option<T>> {
        // Boxed, so that only the check in progress takes memory. Otherwise the future of a probe would contain all its
        // checks, and each twice: an `async fn` stores a future that it awaits as an argument and as a local.
        let checked = Box::pin(checked);
        async move {
            let began = Instant::now();
            let mut checked = checked.await;
            let duration = began.elapsed();
            if checked.outcome == Outcome::Passed && duration > self.slow_after && check.is_timed() {
                checked = checked.with_warnings([slow(check, duration, self.slow_after)]);
            }
            self.record(check, checked, duration)
        }
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

    /// Records a result of an earlier probe.
    pub fn repeat(&mut self, result: CheckResult) {
        debug_assert!(self.plan.contains(&result.check), "{} is not in the plan {:?}", result.check, self.plan);
        self.results.push(result);
    }

    /// The results so far.
    #[must_use]
    pub fn results(&self) -> &[CheckResult] {
        &self.results
    }

    /// The reason of the first check that failed or timed out.
    #[must_use]
    pub fn failure_reason(&self) -> Option<Reason> {
        self.results.iter().find(|result| result.is_failure())?.findings().first().map(|finding| finding.reason)
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
        for check in self.plan {
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
        CheckLog::new([CheckName::Reachable], Duration::MAX).skip(CheckName::Capacity, "not due");
    }

    #[tokio::test]
    #[should_panic(expected = "bucket is not of Some(Target)")]
    async fn check_of_another_scope_is_a_defect() {
        CheckLog::new(PLAN, Duration::MAX).of(Scope::Target).skip(CheckName::Bucket, "not due");
    }

    #[tokio::test]
    async fn slow_pass_is_a_warning_besides_other_warnings() {
        let mut log = CheckLog::new([CheckName::Capacity], Duration::ZERO);
        let full = Checked::passed(()).with_warnings([Finding::new(Reason::NearlyFull, "full")]);
        log.run(CheckName::Capacity, async { full }).await;
        let results = log.finish();
        assert_eq!(reasons(results[0].findings()), [Reason::NearlyFull, Reason::Slow]);
        assert!(results[0].findings().iter().all(|finding| finding.severity == Severity::Warning));
    }
}
