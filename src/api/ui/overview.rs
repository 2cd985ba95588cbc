//! The overview: a table of the targets, the worst first.

use std::sync::Arc;

use jiff::Timestamp;
use maud::{Markup, html};

use super::banners::Banners;
use super::condition::Condition;
use super::layout::{ago, clock, lock_verdict, milliseconds};
use super::listing;
use super::query::Query;
use crate::agent::{TargetView, View};
use crate::model::Report;
use crate::model::age::{age, in_one_unit};
use crate::model::capacity::format_bytes;
use crate::model::report::KindFacts;
use crate::sys::NodeFacts;

/// Largest length of a message in the table, in characters. The page of the target has all of it.
const MESSAGE_MAX_CHARS: usize = 512;

/// Titles of the columns, which narrow windows show beside the values.
const COLUMNS: [&str; 8] = ["Target", "Status", "Since", "Checked", "Used", "Canary", "Object lock", "Round trip"];

/// Text of a value that was not measured.
const NONE: &str = "–";

/// What the overview shows.
pub(super) struct Overview<'a> {
    /// The targets.
    pub(super) view: &'a View,
    /// This host and this agent.
    pub(super) facts: &'a NodeFacts,
    /// Filter, page and reload.
    pub(super) query: &'a Query,
    /// When the page is made.
    pub(super) now: Timestamp,
    /// Used percentage above which a target has a warning.
    pub(super) nearly_full_percent: f64,
}

/// A target and its condition.
type Row<'a> = (Condition, &'a Arc<TargetView>);

