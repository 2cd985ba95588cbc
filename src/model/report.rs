//! Report: the result of one probe of one target on this node.
//!
//! A probe runs checks in order. Each gives an outcome, and a failed check is data, not an error.
//! The verdict follows from the checks alone ([`Verdict::of`]); the status that the API shows is
//! the verdict with hysteresis, which is the agent's business.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;

use super::{Capacity, Reason, TargetId, UsageListing};

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident => $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// As reports, tables and metrics show it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }

            /// Parses a text that [`Self::as_str`] returned.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.as_str() == text)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.pad(self.as_str())
            }
        }
    };
}

named! {
    /// One named thing that is verified about a target.
    CheckName {
        /// The server answers: TCP, then the protocol itself.
        Reachable => "reachable",
        /// The export is mounted at its path, and it is the right one.
        Mounted => "mounted",
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

named! {
    /// What came of a check.
    Outcome {
        /// Verified. With a reason it is a warning.
        Passed => "passed",
        /// Verified to be wrong.
        Failed => "failed",
        /// No answer within the deadline. The storage may be broken or slow.
        TimedOut => "timed_out",
        /// Not tried; the reason says why.
        Skipped => "skipped",
    }
}

named! {
    /// Whether a backup can be written to a target from this node.
    Status {
        /// Checked on this host, end to end.
        Available => "available",
        /// Anything else.
        Offline => "offline",
    }
}

named! {
    /// How an NFS target is verified.
    MountMode {
        /// Mounted by the kernel, measured and written through the mount.
        Kernel => "kernel",
        /// Over the wire, without mounting.
        None => "none",
    }
}

named! {
    /// How strictly a version is locked.
    LockMode {
        /// Who has a permission of its own ends it early.
        Governance => "GOVERNANCE",
        /// Nobody deletes it before its time.
        Compliance => "COMPLIANCE",
    }
}

named! {
    /// What the lock proof found of a bucket and these credentials.
    LockVerdict {
        /// What was locked could not be deleted before its time, and could after it.
        Enforced => "enforced",
        /// It could be deleted early, by asking for the bypass of governance.
        Bypassable => "bypassable",
        /// It could simply be deleted early.
        NotEnforced => "not_enforced",
        /// It could not be found out; the reason says why.
        Unverifiable => "unverifiable",
    }
}

/// The latest proof of a bucket's object lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockProof {
    /// What it found.
    pub verdict: LockVerdict,
    /// What was seen, or why nothing was.
    pub why: String,
    /// When it ended.
    pub proved_at: Timestamp,
}

/// What is known of a bucket's object lock beyond its configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LockProofState {
    /// No proof is required. Only the configuration is known.
    #[default]
    NotAsked,
    /// None was made yet that counts.
    Pending,
    /// This was found.
    Found(LockProof),
}

named! {
    /// What a finding means for the target.
    Severity {
        /// The check did not pass because of it, or was not run because of an earlier failure.
        Failure => "failure",
        /// The operator should act, although backups can be written.
        Warning => "warning",
    }
}

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
    fn rank(&self) -> (bool, bool) {
        (self.severity == Severity::Warning, self.reason == Reason::HardMount)
    }
}

/// Largest number of findings that one check keeps. No check has as many today; the limit keeps a report
/// small whatever a check does.
pub const FINDINGS_MAX: usize = 8;

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckResult {
    /// Which check.
    pub check: CheckName,
    /// Outcome of the check.
    pub outcome: Outcome,
    /// What the check found, the most severe first. Empty when it simply passed.
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

    /// What the check found, the most severe first.
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

/// What the checks of one probe amount to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every check that was due passed.
    Available {
        /// The most severe warning, if any. A hard mount is reported only if there is no other warning.
        warning: Option<Finding>,
    },
    /// Something is definitely wrong.
    Failed(Finding),
    /// Something did not answer in time.
    TimedOut(Finding),
}

