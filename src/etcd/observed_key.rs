//! The value of a key that a request for something else has also read.
//!
//! Each renewal of a node's lease also reads the version of the registry, so that comparing it needs no requests of its
//! own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

    fn latest(&self) -> MutexGuard<'_, Option<Seen>> {
        // Each change is one assignment.
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a value that was just read.
    pub fn see(&self, value: Bytes) {
        let former = self.latest().replace(Seen { value: value.clone(), at: Instant::now() });
        if former.is_some_and(|former| former.value != value) {
            self.0.other_value.notify_one();
        }
    }

    /// Returns the latest value, and when it was seen. `None` before the first one.
    #[must_use]
    pub fn seen(&self) -> Option<(Bytes, Instant)> {
        self.latest().as_ref().map(|seen| (seen.value.clone(), seen.at))
    }

    /// Waits until another value than the former one is seen.
    pub async fn changed(&self) {
        self.0.other_value.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn value_has_the_time_at_which_it_was_seen_and_another_one_is_announced() {
        let (key, start) = (ObservedKey::new("/a"), Instant::now());
        assert_eq!(key.seen(), None);
        key.see("1".into());
        tokio::time::advance(Duration::from_secs(1)).await;
        key.see("1".into());
        let at = start + Duration::from_secs(1);
        assert_eq!((key.seen(), key.changed().now_or_never()), (Some(("1".into(), at)), None));
        key.clone().see("2".into());
        key.changed().await;
        assert_eq!(key.seen(), Some(("2".into(), at)));
    }
}
