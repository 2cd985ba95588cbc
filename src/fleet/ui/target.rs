//! The page of one target: its state on each node, the worst first.

use jiff::Timestamp;
use maud::{Markup, html};

use super::parts::{NONE, PATH, banners, basis, condition, shortened, state_mark};
use crate::api::ui::layout::ago;
use crate::fleet::view::{FleetTarget, FleetView, NodeState, TargetOnNode};

/// Largest number of nodes in the table.
const NODES_MAX: usize = 500;

const COLUMNS: [&str; 5] = ["Node", "State", "Since", "Reason", "Message"];

/// What the page shows.
pub(in crate::fleet) struct FleetTargetPage<'a> {
    /// The fleet.
    pub(in crate::fleet) view: &'a FleetView,
    /// The target.
    pub(in crate::fleet) target: &'a FleetTarget,
    /// When the page is made.
    pub(in crate::fleet) now: Timestamp,
}

impl FleetTargetPage<'_> {
    /// The landmarks.
    pub(in crate::fleet) fn body(&self) -> Markup {
        let Self { view, target, now } = *self;
        let (counts, id) = (target.counts, target.id);
        let nodes = self.nodes();
        html! {
            header {
                nav aria-label="Back" { a href=(PATH) { "All backup targets" } }
                h1 { (target.described.filesystem_export) }
                (basis(view, now))
            }
            main {
                (banners(view))
                p {
                    (condition(view, target).mark()) ", available on " (counts.available) " of " (counts.expected)
                    " nodes where it is expected. In the fleet it is " (target.status) "."
                }
                @if let Some(scope) = &target.scope { p { "Expected on: " (scope) } }
                section aria-labelledby="nodes" {
                    h2 #nodes { "Nodes" }
                    ul {
                        @for state in NodeState::ALL.iter().filter(|state| counts.of(**state) > 0) {
                            li { (state_mark(*state)) ": " (counts.of(*state)) }
                        }
                    }
                    table.checks {
                        caption { (nodes.len()) " of " (counts.expected) " nodes, the worst first" }
                        thead { tr { @for column in COLUMNS { th scope="col" { (column) } } } }
                        tbody { @for on_node in nodes.iter().take(NODES_MAX) { (self.row(on_node)) } }
                    }
                    @if counts.expected > nodes.len() {
                        p { "All nodes: " a href={ "/backup_targets/" (id) "/nodes" } { code { "GET /backup_targets/" (id) "/nodes" } } }
                    }
                }
            }
        }
    }

    /// The worst nodes.
    fn nodes(&self) -> Vec<TargetOnNode<'_>> {
        let mut nodes = self.view.not_available(self.target, NODES_MAX);
        let rest = NODES_MAX - nodes.len();
        let available = self.view.on_nodes(self.target).filter(|on_node| on_node.state == NodeState::Available);
        nodes.extend(available.take(rest));
        nodes
    }

    fn row(&self, on_node: &TargetOnNode<'_>) -> Markup {
        let (reason, message) = on_node.problem().unzip();
        let message = message.or_else(|| on_node.node.failure.as_deref().filter(|_| !on_node.node.is_answering));
        html! {
            tr {
                th scope="row" { (on_node.node.name) }
                td data-label="State" { (state_mark(on_node.state)) }
                td data-label="Since" { @match on_node.since() { Some(at) => (ago(at, self.now)), None => (NONE) } }
                td data-label="Reason" { @match reason { Some(reason) => code { (reason) }, None => (NONE) } }
                td data-label="Message" { (message.map_or_else(|| NONE.to_owned(), shortened)) }
            }
        }
    }
}
