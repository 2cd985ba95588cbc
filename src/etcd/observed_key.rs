//! The value of a key that a request for something else has also read.
//!
//! Each renewal of a node's lease also reads the version of the registry, so that comparing it needs no requests of its
//! own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A key with the latest value that was seen. Clones are the same one.
#[derive(Debug, Clone)]
pub struct ObservedKey(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    key: String,
    seen: Mutex<Option<Seen>>,
    other_value: Notify,
}

#[derive(Debug, Clone)]
struct Seen {
    value: Bytes,
    at: Instant,
}

impl ObservedKey {
    /// A key that was not seen yet.
    #[must_use]
    pub fn new(key: impl Into<String>) -> Self {
        Self(Arc::new(Shared { key: key.into(), seen: Mutex::default(), other_value: Notify::new() }))
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.0.key
    }

    fn seen(&self) -> MutexGuard<'_, Option<Seen>> {
        // Each change is one assignment.
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a value that was just read.
    pub fn see(&self, value: Bytes) {
        let former = self.seen().replace(Seen { value: value.clone(), at: Instant::now() });
        if former.is_some_and(|former| former.value != value) {
            self.0.other_value.notify_one();
        }
    }

    /// Returns the latest value, if it is not older than this.
    #[must_use]
    pub fn value(&self, age_max: Duration) -> Option<Bytes> {
        self.seen().as_ref().filter(|seen| seen.at.elapsed() <= age_max).map(|seen| seen.value.clone())
    }

    /// Waits until another value than the former one is seen.
    pub async fn changed(&self) {
        self.0.other_value.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const AGE_MAX: Duration = Duration::from_secs(24);

    #[tokio::test(start_paused = true)]
    async fn value_counts_for_some_time_and_another_one_is_announced() {
        let key = ObservedKey::new("/a");
        key.see("1".into());
        key.see("1".into());
        assert_eq!((key.value(AGE_MAX), key.changed().now_or_never()), (Some("1".into()), None));
        key.clone().see("2".into());
        key.changed().await;
        assert_eq!(key.value(AGE_MAX), Some("2".into()));
        tokio::time::advance(AGE_MAX + Duration::from_secs(1)).await;
        assert_eq!(key.value(AGE_MAX), None);
    }
}
