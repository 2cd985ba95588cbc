//! Cache: all targets share one read of the counters.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::counters::MountStats;

/// Maximum age of the cached counters. Probes of a thousand mounts in this time share one read.
const READ_INTERVAL: Duration = Duration::from_secs(2);

/// The latest counters, shared by all probes.
#[derive(Debug, Default)]
pub struct MountStatsCache {
    latest: Mutex<Option<Arc<MountStats>>>,
}

impl MountStatsCache {
    /// Returns counters that are at most [`READ_INTERVAL`] old, or none after a failed read. Never waits for storage. A
    /// caller waits for the end of a read in progress.
    pub async fn recent(&self) -> Arc<MountStats> {
        let mut latest = self.latest.lock().await;
        if let Some(stats) = latest.as_ref().filter(|stats| stats.read_at.elapsed() < READ_INTERVAL) {
            return stats.clone();
        }
        let stats = MountStats::read().await.unwrap_or_else(|error| {
            tracing::debug!(%error, "reports do not contain counters of NFS mounts");
            MountStats::none()
        });
        latest.insert(Arc::new(stats)).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn recent_reading_is_shared() {
        let cache = MountStatsCache::default();
        let first = cache.recent().await;
        let (second, third) = tokio::join!(cache.recent(), cache.recent());
        assert!(Arc::ptr_eq(&first, &second) && Arc::ptr_eq(&first, &third));
        let old = MountStats { read_at: first.read_at - READ_INTERVAL, ..MountStats::none() };
        *cache.latest.lock().await = Some(Arc::new(old));
        assert!(cache.recent().await.read_at >= first.read_at, "one that is too old is read again");
    }
}
