//! Result of one check.

use jiff::Timestamp;

use crate::model::report::Finding;
use crate::model::{Outcome, Reason};

/// Result of a check: an outcome, its findings, and a fact of type `T`. A check that passed always has a
/// fact, which later checks use. A check that failed has a fact only if that fact is the problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked<T = ()> {
    pub(super) outcome: Outcome,
    pub(super) findings: Vec<Finding>,
    pub(super) detail: Option<String>,
    pub(super) fact: Option<T>,
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
        self.also(format!("as read at {at:.0}"))
    }

    /// Adds to the detail which node read the fact, and when.
    #[must_use]
    pub fn read_by(self, node: &str, at: Timestamp) -> Self {
        self.also(format!("as read by the node {node} at {at:.0}"))
    }

    fn also(self, more: String) -> Self {
        let before = self.detail.as_ref().map(|detail| format!("{detail}, ")).unwrap_or_default();
        self.detail(before + &more)
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

#[cfg(test)]
mod tests {
    use super::*;

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
