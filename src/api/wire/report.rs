//! Reports on the wire: the facts from which a status follows.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::extensible::{CheckName, MountMode, Outcome, ProbeVerdict, ProofVerdict, Reason, Severity, Status};
use super::timestamp::timestamp;
use super::usage_listing::UsageListing;
use crate::agent::TargetView;
use crate::model::report::{self, CheckResult, InUseFacts, KindFacts, LockProofState, MountFacts};

/// Latest report about a target on this node, with the status that follows from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Report {
    /// Id of the target.
    pub backup_target_id: String,
    /// Export of the target.
    pub filesystem_export: String,
    /// Whether backups can be written to the target from this node, according to the latest reports, with hysteresis.
    pub status: Status,
    /// Time since which the target has this status.
    pub since: String,
    /// Time of the latest probe that found the target available.
    pub last_available_at: Option<String>,
    /// Verdict of this probe alone. `null` before the first probe.
    pub verdict: Option<ProbeVerdict>,
    /// Reason code of the problem, or of the warning of an available target.
    pub reason: Option<Reason>,
    /// What happened, and what to do.
    pub message: Option<String>,
    /// Number of latest probes in a row that ended with a timeout.
    pub timeouts_in_a_row: u32,
    /// Time at which the probe ended.
    pub checked_at: Option<String>,
    /// Duration, in milliseconds.
    pub duration_ms: Option<f64>,
    /// How the NFS target was verified: `kernel` (mounted), `observe` (through a private mount), or `none` (over the
    /// wire).
    pub mode: Option<MountMode>,
    /// Size of the file system, or quota of the bucket, in bytes.
    pub capacity_bytes: Option<u64>,
    /// Used space, in bytes.
    pub used_bytes: Option<u64>,
    /// Space that a writer can still use, in bytes.
    pub available_bytes: Option<u64>,
    /// Used part of the space that a writer could ever use, in percent.
    pub used_percent: Option<f64>,
    /// Estimated time until the target is full, in seconds, if its use continues to grow as in the last three days.
    /// `null` if that is not known, or if it is more than a year.
    pub time_to_full_s: Option<u64>,
    /// Number of inodes of the file system.
    pub inodes: Option<u64>,
    /// Number of inodes in use.
    pub inodes_used: Option<u64>,
    /// Facts about the mount through which the target was verified. `null` if the export was not mounted.
    pub mount: Option<Mount>,
    /// Mount that another program made at the mount path of the target. `null` if there is none, or if the agent itself
    /// mounts there.
    #[serde(default)]
    pub in_use: Option<InUse>,
    /// Number of versions in the bucket, as the service reports it or as a listing counted it. Without noncurrent
    /// versions if `counts_versions` of the listing is false.
    pub object_count: Option<u64>,
    /// Result of listing the bucket. `null` if it is not listed.
    pub usage_listing: Option<UsageListing>,
    /// Whether versioning is enabled. `null` if it is not known.
    pub versioning: Option<bool>,
    /// Whether object lock is enabled. `null` if it is not known.
    pub object_lock: Option<bool>,
    /// Default retention of new objects, such as `GOVERNANCE 30 days`.
    pub default_retention: Option<String>,
    /// Time at which `versioning`, `object_lock` and `default_retention` were read. Not every probe reads them.
    pub bucket_configuration_read_at: Option<String>,
    /// Time at which the first certificate that the service presents expires (`notAfter`). `null` if that is not known,
    /// or without TLS.
    pub certificate_expires_at: Option<String>,
    /// Time at which the credentials of the bucket expire. `null` if they do not, or if that is not known.
    pub credentials_expire_at: Option<String>,
    /// Time at which this node last asked the bucket itself. Not every probe asks it, if another node watches it.
    /// `null` if the bucket did not answer.
    #[serde(default)]
    pub bucket_asked_at: Option<String>,
    /// Node of the fleet that watches the bucket: it asks it at each probe, and this node more rarely. `null` if there
    /// is none, or if it is this one.
    #[serde(default)]
    pub bucket_watched_by: Option<String>,
    /// Number of requests of this probe to the S3 service.
    pub probe_requests: Option<u64>,
    /// Number of this agent's requests for the bucket in the last hour.
    pub requests_last_hour: Option<u64>,
    /// Proof of the object lock of an immutable target. `null` for other targets.
    pub object_lock_proof: Option<LockProof>,
    /// Checks, in the order in which they ran.
    pub checks: Vec<Check>,
}

/// Mount as the kernel reports it. It can differ from the configured options.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Mount {
    /// Effective mount options.
    pub options: String,
    /// Address of the server that the mount uses.
    pub server_address: Option<String>,
    /// NFS version, such as `3` or `4.2`.
    pub nfs_version: Option<String>,
    /// Whether the mount is hard: a call waits as long as the server is down.
    pub hard: bool,
    /// Average round trip of this host's requests, in milliseconds. `null` if no request was completed, or the kernel
    /// has no counters.
    pub round_trip_ms: Option<f64>,
    /// Time that the average covers, in seconds: since the last probe, or since the export was mounted.
    pub round_trip_over_s: Option<f64>,
    /// Number of this host's retransmissions since the export was mounted.
    pub retransmissions: Option<u64>,
    /// Number of bytes that this host has read since then.
    pub bytes_read: Option<u64>,
    /// Number of bytes that this host has written since then.
    pub bytes_written: Option<u64>,
}

