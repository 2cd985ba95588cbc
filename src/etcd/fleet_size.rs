//! How often the nodes of a fleet may send what each of them repeats: renewals of leases, comparisons of registries and
//! looks at claims.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Requests of one kind per second that all nodes together send at most.
const REQUESTS_PER_SECOND_MAX: u32 = 250;

/// Largest number of nodes that repeat something at the intervals of a small fleet. These grow by as much with each ten
/// times more nodes: they are twice as long with 1,000 nodes, and three times with 10,000. Each request wakes etcd, which
/// costs it 1 to 2 ms of processor time.
const FEW_NODES: u32 = 100;

/// Returns the shortest time between two requests of one kind by one node, in a fleet of this size.
pub(crate) fn shortest_interval(nodes: u64) -> Duration {
    Duration::from_secs(u64::from(u32::try_from(nodes).unwrap_or(u32::MAX))) / REQUESTS_PER_SECOND_MAX
}

/// Returns how long an interval of a small fleet is in a fleet of this size.
pub(crate) fn stretched(interval: Duration, nodes: u64) -> Duration {
    let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
    let tenfolds = (f64::from(nodes) / f64::from(FEW_NODES)).log10().max(0.0);
    interval.mul_f64(1.0 + tenfolds).max(shortest_interval(nodes.into()))
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

    /// Returns how long an interval of a small fleet is in this one. The same if the nodes were not counted yet.
    #[must_use]
    pub fn stretched(&self, interval: Duration) -> Duration {
        stretched(interval, self.counted().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_grow_with_the_fleet() {
        let (size, second, interval) = (FleetSize::default(), Duration::from_secs(1), Duration::from_secs(20));
        assert_eq!((size.counted(), size.stretched(interval)), (None, interval));
        for (nodes, of_20_seconds, of_a_second) in
            [(1, 20, 1), (100, 20, 1), (1_000, 40, 4), (10_000, 60, 40), (100_000, 400, 400)]
        {
            size.set(nodes);
            let found = [interval, second].map(|interval| size.clone().stretched(interval).as_secs());
            assert_eq!(found, [of_20_seconds, of_a_second], "{nodes}");
        }
        size.set(0);
        assert_eq!(size.counted(), Some(1), "this node");
        assert!(stretched(second, u64::MAX) > Duration::from_hours(1));
    }
}
