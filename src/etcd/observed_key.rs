//! The value of a key that a request for something else has also read.
//!
//! Each renewal of a node's lease also reads the version of the registry, so that comparing it needs no requests of its
//! own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Time after which a read asks a quorum again.
const QUORUM_AFTER: Duration = Duration::from_secs(120);

/// A key with the latest value that was seen. Clones are the same one.
#[derive(Debug, Clone)]
pub struct ObservedKey(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    key: String,
    seen: Mutex<Option<Observation>>,
    other_value: Notify,
}

/// A value that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// The value.
    pub value: Bytes,
    /// When it was last seen.
    pub at: Instant,
    /// When a quorum last confirmed a value.
    pub confirmed: Option<Instant>,
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

    fn latest(&self) -> MutexGuard<'_, Option<Observation>> {
        // Each change is one assignment.
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a value that was just read. `is_quorum`: whether a quorum confirmed it.
    pub fn see(&self, value: Bytes, is_quorum: bool) {
        let mut latest = self.latest();
        let (former, at) = (latest.as_ref(), Instant::now());
        let is_other = former.is_some_and(|former| former.value != value);
        let confirmed = if is_quorum { Some(at) } else { former.and_then(|former| former.confirmed) };
        *latest = Some(Observation { value, at, confirmed });
        drop(latest);
        if is_other {
            self.0.other_value.notify_one();
        }
    }

    /// Returns the latest value. `None` before the first one.
    #[must_use]
    pub fn seen(&self) -> Option<Observation> {
        self.latest().clone()
    }

    /// Whether the next read should ask a quorum: any other member may be cut off, and show an old value for ever.
    #[must_use]
    pub fn needs_quorum(&self) -> bool {
        self.seen().and_then(|seen| seen.confirmed).is_none_or(|at| at.elapsed() >= QUORUM_AFTER)
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

    #[tokio::test(start_paused = true)]
    async fn value_has_the_time_at_which_it_was_seen_and_another_one_is_announced() {
        let (key, start) = (ObservedKey::new("/a"), Instant::now());
        assert_eq!((key.seen(), key.needs_quorum()), (None, true));
        key.see("1".into(), true);
        assert!(!key.needs_quorum());
        tokio::time::advance(QUORUM_AFTER).await;
        key.see("1".into(), false);
        let (at, confirmed) = (start + QUORUM_AFTER, Some(start));
        let expected = Observation { value: "1".into(), at, confirmed };
        assert_eq!((key.seen(), key.changed().now_or_never(), key.needs_quorum()), (Some(expected), None, true));
        key.clone().see("2".into(), false);
        key.changed().await;
        assert_eq!(key.seen(), Some(Observation { value: "2".into(), at, confirmed }));
    }
}