/// Mount that another program made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InUse {
    /// Source of the mount, such as an export or the name of a FUSE program.
    pub source: String,
    /// Type of the file system, such as `nfs4` or `fuse.s3fs`.
    #[serde(rename = "type")]
    pub fs_type: String,
    /// Effective mount options.
    pub options: String,
    /// Time at which this agent first saw the mount. It may be older.
    pub first_seen_at: String,
}

/// Proof of an object lock, with the credentials of the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LockProof {
    /// Verdict. `pending` until a proof is complete.
    pub verdict: ProofVerdict,
    /// What the proof observed.
    pub why: Option<String>,
    /// Time of the verdict.
    pub proved_at: Option<String>,
    /// Node of the fleet that proved it. `null` if it is this one.
    #[serde(default)]
    pub node: Option<String>,
}

impl LockProof {
    fn of(state: &LockProofState) -> Option<Self> {
        let (verdict, proof) = (state.verdict()?.into(), state.found());
        let why = proof.map(|proof| proof.why.clone());
        let node = proof.and_then(|proof| proof.node.clone());
        Some(Self { verdict, why, proved_at: proof.map(|proof| timestamp(proof.proved_at)), node })
    }
}

/// Result of one check.
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
    /// All findings, the most severe first. Empty if the check passed without a warning.
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// Fact that is worth showing although nothing is wrong.
    pub detail: Option<String>,
    /// Duration, in milliseconds.
    pub duration_ms: f64,
}

/// One problem that a check found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = CheckFinding)]
pub struct Finding {
    /// Reason code.
    pub reason: Reason,
    /// Whether it made the check fail.
    pub severity: Severity,
    /// What happened, and what to do.
    pub message: String,
}

impl From<&TargetView> for Report {
    fn from(view: &TargetView) -> Self {
        let TargetView { target, status, report, .. } = view;
        let report = report.as_deref();
        let capacity = report.and_then(|report| report.capacity).unwrap_or_default();
        let facts = report.and_then(|report| report.facts.as_ref());
        let (mode, mount, bucket) = match facts {
            None => (None, None, None),
            Some(KindFacts::Nfs { mode, mount, .. }) => (Some(*mode), mount.as_deref(), None),
            Some(KindFacts::S3(bucket)) => (None, None, Some(&**bucket)),
        };
        let requests = bucket.and_then(|bucket| bucket.requests);
        let finding = status.finding.as_ref();
        Self {
            backup_target_id: target.id.to_string(),
            filesystem_export: target.spec.export(),
            status: status.status.into(),
            since: timestamp(status.since),
            last_available_at: status.last_available_at.map(timestamp),
            verdict: report.map(|report| report.verdict.kind().into()),
            reason: finding.map(|finding| finding.reason.into()),
            message: finding.map(|finding| finding.message.clone()),
            timeouts_in_a_row: status.timeouts_in_a_row,
            checked_at: report.map(|report| timestamp(report.checked_at)),
            duration_ms: report.map(|report| milliseconds(report.duration)),
            mode: mode.map(MountMode::from),
            capacity_bytes: capacity.capacity_bytes,
            used_bytes: capacity.used_bytes,
            available_bytes: capacity.available_bytes,
            used_percent: capacity.used_percent(),
            time_to_full_s: report.and_then(|report| report.time_to_full).map(|time| time.as_secs()),
            inodes: capacity.inodes,
            inodes_used: capacity.inodes_used,
            mount: mount.map(Mount::from),
            in_use: facts.and_then(|facts| facts.in_use()).map(InUse::from),
            object_count: bucket.and_then(|bucket| bucket.object_count),
            usage_listing: bucket.and_then(|bucket| bucket.usage_listing.as_ref()).map(UsageListing::from),
            versioning: bucket.and_then(|bucket| bucket.versioning),
            object_lock: bucket.and_then(|bucket| bucket.object_lock),
            default_retention: bucket.and_then(|bucket| bucket.default_retention.clone()),
            bucket_configuration_read_at: bucket.and_then(|bucket| bucket.configuration_read_at).map(timestamp),
            certificate_expires_at: bucket.and_then(|bucket| Some(timestamp(bucket.certificate_end.as_ref()?.at))),
            credentials_expire_at: bucket.and_then(|bucket| bucket.credentials_expire_at).map(timestamp),
            bucket_asked_at: bucket.and_then(|bucket| bucket.asked_at).map(timestamp),
            bucket_watched_by: bucket.and_then(|bucket| bucket.watched_by.clone()),
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

impl From<&InUseFacts> for InUse {
    fn from(facts: &InUseFacts) -> Self {
        Self {
            source: facts.source.clone(),
            fs_type: facts.fs_type.clone(),
            options: facts.options.clone(),
            first_seen_at: timestamp(facts.first_seen_at),
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

/// Rounds to microseconds, in milliseconds.
fn milliseconds(duration: Duration) -> f64 {
    let micros = u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
    f64::from(micros) / 1000.0
}

/// Rounds to milliseconds, in seconds.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}
