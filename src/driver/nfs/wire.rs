//! Probe over the wire, without a mount.

use std::time::Instant;

use super::canary::{CanaryPlace, write_if_due};
use super::granted_export::GrantedExport;
use super::nfs_driver::{MountLocation, NfsDriver};
use crate::check::exported::{exported, exported_earlier};
use crate::check::mount_capacity::capacity_of_volume;
use crate::check::nfs_reachable::nfs_reachable_over_the_wire;
use crate::check::write_canary::write_canary_over_the_wire;
use crate::check::{CheckLog, Checked};
use crate::driver::driver_trait::{Depth, Probe};
use crate::model::report::{Finding, KindFacts};
use crate::model::{CheckName, MountMode, Reason};
use crate::nfs::VolumeAddress;

/// The checks of a target that is verified over the wire, in the order of the report.
const PLAN: &[CheckName] = &[CheckName::Reachable, CheckName::Exported, CheckName::Capacity, CheckName::WriteCanary];

/// Longest wait for other probes of the same server, in deadlines of a check: as long as all checks of one of them.
const TURN_DEADLINES: u32 = PLAN.len() as u32;

impl NfsDriver {
    pub(super) async fn probe_over_the_wire(&mut self, location: &MountLocation<'_>, depth: Depth) -> Probe {
        let probe = &location.settings.probe;
        let options = self.options(location.settings);
        let is_read_only = options.is_read_only();
        let mut log = CheckLog::new(PLAN, probe.slow_after);
        let mut capacity = None;
        let server = location.mapped_export.address();
        let turn = self.host.wire_turns.take(server, options.port(), self.lane, probe.deadline * TURN_DEADLINES).await;
        let reachable = async {
            match &turn {
                Ok(_) => nfs_reachable_over_the_wire(server, options, probe.deadline).await,
                Err(finding) => Checked::timed_out(finding.clone()),
            }
        };
        if let Some((server, connection)) = log.run(CheckName::Reachable, reachable).await {
            let address = VolumeAddress::new(server.address, self.export.path(), options);
            let granted = self.granted.take();
            let mut reusable = granted.filter(|granted| granted.is_usable_at(&address));
            // Measuring a granted export costs the server no second connection. Otherwise this one ends here, because a
            // probe uses one source port at a time.
            let mut connection = reusable.is_some().then_some(connection);
            let was_separate = self.separate.as_ref() == Some(&address);
            loop {
                let is_reused = reusable.is_some();
                let exporting = async {
                    match &reusable {
                        Some(granted) => exported_earlier(&granted.volume, granted.since.elapsed()),
                        None => exported(&address, was_separate, probe.deadline).await,
                    }
                };
                let Some(volume) = log.run(CheckName::Exported, exporting).await else {
                    break;
                };
                if volume.is_on_root_file_system() == Some(false) {
                    self.separate = Some(address.clone());
                }
                let measuring =
                    capacity_of_volume(&volume, connection.take(), probe.nearly_full_percent, probe.deadline);
                capacity = log.run(CheckName::Capacity, measuring).await;
                let since = reusable.take().map_or_else(Instant::now, |granted| granted.since);
                if capacity.is_some() {
                    let (place, settings) = (CanaryPlace::Wire(address.clone()), &probe.canary);
                    let hostname = &self.host.hostname;
                    let writing = async {
                        // A mount with this option could not be written to either.
                        if is_read_only {
                            return Checked::failed(read_only_option());
                        }
                        // Boxed, because most probes write no canary.
                        Box::pin(write_canary_over_the_wire(&volume, hostname, settings, probe.deadline)).await
                    };
                    write_if_due(&mut self.canary, place, settings, depth, &mut log, writing).await;
                    self.granted = Some(GrantedExport { since, address, volume });
                } else if is_reused && log.just_failed_with(Reason::StaleHandle) {
                    // The exported directory may be another one now.
                    self.canary = None;
                    log.drop_from(CheckName::Exported);
                    continue;
                }
                break;
            }
        }
        let facts = KindFacts::Nfs { mode: MountMode::None, mount: None, in_use: None };
        Probe { checks: log.finish(), capacity, facts: Some(facts) }
    }
}

fn read_only_option() -> Finding {
    Finding::new(
        Reason::ReadOnly,
        "the NFS options contain `ro`, so nobody can write to a mount of this export: drop it",
    )
}
