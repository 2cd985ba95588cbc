//! Many nodes that fall silent together: more likely the network than the nodes.
//!
//! One notice replaces a problem of each node, as Kubernetes' node controller stops evicting when a zone is silent.

use std::time::Duration;

use jiff::Timestamp;

/// Time within which the nodes fall silent together.
const WINDOW: Duration = Duration::from_secs(120);

/// Part of the nodes, in percent, beyond which their silence is a common one.
const PART_MAX_PERCENT: usize = 15;

/// Fewest nodes whose silence can be a common one. The silence of one node is a problem of that node.
const NODES_MIN: usize = 2;

/// Returns a sentence if more than [`PART_MAX_PERCENT`] of the nodes, and at least [`NODES_MIN`], fell silent within
/// [`WINDOW`]. `last_heard` has the time of the latest answer of each node that is silent now, out of `nodes`.
pub(super) fn notice(mut last_heard: Vec<Timestamp>, nodes: usize) -> Option<String> {
    last_heard.sort_unstable();
    let together = |(index, first): (usize, &Timestamp)| {
        let is_within = |at: &Timestamp| at.duration_since(*first).unsigned_abs() <= WINDOW;
        (last_heard[index..].partition_point(is_within), *first)
    };
    let (most, first) = last_heard.iter().enumerate().map(together).max_by_key(|(count, _)| *count)?;
    let is_common = most >= NODES_MIN && most * 100 > nodes * PART_MAX_PERCENT;
    is_common.then(|| {
        format!(
            "{most} of {nodes} nodes fell silent within two minutes from {first:.0}. Check the network between this aggregator and the nodes before the nodes themselves"
        )
    })
}
