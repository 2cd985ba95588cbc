//! How often the nodes of a fleet may send what each of them repeats: renewals of leases, comparisons of registries and
//! looks at claims.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Requests of one kind per second that all nodes together send at most.
const REQUESTS_PER_SECOND_MAX: u32 = 250;

/// Returns the shortest time between two requests of one kind by one node, in a fleet of this size.
pub(crate) fn shortest_interval(nodes: u64) -> Duration {
    Duration::from_secs(u64::from(u32::try_from(nodes).unwrap_or(u32::MAX))) / REQUESTS_PER_SECOND_MAX
}

/// Number of nodes that share etcd, as this node last counted it. Clones have the same number.
#[derive(Debug, Clone, Default)]
pub struct FleetSize(Arc<AtomicU64>);

impl FleetSize {
    /// Returns the number of nodes. `None` if it was not counted yet.
    #[must_use]
    pub fn counted(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|nodes| *nodes > 0)
    }

    /// Sets the number of nodes, which includes this one.
    pub fn set(&self, nodes: u64) {
        self.0.store(nodes.max(1), Ordering::Relaxed);
    }

    /// Returns the shortest time between two requests of one kind by this node. Zero if the nodes were not counted yet.
    #[must_use]
    pub fn shortest_interval(&self) -> Duration {
        shortest_interval(self.counted().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_any_fleet_send_at_most_250_requests_each_second() {
        let size = FleetSize::default();
        assert_eq!((size.counted(), size.shortest_interval()), (None, Duration::ZERO));
        for (nodes, seconds) in [(1_000, 4), (5_000, 20), (10_000, 40), (100_000, 400)] {
            size.set(nodes);
            assert_eq!(size.clone().shortest_interval(), Duration::from_secs(seconds), "{nodes}");
        }
        size.set(0);
        assert_eq!(size.counted(), Some(1), "this node");
        assert!(shortest_interval(u64::MAX) > Duration::from_hours(1));
    }
}
