//! Reports on the wire: what stands behind a status.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::extensible::{
    CheckName, LockVerdict, MountMode, Outcome, ProbeVerdict, ProofVerdict, Reason, Severity, Status, Verdict,
};
use super::timestamp::timestamp;
use super::usage_listing::UsageListing;
use crate::agent::TargetView;
use crate::model::report::{self, CheckResult, KindFacts, LockProofState, MountFacts};

/// The latest report of a target on this node, and the status that follows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Report {
    /// The target.
    pub backup_target_id: String,
    /// Its export.
    pub filesystem_export: String,
    /// Whether a backup can be written to it from this node: the verdicts of the latest reports, with hysteresis.
    pub status: Status,
    /// Since when it is so.
    pub since: String,
    /// When a probe last found it available.
    pub last_available_at: Option<String>,
    /// What this probe alone found. `null` before the first one.
    pub verdict: Option<Verdict>,
    /// The stable code of what is wrong, or of a warning beside `available`.
    pub reason: Option<Reason>,
    /// What that means here, and what to do.
    pub message: Option<String>,
    /// How many timeouts in a row the latest probes ended in.
    pub timeouts_in_a_row: u32,
    /// When the probe ended.
    pub checked_at: Option<String>,
    /// How long it took, in milliseconds.
    pub duration_ms: Option<f64>,
    /// How an NFS target was verified: `kernel` (mounted) or `none` (over the wire).
    pub mode: Option<MountMode>,
    /// Size of the file system, or quota of the bucket.
    pub capacity_bytes: Option<u64>,
    /// In use.
    pub used_bytes: Option<u64>,
    /// What a writer can still use.
    pub available_bytes: Option<u64>,
    /// How full it is, of what a writer could ever use.
    pub used_percent: Option<f64>,
    /// Inodes of the file system.
    pub inodes: Option<u64>,
    /// Inodes in use.
    pub inodes_used: Option<u64>,
    /// What the kernel does with the mount; `null` where nothing or something else is mounted.
    pub mount: Option<Mount>,
    /// Objects in the bucket, all versions, where the service tells or they were counted by listing it; without
    /// versions that are not current where `counts_versions` of the listing is false.
    pub object_count: Option<u64>,
    /// What listing the bucket found; `null` where it is not listed.
    pub usage_listing: Option<UsageListing>,
    /// Whether the bucket keeps versions.
    pub versioning: Option<bool>,
    /// Whether the bucket has an object-lock configuration.
    pub object_lock: Option<bool>,
    /// How long it keeps what is written without a retention of its own.
    pub default_retention: Option<String>,
    /// When `versioning`, `object_lock` and `default_retention` were read, which is not at every probe.
    pub bucket_configuration_read_at: Option<String>,
    /// Requests that this probe sent to the service of a bucket.
    pub probe_requests: Option<u64>,
    /// Requests that were sent about the bucket in the hour before, as far as this agent ran.
    pub requests_last_hour: Option<u64>,
    /// What is proved of the lock of an immutable target; `null` where none is asked for.
    pub object_lock_proof: Option<LockProof>,
    /// The checks in the order in which they ran.
    pub checks: Vec<Check>,
}

/// A mount as the kernel has it, whatever was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Mount {
    /// The options in force.
    pub options: String,
    /// The address of the server that it talks to.
    pub server_address: Option<String>,
    /// The version of NFS, such as `3` or `4.2`.
    pub nfs_version: Option<String>,
    /// Whether a call waits for a server that is away for as long as it is.
    pub hard: bool,
    /// How long the server took to answer a request of this host, on average, in milliseconds; `null`
    /// when no request was done with, or the kernel does not tell.
    pub round_trip_ms: Option<f64>,
    /// Over how many seconds that is the average: since the last probe, or since it was mounted.
    pub round_trip_over_s: Option<f64>,
    /// How often a request of this host had to be sent again, since it was mounted.
    pub retransmissions: Option<u64>,
    /// Bytes that this host read from the server since then.
    pub bytes_read: Option<u64>,
    /// Bytes that this host wrote to the server since then.
    pub bytes_written: Option<u64>,
}

/// What is proved of an object lock, with these credentials.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LockProof {
    /// The verdict. `pending` while no proof counts yet.
    pub verdict: LockVerdict,
    /// What was seen.
    pub why: Option<String>,
    /// When.
    pub proved_at: Option<String>,
}

impl LockProof {
    fn of(state: &LockProofState) -> Option<Self> {
        match state {
            LockProofState::NotAsked => None,
            LockProofState::Pending => Some(Self { verdict: ProofVerdict::Pending.into(), why: None, proved_at: None }),
            LockProofState::Found(proof) => Some(Self {
                verdict: ProofVerdict::Proved(proof.verdict).into(),
                why: Some(proof.why.clone()),
                proved_at: Some(timestamp(proof.proved_at)),
            }),
        }
    }
}

