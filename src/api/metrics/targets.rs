//! Metrics of each target, from the view.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::family::{Exposition, Family, flag, number, seconds_of, values};
use crate::agent::{Intervals, TargetView, View, warnings};
use crate::model::MountMode;
use crate::model::report::{BucketFacts, MountFacts, MountTraffic, ProofVerdict};
use crate::model::{Capacity, CheckName, Outcome, Report, Status};

/// Label of every family here.
const EXPORT: &[&str] = &["export"];

static INFO: Family = Family::info(
    "targetwatch_target",
    &["export", "target_id", "target_type", "mount_path", "name", "default", "immutable", "mode"],
    "Identity of the target.",
);

static REASON: Family = Family::gauge(
    "targetwatch_target_reason",
    &["export", "check", "reason", "severity"],
    "1 if the latest probe found this reason, and 0 if only an earlier probe did. At most one failure is 1.",
);

static TRANSITIONS: Family = Family::counter(
    "targetwatch_target_transitions",
    &["export", "to"],
    "Changes of the status since the start of the agent.",
);

static MOUNT_INFO: Family = Family::info(
    "targetwatch_nfs_mount",
    &["export", "server_address", "nfs_version", "hard"],
    "Server address and options of the mount, as the kernel reports them.",
);

static VISIBLE: Family = Family::gauge(
    "targetwatch_nfs_visible",
    &["export", "consumer"],
    "Whether the host, or all verified processes with a name of [visibility] consumers, see the mount.",
);

static LOCK_VERDICT: Family = Family::gauge(
    "targetwatch_lock_proof_verdict",
    &["export", "verdict"],
    "1 for the verdict in force of an immutable target, and 0 for the others.",
);

