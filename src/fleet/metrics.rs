//! `GET /metrics` of the aggregator. Its families have other names than those of an agent, so that a Prometheus server
//! may scrape both.

use std::fmt;
use std::sync::Arc;

use axum::http::HeaderMap;
use axum::response::Response;

use super::view::{FleetTarget, FleetView, NodeState};
use crate::api::metrics::{Exposition, Family, answer_with, flag, number, seconds_of};
use crate::model::Status;

static NODES: Family = Family::gauge(
    "targetwatch_fleet_nodes",
    &["state"],
    "Nodes of the list that answer, and those whose state is not known.",
);

static COMMON_SILENCE: Family = Family::gauge(
    "targetwatch_fleet_common_silence",
    &[],
    "1 while more than 15 % of the nodes, which fell silent within two minutes, are silent.",
);

static AS_OF: Family =
    Family::gauge("targetwatch_fleet_as_of_timestamp_seconds", &[], "Time of the oldest answer of a node in use.");

static AVAILABLE: Family = Family::gauge(
    "targetwatch_fleet_target_available",
    &["export"],
    "Whether the target is available in the fleet, by [aggregate] available_when.",
);

static TARGET_NODES: Family = Family::gauge(
    "targetwatch_fleet_target_nodes",
    &["export", "state"],
    "Nodes where the target is in this state. A node with a warning is not counted as available here.",
);

static REASON_NODES: Family = Family::gauge(
    "targetwatch_fleet_target_reason_nodes",
    &["export", "reason"],
    "Nodes where the target has this reason code.",
);

/// All families.
#[cfg(test)]
static FAMILIES: &[&Family] = &[&NODES, &COMMON_SILENCE, &AS_OF, &AVAILABLE, &TARGET_NODES, &REASON_NODES];

/// Answers a scrape.
pub(super) async fn answer(view: Arc<FleetView>, headers: &HeaderMap) -> Result<Response, Response> {
    answer_with(headers, move |exposition| write(&view, exposition)).await
}

fn write(view: &FleetView, exposition: &mut Exposition<'_>) -> fmt::Result {
    let silent = view.nodes.iter().filter(|node| node.is_silent).count();
    let nodes = [("answering", view.nodes.len() - silent), ("unknown", silent)];
    exposition.write(&NODES, nodes.map(|(state, count)| ([("state", state)], number(count as u64))))?;
    exposition.write_one(&COMMON_SILENCE, Some(flag(view.notice.is_some())))?;
    exposition.write_one(&AS_OF, view.as_of.map(seconds_of))?;
    let targets = || view.targets.iter().map(|target| (&*target.described.filesystem_export, target));
    exposition.write(
        &AVAILABLE,
        targets().map(|(export, target)| ([("export", export)], flag(target.status == Status::Available))),
    )?;
    let in_states = targets().flat_map(|(export, target)| {
        let in_state = move |state: &NodeState| {
            ([("export", export), ("state", state.as_str())], number(in_state(target, *state) as u64))
        };
        NodeState::ALL.iter().map(in_state)
    });
    exposition.write(&TARGET_NODES, in_states)?;
    let with_reasons = targets().flat_map(|(export, target)| {
        target
            .reasons
            .iter()
            .map(move |(reason, count)| ([("export", export), ("reason", &**reason)], number(*count as u64)))
    });
    exposition.write(&REASON_NODES, with_reasons)
}

fn in_state(target: &FleetTarget, state: NodeState) -> usize {
    let counts = target.counts;
    match state {
        NodeState::Available => counts.available - counts.warning,
        NodeState::Warning => counts.warning,
        NodeState::Offline => counts.offline,
        NodeState::Unknown => counts.unknown,
        NodeState::Missing => counts.missing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documentation_lists_every_family() {
        let page = include_str!("../../docs/fleet.md");
        let documented: Vec<&str> = page.lines().filter(|line| line.starts_with("| `targetwatch_fleet_")).collect();
        let known: Vec<String> = FAMILIES.iter().map(|family| family.row()).collect();
        assert_eq!(documented, known);
    }
}