impl Overview<'_> {
    /// The title. It begins with the worst condition, because a tab shows only the beginning.
    pub(super) fn title(&self) -> String {
        let worst = self.view.targets.iter().map(|target| Condition::of(target)).min();
        let worst = worst.map_or("no targets", Condition::as_str);
        format!("{worst}: {}", self.facts.host.hostname)
    }

    /// The landmarks.
    pub(super) fn body(&self, banners: &Banners<'_>) -> Markup {
        let mut all: Vec<Row<'_>> = self.view.targets.iter().map(|target| (Condition::of(target), target)).collect();
        all.sort_by_cached_key(|(condition, view)| (*condition, !view.target.is_default, view.target.spec.export()));
        let found: Vec<&Row<'_>> = all.iter().filter(|row| self.is_selected(row)).collect();
        let (first, shown) = listing::page_of(self.query, &found);
        html! {
            header {
                h1 { "Backup targets of " (self.facts.host.hostname) }
                p {
                    "As of " (clock(self.now)) ". targetwatch " (self.facts.agent.version) ", running for "
                    (age(self.facts.agent.started_at, self.now)) "."
                }
            }
            main {
                (banners.markup())
                @if let Some((condition, worst)) = all.first().filter(|(condition, _)| *condition != Condition::Available) {
                    (self.worst(*condition, worst))
                }
                (listing::filters(self.query, all.iter().map(|(condition, _)| *condition)))
                (listing::search(self.query, "Export, type, id or reason contains"))
                @if found.is_empty() {
                    p { (self.nothing_found(all.len())) }
                } @else {
                    (self.table(shown, first, found.len(), all.len()))
                }
                (listing::page_links(self.query, found.len()))
            }
            footer { (self.footer()) }
        }
    }

    fn is_selected(&self, (condition, view): &Row<'_>) -> bool {
        let search = self.query.search.to_lowercase();
        let contains = |text: &str| text.to_lowercase().contains(&search);
        self.query.status.is_none_or(|status| status == *condition)
            && (search.is_empty()
                || contains(&view.target.spec.export())
                || contains(&view.target.id.to_string())
                || view.types.iter().any(|found| contains(&found.name))
                || view.status.finding.as_ref().is_some_and(|finding| contains(finding.reason.as_str())))
    }

    fn worst(&self, condition: Condition, view: &TargetView) -> Markup {
        html! {
            p.worst {
                "Look first at " (target_link(view)) ", " (condition.mark())
                @if let Some(finding) = &view.status.finding { ": " (shortened(&finding.message)) }
            }
        }
    }

    fn nothing_found(&self, all: usize) -> Markup {
        html! {
            @if all == 0 {
                "There are no backup targets. Create one with " code { "targetwatch target create" } "."
            } @else {
                (listing::none_matches(self.query, all))
            }
        }
    }

    fn table(&self, shown: &[&Row<'_>], first: usize, found: usize, all: usize) -> Markup {
        html! {
            (listing::hidden(self.query, found, all))
            table.targets {
                (listing::caption(first, shown.len(), found))
                thead { tr { @for column in COLUMNS { th scope="col" { (column) } } } }
                @for (condition, view) in shown {
                    tbody { (self.row(*condition, view)) }
                }
            }
        }
    }

    fn row(&self, condition: Condition, view: &TargetView) -> Markup {
        let report = view.report.as_deref();
        let facts = report.and_then(|report| report.facts.as_ref());
        let traffic = facts.and_then(KindFacts::nfs).and_then(|(_, mount)| mount?.traffic);
        let round_trip = traffic.and_then(|traffic| traffic.round_trip);
        let lock = facts.and_then(KindFacts::bucket).and_then(|bucket| lock_verdict(&bucket.lock_proof, self.now));
        let cells: [Markup; 7] = [
            condition.mark(),
            ago(view.status.since, self.now),
            report.map_or_else(none, |report| ago(report.checked_at, self.now)),
            report.map_or_else(none, |report| self.used(report)),
            view.record.canary_at.map_or_else(none, |at| ago(at, self.now)),
            lock.unwrap_or_else(none),
            round_trip.map_or_else(none, |time| html! { (milliseconds(time)) }),
        ];
        html! {
            tr {
                th scope="row" {
                    (target_link(view)) " "
                    span.tag { (view.target.spec.kind()) }
                    @if view.target.is_default { " " span.tag { "default" } }
                    @if view.target.spec.is_immutable() { " " span.tag { "immutable" } }
                }
                @for (cell, column) in cells.into_iter().zip(&COLUMNS[1..]) { td data-label=(column) { (cell) } }
            }
            @if condition != Condition::Available { (note(condition, view)) }
        }
    }

    fn used(&self, report: &Report) -> Markup {
        let Some(capacity) = &report.capacity else { return none() };
        let Some(used) = capacity.used_bytes.map(format_bytes) else { return none() };
        html! {
            @if let (Some(percent), Some(size)) = (capacity.used_percent(), capacity.capacity_bytes.map(format_bytes)) {
                meter min="0" max="100" high=(self.nearly_full_percent) value=(format!("{percent:.1}")) aria-label="Used" {}
                " " (format!("{percent:.0} %")) " of " (size)
            } @else { (used) }
            @if let Some(time) = report.time_to_full { ", full in about " (in_one_unit(time)) }
        }
    }

    fn footer(&self) -> Markup {
        html! {
            (listing::reloading(self.query))
            p { a href="/metrics" { "Metrics" } " · " a href="/openapi.json" { "Description of the API" } }
        }
    }
}

/// The row below a target that is not well: what was found, by which check, and how to look further.
fn note(condition: Condition, view: &TargetView) -> Markup {
    let failed = view.report.as_ref().and_then(|report| {
        let reason = view.status.finding.as_ref()?.reason;
        report.checks.iter().find(|result| result.findings().iter().any(|finding| finding.reason == reason))
    });
    html! {
        tr.note {
            td colspan=(COLUMNS.len()) {
                @if condition == Condition::NotCurrent {
                    p { "The latest probe ended too long ago to tell. The last status was " (view.status.status) "." }
                }
                @if let Some(finding) = &view.status.finding {
                    p { code { (finding.reason.as_str()) } @if let Some(failed) = failed { " in " (failed.check) }
                        ": " (shortened(&finding.message)) }
                }
                p { "Look further: " code { "targetwatch target check " (view.target.id) } }
            }
        }
    }
}

fn target_link(view: &TargetView) -> Markup {
    html! { a href={ "/ui/targets/" (view.target.id) } { (view.target.spec.export()) } }
}

fn none() -> Markup {
    html! { (NONE) }
}

fn shortened(message: &str) -> String {
    match message.char_indices().nth(MESSAGE_MAX_CHARS) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}
