//! Record of a target's probes so far, for its metrics: reasons, transitions and the latest canary.
//!
//! A report describes only the latest probe. When a reason ends, its metric must become 0: if the series disappeared,
//! its alert would end only when the series is stale. So the record keeps past reasons, bounded by [`REASONS_MAX`]. It
//! starts empty when the agent starts and when the storage of the target changes.

use std::time::Duration;

use jiff::Timestamp;

use crate::model::report::Severity;
use crate::model::{CheckName, Outcome, Reason, Report, Status};

/// Largest number of reasons that are kept of one target. Reasons that have ended are dropped first, the oldest before
/// the others.
pub const REASONS_MAX: usize = 16;

/// A reason that a probe found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordedReason {
    /// The check that found it.
    pub check: CheckName,
    /// The reason.
    pub reason: Reason,
    /// Whether it was the failure of the probe, or a warning.
    pub severity: Severity,
    /// Whether the latest probe found it.
    pub is_current: bool,
}

/// Times between the probes of a target, as configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intervals {
    /// Time from the start of one routine probe to the next.
    pub probe: Duration,
    /// Time between two canaries. `None` if none is written.
    pub canary: Option<Duration>,
}

/// Record of a target's probes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProbeRecord {
    /// Intervals at the latest probe. `None` before the first one.
    pub intervals: Option<Intervals>,
    /// Reasons, in the order in which probes last found them.
    pub reasons: Vec<RecordedReason>,
    /// Number of changes from offline to available. The first verdict is not a change.
    pub became_available: u64,
    /// Number of changes from available to offline.
    pub became_offline: u64,
    /// When the probe ended that wrote and read back the latest canary, by this host's clock.
    pub canary_at: Option<Timestamp>,
}

impl ProbeRecord {
    /// Returns the record after one more report. `from` is the status before, or `None` before the first verdict, and
    /// `to` the status after.
    #[must_use]
    pub fn after(&self, report: &Report, intervals: Intervals, from: Option<Status>, to: Status) -> Self {
        let changed_to = |status| u64::from(to == status && from.is_some_and(|from| from != to));
        let wrote_canary = (CheckName::WriteCanary, Outcome::Passed);
        let wrote = report.checks.iter().any(|result| (result.check, result.outcome) == wrote_canary);
        Self {
            intervals: Some(intervals),
            reasons: self.reasons_after(report),
            became_available: self.became_available + changed_to(Status::Available),
            became_offline: self.became_offline + changed_to(Status::Offline),
            canary_at: if wrote { Some(report.checked_at) } else { self.canary_at },
        }
    }

    fn reasons_after(&self, report: &Report) -> Vec<RecordedReason> {
        let current = current_reasons(report);
        let same = |one: &RecordedReason, other: &RecordedReason| {
            (one.check, one.reason, one.severity) == (other.check, other.reason, other.severity)
        };
        let past = self.reasons.iter().filter(|past| !current.iter().any(|now| same(past, now)));
        let past: Vec<_> = past.map(|past| RecordedReason { is_current: false, ..*past }).collect();
        let dropped = (past.len() + current.len()).saturating_sub(REASONS_MAX);
        past.into_iter().skip(dropped).chain(current).collect()
    }
}

/// Returns the failure that decided the verdict, and all warnings, each once. At most [`REASONS_MAX`].
fn current_reasons(report: &Report) -> Vec<RecordedReason> {
    let failed = report.checks.iter().find(|result| result.is_failure());
    let failure = failed.and_then(|result| Some((result.check, result.findings().first()?)));
    let all = report.checks.iter().flat_map(|result| result.findings().iter().map(|finding| (result.check, finding)));
    let warnings = all.filter(|(_, finding)| finding.severity == Severity::Warning);
    let mut reasons: Vec<RecordedReason> = Vec::new();
    for (check, finding) in failure.into_iter().chain(warnings) {
        let found = RecordedReason { check, reason: finding.reason, severity: finding.severity, is_current: true };
        if reasons.len() < REASONS_MAX && !reasons.contains(&found) {
            reasons.push(found);
        }
    }
    reasons
}

