//! Check results: the outcome of one check, and its findings.

use std::time::Duration;

use crate::model::reason::Reason;

named! {
    /// One named property of a target that is verified.
    CheckName {
        /// The server answers: TCP, then the protocol itself.
        Reachable => "reachable",
        /// The right export is mounted at the target's path.
        Mounted => "mounted",
        /// Programs of this host see the mount.
        Visible => "visible",
        /// The mount of another program at the target's path is the right one and answers.
        InUse => "in_use",
        /// The server exports the path to this host (verified over the wire, without mounting).
        Exported => "exported",
        /// Capacity and used space were measured.
        Capacity => "capacity",
        /// A file written as the backup user, or an object, was read back and removed.
        WriteCanary => "write_canary",
        /// The bucket exists and these credentials reach it.
        Bucket => "bucket",
        /// The bucket keeps versions.
        Versioning => "versioning",
        /// The bucket's object-lock configuration.
        ObjectLock => "object_lock",
        /// The lock is enforced: a locked canary could not be deleted before its retention ended, and could after.
        LockProof => "lock_proof",
    }
}

/// Subject of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The path from this node to the target. Another node may get another result.
    Node,
    /// The target itself. Every node that reaches the target gets the same result. For NFS, a node finds it through its
    /// own mount.
    Target,
}

impl CheckName {
    /// Whether the duration of the check says something about the storage or the network. `visible` reads `/proc`, and
    /// `in_use` waits for the program of another mount.
    #[must_use]
    pub const fn is_timed(self) -> bool {
        !matches!(self, Self::Visible | Self::InUse)
    }

    /// Returns the subject of the check.
    #[must_use]
    pub const fn scope(self) -> Scope {
        match self {
            Self::Reachable
            | Self::Mounted
            | Self::Visible
            | Self::InUse
            | Self::Exported
            | Self::WriteCanary
            | Self::Bucket => Scope::Node,
            Self::Capacity | Self::Versioning | Self::ObjectLock | Self::LockProof => Scope::Target,
        }
    }
}

named! {
    /// Outcome of a check.
    Outcome {
        /// Verified. A finding is a warning.
        Passed => "passed",
        /// Verified to be wrong.
        Failed => "failed",
        /// No answer within the deadline. The storage may be broken or slow.
        TimedOut => "timed_out",
        /// Not run. A finding says why.
        Skipped => "skipped",
    }
}

named! {
    /// Effect of a finding on the target.
    Severity {
        /// The check did not pass because of it, or was not run because of an earlier failure.
        Failure => "failure",
        /// The operator should act, although backups can be written.
        Warning => "warning",
    }
}

/// Makes a failure of a reason and a message, which is formatted as by [`format!`].
macro_rules! finding {
    ($reason:expr, $($message:tt)+) => {
        $crate::model::report::check_result::Finding::new($reason, format!($($message)+))
    };
}

pub(crate) use finding;

/// One problem that a check found: a reason code, a severity, and a sentence that says what happened and
/// what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The stable code.
    pub reason: Reason,
    /// Whether the check failed because of it.
    pub severity: Severity,
    /// A sentence for the operator: the resource, what was expected, what to do. Never contains a secret.
    pub message: String,
}

impl Finding {
    /// A failure.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, severity: Severity::Failure, message: message.into() }
    }

    /// The same finding as a warning.
    #[must_use]
    pub fn into_warning(self) -> Self {
        Self { severity: Severity::Warning, ..self }
    }

    /// Sort key: the most severe finding comes first. A hard mount comes last, because it is the operator's
    /// choice and must not hide a problem of the storage.
    pub(super) fn rank(&self) -> (bool, bool) {
        (self.severity == Severity::Warning, self.reason == Reason::HardMount)
    }
}

/// Largest number of findings that one check keeps. No check has this many today. The limit keeps a report
/// small whatever a check does.
pub const FINDINGS_MAX: usize = 8;

/// Result of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckResult {
    /// The check.
    pub check: CheckName,
    /// Outcome of the check.
    pub outcome: Outcome,
    findings: Vec<Finding>,
    /// A fact worth showing although nothing is wrong, such as the options in force.
    pub detail: Option<String>,
    /// Duration of the check.
    pub duration: Duration,
}

impl CheckResult {
    /// A result with these findings: sorted, the most severe first, and at most [`FINDINGS_MAX`].
    #[must_use]
    pub fn new(check: CheckName, outcome: Outcome, mut findings: Vec<Finding>, duration: Duration) -> Self {
        findings.sort_by_key(Finding::rank);
        findings.truncate(FINDINGS_MAX);
        Self { check, outcome, findings, detail: None, duration }
    }

    /// The same result with another warning.
    #[must_use]
    pub fn with_warning(self, warning: Finding) -> Self {
        let Self { check, outcome, mut findings, detail, duration } = self;
        findings.push(warning.into_warning());
        Self { detail, ..Self::new(check, outcome, findings, duration) }
    }

    /// The findings, the most severe first. Empty when the check passed without a warning.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Whether the check failed or timed out.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        matches!(self.outcome, Outcome::Failed | Outcome::TimedOut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_of_a_check_are_sorted_by_severity_and_bounded() {
        let warning = |reason| Finding::new(reason, "why").into_warning();
        let findings =
            vec![warning(Reason::HardMount), warning(Reason::MountStacked), Finding::new(Reason::ReadOnly, "why")];
        let sorted = CheckResult::new(CheckName::Mounted, Outcome::Failed, findings, Duration::ZERO);
        let reasons: Vec<Reason> = sorted.findings().iter().map(|finding| finding.reason).collect();
        assert_eq!(reasons, [Reason::ReadOnly, Reason::MountStacked, Reason::HardMount]);
        let many = vec![warning(Reason::Slow); FINDINGS_MAX + 1];
        let bounded = CheckResult::new(CheckName::Mounted, Outcome::Passed, many, Duration::ZERO);
        assert_eq!(bounded.findings().len(), FINDINGS_MAX);
    }
}
