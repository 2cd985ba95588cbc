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

static MASS_OUTAGE: Family = Family::gauge(
    "targetwatch_fleet_mass_outage",
    &[],
    "1 while more than 15 % of the nodes, which stopped answering together, do not answer.",
);

static AS_OF: Family =
    Family::gauge("targetwatch_fleet_as_of_timestamp_seconds", &[], "Time of the oldest answer of a node in use.");

static AVAILABLE: Family = Family::gauge(
    "targetwatch_fleet_target_available",
    &["export"],
    "Whether the target is available in the fleet, by [aggregate] available_when.",
);

static AVAILABLE_ON_ANSWERING: Family = Family::gauge(
    "targetwatch_fleet_target_available_on_answering_nodes",
    &["export"],
    "Whether the target would be available if the nodes that do not answer were not expected. Absent if none answers.",
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

static SIZE: Family = Family::gauge(
    "targetwatch_fleet_target_size_bytes",
    &["export"],
    "Size of the target as a node that can write to it measured it. Absent while none can.",
);

static USED: Family = Family::gauge(
    "targetwatch_fleet_target_used_bytes",
    &["export"],
    "Used space of the target, from the same node, rounded to a thousandth of the size.",
);

static LOCK_PROOF: Family = Family::gauge(
    "targetwatch_fleet_lock_proof_timestamp_seconds",
    &["export"],
    "Time of the latest proof on any node that the object lock is enforced, by the clock of that node.",
);

/// All families.
#[cfg(test)]
static FAMILIES: &[&Family] = &[
    &NODES,
    &MASS_OUTAGE,
    &AS_OF,
    &AVAILABLE,
    &AVAILABLE_ON_ANSWERING,
    &TARGET_NODES,
    &REASON_NODES,
    &SIZE,
    &USED,
    &LOCK_PROOF,
];

/// Answers a scrape.
///
/// Until the fleet is ready, the metrics of targets are absent: they would describe a part of the nodes.
pub(super) async fn answer(view: Arc<FleetView>, is_ready: bool, headers: &HeaderMap) -> Result<Response, Response> {
    answer_with(headers, move |exposition| write(&view, is_ready, exposition)).await
}

fn write(view: &FleetView, is_ready: bool, exposition: &mut Exposition<'_>) -> fmt::Result {
    let answering = view.nodes.iter().filter(|node| node.is_answering).count();
    let nodes = [("answering", answering), ("unknown", view.nodes.len() - answering)];
    exposition.write(&NODES, nodes.map(|(state, count)| ([("state", state)], number(count as u64))))?;
    exposition.write_one(&MASS_OUTAGE, Some(flag(view.notice.is_some())))?;
    exposition.write_one(&AS_OF, view.as_of.map(seconds_of))?;
    if !is_ready {
        return Ok(());
    }
    let targets = || view.targets.iter().map(|target| (&*target.described.filesystem_export, target));
    exposition.write(
        &AVAILABLE,
        targets().map(|(export, target)| ([("export", export)], flag(target.status == Status::Available))),
    )?;
    let on_answering =
        targets().filter_map(|(export, target)| Some(([("export", export)], flag(target.is_available_on_answering?))));
    exposition.write(&AVAILABLE_ON_ANSWERING, on_answering)?;
    let in_states = targets().flat_map(|(export, target)| {
        let in_state = move |state: &NodeState| {
            ([("export", export), ("state", state.as_str())], number(target.counts.of(*state) as u64))
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
    exposition.write(&REASON_NODES, with_reasons)?;
    let sizes = |size: fn(&FleetTarget) -> Option<u64>| {
        targets().filter_map(move |(export, target)| Some(([("export", export)], number(size(target)?))))
    };
    exposition.write(&SIZE, sizes(|target| target.sizes_in_bytes().1))?;
    exposition.write(&USED, sizes(|target| target.sizes_in_bytes().0))?;
    let proofs =
        targets().filter_map(|(export, target)| Some(([("export", export)], seconds_of(target.lock_proved_at()?))));
    exposition.write(&LOCK_PROOF, proofs)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use http_body_util::BodyExt as _;

    use super::*;
    use crate::fleet::answer::NodeTargetState::{Available, NotProbed, Offline, Warning};
    use crate::fleet::view::tests::{ALL, node, target, view, with};

    const GOLDEN: &str = "tests/fixtures/fleet-metrics.prom";

    async fn exposition(view: FleetView, is_ready: bool) -> String {
        let answer = answer(Arc::new(view), is_ready, &HeaderMap::new()).await.expect("encoded");
        let body = answer.into_body().collect().await.expect("read");
        String::from_utf8(body.to_bytes().into()).expect("text")
    }

    /// Two targets in every state, while two nodes of six stopped answering together.
    fn sample() -> FleetView {
        let everywhere = |state| [target("nas:/b", state), target("https://s3.example.com/locked", Available)];
        let nodes = vec![
            with(node("a", Some(10), false), &everywhere(Available)),
            with(node("b", Some(9), false), &everywhere(Warning)),
            with(node("c", Some(8), false), &everywhere(Offline)),
            with(node("d", Some(8), false), &everywhere(NotProbed)),
            with(node("e", Some(1), true), &everywhere(Available)),
            node("f", Some(2), true),
        ];
        view(nodes, ALL)
    }

    #[test]
    fn documentation_lists_every_family() {
        let page = include_str!("../../docs/fleet.md");
        let documented: Vec<&str> = page.lines().filter(|line| line.starts_with("| `targetwatch_fleet_")).collect();
        let known: Vec<String> = FAMILIES.iter().map(|family| family.row()).collect();
        assert_eq!(documented, known);
    }

    #[tokio::test]
    async fn fleet_exposition_equals_its_golden_file() {
        let text = exposition(sample(), true).await;
        let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(GOLDEN);
        let expected = tokio::fs::read_to_string(&golden).await.unwrap_or_default();
        if text != expected {
            let actual = std::env::temp_dir().join("fleet-metrics.prom");
            tokio::fs::write(&actual, &text).await.expect("written");
            panic!(
                "the exposition differs: compare {GOLDEN} with {}, and copy it if the change is right",
                actual.display()
            );
        }
    }

    #[test]
    fn golden_file_has_every_family_with_its_labels() {
        let golden = include_str!("../../tests/fixtures/fleet-metrics.prom");
        let listed: BTreeMap<String, BTreeSet<&str>> =
            FAMILIES.iter().map(|family| (family.series_name(), family.labels.iter().copied().collect())).collect();
        let mut written: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        for line in golden.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().expect("a name").to_owned();
            let labels = line.split_once('{').map_or("", |(_, labels)| labels);
            let labels = labels.split("=\"").filter_map(|part| part.rsplit([',', '"']).next());
            let is_name = |label: &&str| label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            written.entry(name).or_default().extend(labels.filter(|label| !label.is_empty()).filter(is_name));
        }
        assert_eq!(written, listed);
    }

    #[tokio::test]
    async fn metrics_of_targets_are_absent_until_the_fleet_is_ready() {
        let text = exposition(sample(), false).await;
        assert!(text.contains("targetwatch_fleet_nodes{") && !text.contains("targetwatch_fleet_target_"), "{text}");
    }
}
