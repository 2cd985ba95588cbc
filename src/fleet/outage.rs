//! Mass outages: many nodes that stop answering together. The network is then more likely the cause than the nodes.

use std::time::Duration;

use jiff::Timestamp;

/// Shortest time within which the nodes of a mass outage stop answering.
const WINDOW_MIN: Duration = Duration::from_secs(120);

/// Part of the nodes, in percent, beyond which they stop answering for a common cause.
const PART_MAX_PERCENT: usize = 15;

/// Fewest nodes of a mass outage. The outage of one node is a problem of that node.
const NODES_MIN: usize = 2;

/// When a node last answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LastAnswer {
    /// The time.
    pub(super) at: Timestamp,
    /// Whether it is not known, because the node has not answered since the start of the aggregator, which is `at`.
    pub(super) is_before_start: bool,
}

/// Returns a sentence if more than [`PART_MAX_PERCENT`] of the nodes, and at least [`NODES_MIN`], stopped answering
/// together. `last_answers` has the latest answer of each node that does not answer now, out of `nodes`. Their times
/// are spread over an interval between two polls. Nodes that have not answered since the start of the aggregator count
/// too: a restart during an outage must not end it.
pub(super) fn notice(mut last_answers: Vec<LastAnswer>, nodes: usize, interval: Duration) -> Option<String> {
    let window = WINDOW_MIN.max(interval * 2);
    last_answers.sort_unstable();
    let together = |(index, first): (usize, &LastAnswer)| {
        let is_within = |answer: &LastAnswer| answer.at.duration_since(first.at).unsigned_abs() <= window;
        (last_answers[index..].partition_point(is_within), index)
    };
    let (most, index) = last_answers.iter().enumerate().map(together).max_by_key(|(count, _)| *count)?;
    let is_common = most >= NODES_MIN && most * 100 > nodes * PART_MAX_PERCENT;
    is_common.then(|| {
        let together = &last_answers[index..index + most];
        let first = together[0].at;
        let before = if together.iter().any(|answer| answer.is_before_start) {
            ", or before the start of this aggregator"
        } else {
            ""
        };
        format!(
            "{most} of {nodes} nodes stopped answering within {} s from {first:.0}{before}. Check the network between this aggregator and the nodes before the nodes themselves",
            window.as_secs()
        )
    })
}