/// Returns the number of warnings in a report, each reason of a check once.
#[must_use]
pub fn warnings(report: &Report) -> usize {
    current_reasons(report).iter().filter(|reason| reason.severity == Severity::Warning).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::CheckResult;
    use crate::model::report::{Finding, Verdict};

    const INTERVALS: Intervals = Intervals { probe: Duration::from_secs(10), canary: None };

    fn report(second: i64, checks: Vec<CheckResult>) -> Report {
        Report {
            target_id: uuid::Uuid::nil(),
            checked_at: Timestamp::from_second(second).expect("a time"),
            duration: Duration::ZERO,
            verdict: Verdict::of(&checks),
            capacity: None,
            time_to_full: None,
            facts: None,
            checks,
        }
    }

    fn result(check: CheckName, outcome: Outcome, findings: &[Finding]) -> CheckResult {
        CheckResult::new(check, outcome, findings.to_vec(), Duration::ZERO)
    }

    fn passed_with(reasons: &[Reason]) -> Vec<CheckResult> {
        let findings: Vec<_> = reasons.iter().map(|reason| Finding::new(*reason, "why").into_warning()).collect();
        let results = findings.chunks(8).map(|findings| result(CheckName::Mounted, Outcome::Passed, findings));
        results.collect()
    }

    fn after(record: &ProbeRecord, checks: Vec<CheckResult>) -> ProbeRecord {
        record.after(&report(1, checks), INTERVALS, None, Status::Available)
    }

    #[test]
    fn reason_stays_in_the_record_when_it_ended() {
        let failed = result(CheckName::Reachable, Outcome::Failed, &[Finding::new(Reason::ConnectionRefused, "no")]);
        let skipped = result(CheckName::Mounted, Outcome::Skipped, &[Finding::new(Reason::EarlierCheckFailed, "-")]);
        let record = after(&ProbeRecord::default(), vec![failed, skipped]);
        let expected = RecordedReason {
            check: CheckName::Reachable,
            reason: Reason::ConnectionRefused,
            severity: Severity::Failure,
            is_current: true,
        };
        assert_eq!(record.reasons, [expected], "the check that was not run has no reason of its own");
        let record = after(&record, passed_with(&[Reason::NearlyFull]));
        assert_eq!(record.reasons[0], RecordedReason { is_current: false, ..expected });
        assert_eq!((record.reasons[1].reason, record.reasons[1].is_current), (Reason::NearlyFull, true));
    }

    #[test]
    fn at_most_one_failure_is_current() {
        let failed = |check, reason| result(check, Outcome::Failed, &[Finding::new(reason, "no")]);
        let checks =
            vec![failed(CheckName::Capacity, Reason::StaleHandle), failed(CheckName::WriteCanary, Reason::WriteDenied)];
        let record = after(&ProbeRecord::default(), checks);
        assert_eq!(record.reasons.iter().filter(|found| found.is_current).count(), 1, "{:?}", record.reasons);
    }

    #[test]
    fn reasons_are_bounded_and_the_oldest_is_dropped() {
        let mut record = ProbeRecord::default();
        for reason in &Reason::ALL[..REASONS_MAX + 3] {
            record = after(&record, passed_with(&[*reason]));
        }
        assert_eq!(record.reasons.len(), REASONS_MAX);
        assert_eq!(record.reasons[0].reason, Reason::ALL[3]);
        let record = after(&record, passed_with(&Reason::ALL[..REASONS_MAX + 8]));
        assert_eq!(record.reasons.iter().filter(|found| found.is_current).count(), REASONS_MAX);
    }

    #[test]
    fn reason_that_two_findings_share_is_recorded_once() {
        let checks = passed_with(&[Reason::Slow, Reason::Slow]);
        assert_eq!(warnings(&report(1, checks.clone())), 1);
        assert_eq!(after(&ProbeRecord::default(), checks).reasons.len(), 1);
    }

    #[test]
    fn transitions_and_canaries_are_recorded() {
        let canary = |second, outcome| report(second, vec![result(CheckName::WriteCanary, outcome, &[])]);
        let (up, down) = (Status::Available, Status::Offline);
        let mut record = ProbeRecord::default();
        for (second, outcome, from, to) in [
            (1, Outcome::Passed, None, up),
            (2, Outcome::Skipped, Some(up), up),
            (3, Outcome::Failed, Some(up), down),
            (4, Outcome::Passed, Some(down), up),
            (5, Outcome::TimedOut, Some(up), down),
        ] {
            record = record.after(&canary(second, outcome), INTERVALS, from, to);
        }
        assert_eq!((record.became_available, record.became_offline), (1, 2));
        assert_eq!(record.canary_at.map(Timestamp::as_second), Some(4));
    }
}
