//! The table of `status --fleet`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use comfy_table::{Cell, CellAlignment, ColumnConstraint};

use super::state::{NO_TARGETS, bad, state_cell};
use super::table::{finish, table};
use crate::cli::exit::ExitState;
use crate::cli::terminal::{OutputStyle, escape_invisible};
use crate::fleet::view::NodeState;
use crate::fleet::wire::{FleetTarget, FleetTargetList, TargetNode};
use crate::model::Status;

/// Largest number of nodes whose messages are printed: of each target, and of those that do not answer.
const MESSAGES_MAX: usize = 3;

/// Renders the targets of a fleet, and below them what is wrong on which nodes.
#[must_use]
pub fn fleet_table(list: &FleetTargetList, style: OutputStyle) -> String {
    let mut text = String::new();
    if let Some(notice) = &list.basis.notice {
        let _ = writeln!(text, "{}\n", bad(&escape_invisible(notice), style));
    }
    if list.backup_targets.is_empty() {
        text += NO_TARGETS;
    } else {
        text += &targets(&list.backup_targets, style);
    }
    for target in &list.backup_targets {
        text += &messages(target);
    }
    let unknown = list.backup_targets.iter().flat_map(|target| &target.not_available);
    // A node that does not answer has the same message for every target, so it is printed once.
    let unknown: BTreeMap<&str, &TargetNode> =
        unknown.filter(|on_node| is_unknown(on_node)).map(|on_node| (on_node.node.as_str(), on_node)).collect();
    for on_node in unknown.values().take(MESSAGES_MAX) {
        let _ = writeln!(text, "{}", message(on_node));
    }
    if !list.basis.complete {
        text += "some nodes do not answer: GET /nodes says which, and why\n";
    }
    text
}

/// What is wrong with a target on which nodes.
fn messages(target: &FleetTarget) -> String {
    let FleetTarget { target, nodes, not_available, .. } = target;
    let export = escape_invisible(&target.filesystem_export);
    let mut text = String::new();
    for on_node in not_available.iter().filter(|on_node| !is_unknown(on_node)).take(MESSAGES_MAX) {
        let _ = writeln!(text, "{export} on {}", message(on_node));
    }
    let more = (nodes.offline + nodes.missing + nodes.warning).saturating_sub(MESSAGES_MAX);
    if more > 0 {
        let (plural, id) = (if more == 1 { "" } else { "s" }, escape_invisible(&target.id));
        let _ = writeln!(text, "{export} on {more} more node{plural}: GET /backup_targets/{id}/nodes lists them");
    }
    text
}

fn is_unknown(on_node: &TargetNode) -> bool {
    on_node.state == NodeState::Unknown
}

fn message(on_node: &TargetNode) -> String {
    let message = on_node.message.as_deref().unwrap_or("no message");
    format!("{} ({}): {}", escape_invisible(&on_node.node), escape_invisible(&on_node.state), escape_invisible(message))
}

fn targets(targets: &[FleetTarget], style: OutputStyle) -> String {
    let titles =
        ["TARGET", "TYPE", "STATUS", "NODES", "WARNING", "OFFLINE", "UNKNOWN", "MISSING", "CAPACITY", "USED", "REASON"];
    let mut table = table(style, &titles);
    for FleetTarget { target, nodes, reasons, .. } in targets {
        let state = match (target.status == Status::Available, nodes.available == nodes.expected, nodes.warning) {
            (false, ..) => ExitState::Offline,
            (true, true, 0) => ExitState::Available,
            _ => ExitState::Warning,
        };
        let count = |count: usize| {
            let text = if count == 0 { "-".to_owned() } else { count.to_string() };
            Cell::new(text).set_alignment(CellAlignment::Right)
        };
        let dash = |text: Option<&String>| text.map_or_else(|| "-".to_owned(), |text| escape_invisible(text));
        let most = reasons.iter().max_by_key(|(_, count)| **count).map_or("", |(reason, _)| reason);
        table.add_row([
            Cell::new(escape_invisible(&target.filesystem_export)),
            Cell::new(escape_invisible(&target.kind)),
            state_cell(&target.status, state, style),
            Cell::new(format!("{}/{}", nodes.available, nodes.expected)).set_alignment(CellAlignment::Right),
            count(nodes.warning),
            count(nodes.offline),
            count(nodes.unknown),
            count(nodes.missing),
            Cell::new(dash(target.capacity.as_ref())),
            Cell::new(dash(target.used.as_ref())),
            Cell::new(escape_invisible(most)),
        ]);
    }
    // Only exports are wrapped, because a wrapped word cannot be found by a search.
    for column in table.column_iter_mut().skip(1) {
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
    finish(&mut table)
}
