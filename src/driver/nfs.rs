//! NFS targets: mounted by the kernel, or verified over the wire.
//!
//! Mounted (`mode = "kernel"`): reachable → mounted → capacity → write canary. The server is queried
//! before the mount is touched, and the mount is measured before it is written to. So the cheapest
//! check that can find a failure finds it. A stale file handle heals within the probe: the driver
//! unmounts, mounts again and reports it.
//!
//! Over the wire (`mode = "none"`), for hosts that cannot mount: reachable → exported → capacity.
//! This does not verify that the export can be written to, and the report names the mode.

mod take_down;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;

use super::{Depth, DetachError, Driver, Host, Probe};
use crate::check::exported::exported;
use crate::check::mount_capacity::{capacity_of_mount, capacity_of_volume};
use crate::check::mount_place::MountPlace;
use crate::check::mount_traffic::TrafficRecord;
use crate::check::mounted::{MountedHere, mounted};
use crate::check::nfs_reachable::nfs_reachable;
use crate::check::server_addresses::ServerAddresses;
use crate::check::write_canary::write_canary;
use crate::check::{CheckLog, Checked};
use crate::model::report::{Finding, KindFacts, MountFacts, MountMode};
use crate::model::settings::{AgentSettings, CanarySettings};
use crate::model::{CheckName, MountName, NfsExport, Outcome, Reason, TargetId};
use crate::nfs::{Volume, VolumeAddress};
use crate::sys::Lane;
use take_down::join_remarks;

/// How long a file handle from the server's mountd is used before the driver asks for another.
/// Servers log each such request, and NFS refuses the handle of an export that was withdrawn. So a
/// request at every probe would only fill the server's log.
const VOLUME_REUSE: Duration = Duration::from_secs(300);

/// The checks of a target that is mounted, in the order of the report.
const MOUNTED_PLAN: &[CheckName] =
    &[CheckName::Reachable, CheckName::Mounted, CheckName::Capacity, CheckName::WriteCanary];

/// The checks of a target that is verified over the wire, in the order of the report.
const WIRE_PLAN: &[CheckName] = &[CheckName::Reachable, CheckName::Exported, CheckName::Capacity];

/// Driver of one NFS target.
pub struct NfsDriver {
    target: TargetId,
    export: NfsExport,
    name: MountName,
    host: Arc<Host>,
    /// Whether the last probe passed. A suspect target must not queue in front of a healthy one.
    lane: Lane,
    canary: Option<CanaryRecord>,
    volume: Option<OpenVolume>,
    /// Addresses of the server's name. The mount is recognized by them too.
    servers: ServerAddresses,
    /// Id of the mount, and when it was first seen.
    mount_seen: Option<(u32, Instant)>,
    /// Id of the mount at the path when the latest probe ended.
    probed_mount: Option<u32>,
    /// The kernel's counters at the last probe.
    traffic: Option<TrafficRecord>,
}

/// The last canary that was written and read back.
struct CanaryRecord {
    at: Instant,
    written_at: Timestamp,
    mount_id: u32,
    settings: CanarySettings,
}

/// An export that the server's mountd granted.
struct OpenVolume {
    since: Instant,
    address: VolumeAddress,
    volume: Volume,
}

/// Where and from which server a target is mounted, according to the settings.
struct Place {
    export_here: NfsExport,
    path: PathBuf,
}

impl NfsDriver {
    /// Creates the driver of a target that was never probed.
    #[must_use]
    pub fn new(target: TargetId, export: NfsExport, name: MountName, host: Arc<Host>) -> Self {
        Self {
            target,
            export,
            name,
            host,
            lane: Lane::Suspect,
            canary: None,
            volume: None,
            servers: ServerAddresses::default(),
            mount_seen: None,
            traffic: None,
            probed_mount: None,
        }
    }

    /// The kernel's id of the mount at the mount path, of any file system. `None` if nothing is mounted there.
    fn mount_id(&self, settings: &AgentSettings) -> Option<u32> {
        let path = self.name.below(&settings.mounts.root);
        self.host.mounts.current().topmost_at(&path).map(|entry| entry.mount_id)
    }