/// Returns the value of a family for a target, or `None` if it was not measured.
type Value = fn(&ProbedTarget<'_>) -> Option<f64>;

/// Families with one value for each target.
static VALUES: &[(Family, Value)] = values! { EXPORT;
    gauge "targetwatch_target_available": "Whether backups can be written to the target from this node.",
        |target| Some(flag(target.view.status.status == Status::Available));
    gauge "targetwatch_target_warnings": "Warnings in the latest report.",
        |target| Some(number(warnings(target.report) as u64));
    gauge "targetwatch_target_status_since_timestamp_seconds": "When the status last changed.",
        |target| Some(seconds_of(target.view.status.since));
    gauge "targetwatch_target_last_probe_timestamp_seconds": "When the latest probe ended.",
        |target| Some(seconds_of(target.report.checked_at));
    gauge "targetwatch_target_last_available_timestamp_seconds":
        "When the latest probe that found the target available ended.",
        |target| target.view.status.last_available_at.map(seconds_of);
    gauge "targetwatch_target_probe_interval_seconds": "Time between two probes, as configured.",
        |target| target.intervals().map(|intervals| intervals.probe.as_secs_f64());
    gauge "targetwatch_target_probe_duration_seconds": "Duration of the latest probe.",
        |target| Some(target.report.duration.as_secs_f64());
    gauge "targetwatch_target_timeouts_in_a_row":
        "Number of consecutive probes that timed out, up to the latest one.",
        |target| Some(f64::from(target.view.status.timeouts_in_a_row));
    gauge "targetwatch_target_size_bytes": "Size of the file system, or quota of the bucket.",
        |target| target.capacity().capacity_bytes.map(number);
    gauge "targetwatch_target_used_bytes": "Used space.", |target| target.capacity().used_bytes.map(number);
    gauge "targetwatch_target_avail_bytes": "Space that an unprivileged writer can still use.",
        |target| target.capacity().available_bytes.map(number);
    gauge "targetwatch_target_files": "Inodes of the file system.", |target| target.capacity().inodes.map(number);
    gauge "targetwatch_target_files_free": "Free inodes of the file system.",
        |target| Some(number(target.capacity().inodes?.saturating_sub(target.capacity().inodes_used?)));
    gauge "targetwatch_target_objects": "Objects in the bucket, with all their versions.",
        |target| target.bucket?.object_count.map(number);
    gauge "targetwatch_target_canary_success_timestamp_seconds": "When the latest canary was written and read back.",
        |target| target.view.record.canary_at.map(seconds_of);
    gauge "targetwatch_target_canary_interval_seconds":
        "Time between two canaries. With a registry that all nodes share, that of a bucket may be longer than configured.",
        |target| Some(target.intervals()?.canary?.as_secs_f64());
    gauge "targetwatch_nfs_mounted": "Whether the export of the target is mounted at its path.",
        |target| match target.outcome(CheckName::Mounted)? {
            Outcome::Passed => Some(1.0),
            Outcome::Failed => Some(0.0),
            Outcome::TimedOut | Outcome::Skipped => None,
        };
    gauge "targetwatch_nfs_mount_timestamp_seconds": "When the export was mounted.",
        |target| Some(seconds_of(target.traffic()?.mounted_at));
    counter "targetwatch_nfs_requests": "NFS requests that were answered or abandoned.",
        |target| Some(number(target.traffic()?.requests));
    counter "targetwatch_nfs_retransmissions": "NFS requests that were sent again.",
        |target| Some(number(target.traffic()?.retransmissions));
    counter "targetwatch_nfs_major_timeouts":
        "NFS requests that got no answer after all retransmissions. A soft mount abandons them.",
        |target| Some(number(target.traffic()?.major_timeouts));
    counter "targetwatch_nfs_response_seconds": "Sum of the times from an NFS request to its answer.",
        |target| Some(target.traffic()?.round_trips.as_secs_f64());
    counter "targetwatch_nfs_read_bytes": "Bytes read from the server by all processes of this node.",
        |target| Some(number(target.traffic()?.bytes_read));
    counter "targetwatch_nfs_written_bytes": "Bytes written to the server by all processes of this node.",
        |target| Some(number(target.traffic()?.bytes_written));
    counter "targetwatch_s3_requests": "Requests that this agent sent for the bucket.",
        |target| Some(number(target.bucket?.requests?.total));
    gauge "targetwatch_s3_clock_skew_seconds": "Clock of the service minus clock of this node, in whole seconds.",
        |target| target.bucket?.clock_ahead_seconds.map(|seconds| seconds as f64);
    gauge "targetwatch_s3_certificate_expiry_timestamp_seconds":
        "When the first certificate that the service presents expires. Absent if that is not known, or without TLS.",
        |target| Some(seconds_of(target.bucket?.certificate_end.as_ref()?.at));
    gauge "targetwatch_s3_credentials_expiry_timestamp_seconds":
        "When the credentials expire. Absent if they do not.",
        |target| target.bucket?.credentials_expire_at.map(seconds_of);
    gauge "targetwatch_s3_versioning_enabled": "Whether the bucket keeps versions.",
        |target| target.bucket?.versioning.map(flag);
    gauge "targetwatch_s3_object_lock_enabled": "Whether the bucket has an object lock configuration.",
        |target| target.bucket?.object_lock.map(flag);
    gauge "targetwatch_s3_default_retention_seconds":
        "Default retention of new objects. Absent if the bucket has none.",
        |target| Some(target.bucket?.default_retention_length?.as_secs_f64());
    gauge "targetwatch_s3_configuration_timestamp_seconds":
        "When versioning and object lock of the bucket were read.",
        |target| target.bucket?.configuration_read_at.map(seconds_of);
    gauge "targetwatch_s3_listing_timestamp_seconds": "When the latest complete listing ended.",
        |target| Some(seconds_of(target.bucket?.usage_listing.as_ref()?.whole.as_ref()?.ended_at));
    gauge "targetwatch_lock_proof_timestamp_seconds": "When the verdict in force was proved.",
        |target| Some(seconds_of(target.bucket?.lock_proof.found()?.proved_at));
};

/// Families with other labels than [`EXPORT`].
#[cfg(test)]
static LABELLED: &[&Family] = &[&INFO, &REASON, &TRANSITIONS, &MOUNT_INFO, &VISIBLE, &LOCK_VERDICT];

/// Every family of targets.
#[cfg(test)]
pub(super) fn families() -> impl Iterator<Item = &'static Family> {
    LABELLED.iter().copied().chain(VALUES.iter().map(|(family, _)| family))
}

/// Metrics of all targets in a view. A target appears after its first probe.
#[derive(Debug)]
pub(super) struct Targets {
    pub(super) view: Arc<View>,
}

/// A target with a report.
struct ProbedTarget<'a> {
    export: String,
    view: &'a TargetView,
    report: &'a Report,
    nfs: Option<(MountMode, Option<&'a MountFacts>)>,
    bucket: Option<&'a BucketFacts>,
}

impl<'a> ProbedTarget<'a> {
    fn new(view: &'a TargetView) -> Option<Self> {
        let report = view.report.as_deref()?;
        let facts = report.facts.as_ref();
        Some(Self {
            export: view.target.spec.export(),
            view,
            report,
            nfs: facts.and_then(|facts| facts.nfs()),
            bucket: facts.and_then(|facts| facts.bucket()),
        })
    }

    fn intervals(&self) -> Option<Intervals> {
        self.view.record.intervals
    }

