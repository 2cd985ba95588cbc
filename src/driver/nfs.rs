//! NFS targets: mounted by the kernel, or verified over the wire.
//!
//! Mounted (`mode = "kernel"`, [`mounted`]): reachable → mounted → visible → capacity → write canary. The server is
//! queried before the mount is accessed, and the mount is measured before it is written to. So a failure is found by
//! the cheapest check that can find it.
//!
//! Observed (`mode = "observe"`, [`observed`]): another program owns the mount path. The agent verifies the export
//! through a private mount of its own, and looks at what is mounted at the mount path.
//!
//! Over the wire (`mode = "none"`, [`wire`]), for hosts that cannot mount: reachable → exported → capacity → write
//! canary. The report names the mode.

mod canary;
mod granted_export;
mod mounted;
mod nfs_driver;
mod observed;
mod sweep;
mod unmount;
mod wire;
pub(super) mod wire_turns;

use std::time::Duration;

use async_trait::async_trait;

use super::driver_trait::{Depth, DetachError, Driver, Probe};
use crate::model::settings::AgentSettings;
use crate::model::{MountMode, NfsExport, Outcome};
use crate::sys::Lane;
pub use nfs_driver::NfsDriver;
use nfs_driver::mapped;
pub use sweep::PrivateMount;
use unmount::join_remarks;

/// Returns the host to which this node connects for an export.
pub(super) fn contacted_host(export: &NfsExport, settings: &AgentSettings) -> String {
    mapped(export, settings).address().to_owned()
}

#[async_trait]
impl Driver for NfsDriver {
    async fn probe(&mut self, settings: &AgentSettings, depth: Depth) -> Probe {
        let mode = self.mode(settings);
        if mode != MountMode::Observe {
            self.end_private_mount(settings).await;
        }
        let location = self.location(settings);
        let probe = match mode {
            MountMode::Kernel => self.probe_mounted(&location, depth).await,
            MountMode::Observe => self.probe_observed(&location, depth).await,
            MountMode::None => self.probe_over_the_wire(&location, depth).await,
        };
        let is_healthy = probe.checks.iter().all(|check| matches!(check.outcome, Outcome::Passed | Outcome::Skipped));
        self.lane = if is_healthy { Lane::Healthy } else { Lane::Suspect };
        self.probed_mount = Some(self.mount_id(settings));
        probe
    }

    fn interval(&self, settings: &AgentSettings) -> Duration {
        settings.probe.nfs_interval
    }

    fn canary_interval(&self, settings: &AgentSettings) -> Option<Duration> {
        let canary = &settings.probe.canary;
        canary.enabled.then_some(canary.interval)
    }

    async fn outdated(&mut self, settings: &AgentSettings) {
        let mut mounts = self.host.mounts.subscribe();
        // A driver that replaced a panicked one has not probed yet, and must not cause endless probes.
        let mount = self.mount_id(settings);
        let probed = *self.probed_mount.get_or_insert(mount);
        while self.mount_id(settings) == probed {
            if mounts.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn is_attached(&self, settings: &AgentSettings) -> bool {
        self.mount_id(settings).is_some()
    }

    async fn detach(&mut self, settings: &AgentSettings) -> Result<Option<String>, DetachError> {
        if self.mode(settings) != MountMode::Observe {
            self.end_private_mount(settings).await;
        }
        if self.mode(settings) == MountMode::None {
            return Ok(None);
        }
        let location = self.location(settings);
        let unmounted = self.unmount(&location).await?;
        let removed = self.remove_mount_point(&location).await;
        Ok(join_remarks(unmounted.into_iter().chain(removed)))
    }
}
