//! When the canary file of a target is written: after mounting or opening the export, when a probe is requested, and
//! once in an interval.

use std::time::Instant;

use jiff::Timestamp;

use crate::check::{CheckLog, Checked};
use crate::driver::driver_trait::Depth;
use crate::model::settings::CanarySettings;
use crate::model::{CheckName, NfsExport, NfsOptions};
use crate::nfs::VolumeAddress;

/// Where a canary was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CanaryPlace {
    /// Through the mount with this id.
    Mount(u32),
    /// Through a private mount of this export with these options. It may be another one at each probe.
    PrivateMount(NfsExport, NfsOptions),
    /// Over the wire.
    Wire(VolumeAddress),
}

/// A canary that was written, read back and removed.
pub(super) struct VerifiedCanary {
    at: Instant,
    written_at: Timestamp,
    place: CanaryPlace,
    settings: CanarySettings,
}

impl VerifiedCanary {
    /// Whether this canary is still current, so that the next one is not due: same place, same settings, and within the
    /// interval.
    fn is_current(&self, place: &CanaryPlace, settings: &CanarySettings) -> bool {
        self.place == *place && self.settings == *settings && self.at.elapsed() < settings.interval
    }
}

/// Writes a canary if one is due. `last` is the last one that passed.
pub(super) async fn write_if_due(
    last: &mut Option<VerifiedCanary>,
    place: CanaryPlace,
    settings: &CanarySettings,
    depth: Depth,
    log: &mut CheckLog,
    writing: impl Future<Output = Checked>,
) {
    if !settings.enabled {
        log.skip(CheckName::WriteCanary, "disabled in [probe.canary]: writing is not verified");
        return;
    }
    if let Some(last) = last.as_ref().filter(|last| depth == Depth::Routine && last.is_current(&place, settings)) {
        let (at, interval) = (last.written_at, settings.interval.as_secs());
        log.skip(CheckName::WriteCanary, format!("written at {at:.0}; the next one is due {interval} s after that"));
        return;
    }
    // A failed canary leaves no record, so each probe tries again until one passes.
    *last = None;
    if log.run(CheckName::WriteCanary, writing).await.is_some() {
        let (at, written_at, settings) = (Instant::now(), Timestamp::now(), settings.clone());
        *last = Some(VerifiedCanary { at, written_at, place, settings });
    }
}