    fn capacity(&self) -> Capacity {
        self.report.capacity.unwrap_or_default()
    }

    fn outcome(&self, check: CheckName) -> Option<Outcome> {
        self.report.checks.iter().find(|result| result.check == check).map(|result| result.outcome)
    }

    fn mount(&self) -> Option<&'a MountFacts> {
        self.nfs?.1
    }

    fn traffic(&self) -> Option<MountTraffic> {
        self.mount()?.traffic
    }

    /// Labels that identify the target.
    fn info(&self) -> Vec<(&'static str, String)> {
        let target = &self.view.target;
        let mut labels = vec![
            ("export", self.export.clone()),
            ("target_id", target.id.to_string()),
            ("target_type", target.spec.kind().to_string()),
            ("mount_path", self.view.mount_path.display().to_string()),
            ("name", self.view.types.first().map(|first| first.name.clone()).unwrap_or_default()),
            ("default", target.is_default.to_string()),
            ("immutable", target.spec.is_immutable().to_string()),
        ];
        labels.extend(self.nfs.map(|(mode, _)| ("mode", mode.to_string())));
        labels
    }

    /// Labels of the mount.
    fn mount_info(&self) -> Option<Vec<(&'static str, String)>> {
        let mount = self.mount()?;
        let address = mount.server_address.map(|address| ("server_address", address.to_string()));
        let version = mount.nfs_version.clone().map(|version| ("nfs_version", version));
        let fixed = [("export", self.export.clone()), ("hard", mount.is_hard.to_string())];
        Some(fixed.into_iter().chain(address).chain(version).collect())
    }
}

/// Returns the values of each of [`VALUES`] for all targets. A value that was not measured is not a number. Reads each
/// target once, because those of thousands of targets do not fit into the caches of a processor.
fn values_of(targets: &[ProbedTarget<'_>]) -> Vec<Vec<f64>> {
    let mut values: Vec<_> = VALUES.iter().map(|_| Vec::with_capacity(targets.len())).collect();
    for target in targets {
        for (values, (_, value)) in values.iter_mut().zip(VALUES) {
            values.push(value(target).unwrap_or(f64::NAN));
        }
    }
    values
}

impl Collector for Targets {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut exposition = Exposition(encoder);
        // Two targets may have one export if [mounts] path_key was changed between their creations. Prometheus would
        // refuse a series that appears twice.
        let mut exports = HashSet::new();
        let shown = self.view.targets.iter().filter_map(|view| ProbedTarget::new(view));
        let targets: Vec<ProbedTarget<'_>> = shown.filter(|target| exports.insert(target.export.clone())).collect();
        exposition.write(&INFO, targets.iter().map(|target| (target.info(), 1.0)))?;
        for ((family, _), values) in VALUES.iter().zip(values_of(&targets)) {
            let exports = targets.iter().map(|target| [("export", &*target.export)]);
            exposition.write(family, exports.zip(values))?;
        }
        let reasons = targets.iter().flat_map(|target| {
            target.view.record.reasons.iter().map(|found| {
                let labels = [
                    ("export", &*target.export),
                    ("check", found.check.as_str()),
                    ("reason", found.reason.as_str()),
                    ("severity", found.severity.as_str()),
                ];
                (labels, flag(found.is_current))
            })
        });
        exposition.write(&REASON, reasons)?;
        let transitions = targets.iter().flat_map(|target| {
            let record = &target.view.record;
            let to = |status: Status, count| ([("export", &*target.export), ("to", status.as_str())], number(count));
            [to(Status::Available, record.became_available), to(Status::Offline, record.became_offline)]
        });
        exposition.write(&TRANSITIONS, transitions)?;
        let mounts = targets.iter().filter_map(|target| Some((target.mount_info()?, 1.0)));
        exposition.write(&MOUNT_INFO, mounts)?;
        let visible = targets.iter().flat_map(|target| {
            let viewers = target.mount().into_iter().flat_map(|mount| &mount.viewers);
            viewers.map(|viewer| ([("export", &*target.export), ("consumer", &*viewer.name)], flag(viewer.sees_it)))
        });
        exposition.write(&VISIBLE, visible)?;
        let proofs = targets.iter().filter_map(|target| Some((target, target.bucket?.lock_proof.verdict()?)));
        let proofs = proofs.flat_map(|(target, found)| {
            ProofVerdict::ALL.iter().map(move |verdict| {
                ([("export", &*target.export), ("verdict", verdict.as_str())], flag(*verdict == found))
            })
        });
        exposition.write(&LOCK_VERDICT, proofs)
    }
}
