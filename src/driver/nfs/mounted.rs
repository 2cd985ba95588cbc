//! Probe of a mounted target.
//!
//! A stale file handle is repaired within the probe: the driver unmounts, mounts again and reports it.

use std::time::Duration;

use super::canary::{CanaryPlace, write_if_due};
use super::nfs_driver::{MountLocation, NfsDriver};
use crate::check::mount_capacity::capacity_of_mount;
use crate::check::mounted::{OwnMount, mounted};
use crate::check::nfs_reachable::nfs_reachable;
use crate::check::visible::visible;
use crate::check::write_canary::write_canary;
use crate::check::{CheckLog, Checked};
use crate::driver::driver_trait::{Depth, Probe};
use crate::model::report::{Finding, KindFacts, MountFacts, finding};
use crate::model::{Capacity, CheckName, MountMode, Reason};
use crate::sys::worker::FaultKind;
use crate::sys::{CallError, Request, SWEEP_INTERVAL};

/// The checks of a mounted target, in the order of the report.
const PLAN: &[CheckName] =
    &[CheckName::Reachable, CheckName::Mounted, CheckName::Visible, CheckName::Capacity, CheckName::WriteCanary];

impl NfsDriver {
    pub(super) async fn probe_mounted(&mut self, location: &MountLocation<'_>, depth: Depth) -> Probe {
        let mut log = CheckLog::new(PLAN, location.settings.probe.slow_after);
        let (mount, capacity) = self.verify_through_mount(location, depth, &mut log).await;
        let facts = KindFacts::Nfs { mode: MountMode::Kernel, mount, in_use: None };
        Probe { checks: log.finish(), capacity, facts: Some(facts) }
    }

    /// Queries the server, mounts the export, measures it and writes the canary. Leaves it mounted.
    pub(super) async fn verify_through_mount(
        &mut self,
        location: &MountLocation<'_>,
        depth: Depth,
        log: &mut CheckLog,
    ) -> (Option<Box<MountFacts>>, Option<Capacity>) {
        let (mut mount, mut capacity) = (None, None);
        let server = location.mapped_export.address();
        let reachable = nfs_reachable(server, &location.options, location.settings.probe.deadline);
        if let Some(reached) = log.run(CheckName::Reachable, reachable).await {
            self.addresses.update(server, reached.addresses);
            (mount, capacity) = self.verify_mount(location, depth, None, log).await;
            let is_stale = mount.is_some() && capacity.is_none() && log.just_failed_with(Reason::StaleHandle);
            if is_stale && self.unmount_stale(location, log).await {
                let remounted = Finding::new(
                    Reason::StaleHandle,
                    "the exported directory was replaced on the server, so the file handle was stale: the agent mounted the export again, and it now shows another directory",
                );
                (mount, capacity) = self.verify_mount(location, depth, Some(remounted), log).await;
            }
        }
        let Some(mount) = mount else { return (None, capacity) };
        // The counters of a mount that ends with each probe begin again each time.
        let traffic = match location.is_private && !location.settings.mounts.keep_private {
            true => None,
            false => self.traffic.of_mount(&self.host.mount_stats, &location.path, &mount).await,
        };
        (Some(Box::new(MountFacts { traffic, ..mount.facts })), capacity)
    }

    /// Mounts the export unless it is mounted, measures it and writes the canary. `warning` is added to the check
    /// `mounted`.
    async fn verify_mount(
        &mut self,
        location: &MountLocation<'_>,
        depth: Depth,
        warning: Option<Finding>,
        log: &mut CheckLog,
    ) -> (Option<OwnMount>, Option<Capacity>) {
        let unprotected = self.unprotected_mount_point(location, depth).await;
        let (workers, probe) = (&self.host.workers, &location.settings.probe);
        let mounting = mounted(
            workers,
            (&self.host.mounts, &self.host.mount_stats),
            self.lane,
            self.expected_mount(location),
            probe.deadline,
            probe.mount_deadline,
        );
        let mounting = async { mounting.await.with_warnings(warning).with_warnings(unprotected) };
        let Some(mut mount) = log.run(CheckName::Mounted, mounting).await else { return (None, None) };
        if log.has_failure() {
            return (Some(mount), None);
        }
        if !location.is_private {
            let visible = visible(
                (&self.host.mounts, &self.host.host_mounts, &self.host.consumers),
                &location.settings.visibility,
                (location.root, &location.path),
                &mount,
                if depth == Depth::Full { Duration::ZERO } else { SWEEP_INTERVAL },
            );
            mount.facts.viewers = log.run(CheckName::Visible, visible).await.unwrap_or_default();
            if log.has_failure() {
                return (Some(mount), None);
            }
        }
        let (path, percent) = (&location.path, probe.nearly_full_percent);
        let measuring = capacity_of_mount(workers, self.target, self.lane, path, percent, probe.deadline);
        let capacity = log.run(CheckName::Capacity, measuring).await;
        if capacity.is_some() {
            let place = match location.is_private {
                true => CanaryPlace::PrivateMount(location.mapped_export.clone(), location.options.clone()),
                false => CanaryPlace::Mount(mount.mount_id),
            };
            let (settings, hostname) = (&probe.canary, &self.host.hostname);
            let writing = write_canary(workers, self.target, self.lane, path, hostname, settings, probe.deadline);
            write_if_due(&mut self.canary, place, settings, depth, log, writing).await;
        }
        (Some(mount), capacity)
    }

    /// Returns a warning if users other than root can replace the mount point of the current mount. Each mount is
    /// verified once, and again at a requested probe. The agent refuses to mount at such a mount point, but an
    /// existing mount works.
    async fn unprotected_mount_point(&mut self, location: &MountLocation<'_>, depth: Depth) -> Option<Finding> {
        let mount_id = self.mount_id_at(&location.path)?;
        if depth == Depth::Routine && self.protected_mount == Some(mount_id) {
            return None;
        }
        self.protected_mount = None;
        let request = Request::VerifyMountPoint { path: location.path.clone() };
        match self.host.workers.call(self.target, self.lane, request, location.settings.probe.deadline).await {
            Ok(_) => self.protected_mount = Some(mount_id),
            Err(CallError::Fault(fault)) if fault.kind == FaultKind::Unprotected => {
                return Some(finding!(
                    Reason::MountPointUnusable,
                    "{fault}. The existing mount is used, but the agent will neither unmount it nor mount the export again until you `chown root:root` and `chmod go-w` that directory"
                ));
            }
            // The protection is unknown. The other checks of the mount report the cause.
            Err(_) => {}
        }
        None
    }

    /// Unmounts a mount with a stale file handle, and removes its checks from the log. Returns whether the target is no
    /// longer mounted. A failure is reported by the check `capacity`.
    async fn unmount_stale(&mut self, location: &MountLocation<'_>, log: &mut CheckLog) -> bool {
        match self.unmount(location).await {
            Ok(_) => {
                // The kernel may give the next mount the same id.
                self.traffic.clear();
                log.drop_from(CheckName::Mounted);
                true
            }
            Err(error) => {
                let message = format!("the file handle is stale, and the export cannot be mounted again: {error}");
                log.drop_from(CheckName::Capacity);
                let failed = async { Checked::<()>::failed(Finding::new(Reason::StaleHandle, message)) };
                log.run(CheckName::Capacity, failed).await;
                false
            }
        }
    }
}
