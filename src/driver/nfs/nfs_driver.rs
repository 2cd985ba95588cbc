//! State of the driver of an NFS target, and where it mounts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::canary::VerifiedCanary;
use super::granted_export::GrantedExport;
use crate::check::canary::ProcessRole;
use crate::check::expected_mount::ExpectedMount;
use crate::check::in_use::InUseWatch;
use crate::check::mount_traffic::TrafficHistory;
use crate::check::server_addresses::ServerAddresses;
use crate::driver::host::Host;
use crate::model::settings::AgentSettings;
use crate::model::{MountMode, MountName, NfsExport, NfsOptions, NfsTarget, TargetId};
use crate::nfs::VolumeAddress;
use crate::sys::Lane;

/// Driver of one NFS target.
pub struct NfsDriver {
    pub(super) target: TargetId,
    pub(super) export: NfsExport,
    /// Mount options of the target itself.
    pub(super) options: Option<NfsOptions>,
    /// Mode of the target itself.
    pub(super) mode: Option<MountMode>,
    pub(super) name: MountName,
    pub(super) host: Arc<Host>,
    /// Whether the last probe passed. A suspect target must not delay a healthy one.
    pub(super) lane: Lane,
    /// Last canary that passed.
    pub(super) canary: Option<VerifiedCanary>,
    /// Export that the server granted to a probe over the wire.
    pub(super) granted: Option<GrantedExport>,
    /// Address over the wire at which the export was on another file system than the root of its server.
    pub(super) separate: Option<VolumeAddress>,
    /// Addresses of the server's name. They help to recognize the target's mount.
    pub(super) addresses: ServerAddresses,
    /// Id of the mount at the path when the latest probe ended. `None` before the first probe.
    pub(super) probed_mount: Option<Option<u32>>,
    /// Id of the mount whose mount point only root can replace.
    pub(super) protected_mount: Option<u32>,
    pub(super) traffic: TrafficHistory,
    /// The mount of another program at the mount path.
    pub(super) in_use: InUseWatch,
    /// Source of the latest private mount, which may differ from the export.
    pub(super) private_source: Option<String>,
    /// Whether a private mount that could not be unmounted was logged.
    pub(super) is_busy_logged: bool,
}

/// Where and how the target is mounted by the agent, or by the owner of the mount path.
pub(super) struct MountLocation<'a> {
    /// Settings from which the other fields follow.
    pub(super) settings: &'a AgentSettings,
    /// The export according to `[mounts] address_map`.
    pub(super) mapped_export: NfsExport,
    pub(super) options: NfsOptions,
    /// Directory that contains the mount path.
    pub(super) root: &'a Path,
    /// Mount point, relative to the root.
    pub(super) relative: PathBuf,
    /// The mount path: root and mount point.
    pub(super) path: PathBuf,
    /// Whether it is the private mount of [`MountMode::Observe`].
    pub(super) is_private: bool,
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

    pub(super) fn mode(&self, settings: &AgentSettings) -> MountMode {
        self.mode.unwrap_or(settings.mounts.mode)
    }

    /// Returns the mount options: those of the target itself, or otherwise those of the configuration for its export.
    pub(super) fn options<'a>(&'a self, settings: &'a AgentSettings) -> &'a NfsOptions {
        self.options.as_ref().unwrap_or_else(|| settings.mounts.options_for(&self.export))
    }

    /// The kernel's id of the mount where the agent mounts, of any file system. `None` if nothing is mounted there.
    pub(super) fn mount_id(&self, settings: &AgentSettings) -> Option<u32> {
        self.mount_id_at(&match self.mode(settings) {
            MountMode::Observe => self.private_path(settings),
            MountMode::Kernel | MountMode::None => self.name.below(&settings.mounts.root),
        })
    }

    pub(super) fn mount_id_at(&self, path: &Path) -> Option<u32> {
        self.host.mounts.current().topmost_at(path).map(|entry| entry.mount_id)
    }

    /// Where the agent mounts.
    pub(super) fn location<'a>(&self, settings: &'a AgentSettings) -> MountLocation<'a> {
        match self.mode(settings) {
            MountMode::Observe => self.private_location(settings),
            MountMode::Kernel | MountMode::None => self.public_location(settings),
        }
    }

    /// The mount path of the target, which other programs use.
    pub(super) fn public_location<'a>(&self, settings: &'a AgentSettings) -> MountLocation<'a> {
        let (root, relative) = (&settings.mounts.root, self.name.as_str().into());
        let options = self.options(settings).clone();
        let mapped_export = mapped(&self.export, settings);
        let path = self.name.below(root);
        MountLocation { settings, mapped_export, options, root, relative, path, is_private: false }
    }

    /// The private mount. It shares neither requests nor caches with other mounts of the export, so a forced unmount of
    /// one of them does not end requests of the other.
    pub(super) fn private_location<'a>(&self, settings: &'a AgentSettings) -> MountLocation<'a> {
        let (root, relative) = (&settings.mounts.private_root, self.private_mount_point());
        let options = self.options(settings).unshared();
        let mapped_export = mapped(&self.export, settings);
        let path = root.join(&relative);
        MountLocation { settings, mapped_export, options, root, relative, path, is_private: true }
    }

    /// The path of the private mount.
    pub(super) fn private_path(&self, settings: &AgentSettings) -> PathBuf {
        settings.mounts.private_root.join(self.private_mount_point())
    }

    /// Mount point of the private mount. A command does not use the one of the daemon, which unmounts it at any time.
    fn private_mount_point(&self) -> PathBuf {
        match self.host.role {
            ProcessRole::Daemon => self.name.as_str().into(),
            ProcessRole::OneShot => Path::new(&format!("check-{}", std::process::id())).join(self.name.as_str()),
        }
    }

    pub(super) fn expected_mount<'a>(&'a self, location: &'a MountLocation<'_>) -> ExpectedMount<'a> {
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
pub(super) fn mapped(export: &NfsExport, settings: &AgentSettings) -> NfsExport {
    let host = settings.mounts.address_map.get(export.address());
    // The configuration has validated the host.
    host.and_then(|host| export.with_host(host).ok()).unwrap_or_else(|| export.clone())
}