impl Verdict {
    /// The verdict of a probe: that of its first check that did not pass. A skipped check makes nothing
    /// offline, but a probe in which nothing passed is no proof of anything.
    #[must_use]
    pub fn of(checks: &[CheckResult]) -> Self {
        let missing = || Finding::new(Reason::AgentError, "the check gave no reason; this is a defect of the agent");
        for result in checks {
            let finding = || result.findings.first().cloned().unwrap_or_else(missing);
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

    /// The reason and sentence: of the failure, or of the warning.
    #[must_use]
    pub fn finding(&self) -> Option<&Finding> {
        match self {
            Self::Available { warning } => warning.as_ref(),
            Self::Failed(finding) | Self::TimedOut(finding) => Some(finding),
        }
    }
}

/// How many requests this agent sent about a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestCount {
    /// During the probe.
    pub this_probe: u64,
    /// In the hour before its end, as far as the agent ran.
    pub last_hour: u64,
}

/// Facts about a bucket that the report and the target's metadata show.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BucketFacts {
    /// Whether versioning is enabled; `None` when it was not learnt.
    pub versioning: Option<bool>,
    /// Whether an object-lock configuration is in force; `None` when it was not learnt.
    pub object_lock: Option<bool>,
    /// The default retention as a person reads it, such as `GOVERNANCE 30 days`.
    pub default_retention: Option<String>,
    /// When versioning and object lock were read. Not every probe reads them.
    pub configuration_read_at: Option<Timestamp>,
    /// Number of objects in the bucket, if the service reports it or a listing counted them.
    pub object_count: Option<u64>,
    /// What listing the bucket found; `None` where it is not listed.
    pub usage_listing: Option<UsageListing>,
    /// What is proved of the lock.
    pub lock_proof: LockProofState,
    /// What asking costs the service.
    pub requests: Option<RequestCount>,
}

/// NFS traffic of a mount between this host and the server, by all processes of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountTraffic {
    /// Average time that the server took to answer a request. `None` if no request was completed.
    pub round_trip: Option<Duration>,
    /// Over how long that is the average: since the last probe, or since it was mounted.
    pub round_trip_over: Duration,
    /// How often a request had to be sent again, since it was mounted.
    pub retransmissions: u64,
    /// Bytes read from the server since then.
    pub bytes_read: u64,
    /// Bytes written to the server since then.
    pub bytes_written: u64,
}

/// Facts that only one kind of target has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KindFacts {
    /// Facts about an NFS target.
    Nfs {
        /// How it was verified.
        mode: MountMode,
        /// Facts about the mount, if the export of the target is mounted.
        mount: Option<MountFacts>,
    },
    /// Facts about the bucket of an S3 target.
    S3(BucketFacts),
}

/// Facts about a mount as the kernel reports them, which may differ from the requested options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountFacts {
    /// The options in force, as the mount table has them: those of this mount, then those of its file
    /// system.
    pub options: String,
    /// The address of the server that it talks to.
    pub server_address: Option<IpAddr>,
    /// The version of NFS, such as `3` or `4.2`.
    pub nfs_version: Option<String>,
    /// Whether a call waits for a server that is away for as long as it is.
    pub is_hard: bool,
    /// NFS traffic, if the kernel reports it.
    pub traffic: Option<MountTraffic>,
}

impl MountFacts {
    /// From the options of the mount and of its file system in the mount table (`fs/proc_namespace.c`,
    /// and `nfs_show_mount_options` in `fs/nfs/super.c`). Each has its own `ro` or `rw`, and what is
    /// read-only in one of them is read-only.
    #[must_use]
    pub fn from_options(mount: &str, file_system: &str) -> Self {
        let all = || mount.split(',').chain(file_system.split(','));
        let access = if all().any(|option| option == "ro") { "ro" } else { "rw" };
        let others = all().filter(|option| !matches!(*option, "ro" | "rw" | ""));
        let options = std::iter::once(access).chain(others).collect::<Vec<_>>().join(",");
        let value = |key: &str| file_system.split(',').find_map(|option| option.strip_prefix(key)?.strip_prefix('='));
        Self {
            server_address: value("addr").and_then(|address| address.parse().ok()),
            nfs_version: value("vers").map(str::to_owned),
            is_hard: file_system.split(',').any(|option| option == "hard"),
            options,
            traffic: None,
        }
    }
}

