//! Report: the result of one probe of one target on this node.
//!
//! A probe runs checks in order ([`CheckResult`]). A failed check is data, not an error. The verdict follows
//! from the checks alone ([`Verdict::of`]). The agent adds hysteresis to the verdict, which gives the status
//! that the API shows.

use std::time::Duration;

use jiff::Timestamp;

use super::capacity::Capacity;
use super::reason::Reason;
use super::target::TargetId;

pub(crate) mod check_result;
mod kind_facts;
mod lock_proof;

pub(crate) use check_result::finding;
pub use check_result::{CheckName, CheckResult, FINDINGS_MAX, Finding, Outcome, Scope, Severity};
pub use kind_facts::{
    BucketFacts, CertificateEnd, HOST_VIEWER, InUseFacts, KindFacts, MountFacts, MountTraffic, MountViewer,
    RequestCount,
};
pub use lock_proof::{LockMode, LockProof, LockProofState, LockVerdict, ProofVerdict};

named! {
    /// Whether a backup can be written to a target from this node.
    Status {
        /// It can. Checked on this host, end to end.
        Available => "available",
        /// It cannot, or it is not known.
        Offline => "offline",
    }
}

named! {
    /// A [`Verdict`] without its finding.
    ProbeVerdict {
        /// Every check that was due passed.
        Available => "available",
        /// A check found a definite error.
        Failed => "failed",
        /// A check got no answer in time.
        TimedOut => "timed_out",
    }
}

/// Verdict of one probe, without hysteresis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every check that was due passed.
    Available {
        /// The most severe warning, if any. A hard mount is reported only if there is no other warning.
        warning: Option<Finding>,
    },
    /// A check found a definite error.
    Failed(Finding),
    /// A check got no answer in time.
    TimedOut(Finding),
}

impl Verdict {
    /// Returns the verdict of a probe, which follows from its first check that did not pass. A skipped check does not
    /// make a target offline, but a probe without any passed check proves nothing.
    #[must_use]
    pub fn of(checks: &[CheckResult]) -> Self {
        let missing =
            || Finding::new(Reason::AgentError, "the check gave no reason, which is a defect of the agent: report it");
        for result in checks {
            let finding = || result.findings().first().cloned().unwrap_or_else(missing);
            match result.outcome {
                Outcome::Failed => return Self::Failed(finding()),
                Outcome::TimedOut => return Self::TimedOut(finding()),
                Outcome::Passed | Outcome::Skipped => {}
            }
        }
        if !checks.iter().any(|result| result.outcome == Outcome::Passed) {
            return Self::Failed(Finding::new(Reason::NotChecked, "no check of this target has run yet"));
        }
        let findings = checks.iter().flat_map(CheckResult::findings);
        let warnings = findings.filter(|finding| finding.severity == Severity::Warning);
        Self::Available { warning: warnings.min_by_key(|finding| finding.rank()).cloned() }
    }

    /// The status that this verdict alone would give.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Available { .. } => Status::Available,
            Self::Failed(_) | Self::TimedOut(_) => Status::Offline,
        }
    }

    /// The verdict without its finding.
    #[must_use]
    pub fn kind(&self) -> ProbeVerdict {
        match self {
            Self::Available { .. } => ProbeVerdict::Available,
            Self::Failed(_) => ProbeVerdict::Failed,
            Self::TimedOut(_) => ProbeVerdict::TimedOut,
        }
    }

    /// The failure, or the most severe warning.
    #[must_use]
    pub fn finding(&self) -> Option<&Finding> {
        match self {
            Self::Available { warning } => warning.as_ref(),
            Self::Failed(finding) | Self::TimedOut(finding) => Some(finding),
        }
    }
}

/// Result of one probe of one target on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The target.
    pub target_id: TargetId,
    /// When the probe ended.
    pub checked_at: Timestamp,
    /// Duration of the probe.
    pub duration: Duration,
    /// Verdict of the checks.
    pub verdict: Verdict,
    /// Measured capacity, if the capacity check got an answer.
    pub capacity: Option<Capacity>,
    /// Time until the target is full, estimated from the growth of the last days. `None` if that is not known.
    pub time_to_full: Option<Duration>,
    /// Facts that only this kind of target has. `None` when the probe panicked.
    pub facts: Option<KindFacts>,
    /// One result for each check of the plan, in its order.
    pub checks: Vec<CheckResult>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(outcome: Outcome, reason: Option<Reason>) -> CheckResult {
        let finding = reason.map(|reason| Finding::new(reason, "why"));
        let is_warning = outcome == Outcome::Passed || outcome == Outcome::Skipped;
        let finding = finding.map(|finding| if is_warning { finding.into_warning() } else { finding });
        CheckResult::new(CheckName::Capacity, outcome, finding.into_iter().collect(), Duration::ZERO)
    }

    #[test]
    fn first_check_that_did_not_pass_decides_the_verdict() {
        let passed = result(Outcome::Passed, None);
        let stale = result(Outcome::Failed, Some(Reason::StaleHandle));
        let late = result(Outcome::TimedOut, Some(Reason::StorageTimedOut));
        let verdict = Verdict::of(&[passed.clone(), late.clone(), stale.clone()]);
        assert!(matches!(&verdict, Verdict::TimedOut(finding) if finding.reason == Reason::StorageTimedOut));
        let verdict = Verdict::of(&[passed, stale, late]);
        assert!(matches!(&verdict, Verdict::Failed(finding) if finding.reason == Reason::StaleHandle));
        assert_eq!(verdict.status(), Status::Offline);
    }

    #[test]
    fn warning_leaves_a_target_available_and_is_reported() {
        let verdict = Verdict::of(&[result(Outcome::Passed, None), result(Outcome::Passed, Some(Reason::NearlyFull))]);
        assert_eq!(verdict.status(), Status::Available);
        assert_eq!(verdict.finding().map(|finding| finding.reason), Some(Reason::NearlyFull));
    }

    #[test]
    fn hard_mount_hides_no_other_warning() {
        let [hard, full] = [Reason::HardMount, Reason::NearlyFull].map(|reason| result(Outcome::Passed, Some(reason)));
        for (checks, expected) in [(vec![hard.clone(), full], Reason::NearlyFull), (vec![hard], Reason::HardMount)] {
            assert_eq!(Verdict::of(&checks).finding().map(|finding| finding.reason), Some(expected));
        }
    }

    #[test]
    fn skipped_check_is_a_warning_only_with_a_reason() {
        for reason in [None, Some(Reason::AccessDenied)] {
            let verdict = Verdict::of(&[result(Outcome::Passed, None), result(Outcome::Skipped, reason)]);
            assert_eq!(verdict.status(), Status::Available);
            assert_eq!(verdict.finding().map(|finding| finding.reason), reason);
        }
    }

    #[test]
    fn target_is_offline_when_no_check_passed() {
        assert_eq!(Verdict::of(&[]).status(), Status::Offline);
        assert_eq!(Verdict::of(&[result(Outcome::Skipped, Some(Reason::NotChecked))]).status(), Status::Offline);
    }
}
