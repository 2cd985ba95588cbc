//! Status of a target: follows from its reports, with hysteresis.
//!
//! A timeout may be caused by momentary load, so a target becomes offline only after `failures_before_offline`
//! timeouts in a row. A definite error and a pass take effect at once. Until its first probe has finished, a
//! target is offline, because only a verified target is available.

use jiff::Timestamp;

use crate::model::report::{Finding, Verdict};
use crate::model::{Reason, Report, Status};

/// Status of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetStatus {
    /// The status.
    pub status: Status,
    /// Time of the last change of `status`.
    pub since: Timestamp,
    /// Time of the last probe that found the target available.
    pub last_available_at: Option<Timestamp>,
    /// Why the target is offline, or a warning about an available target.
    pub finding: Option<Finding>,
    /// Number of timeouts in a row up to the latest probe.
    pub timeouts_in_a_row: u32,
}

impl TargetStatus {
    /// Returns the status of a target that was not probed yet.
    #[must_use]
    pub fn not_checked(since: Timestamp) -> Self {
        let finding = Finding::new(
            Reason::NotChecked,
            "no probe of this target has finished yet: repeat the request in a few seconds",
        );
        Self { status: Status::Offline, since, last_available_at: None, finding: Some(finding), timeouts_in_a_row: 0 }
    }

    /// Returns the status after one more report.
    #[must_use]
    pub fn after(&self, report: &Report, failures_before_offline: u32) -> Self {
        let timeouts_in_a_row = match report.verdict {
            Verdict::TimedOut(_) => self.timeouts_in_a_row.saturating_add(1),
            Verdict::Available { .. } | Verdict::Failed(_) => 0,
        };
        let status = match report.verdict {
            Verdict::Available { .. } => Status::Available,
            Verdict::Failed(_) => Status::Offline,
            Verdict::TimedOut(_) if timeouts_in_a_row < failures_before_offline => self.status,
            Verdict::TimedOut(_) => Status::Offline,
        };
        let is_available = matches!(report.verdict, Verdict::Available { .. });
        Self {
            status,
            since: if status == self.status { self.since } else { report.checked_at },
            last_available_at: if is_available { Some(report.checked_at) } else { self.last_available_at },
            finding: report.verdict.finding().cloned(),
            timeouts_in_a_row,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TargetId;
    use std::time::Duration;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn report(second: i64, verdict: Verdict) -> Report {
        Report {
            target_id: TargetId::nil(),
            checked_at: at(second),
            duration: Duration::ZERO,
            verdict,
            capacity: None,
            time_to_full: None,
            facts: None,
            checks: Vec::new(),
        }
    }

    fn late() -> Verdict {
        Verdict::TimedOut(Finding::new(Reason::StorageTimedOut, "late"))
    }

    #[test]
    fn offline_until_verified_and_at_once_after_a_definite_error() {
        let new = TargetStatus::not_checked(at(0));
        assert_eq!(new.status, Status::Offline);
        let well = new.after(&report(1, Verdict::Available { warning: None }), 2);
        assert_eq!((well.status, well.since, well.last_available_at), (Status::Available, at(1), Some(at(1))));
        let still = well.after(&report(2, Verdict::Available { warning: None }), 2);
        assert_eq!((still.since, still.last_available_at), (at(1), Some(at(2))));
        let refused = still.after(&report(3, Verdict::Failed(Finding::new(Reason::ExportDenied, "no"))), 2);
        assert_eq!((refused.status, refused.since, refused.last_available_at), (Status::Offline, at(3), Some(at(2))));
    }

    #[test]
    fn offline_after_two_timeouts_in_a_row() {
        let well = TargetStatus::not_checked(at(0)).after(&report(1, Verdict::Available { warning: None }), 2);
        let once = well.after(&report(2, late()), 2);
        assert_eq!((once.status, once.timeouts_in_a_row), (Status::Available, 1));
        assert_eq!(once.finding.as_ref().map(|finding| finding.reason), Some(Reason::StorageTimedOut));
        let mended = once.after(&report(3, Verdict::Available { warning: None }), 2);
        assert_eq!(mended.after(&report(4, late()), 2).status, Status::Available);
        let twice = once.after(&report(3, late()), 2);
        assert_eq!((twice.status, twice.since), (Status::Offline, at(3)));
        assert_eq!(TargetStatus::not_checked(at(0)).after(&report(1, late()), 2).status, Status::Offline);
    }
}
