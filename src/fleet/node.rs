//! What is known of one node, and how long its answer counts.
//!
//! ```text
//!                 answer
//! not answering ──────────▶ answering
//!       ▲                       │ no answer for ANSWER_INTERVALS
//!       └───────────────────────┘
//! ```
//!
//! One lost poll says nothing about a node, so its latest answer counts for some intervals. If the clock is set,
//! nothing changes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use jiff::Timestamp;
use tokio::time::Instant;

use super::agent_client::{AgentList, POLL_TIMEOUT};
use super::answer::NodeTarget;
use super::node_snapshot::NodeSnapshot;
use crate::model::LabeledNode;
use crate::model::settings::NodeAddress;

/// Number of intervals for which an answer counts.
const ANSWER_INTERVALS: u32 = 3;

/// Longest tag of an answer that is sent back, in bytes.
const TAG_MAX_BYTES: usize = 128;

/// How long an agent of an earlier release is asked for details before it is asked for verdicts again.
const DETAILS_FOR: Duration = Duration::from_secs(600);

/// Longest description of a failed poll, in characters.
const FAILURE_MAX_CHARS: usize = 300;

/// Longest time between two polls of a node that does not answer, unless the interval is longer.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// A node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) address: NodeAddress,
    name: Arc<str>,
    /// Start of the aggregator, if the node was listed then.
    listed_at_start: Option<Timestamp>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    is_polled: bool,
    answered: Option<LatestAnswer>,
    failure: Option<Arc<str>>,
    failures_in_a_row: u32,
    /// Whether the latest poll failed because nothing answered.
    is_silent: bool,
    /// Tag of the latest answer, and the list that it is of.
    tag: Option<ListTag>,
    /// Until when its agent is asked for details, because it does not have the list of verdicts.
    asked_for_details_until: Option<Instant>,
    targets: Arc<[NodeTarget]>,
    fleet_node: Option<Arc<LabeledNode>>,
}

/// A list of an agent, and the tag of its answer.
type ListTag = (AgentList, HeaderValue);

/// What an answer contains.
#[derive(Debug, Default)]
pub(super) struct AnswerContent {
    /// The targets of the node.
    pub(super) targets: Arc<[NodeTarget]>,
    /// The node, as scopes name it.
    pub(super) fleet_node: Option<Arc<LabeledNode>>,
    /// The list, and the tag of the answer.
    pub(super) tag: Option<ListTag>,
}

/// When a node answered, and the time until its next poll.
#[derive(Debug, Clone, Copy)]
struct LatestAnswer {
    instant: Instant,
    at: Timestamp,
    interval: Duration,
}