/// One named thing that was verified.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// Name of the check.
    pub name: CheckName,
    /// Outcome of the check.
    pub outcome: Outcome,
    /// Reason code of the most severe finding. With the outcome `passed` it is a warning.
    pub reason: Option<Reason>,
    /// Message of the most severe finding.
    pub message: Option<String>,
    /// Everything that the check found, the most severe first. Empty when it simply passed.
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// A fact that is worth showing although nothing is wrong.
    pub detail: Option<String>,
    /// How long it took, in milliseconds.
    pub duration_ms: f64,
}

/// One problem that a check found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = CheckFinding)]
pub struct Finding {
    /// The stable reason code.
    pub reason: Reason,
    /// Whether the check failed because of it.
    pub severity: Severity,
    /// What happened, and what to do.
    pub message: String,
}

impl From<&TargetView> for Report {
    fn from(view: &TargetView) -> Self {
        let TargetView { target, status, report, .. } = view;
        let report = report.as_deref();
        let capacity = report.and_then(|report| report.capacity);
        let (mode, mount, bucket) = match report.and_then(|report| report.facts.as_ref()) {
            None => (None, None, None),
            Some(KindFacts::Nfs { mode, mount }) => (Some(*mode), mount.as_ref(), None),
            Some(KindFacts::S3(bucket)) => (None, None, Some(bucket)),
        };
        let requests = bucket.and_then(|bucket| bucket.requests);
        let finding = status.finding.as_ref();
        Self {
            backup_target_id: target.id.to_string(),
            filesystem_export: target.spec.export(),
            status: status.status.into(),
            since: timestamp(status.since),
            last_available_at: status.last_available_at.map(timestamp),
            verdict: report.map(|report| ProbeVerdict::from(&report.verdict).into()),
            reason: finding.map(|finding| finding.reason.into()),
            message: finding.map(|finding| finding.message.clone()),
            timeouts_in_a_row: status.timeouts_in_a_row,
            checked_at: report.map(|report| timestamp(report.checked_at)),
            duration_ms: report.map(|report| milliseconds(report.duration)),
            mode: mode.map(MountMode::from),
            capacity_bytes: capacity.and_then(|capacity| capacity.capacity_bytes),
            used_bytes: capacity.and_then(|capacity| capacity.used_bytes),
            available_bytes: capacity.and_then(|capacity| capacity.available_bytes),
            used_percent: capacity.and_then(|capacity| capacity.used_percent()),
            inodes: capacity.and_then(|capacity| capacity.inodes),
            inodes_used: capacity.and_then(|capacity| capacity.inodes_used),
            mount: mount.map(Mount::from),
            object_count: bucket.and_then(|bucket| bucket.object_count),
            usage_listing: bucket.and_then(|bucket| bucket.usage_listing.as_ref()).map(UsageListing::from),
            versioning: bucket.and_then(|bucket| bucket.versioning),
            object_lock: bucket.and_then(|bucket| bucket.object_lock),
            default_retention: bucket.and_then(|bucket| bucket.default_retention.clone()),
            bucket_configuration_read_at: bucket.and_then(|bucket| bucket.configuration_read_at).map(timestamp),
            probe_requests: requests.map(|requests| requests.this_probe),
            requests_last_hour: requests.map(|requests| requests.last_hour),
            object_lock_proof: bucket.and_then(|bucket| LockProof::of(&bucket.lock_proof)),
            checks: report.map(|report| report.checks.iter().map(Check::from).collect()).unwrap_or_default(),
        }
    }
}

impl From<&MountFacts> for Mount {
    fn from(facts: &MountFacts) -> Self {
        let traffic = facts.traffic;
        Self {
            options: facts.options.clone(),
            server_address: facts.server_address.map(|address| address.to_string()),
            nfs_version: facts.nfs_version.clone(),
            hard: facts.is_hard,
            round_trip_ms: traffic.and_then(|traffic| traffic.round_trip).map(milliseconds),
            round_trip_over_s: traffic.map(|traffic| seconds(traffic.round_trip_over)),
            retransmissions: traffic.map(|traffic| traffic.retransmissions),
            bytes_read: traffic.map(|traffic| traffic.bytes_read),
            bytes_written: traffic.map(|traffic| traffic.bytes_written),
        }
    }
}

impl From<&CheckResult> for Check {
    fn from(result: &CheckResult) -> Self {
        let finding = result.findings().first();
        Self {
            name: result.check.into(),
            outcome: result.outcome.into(),
            reason: finding.map(|finding| finding.reason.into()),
            message: finding.map(|finding| finding.message.clone()),
            findings: result.findings().iter().map(Finding::from).collect(),
            detail: result.detail.clone(),
            duration_ms: milliseconds(result.duration),
        }
    }
}

impl From<&report::Finding> for Finding {
    fn from(finding: &report::Finding) -> Self {
        Self { reason: finding.reason.into(), severity: finding.severity.into(), message: finding.message.clone() }
    }
}

/// Milliseconds to the microsecond.
fn milliseconds(duration: Duration) -> f64 {
    let micros = u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
    f64::from(micros) / 1000.0
}

/// Seconds to the millisecond.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}
