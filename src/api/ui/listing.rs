//! Parts of an overview: filter, search, pages, and the offer to reload.

use maud::{Markup, html};

use super::condition::Condition;
use super::layout::{OLD_AFTER_SECONDS, REFRESH_OFFER_SECONDS};
use super::query::Query;

/// Largest number of targets on one page.
pub(crate) const PAGE_TARGETS: usize = 100;

/// Returns the items of the requested page, and the index of the first one.
pub(crate) fn page_of<'a, T>(query: &Query, found: &'a [T]) -> (usize, &'a [T]) {
    let (page, _) = page_number(query, found.len());
    let first = (page - 1) * PAGE_TARGETS;
    let rest = found.get(first..).unwrap_or_default();
    (first, &rest[..rest.len().min(PAGE_TARGETS)])
}

/// Number of the requested page, which may be too large, and number of pages.
fn page_number(query: &Query, found: usize) -> (usize, usize) {
    let pages = found.div_ceil(PAGE_TARGETS).max(1);
    (query.page.min(pages), pages)
}

/// Links that filter by condition, each with its number of targets. `all` has the condition of every target.
pub(crate) fn filters(query: &Query, all: impl Iterator<Item = Condition> + Clone) -> Markup {
    let choices = [None].into_iter().chain(Condition::ALL.iter().copied().map(Some));
    html! {
        nav aria-label="Filter by status" {
            ul.filters {
                @for choice in choices {
                    @let count = all.clone().filter(|condition| choice.is_none_or(|it| it == *condition)).count();
                    @let link = Query { status: choice, page: 1, ..query.clone() }.link();
                    @let current = (query.status == choice).then_some("true");
                    li {
                        a href=(link) aria-current=[current] {
                            (count) " "
                            @match choice { None => "in all", Some(condition) => (condition.mark()) }
                        }
                    }
                }
            }
        }
    }
}

/// A search field. `label` says what it searches.
pub(crate) fn search(query: &Query, label: &str) -> Markup {
    html! {
        form action=(query.path) role="search" {
            label for="q" { (label) }
            " "
            input #q type="search" name="q" maxlength="255" value=(query.search);
            @if let Some(status) = query.status { input type="hidden" name="status" value=(status.as_str()); }
            @if let Some(seconds) = query.refresh { input type="hidden" name="refresh" value=(seconds); }
            " "
            button { "Search" }
        }
    }
}

/// That none of `all` targets matches.
pub(crate) fn none_matches(query: &Query, all: usize) -> Markup {
    html! { "None of " (all) " targets matches. " (link_to_all(query)) }
}

/// How many targets the filter hides. Nothing without a filter.
pub(crate) fn hidden(query: &Query, found: usize, all: usize) -> Markup {
    html! {
        @if query.is_filter() {
            p { (found) " of " (all) " targets match, and " (all - found) " are hidden. " (link_to_all(query)) }
        }
    }
}

fn link_to_all(query: &Query) -> Markup {
    html! { a href=(query.link_to_all()) { "Show all targets" } }
}

/// The caption of a table that shows some of the `found` targets.
pub(crate) fn caption(first: usize, shown: usize, found: usize) -> Markup {
    html! { caption { "Targets " (first + 1) " to " (first + shown) " of " (found) ", the worst first" } }
}

/// Links to the pages before and after this one.
pub(crate) fn page_links(query: &Query, found: usize) -> Markup {
    let (page, pages) = page_number(query, found);
    let link = |page| Query { page, ..query.clone() }.link();
    html! {
        @if pages > 1 {
            nav aria-label="Pages" {
                p {
                    @if page > 1 { a href=(link(page - 1)) rel="prev" { "Previous page" } " · " }
                    "page " (page) " of " (pages)
                    @if page < pages { " · " a href=(link(page + 1)) rel="next" { "Next page" } }
                }
            }
        }
    }
}

/// The offer to reload the page, and what an old page shows.
pub(crate) fn reloading(query: &Query) -> Markup {
    let reload = |refresh| Query { refresh, ..query.clone() }.link();
    html! {
        p {
            @match query.refresh {
                Some(seconds) => {
                    "This page reloads every " (seconds) " s. " a href=(reload(None)) { "Stop reloading" }
                }
                None => {
                    a href=(reload(Some(REFRESH_OFFER_SECONDS))) { "Reload every " (REFRESH_OFFER_SECONDS) " s" }
                }
            }
            " · A page that is older than " (OLD_AFTER_SECONDS) " s says so."
        }
    }
}