    fn place(&self, settings: &AgentSettings) -> Place {
        let mapped = settings.mounts.address_map.get(self.export.address());
        // The configuration has validated the address.
        let export_here = mapped.and_then(|host| self.export.with_host(host).ok());
        Place {
            export_here: export_here.unwrap_or_else(|| self.export.clone()),
            path: self.name.below(&settings.mounts.root),
        }
    }

    fn mount_place<'a>(&'a self, settings: &'a AgentSettings, place: &'a Place) -> MountPlace<'a> {
        MountPlace {
            target: self.target,
            export: &self.export,
            export_here: &place.export_here,
            servers: &self.servers,
            port: settings.mounts.options_for(&self.export).port(),
            root: &settings.mounts.root,
            name: &self.name,
            path: &place.path,
        }
    }

    async fn probe_mounted(&mut self, settings: &AgentSettings, place: &Place, depth: Depth) -> Probe {
        let probe = &settings.probe;
        let options = settings.mounts.options_for(&self.export);
        let mut log = CheckLog::new(MOUNTED_PLAN, probe.slow_after);
        let (mut mount, mut capacity) = (None, None);
        let reachable = nfs_reachable(place.export_here.address(), options, probe.deadline);
        if let Some(server) = log.run(CheckName::Reachable, reachable).await {
            self.servers.learn(place.export_here.address(), server.addresses);
            let mut healed = None;
            loop {
                let mounting = mounted(
                    &self.host.workers,
                    &self.host.mounts,
                    self.lane,
                    self.mount_place(settings, place),
                    options,
                    probe.deadline,
                    probe.mount_deadline,
                );
                let mounting = async { mounting.await.with_warnings(healed.clone()) };
                let Some(here) = log.run(CheckName::Mounted, mounting).await else {
                    break;
                };
                let mount_id = here.mount_id;
                mount = Some(here);
                if log.has_failure() {
                    break;
                }
                let measuring = capacity_of_mount(
                    &self.host.workers,
                    self.target,
                    self.lane,
                    &place.path,
                    probe.nearly_full_percent,
                    probe.deadline,
                );
                capacity = log.run(CheckName::Capacity, measuring).await;
                if capacity.is_some() {
                    self.canary_if_due(settings, place, mount_id, depth, &mut log).await;
                    break;
                }
                if !log.just_failed_with(Reason::StaleHandle) || healed.is_some() {
                    break;
                }
                match self.unmount(settings, place).await {
                    Ok(_) => {
                        mount = None;
                        // The kernel may give the next mount the same id.
                        (self.mount_seen, self.traffic) = (None, None);
                        log.drop_from(CheckName::Mounted);
                        healed = Some(Finding::new(
                            Reason::StaleHandle,
                            "the file handle was stale, since the exported directory was replaced on the server: it was unmounted and mounted again; what is in it now is another directory",
                        ));
                    }
                    Err(error) => {
                        let message = format!("the file handle is stale and the mount cannot be renewed: {error}");
                        log.drop_from(CheckName::Capacity);
                        let failed = async { Checked::<()>::failed(Finding::new(Reason::StaleHandle, message)) };
                        log.run(CheckName::Capacity, failed).await;
                        break;
                    }
                }
            }
        }
        let mount = match mount {
            Some(here) => Some(self.with_traffic(here, &place.path).await),
            None => None,
        };
        Probe { checks: log.finish(), capacity, facts: Some(KindFacts::Nfs { mode: MountMode::Kernel, mount }) }
    }

    /// Adds the kernel's counters to the facts about a mount.
    async fn with_traffic(&mut self, here: MountedHere, path: &Path) -> MountFacts {
        let seen_at = match self.mount_seen {
            Some((mount_id, at)) if mount_id == here.mount_id => at,
            _ => Instant::now(),
        };
        self.mount_seen = Some((here.mount_id, seen_at));
        let stats = self.host.mount_stats.recent().await;
        // The former counters may be those of another mount, which was at this path before.
        let counters = stats.of(path, &here.source).filter(|_| stats.read_at >= seen_at);
        self.traffic = counters
            .map(|counters| TrafficRecord::after(self.traffic.as_ref(), here.mount_id, stats.read_at, counters));
        MountFacts { traffic: self.traffic.map(|record| record.traffic), ..here.facts }
    }

    async fn canary_if_due(
        &mut self,
        settings: &AgentSettings,
        place: &Place,
        mount_id: u32,
        depth: Depth,
        log: &mut CheckLog,
    ) {
        let canary = &settings.probe.canary;
        if !canary.enabled {
            log.skip(CheckName::WriteCanary, "turned off in [probe.canary]: writing is not verified".to_owned());
            return;
        }
        // A failed canary leaves no record, so each probe tries again until one passes.
        let still_good = self.canary.as_ref().filter(|_| depth == Depth::Routine).filter(|last| {
            last.mount_id == mount_id && last.settings == *canary && last.at.elapsed() < canary.interval
        });
        if let Some(last) = still_good {
            log.skip(
                CheckName::WriteCanary,
                format!(
                    "written at {:.0}; the next one is due {} s after that",
                    last.written_at,
                    canary.interval.as_secs()
                ),
            );
            return;
        }
        self.canary = None;
        let writing = write_canary(
            &self.host.workers,
            self.target,
            self.lane,
            &place.path,
            &self.host.hostname,
            canary,
            settings.probe.deadline,
        );
        if log.run(CheckName::WriteCanary, writing).await.is_some() {
            let (at, written_at, settings) = (Instant::now(), Timestamp::now(), canary.clone());
            self.canary = Some(CanaryRecord { at, written_at, mount_id, settings });
        }
    }

    async fn probe_over_the_wire(&mut self, settings: &AgentSettings, place: &Place) -> Probe {
        let probe = &settings.probe;
        let options = settings.mounts.options_for(&self.export);
        let mut log = CheckLog::new(WIRE_PLAN, probe.slow_after);
        let mut capacity = None;
        let reachable = nfs_reachable(place.export_here.address(), options, probe.deadline);
        if let Some(server) = log.run(CheckName::Reachable, reachable).await {
            let address = VolumeAddress {
                server: server.address,
                nfs_port: options.port(),
                mount_port: options.mount_port(),
                path: self.export.path().to_owned(),
            };
            let mut reusable =
                self.volume.take().filter(|open| open.address == address && open.since.elapsed() < VOLUME_REUSE);
            loop {
                let is_reused = reusable.is_some();
                let exporting = async {
                    match &reusable {
                        Some(open) => Checked::passed(open.volume.clone())
                            .detail(format!("given {} s ago", open.since.elapsed().as_secs())),
                        None => exported(&address, probe.deadline).await,
                    }
                };
                let Some(volume) = log.run(CheckName::Exported, exporting).await else {
                    break;
                };
                let measuring = capacity_of_volume(&volume, probe.nearly_full_percent, probe.deadline);
                capacity = log.run(CheckName::Capacity, measuring).await;
                let since = reusable.take().map_or_else(Instant::now, |open| open.since);
                if capacity.is_some() {
                    self.volume = Some(OpenVolume { since, address, volume });
                } else if is_reused && log.just_failed_with(Reason::StaleHandle) {
                    log.drop_from(CheckName::Exported);
                    continue;
                }
                break;
            }
        }
        let facts = KindFacts::Nfs { mode: MountMode::None, mount: None };
        Probe { checks: log.finish(), capacity, facts: Some(facts) }
    }
}

#[async_trait]
impl Driver for NfsDriver {
    async fn probe(&mut self, settings: &AgentSettings, depth: Depth) -> Probe {
        let place = self.place(settings);
        let probe = match settings.mounts.mode {
            MountMode::Kernel => self.probe_mounted(settings, &place, depth).await,
            MountMode::None => self.probe_over_the_wire(settings, &place).await,
        };
        let is_well = probe.checks.iter().all(|check| matches!(check.outcome, Outcome::Passed | Outcome::Skipped));
        self.lane = if is_well { Lane::Healthy } else { Lane::Suspect };
        self.probed_mount = self.mount_id(settings);
        probe
    }

    fn interval(&self, settings: &AgentSettings) -> Duration {
        settings.probe.nfs_interval
    }

    async fn outdated(&mut self, settings: &AgentSettings) {
        let mut mounts = self.host.mounts.subscribe();
        while self.mount_id(settings) == self.probed_mount {
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
        let place = self.place(settings);
        let unmounted = self.unmount(settings, &place).await?;
        let removed = self.remove_mount_point(settings).await;
        Ok(join_remarks(unmounted.into_iter().chain(removed)))
    }
}
