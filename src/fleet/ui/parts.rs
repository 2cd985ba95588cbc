//! What both pages show.

use jiff::Timestamp;
use maud::{Markup, html};

use crate::api::ui::condition::{Condition, mark};
use crate::api::ui::layout::{ago, banner, clock};
use crate::fleet::view::{FleetTarget, FleetView, NodeState};
use crate::model::Status;

/// Path of the overview.
pub(in crate::fleet) const PATH: &str = "/ui/fleet";

/// Longest message of a node, in characters. `GET /backup_targets/{id}/nodes` has all of it.
const MESSAGE_MAX_CHARS: usize = 300;

/// Text of a value that is not known.
pub(super) const NONE: &str = "–";

/// Condition of a target in the fleet.
pub(super) fn condition(view: &FleetView, target: &FleetTarget) -> Condition {
    let counts = target.counts;
    if counts.unknown == counts.expected {
        let is_old = view.on_nodes(target).all(|on_node| !on_node.node.is_answering || on_node.is_overdue());
        return if is_old { Condition::NotCurrent } else { Condition::NotChecked };
    }
    match target.status {
        Status::Offline => Condition::Offline,
        Status::Available if counts.of(NodeState::Available) == counts.expected => Condition::Available,
        Status::Available => Condition::Warning,
    }
}

/// The shape, the word and the colour of a state on a node.
pub(super) fn state_mark(state: NodeState) -> Markup {
    let (shape, class) = match state {
        NodeState::Offline => ("■", "bad"),
        NodeState::Missing => ("○", "bad"),
        NodeState::Unknown => ("?", "idle"),
        NodeState::Warning => ("▲", "warn"),
        NodeState::Available => ("●", "good"),
    };
    mark(shape, class, state.as_str())
}

/// When the page was made, and what it is based on.
pub(super) fn basis(view: &FleetView, now: Timestamp) -> Markup {
    let answering = view.nodes.iter().filter(|node| node.is_answering).count();
    html! {
        p {
            "As of " (clock(now)) ". " (answering) " of " (view.nodes.len()) " nodes answer"
            @if let Some(as_of) = view.as_of { ", the oldest answer in use " (ago(as_of, now)) }
            ". targetwatch " (env!("CARGO_PKG_VERSION")) "."
        }
    }
}

/// Why the page is not about all nodes.
pub(super) fn banners(view: &FleetView) -> Markup {
    let silent = view.nodes.iter().filter(|node| !node.is_answering).count();
    html! {
        @if let Some(notice) = &view.notice {
            (banner(html! { (notice) "." }))
        } @else if silent > 0 {
            (banner(html! {
                (silent) " of " (view.nodes.len()) " nodes do not answer, so the state of their targets is not known. "
                a href={ (PATH) "#nodes" } { "These nodes" }
            }))
        }
    }
}

pub(super) fn shortened(message: &str) -> String {
    match message.char_indices().nth(MESSAGE_MAX_CHARS) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}
