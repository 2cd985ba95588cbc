//! NFS traffic between two probes, from the kernel's counters since the mount was made.
//!
//! An average over the life of a mount would hide that its server became slow an hour ago. So the round
//! trip is that of the requests since the last probe. It includes a single slow request but not a dead
//! server: the kernel counts a request when it is answered or given up.

use std::time::Instant;

use crate::model::report::MountTraffic;
use crate::sys::MountCounters;

/// Latest counters of a target's mount.
#[derive(Debug, Clone, Copy)]
pub struct TrafficRecord {
    mount_id: u32,
    read_at: Instant,
    counters: MountCounters,
    /// Traffic that was derived from them.
    pub traffic: MountTraffic,
}

impl TrafficRecord {
    /// Derives the traffic since the last probe from counters that were read at `read_at`.
    #[must_use]
    pub fn after(last: Option<&Self>, mount_id: u32, read_at: Instant, counters: MountCounters) -> Self {
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
        let traffic = MountTraffic {
            round_trip: counters.round_trips.saturating_sub(before.round_trips).checked_div(requests),
            round_trip_over: over,
            retransmissions: counters.transmissions.saturating_sub(counters.requests),
            bytes_read: counters.bytes_read,
            bytes_written: counters.bytes_written,
        };
        Self { mount_id, read_at, counters, traffic }
    }
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
            bytes_read: 7,
            bytes_written: 8,
        }
    }

    #[test]
    fn the_round_trip_is_that_since_the_last_probe() {
        let began = Instant::now();
        let ten = Duration::from_secs(10);
        let first = TrafficRecord::after(None, 7, began, counters(100, 1000, 500));
        let traffic = first.traffic;
        assert_eq!((traffic.round_trip, traffic.round_trip_over), (Some(Duration::from_micros(500)), ten * 10));
        assert_eq!((traffic.retransmissions, traffic.bytes_read, traffic.bytes_written), (2, 7, 8));

        let second = TrafficRecord::after(Some(&first), 7, began + ten, counters(110, 1004, 900));
        assert_eq!(second.traffic.round_trip, Some(Duration::from_millis(100)));
        assert_eq!(second.traffic.round_trip_over, ten);

        let again = TrafficRecord::after(Some(&second), 7, began + ten, counters(110, 1004, 900));
        assert_eq!(again.traffic, second.traffic, "the same reading says the same");
        let silent = TrafficRecord::after(Some(&second), 7, began + ten * 2, counters(120, 1004, 900));
        assert_eq!(silent.traffic.round_trip, None, "no request was done with");
    }

    #[test]
    fn another_mount_begins_afresh() {
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
