//! The overview: a table of the targets, the worst first, and the nodes that do not answer.

use std::collections::BTreeMap;

use jiff::Timestamp;
use maud::{Markup, html};

use super::parts::{NONE, PATH, banners, basis, condition, shortened, state_mark};
use crate::api::ui::condition::Condition;
use crate::api::ui::layout::ago;
use crate::api::ui::listing;
use crate::api::ui::query::Query;
use crate::fleet::node_snapshot::NodeSnapshot;
use crate::fleet::view::{FleetTarget, FleetView, NodeState, TargetOnNode};

/// Largest number of nodes of a group that are named.
const NAMED_MAX: usize = 5;

/// Largest number of groups of a target. Its page has all nodes.
const GROUPS_MAX: usize = 10;

/// Largest number of silent nodes in the table. `GET /nodes` lists all of them.
const SILENT_MAX: usize = 50;

/// Titles of the columns, which narrow windows show beside the values.
const COLUMNS: [&str; 8] = ["Target", "Status", "Available on", "Warning", "Offline", "Missing", "Unknown", "Used"];

/// What the overview shows.
pub(in crate::fleet) struct FleetOverview<'a> {
    /// The fleet.
    pub(in crate::fleet) view: &'a FleetView,
    /// Filter, page and reload.
    pub(in crate::fleet) query: &'a Query,
    /// When the page is made.
    pub(in crate::fleet) now: Timestamp,
}

/// A target and its condition.
type Row<'a> = (Condition, &'a FleetTarget);

/// Nodes with the same state and reason code.
struct Group<'a> {
    state: NodeState,
    reason: Option<&'a str>,
    count: usize,
    /// The first of them.
    named: Vec<TargetOnNode<'a>>,
}

