//! Counts of all probes since the start of the agent, for its metrics. The keys come from fixed sets, so memory is
//! bounded.

use std::time::Duration;

use crate::model::report::ProbeVerdict;
use crate::model::{CheckName, Histogram, Observed, Outcome, Report, Tally, TargetKind};

/// Upper bounds of the buckets of lateness, in seconds. Probes of a healthy agent are within the first bound.
const LATENESS_BOUNDS: &[f64] = &[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Upper bounds of the buckets of check durations, in seconds. The last one is the longest usual deadline.
const DURATION_BOUNDS: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

/// Counts of all probes since the start of the agent.
#[derive(Debug)]
pub struct ProbeStatistics {
    probes: Tally<(&'static str, &'static str)>,
    lateness: Histogram,
    checks: Tally<(&'static str, &'static str)>,
    durations: Vec<(CheckName, Histogram)>,
}

impl Default for ProbeStatistics {
    fn default() -> Self {
        let timed = CheckName::ALL.iter().filter(|check| check.is_timed());
        let durations = timed.map(|check| (*check, Histogram::new(DURATION_BOUNDS))).collect();
        Self {
            probes: Tally::default(),
            lateness: Histogram::new(LATENESS_BOUNDS),
            checks: Tally::default(),
            durations,
        }
    }
}

impl ProbeStatistics {
    /// Counts a finished probe and its checks.
    pub(crate) fn count(&self, kind: TargetKind, report: &Report) {
        self.probes.count((kind.as_str(), report.verdict.kind().as_str()));
        for result in &report.checks {
            self.checks.count((result.check.as_str(), result.outcome.as_str()));
            let histogram = self.durations.iter().find(|(check, _)| *check == result.check);
            if let Some((_, histogram)) = histogram.filter(|_| result.outcome != Outcome::Skipped) {
                histogram.observe(result.duration);
            }
        }
    }

    /// Records that a routine probe started this long after it was due.
    pub(crate) fn started_late(&self, by: Duration) {
        self.lateness.observe(by);
    }

    /// Returns the number of probes of a kind of target with a verdict.
    #[must_use]
    pub fn probes(&self, kind: TargetKind, verdict: ProbeVerdict) -> u64 {
        self.probes.of(&(kind.as_str(), verdict.as_str()))
    }

    /// Returns the number of checks with an outcome.
    #[must_use]
    pub fn checks(&self, check: CheckName, outcome: Outcome) -> u64 {
        self.checks.of(&(check.as_str(), outcome.as_str()))
    }

    /// Returns how late routine probes started.
    #[must_use]
    pub fn lateness(&self) -> Observed {
        self.lateness.snapshot()
    }

    /// Returns the durations of each check that accesses storage. Checks that were skipped do not count.
    #[must_use]
    pub fn durations(&self) -> Vec<(CheckName, Observed)> {
        self.durations.iter().map(|(check, histogram)| (*check, histogram.snapshot())).collect()
    }
}