/// All the checks of one probe of one target on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The target.
    pub target_id: TargetId,
    /// When the probe ended.
    pub checked_at: Timestamp,
    /// How long the probe took.
    pub duration: Duration,
    /// What the checks amount to.
    pub verdict: Verdict,
    /// What was measured, if the capacity check got that far.
    pub capacity: Option<Capacity>,
    /// Facts that only this kind of target has. `None` when the probe panicked.
    pub facts: Option<KindFacts>,
    /// One result for each check of the plan, in its order.
    pub checks: Vec<CheckResult>,
}

impl Report {
    /// How an NFS target was verified.
    #[must_use]
    pub fn mode(&self) -> Option<MountMode> {
        match &self.facts {
            Some(KindFacts::Nfs { mode, .. }) => Some(*mode),
            _ => None,
        }
    }

    /// Facts about the mount of an NFS target.
    #[must_use]
    pub fn mount(&self) -> Option<&MountFacts> {
        match &self.facts {
            Some(KindFacts::Nfs { mount, .. }) => mount.as_ref(),
            _ => None,
        }
    }

    /// Facts about the bucket of an S3 target.
    #[must_use]
    pub fn bucket(&self) -> Option<&BucketFacts> {
        match &self.facts {
            Some(KindFacts::S3(bucket)) => Some(bucket),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(outcome: Outcome, reason: Option<Reason>) -> CheckResult {
        let finding = reason.map(|reason| Finding::new(reason, "so"));
        let is_warning = outcome == Outcome::Passed || outcome == Outcome::Skipped;
        let finding = finding.map(|finding| if is_warning { finding.into_warning() } else { finding });
        CheckResult::new(CheckName::Capacity, outcome, finding.into_iter().collect(), Duration::ZERO)
    }

    #[test]
    fn the_first_check_that_did_not_pass_decides() {
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
    fn a_warning_leaves_a_target_available_and_is_told() {
        let verdict = Verdict::of(&[result(Outcome::Passed, None), result(Outcome::Passed, Some(Reason::NearlyFull))]);
        assert_eq!(verdict.status(), Status::Available);
        assert_eq!(verdict.finding().map(|finding| finding.reason), Some(Reason::NearlyFull));
    }

    #[test]
    fn a_choice_hides_no_other_warning() {
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
    fn findings_of_a_check_are_sorted_by_severity_and_bounded() {
        let warning = |reason| Finding::new(reason, "so").into_warning();
        let findings =
            vec![warning(Reason::HardMount), warning(Reason::MountStacked), Finding::new(Reason::ReadOnly, "so")];
        let sorted = CheckResult::new(CheckName::Mounted, Outcome::Failed, findings, Duration::ZERO);
        let reasons: Vec<Reason> = sorted.findings().iter().map(|finding| finding.reason).collect();
        assert_eq!(reasons, [Reason::ReadOnly, Reason::MountStacked, Reason::HardMount]);
        let many = vec![warning(Reason::Slow); FINDINGS_MAX + 1];
        let bounded = CheckResult::new(CheckName::Mounted, Outcome::Passed, many, Duration::ZERO);
        assert_eq!(bounded.findings().len(), FINDINGS_MAX);
    }

    #[test]
    fn the_kernel_tells_what_it_does() {
        let facts = MountFacts::from_options(
            "ro,relatime",
            "rw,vers=3,rsize=131072,hard,nolock,mountaddr=10.0.0.9,mountvers=3,clientaddr=10.0.0.8,addr=fd00::1",
        );
        assert_eq!((facts.server_address, facts.nfs_version.as_deref()), ("fd00::1".parse().ok(), Some("3")));
        assert!(facts.is_hard && facts.options.starts_with("ro,relatime,vers=3,"), "{facts:?}");
        let facts = MountFacts::from_options("rw", "rw,vers=4.2,softerr,addr=nonsense");
        assert_eq!((facts.server_address, facts.nfs_version.as_deref(), facts.is_hard), (None, Some("4.2"), false));
    }

    #[test]
    fn nothing_verified_is_not_available() {
        assert_eq!(Verdict::of(&[]).status(), Status::Offline);
        assert_eq!(Verdict::of(&[result(Outcome::Skipped, Some(Reason::NotChecked))]).status(), Status::Offline);
    }
}
