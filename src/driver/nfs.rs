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
mod mounted;
mod observed;
mod sweep;
mod unmount;
mod wire;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{Depth, DetachError, Driver, Host, Probe};
use crate::check::canary::ProcessRole;
use crate::check::expected_mount::ExpectedMount;
use crate::check::in_use::InUseWatch;
use crate::check::mount_traffic::TrafficHistory;
use crate::check::server_addresses::ServerAddresses;
use crate::model::settings::AgentSettings;
use crate::model::{MountMode, MountName, NfsExport, NfsOptions, NfsTarget, Outcome, TargetId};
use crate::nfs::VolumeAddress;
use crate::sys::Lane;
use canary::VerifiedCanary;
pub use sweep::PrivateMount;
use unmount::join_remarks;
use wire::GrantedExport;

/// Driver of one NFS target.
pub struct NfsDriver {
    target: TargetId,
    export: NfsExport,
    /// Mount options of the target itself.
    options: Option<NfsOptions>,
    /// Mode of the target itself.
    mode: Option<MountMode>,
    name: MountName,
    host: Arc<Host>,
    /// Whether the last probe passed. A suspect target must not delay a healthy one.
    lane: Lane,
    /// Last canary that passed.
    canary: Option<VerifiedCanary>,
    /// Export that the server granted to a probe over the wire.
    granted: Option<GrantedExport>,
    /// Address over the wire at which the export was on another file system than the root of its server.
    separate: Option<VolumeAddress>,
    /// Addresses of the server's name. They help to recognize the target's mount.
    addresses: ServerAddresses,
    /// Id of the mount at the path when the latest probe ended. `None` before the first probe.
    probed_mount: Option<Option<u32>>,
    /// Id of the mount whose mount point only root can replace.
    protected_mount: Option<u32>,
    traffic: TrafficHistory,
    /// The mount of another program at the mount path.
    in_use: InUseWatch,
    /// Source of the latest private mount, which may differ from the export.
    private_source: Option<String>,
    /// Whether a private mount that could not be unmounted was logged.
    is_busy_logged: bool,
}

/// Where and how the target is mounted by the agent, or by the owner of the mount path.
struct MountLocation<'a> {
    /// Settings from which the other fields follow.
    settings: &'a AgentSettings,
    /// The export according to `[mounts] address_map`.
    mapped_export: NfsExport,
    options: NfsOptions,
    /// Directory that contains the mount path.
    root: &'a Path,
    /// Mount point, relative to the root.
    relative: PathBuf,
    /// The mount path: root and mount point.
    path: PathBuf,
    /// Whether it is the private mount of [`MountMode::Observe`].
    is_private: bool,
}

impl NfsDriver {
    /// Creates the driver of a target that was never probed.
    #[must_use]
    pub fn new(target: TargetId, spec: NfsTarget, name: MountName, host: Arc<Host>) -> Self {
        Self {
            target,
            export: spec.export,
            options: spec.options,
            mode: spec.mode,
            name,
            host,
            lane: Lane::Suspect,
            canary: None,
            granted: None,
            separate: None,
            addresses: ServerAddresses::default(),
            probed_mount: None,
            protected_mount: None,
            traffic: TrafficHistory::default(),
            in_use: InUseWatch::default(),
            private_source: None,
            is_busy_logged: false,
        }
    }

    fn mode(&self, settings: &AgentSettings) -> MountMode {
        self.mode.unwrap_or(settings.mounts.mode)
    }

    /// Returns the mount options: those of the target itself, or otherwise those of the configuration for its export.
    fn options<'a>(&'a self, settings: &'a AgentSettings) -> &'a NfsOptions {
        self.options.as_ref().unwrap_or_else(|| settings.mounts.options_for(&self.export))
    }

    /// The kernel's id of the mount where the agent mounts, of any file system. `None` if nothing is mounted there.
    fn mount_id(&self, settings: &AgentSettings) -> Option<u32> {
        self.mount_id_at(&match self.mode(settings) {
            MountMode::Observe => settings.mounts.private_root.join(self.private_mount_point()),
            MountMode::Kernel | MountMode::None => self.name.below(&settings.mounts.root),
        })
    }

    fn mount_id_at(&self, path: &Path) -> Option<u32> {
        self.host.mounts.current().topmost_at(path).map(|entry| entry.mount_id)
    }

    /// Where the agent mounts.
    fn location<'a>(&self, settings: &'a AgentSettings) -> MountLocation<'a> {
        match self.mode(settings) {
            MountMode::Observe => self.private_location(settings),
            MountMode::Kernel | MountMode::None => self.public_location(settings),
        }
    }

    /// The mount path of the target, which other programs use.
    fn public_location<'a>(&self, settings: &'a AgentSettings) -> MountLocation<'a> {
        let (root, relative) = (&settings.mounts.root, self.name.as_str().into());
        let options = self.options(settings).clone();
        let mapped_export = mapped(&self.export, settings);
        let path = self.name.below(root);
        MountLocation { settings, mapped_export, options, root, relative, path, is_private: false }
    }

    /// The private mount. It shares neither requests nor caches with other mounts of the export, so a forced unmount of
    /// one of them does not end requests of the other.
    fn private_location<'a>(&self, settings: &'a AgentSettings) -> MountLocation<'a> {
        let (root, relative) = (&settings.mounts.private_root, self.private_mount_point());
        let options = self.options(settings).unshared();
        let mapped_export = mapped(&self.export, settings);
        let path = root.join(&relative);
        MountLocation { settings, mapped_export, options, root, relative, path, is_private: true }
    }

    /// Mount point of the private mount. A command does not use the one of the daemon, which unmounts it at any time.
    fn private_mount_point(&self) -> PathBuf {
        match self.host.role {
            ProcessRole::Daemon => self.name.as_str().into(),
            ProcessRole::OneShot => Path::new(&format!("check-{}", std::process::id())).join(self.name.as_str()),
        }
    }

    fn expected_mount<'a>(&'a self, location: &'a MountLocation<'_>) -> ExpectedMount<'a> {
        ExpectedMount {
            target: self.target,
            export: &self.export,
            mapped_export: &location.mapped_export,
            addresses: &self.addresses,
            own: if location.is_private { &self.host.private_mounts } else { &self.host.own_mounts },
            options: &location.options,
            root: location.root,
            relative: &location.relative,
            path: &location.path,
            is_private: location.is_private,
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
