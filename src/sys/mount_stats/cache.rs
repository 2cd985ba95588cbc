//! One reading of the counters for all targets.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::MountStats;

/// How long a reading is used: a thousand mounts whose probes are spread over their interval cost a
/// reading in this time, and not a thousand.
const READ_INTERVAL: Duration = Duration::from_secs(2);

/// The latest reading, shared by all probes.
#[derive(Debug, Default)]
pub struct MountStatsCache {
    latest: Mutex<Option<Arc<MountStats>>>,
}

impl MountStatsCache {
    /// The counters, at most [`READ_INTERVAL`] old. Never waits for storage. A caller
    /// during a reading waits for its end. After a failed reading there are no counters.
    pub async fn recent(&self) -> Arc<MountStats> {
        let mut latest = self.latest.lock().await;
        if let Some(stats) = latest.as_ref().filter(|stats| stats.read_at.elapsed() < READ_INTERVAL) {
            return stats.clone();
        }
        let stats = MountStats::read().await.unwrap_or_else(|error| {
            tracing::debug!(%error, "what the kernel counts of NFS mounts is not in reports");
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
