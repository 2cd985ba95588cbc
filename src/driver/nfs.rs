//! NFS targets: mounted by the kernel, or verified over the wire.
//!
//! Mounted (`mode = "kernel"`, [`mounted`]): reachable → mounted → visible → capacity → write canary. The server is
//! queried before the mount is accessed, and the mount is measured before it is written to. So a failure is found by
//! the cheapest check that can find it.
//!
//! Over the wire (`mode = "none"`, [`wire`]), for hosts that cannot mount: reachable → exported → capacity.
//! This does not verify that the export can be written to, and the report names the mode.

mod mounted;
mod unmount;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{Depth, DetachError, Driver, Host, Probe};
use crate::check::expected_mount::ExpectedMount;
use crate::check::mount_traffic::TrafficHistory;
use crate::check::server_addresses::ServerAddresses;
use crate::model::report::MountMode;
use crate::model::settings::AgentSettings;
use crate::model::{MountName, NfsExport, NfsOptions, NfsTarget, Outcome, TargetId};
use crate::sys::Lane;
use mounted::VerifiedCanary;
use unmount::join_remarks;
use wire::GrantedExport;

/// Driver of one NFS target.
pub struct NfsDriver {
    target: TargetId,
    export: NfsExport,
    /// Mount options of the target itself.
    options: Option<NfsOptions>,
    name: MountName,
    host: Arc<Host>,
    /// Whether the last probe passed. A suspect target must not delay a healthy one.
    lane: Lane,
    /// Last canary that passed.
    canary: Option<VerifiedCanary>,
    /// Export that the server granted to a probe over the wire.
    granted: Option<GrantedExport>,
    /// Addresses of the server's name. They help to recognize the target's mount.
    addresses: ServerAddresses,
    /// Id of the mount at the path when the latest probe ended. `None` before the first probe.
    probed_mount: Option<Option<u32>>,
    /// Id of the mount whose mount point only root can replace.
    protected_mount: Option<u32>,
    traffic: TrafficHistory,
}

/// Where the target is mounted now: its mount path, and the export according to `[mounts] address_map`.
struct MountLocation<'a> {
    /// Settings from which both follow.
    settings: &'a AgentSettings,
    mapped_export: NfsExport,
    path: PathBuf,
}

impl NfsDriver {
    /// Creates the driver of a target that was never probed.
    #[must_use]
    pub fn new(target: TargetId, spec: NfsTarget, name: MountName, host: Arc<Host>) -> Self {
        Self {
            target,
            export: spec.export,
            options: spec.options,
            name,
            host,
            lane: Lane::Suspect,
            canary: None,
            granted: None,
            addresses: ServerAddresses::default(),
            probed_mount: None,
            protected_mount: None,
            traffic: TrafficHistory::default(),
        }
    }

    /// Returns the mount options: those of the target itself, or otherwise those of the configuration for its export.
    fn options<'a>(&'a self, settings: &'a AgentSettings) -> &'a NfsOptions {
        self.options.as_ref().unwrap_or_else(|| settings.mounts.options_for(&self.export))
    }

    /// The kernel's id of the mount at the mount path, of any file system. `None` if nothing is mounted there.
    fn mount_id(&self, settings: &AgentSettings) -> Option<u32> {
        let path = self.name.below(&settings.mounts.root);
        self.host.mounts.current().topmost_at(&path).map(|entry| entry.mount_id)
    }

    fn location<'a>(&self, settings: &'a AgentSettings) -> MountLocation<'a> {
        MountLocation {
            settings,
            mapped_export: mapped(&self.export, settings),
            path: self.name.below(&settings.mounts.root),
        }
    }

    fn expected_mount<'a>(&'a self, location: &'a MountLocation<'_>) -> ExpectedMount<'a> {
        let settings = location.settings;
        ExpectedMount {
            target: self.target,
            export: &self.export,
            mapped_export: &location.mapped_export,
            addresses: &self.addresses,
            own: &self.host.own_mounts,
            options: self.options(settings),
            root: &settings.mounts.root,
            name: &self.name,
            path: &location.path,
        }
    }
}

/// Returns the export with the address that this node uses.
fn mapped(export: &NfsExport, settings: &AgentSettings) -> NfsExport {
    let host = settings.mounts.address_map.get(export.address());
    // The configuration has validated the host.
    host.and_then(|host| export.with_host(host).ok()).unwrap_or_else(|| export.clone())
}

/// Returns the host to which this node connects for an export.
pub(super) fn contacted_host(export: &NfsExport, settings: &AgentSettings) -> String {
    mapped(export, settings).address().to_owned()
}

#[async_trait]
impl Driver for NfsDriver {
    async fn probe(&mut self, settings: &AgentSettings, depth: Depth) -> Probe {
        let location = self.location(settings);
        let probe = match settings.mounts.mode {
            MountMode::Kernel => self.probe_mounted(&location, depth).await,
            MountMode::None => self.probe_over_the_wire(&location).await,
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
        (settings.mounts.mode == MountMode::Kernel && canary.enabled).then_some(canary.interval)
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
        if settings.mounts.mode == MountMode::None {
            return Ok(None);
        }
        let location = self.location(settings);
        let unmounted = self.unmount(&location).await?;
        let removed = self.remove_mount_point(settings).await;
        Ok(join_remarks(unmounted.into_iter().chain(removed)))
    }
}
