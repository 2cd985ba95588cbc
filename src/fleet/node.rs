//! What is known of one node, and when it counts as silent.
//!
//! ```text
//!            answer                      no answer for SILENT_AFTER_INTERVALS
//! polled ───────────▶ answering ◀─────────────────────────────▶ silent
//!    │                              answer
//!    └── silent from the start, until the first answer
//! ```
//!
//! One lost poll says nothing about a node, so its latest answer counts for some intervals. A clock that is set does not
//! make a node silent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use jiff::Timestamp;
use tokio::time::Instant;

use super::agent_client::POLL_TIMEOUT;
use super::answer::NodeTarget;
use super::view::NodeSnapshot;
use crate::model::settings::NodeAddress;

/// Number of intervals for which an answer counts.
const SILENT_AFTER_INTERVALS: u32 = 3;

/// Longest time between two polls of a node that does not answer, unless the interval is longer.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// A node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) address: NodeAddress,
    name: Arc<str>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    is_polled: bool,
    answered: Option<(Instant, Timestamp)>,
    failure: Option<Arc<str>>,
    failures_in_a_row: u32,
    tag: Option<HeaderValue>,
    targets: Arc<[NodeTarget]>,
}

impl Node {
    pub(super) fn new(address: NodeAddress) -> Self {
        Self { name: address.name().into(), address, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Tag of the latest answer.
    pub(super) fn tag(&self) -> Option<HeaderValue> {
        self.state().tag.clone()
    }

    /// Records an answer. `changed` has its targets and its tag, unless it is that nothing has changed. Returns whether
    /// the poll before it failed.
    pub(super) fn answered(&self, changed: Option<(Arc<[NodeTarget]>, Option<HeaderValue>)>) -> bool {
        let mut state = self.state();
        state.is_polled = true;
        state.answered = Some((Instant::now(), Timestamp::now()));
        state.failures_in_a_row = 0;
        if let Some((targets, tag)) = changed {
            (state.targets, state.tag) = (targets, tag);
        }
        state.failure.take().is_some()
    }

    /// Records a failed poll. Returns whether it is the first one in a row.
    pub(super) fn failed(&self, failure: &str) -> bool {
        let mut state = self.state();
        state.is_polled = true;
        state.failures_in_a_row = state.failures_in_a_row.saturating_add(1);
        state.failure = Some(failure.into());
        state.failures_in_a_row == 1
    }

    /// Returns the time until the next poll, without jitter. A silent node is polled less and less often.
    pub(super) fn delay(&self, interval: Duration) -> Duration {
        let doublings = self.state().failures_in_a_row.saturating_sub(SILENT_AFTER_INTERVALS).min(16);
        (interval * (1 << doublings)).min(BACKOFF_MAX.max(interval))
    }

    /// Returns what is known now.
    pub(super) fn snapshot(&self, interval: Duration) -> NodeSnapshot {
        let state = self.state();
        let counts_for = interval * SILENT_AFTER_INTERVALS + POLL_TIMEOUT;
        NodeSnapshot {
            name: self.name.clone(),
            is_polled: state.is_polled,
            is_silent: state.answered.is_none_or(|(at, _)| at.elapsed() > counts_for),
            answered_at: state.answered.map(|(_, at)| at),
            failure: state.failure.clone(),
            targets: state.targets.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn node() -> Node {
        Node::new("https://compute-1".parse().expect("an address"))
    }

    #[tokio::test(start_paused = true)]
    async fn node_is_silent_after_three_intervals_without_an_answer() {
        let node = node();
        assert!(node.snapshot(INTERVAL).is_silent, "never heard");
        assert!(!node.answered(None));
        assert!(!node.snapshot(INTERVAL).is_silent);
        tokio::time::advance(Duration::from_secs(34)).await;
        assert!(node.failed("it is away") && !node.failed("it is away"));
        assert!(!node.snapshot(INTERVAL).is_silent, "some lost polls");
        tokio::time::advance(Duration::from_secs(2)).await;
        let snapshot = node.snapshot(INTERVAL);
        assert_eq!((snapshot.is_silent, snapshot.failure.as_deref()), (true, Some("it is away")));
        assert!(node.answered(None), "it had failed before");
        let snapshot = node.snapshot(INTERVAL);
        assert_eq!((snapshot.is_silent, snapshot.failure), (false, None));
    }

    #[test]
    fn silent_node_is_polled_less_and_less_often() {
        let node = node();
        let delays = |interval| {
            let node = self::node();
            let delays = (0..8).map(|_| {
                node.failed("away");
                node.delay(interval).as_secs()
            });
            delays.collect::<Vec<_>>()
        };
        assert_eq!(delays(INTERVAL), [10, 10, 10, 20, 40, 60, 60, 60]);
        assert_eq!(delays(Duration::from_secs(300)), [300; 8]);
        node.failed("away");
        node.answered(None);
        assert_eq!(node.delay(INTERVAL), INTERVAL);
    }
}