impl Node {
    pub(super) fn new(address: NodeAddress, listed_at_start: Option<Timestamp>) -> Self {
        Self { name: address.name().into(), address, listed_at_start, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Returns the list to ask for, and the tag of its latest answer.
    pub(super) fn list(&self) -> (AgentList, Option<HeaderValue>) {
        let state = self.state();
        let has_verdicts = state.asked_for_details_until.is_none_or(|until| until <= Instant::now());
        let list = if has_verdicts { AgentList::Verdicts } else { AgentList::Details };
        let tag = state.tag.as_ref().filter(|(known, _)| *known == list);
        (list, tag.map(|(_, tag)| tag.clone()))
    }

    /// Records that its agent does not have the list of verdicts. It may be upgraded.
    pub(super) fn has_no_verdicts(&self) {
        self.state().asked_for_details_until = Some(Instant::now() + DETAILS_FOR);
    }

    /// Makes the next poll get the whole answer.
    pub(super) fn forget_tag(&self) {
        self.state().tag = None;
    }

    /// Records an answer. `changed` has its content, unless it is that nothing has changed.
    /// `interval` is the time until the next poll.
    pub(super) fn answered(&self, changed: Option<AnswerContent>, interval: Duration) {
        let mut state = self.state();
        state.is_polled = true;
        state.answered = Some(LatestAnswer { instant: Instant::now(), at: Timestamp::now(), interval });
        state.failures_in_a_row = 0;
        state.failure = None;
        state.is_silent = false;
        if let Some(AnswerContent { targets, fleet_node, tag }) = changed {
            state.targets = targets;
            state.fleet_node = fleet_node;
            state.tag = tag.filter(|(_, tag)| tag.len() <= TAG_MAX_BYTES);
        }
    }

    /// Records a failed poll. `is_silent` says whether nothing answered.
    pub(super) fn failed(&self, failure: &str, is_silent: bool) {
        let mut state = self.state();
        state.is_polled = true;
        state.failures_in_a_row = state.failures_in_a_row.saturating_add(1);
        state.is_silent = is_silent;
        state.failure = Some(failure.chars().take(FAILURE_MAX_CHARS).collect::<String>().into());
    }

    /// Whether the latest poll failed.
    pub(super) fn is_failing(&self) -> bool {
        self.state().failures_in_a_row > 0
    }

    /// Number of targets in the latest answer.
    pub(super) fn targets(&self) -> usize {
        self.state().targets.len()
    }

    /// Returns the time until the next poll, without jitter. A node that does not answer is polled less and less often.
    pub(super) fn delay(&self, interval: Duration) -> Duration {
        let doublings = self.state().failures_in_a_row.saturating_sub(ANSWER_INTERVALS).min(16);
        (interval * (1 << doublings)).min(BACKOFF_MAX.max(interval))
    }

    /// Returns what is known now.
    pub(super) fn snapshot(&self, interval: Duration) -> NodeSnapshot {
        let state = self.state();
        let is_current = |answer: LatestAnswer| {
            // The interval may have become shorter since the answer.
            answer.instant.elapsed() <= interval.max(answer.interval) * ANSWER_INTERVALS + POLL_TIMEOUT
        };
        NodeSnapshot {
            name: self.name.clone(),
            is_polled: state.is_polled,
            is_answering: state.answered.is_some_and(is_current),
            answered_at: state.answered.map(|answer| answer.at),
            silent_since_start: self.listed_at_start.filter(|_| state.answered.is_none() && state.is_silent),
            failure: state.failure.clone(),
            targets: state.targets.clone(),
            fleet_node: state.fleet_node.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn node() -> Node {
        Node::new("https://compute-1".parse().expect("an address"), None)
    }

    #[tokio::test(start_paused = true)]
    async fn answer_counts_for_three_intervals() {
        let node = node();
        assert!(!node.snapshot(INTERVAL).is_answering, "it has not answered yet");
        node.answered(None, INTERVAL);
        assert!(node.snapshot(INTERVAL).is_answering);
        tokio::time::advance(Duration::from_secs(34)).await;
        node.failed("it is away", true);
        assert!(node.snapshot(INTERVAL).is_answering, "some lost polls");
        tokio::time::advance(Duration::from_secs(2)).await;
        let snapshot = node.snapshot(INTERVAL);
        assert_eq!((snapshot.is_answering, snapshot.failure.as_deref()), (false, Some("it is away")));
        node.answered(None, INTERVAL);
        let snapshot = node.snapshot(INTERVAL);
        assert_eq!((snapshot.is_answering, snapshot.failure), (true, None));
    }

    #[tokio::test(start_paused = true)]
    async fn shorter_interval_does_not_make_earlier_answers_old() {
        let node = node();
        node.answered(None, Duration::from_secs(300));
        tokio::time::advance(Duration::from_secs(250)).await;
        assert!(node.snapshot(INTERVAL).is_answering);
        node.answered(None, INTERVAL);
        tokio::time::advance(Duration::from_secs(250)).await;
        assert!(!node.snapshot(INTERVAL).is_answering);
    }

    #[test]
    fn node_that_does_not_answer_is_polled_less_and_less_often() {
        let node = node();
        let delays = |interval| {
            let node = self::node();
            let delays = (0..8).map(|_| {
                node.failed("away", true);
                node.delay(interval).as_secs()
            });
            delays.collect::<Vec<_>>()
        };
        assert_eq!(delays(INTERVAL), [10, 10, 10, 20, 40, 60, 60, 60]);
        assert_eq!(delays(Duration::from_secs(300)), [300; 8]);
        node.failed(&"x".repeat(1 << 20), true);
        assert_eq!(node.snapshot(INTERVAL).failure.map(|failure| failure.len()), Some(FAILURE_MAX_CHARS));
        node.answered(None, INTERVAL);
        assert_eq!(node.delay(INTERVAL), INTERVAL);
    }

    #[tokio::test(start_paused = true)]
    async fn agent_without_verdicts_is_asked_for_details_for_a_while() {
        let (node, tag) = (node(), HeaderValue::from_static("W/\"1\""));
        assert_eq!(node.list(), (AgentList::Verdicts, None));
        node.has_no_verdicts();
        let details = AnswerContent { tag: Some((AgentList::Details, tag.clone())), ..AnswerContent::default() };
        node.answered(Some(details), INTERVAL);
        assert_eq!(node.list(), (AgentList::Details, Some(tag.clone())));
        tokio::time::advance(DETAILS_FOR).await;
        assert_eq!(node.list(), (AgentList::Verdicts, None), "it may have been upgraded");
        node.has_no_verdicts();
        assert_eq!(node.list(), (AgentList::Details, Some(tag)), "its tag is still valid");
        node.forget_tag();
        assert_eq!(node.list(), (AgentList::Details, None));
    }
}