impl FleetOverview<'_> {
    /// The title. It begins with the worst condition, because a tab shows only the beginning.
    pub(in crate::fleet) fn title(&self) -> String {
        let worst = self.view.targets.iter().map(|target| condition(self.view, target)).min();
        format!("{}: fleet", worst.map_or("no targets", Condition::as_str))
    }

    /// The landmarks.
    pub(in crate::fleet) fn body(&self) -> Markup {
        let mut all: Vec<Row<'_>> =
            self.view.targets.iter().map(|target| (condition(self.view, target), target)).collect();
        all.sort_by_cached_key(|(condition, target)| (*condition, target.described.filesystem_export.clone()));
        let found: Vec<&Row<'_>> = all.iter().filter(|row| self.is_selected(row)).collect();
        let (first, shown) = listing::page_of(self.query, &found);
        html! {
            header {
                h1 { "Backup targets of the fleet" }
                (basis(self.view, self.now))
            }
            main {
                (banners(self.view))
                (listing::filters(self.query, all.iter().map(|(condition, _)| *condition)))
                (listing::search(self.query, "Export, id or reason contains"))
                @if all.is_empty() {
                    p { "No agent has a backup target." }
                } @else if found.is_empty() {
                    p { (listing::none_matches(self.query, all.len())) }
                } @else {
                    (listing::hidden(self.query, found.len(), all.len()))
                    table.targets {
                        (listing::caption(first, shown.len(), found.len()))
                        thead { tr { @for column in COLUMNS { th scope="col" { (column) } } } }
                        @for (condition, target) in shown { tbody { (self.row(*condition, target)) } }
                    }
                }
                (listing::page_links(self.query, found.len()))
                (self.silent_nodes())
            }
            footer {
                (listing::reloading(self.query))
                p {
                    a href="/nodes" { "All nodes" } " · " a href="/metrics" { "Metrics" } " · "
                    a href="/openapi.json" { "Description of the API" }
                }
            }
        }
    }

    fn is_selected(&self, (condition, target): &Row<'_>) -> bool {
        let search = self.query.search.to_lowercase();
        let contains = |text: &str| text.to_lowercase().contains(&search);
        self.query.status.is_none_or(|status| status == *condition)
            && (search.is_empty()
                || contains(&target.described.filesystem_export)
                || contains(&target.id.to_string())
                || target.reasons.keys().any(|reason| contains(reason)))
    }

    fn row(&self, condition: Condition, target: &FleetTarget) -> Markup {
        let (counts, described) = (target.counts, &target.described);
        let number = |count: usize| html! { @if count == 0 { (NONE) } @else { (count) } };
        let (used, capacity) = target.sizes();
        let used = match (used, capacity) {
            (Some(used), Some(capacity)) => format!("{used} of {capacity}"),
            (used, _) => used.unwrap_or(NONE).to_owned(),
        };
        let cells: [Markup; 7] = [
            condition.mark(),
            html! { (counts.available) " of " (counts.expected) },
            number(counts.warning),
            number(counts.offline),
            number(counts.missing),
            number(counts.unknown),
            html! { (used) },
        ];
        html! {
            tr {
                th scope="row" {
                    a href={ (PATH) "/targets/" (target.id) } { (described.filesystem_export) } " "
                    span.tag { (described.kind.as_str()) }
                    @if described.is_default { " " span.tag { "default" } }
                }
                @for (cell, column) in cells.into_iter().zip(&COLUMNS[1..]) { td data-label=(column) { (cell) } }
            }
            @if condition != Condition::Available { (self.note(target)) }
        }
    }

    /// The row below a target that is not well everywhere: its nodes by state and reason.
    fn note(&self, target: &FleetTarget) -> Markup {
        let groups = groups(self.view.on_nodes(target));
        html! {
            tr.note {
                td colspan=(COLUMNS.len()) {
                    @for group in groups.iter().take(GROUPS_MAX) { (group.markup(target)) }
                    @if groups.len() > GROUPS_MAX {
                        p { a href={ (PATH) "/targets/" (target.id) } { (groups.len() - GROUPS_MAX) " more reasons" } }
                    }
                }
            }
        }
    }

    fn silent_nodes(&self) -> Markup {
        let silent: Vec<&NodeSnapshot> = self.view.nodes.iter().filter(|node| !node.is_answering).collect();
        html! {
            @if !silent.is_empty() {
                section aria-labelledby="nodes" {
                    h2 #nodes { "Nodes that do not answer" }
                    table.checks {
                        caption { (silent.len()) " of " (self.view.nodes.len()) " nodes" }
                        thead { tr { @for column in ["Node", "Last answer", "Targets", "Message"] { th scope="col" { (column) } } } }
                        tbody { @for node in silent.iter().take(SILENT_MAX) { (self.silent_node(node)) } }
                    }
                    @if silent.len() > SILENT_MAX {
                        p { (silent.len() - SILENT_MAX) " more: " a href="/nodes" { "all nodes" } }
                    }
                }
            }
        }
    }

    fn silent_node(&self, node: &NodeSnapshot) -> Markup {
        html! {
            tr {
                th scope="row" { (node.name) }
                td data-label="Last answer" {
                    @match node.answered_at { Some(at) => (ago(at, self.now)), None => "none yet" }
                }
                td data-label="Targets" { (node.targets.len()) }
                td data-label="Message" { (node.failure.as_deref().unwrap_or(NONE)) }
            }
        }
    }
}

impl Group<'_> {
    fn markup(&self, target: &FleetTarget) -> Markup {
        let Self { state, reason, count, named } = self;
        let message = named.first().and_then(TargetOnNode::problem).map(|(_, message)| shortened(message));
        html! {
            p {
                (state_mark(*state)) " on " (count) @if *count == 1 { " node" } @else { " nodes" }
                @if let Some(reason) = reason { ", " code { (reason) } }
                ": "
                @for (index, on_node) in named.iter().enumerate() {
                    @if index > 0 { ", " } (on_node.node.name)
                }
                @if *count > named.len() {
                    " and " a href={ (PATH) "/targets/" (target.id) } { (count - named.len()) " more" }
                }
                @if let Some(message) = message { " · " (message) }
            }
        }
    }
}

/// Groups the nodes where a target is not available or has a warning by state and reason, the worst first.
fn groups<'a>(nodes: impl Iterator<Item = TargetOnNode<'a>>) -> Vec<Group<'a>> {
    let mut groups: BTreeMap<(NodeState, Option<&str>), Group<'a>> = BTreeMap::new();
    for on_node in nodes.filter(|on_node| on_node.state != NodeState::Available) {
        let (state, reason) = (on_node.state, on_node.problem().map(|(reason, _)| reason));
        let group =
            groups.entry((state, reason)).or_insert_with(|| Group { state, reason, count: 0, named: Vec::new() });
        group.count += 1;
        if group.named.len() < NAMED_MAX {
            group.named.push(on_node);
        }
    }
    groups.into_values().collect()
}
