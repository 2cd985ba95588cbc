//! NFS traffic between two probes, from the kernel's counters since the export was mounted.
//!
//! An average over the life of a mount would hide that its server became slow an hour ago. So the round
//! trip is the average of the requests since the last probe. A dead server does not affect it, because the kernel
//! counts a request only when it is answered or abandoned.

use std::path::Path;
use std::time::Instant;

use jiff::Timestamp;

use super::mounted::OwnMount;
use crate::model::report::MountTraffic;
use crate::sys::{MountCounters, MountStatsCache};

/// Traffic of a target's mount, from probe to probe.
#[derive(Debug, Default)]
pub struct TrafficHistory {
    /// Id of the mount, and when it was first seen.
    first_seen: Option<(u32, Instant)>,
    latest: Option<TrafficRecord>,
}

impl TrafficHistory {
    /// Returns the traffic of the mount at `path` since the last probe. `None` if the kernel has no counters for it.
    pub async fn of_mount(&mut self, stats: &MountStatsCache, path: &Path, mount: &OwnMount) -> Option<MountTraffic> {
        let seen_at = match self.first_seen {
            Some((mount_id, at)) if mount_id == mount.mount_id => at,
            _ => Instant::now(),
        };
        self.first_seen = Some((mount.mount_id, seen_at));
        let stats = stats.recent().await;
        // Counters that were read earlier may be those of a former mount at this path.
        let counters = stats.of(path, &mount.source).filter(|_| stats.read_at >= seen_at);
        self.latest = counters
            .map(|counters| TrafficRecord::after(self.latest.as_ref(), mount.mount_id, stats.read_at, counters));
        self.latest.map(|record| record.traffic)
    }

    /// Forgets the mount. The next mount is a new one, even if the kernel gives it the same id.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Counters of a mount at one probe.
#[derive(Debug, Clone, Copy)]
struct TrafficRecord {
    mount_id: u32,
    read_at: Instant,
    counters: MountCounters,
    /// Traffic since the previous record.
    traffic: MountTraffic,
}

impl TrafficRecord {
    /// Derives the traffic since the last probe from counters that were read at `read_at`.
    fn after(last: Option<&Self>, mount_id: u32, read_at: Instant, counters: MountCounters) -> Self {
        let same_mount = last.filter(|last| {
            let before = &last.counters;
            last.mount_id == mount_id && before.requests <= counters.requests && before.age <= counters.age
        });
        if let Some(last) = same_mount.filter(|last| last.read_at == read_at) {
            return *last;
        }
        let (before, over) = match same_mount {
            Some(last) => (last.counters, read_at.saturating_duration_since(last.read_at)),
            None => (MountCounters::default(), counters.age),
        };
        let requests = u32::try_from(counters.requests - before.requests).unwrap_or(u32::MAX);
        // Kept from the first record: a later calculation may differ by a second, which would look like a remount.
        let mounted_at = same_mount.map_or_else(|| mounted_at(read_at, &counters), |last| last.traffic.mounted_at);
        let traffic = MountTraffic {
            round_trip: counters.round_trips.saturating_sub(before.round_trips).checked_div(requests),
            round_trip_over: over,
            requests: counters.requests,
            round_trips: counters.round_trips,
            major_timeouts: counters.major_timeouts,
            mounted_at,
            retransmissions: counters.transmissions.saturating_sub(counters.requests),
            bytes_read: counters.bytes_read,
            bytes_written: counters.bytes_written,
        };
        Self { mount_id, read_at, counters, traffic }
    }
}

fn mounted_at(read_at: Instant, counters: &MountCounters) -> Timestamp {
    let now = Timestamp::now();
    now.checked_sub(read_at.elapsed() + counters.age).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn counters(age_s: u64, requests: u64, round_trips_ms: u64) -> MountCounters {
        MountCounters {
            age: Duration::from_secs(age_s),
            requests,
            transmissions: requests + 2,
            round_trips: Duration::from_millis(round_trips_ms),
            major_timeouts: 3,
            bytes_read: 7,
            bytes_written: 8,
        }
    }

    #[test]
    fn round_trip_is_averaged_since_the_last_probe() {
        let began = Instant::now();
        let ten = Duration::from_secs(10);
        let first = TrafficRecord::after(None, 7, began, counters(100, 1000, 500));
        let traffic = first.traffic;
        assert_eq!((traffic.round_trip, traffic.round_trip_over), (Some(Duration::from_micros(500)), ten * 10));
        assert_eq!((traffic.retransmissions, traffic.bytes_read, traffic.bytes_written), (2, 7, 8));
        assert_eq!((traffic.requests, traffic.round_trips), (1000, Duration::from_millis(500)));
        assert_eq!(traffic.major_timeouts, 3);

        let second = TrafficRecord::after(Some(&first), 7, began + ten, counters(110, 1004, 900));
        assert_eq!(second.traffic.round_trip, Some(Duration::from_millis(100)));
        assert_eq!(second.traffic.round_trip_over, ten);

        let again = TrafficRecord::after(Some(&second), 7, began + ten, counters(110, 1004, 900));
        assert_eq!(again.traffic, second.traffic, "the same counters give the same traffic");
        let silent = TrafficRecord::after(Some(&second), 7, began + ten * 2, counters(120, 1004, 900));
        assert_eq!(silent.traffic.round_trip, None, "no request was completed");
        assert_eq!(silent.traffic.mounted_at, traffic.mounted_at, "the same mount");
    }

    #[test]
    fn traffic_restarts_with_another_mount() {
        let began = Instant::now();
        let first = TrafficRecord::after(None, 7, began, counters(100, 1000, 500));
        for (mount_id, requests) in [(8, 2000), (7, 10)] {
            let later = began + Duration::from_secs(10);
            let record = TrafficRecord::after(Some(&first), mount_id, later, counters(3, requests, 20));
            assert_eq!(record.traffic.round_trip_over, Duration::from_secs(3), "{mount_id} {requests}");
            assert_eq!(record.traffic.round_trip, Duration::from_millis(20).checked_div(requests as u32));
        }
    }
}
