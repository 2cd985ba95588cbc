//! Pages of constructed views: content, escaping, filter, paging, size, and headers.

use std::sync::Arc;
use std::time::Duration;

use axum::http::Uri;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::banners::Banners;
use super::condition::Condition;
use super::history::{Segment, segments};
use super::layout::{HtmlPage, OLD_AFTER_SECONDS, STYLE};
use super::listing::PAGE_TARGETS;
use super::overview::Overview;
use super::query::Query;
use super::target::TargetPage;
use crate::agent::{Intervals, TargetView, View};
use crate::api::gzip::gzip;
use crate::api::wire::tests::view;
use crate::model::MountMode;
use crate::model::report::{Finding, KindFacts, Verdict};
use crate::model::{
    Capacity, CheckName, CheckResult, NfsExport, NfsTarget, Outcome, Reason, Report, Status, Target, TargetSpec,
    Transition,
};
use crate::sys::{ChildCensus, NodeFacts};

/// Most bytes of a compressed page about a node with a thousand targets.
const PAGE_MAX_BYTES: usize = 200_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_764_000_000 + second).expect("a time")
}

/// A target of this export, whose latest probe ended at second 0 with this finding.
fn target(export: &str, finding: Option<Finding>) -> TargetView {
    let spec =
        TargetSpec::Nfs(NfsTarget { export: NfsExport::parse(export).expect("an export"), options: None, mode: None });
    let mut view = view(spec);
    let outcome = match &finding {
        Some(finding) if finding.severity == crate::model::report::Severity::Failure => Outcome::Failed,
        _ => Outcome::Passed,
    };
    let checks =
        vec![CheckResult::new(CheckName::Capacity, outcome, finding.into_iter().collect(), Duration::from_millis(7))];
    let report = Report {
        target_id: view.target.id,
        checked_at: at(0),
        duration: Duration::from_millis(12),
        verdict: Verdict::of(&checks),
        capacity: Some(Capacity::from_blocks(4096, 1000, 400, 350, 100, 60)),
        time_to_full: None,
        facts: Some(KindFacts::Nfs { mode: MountMode::None, mount: None, in_use: None }),
        checks,
    };
    let intervals = Intervals { probe: Duration::from_secs(10), canary: None };
    view.status = view.status.after(&report, 2);
    view.record = Arc::new(view.record.after(&report, intervals, None, view.status.status));
    view.report = Some(Arc::new(report));
    view.target = Arc::new(Target { id: Uuid::new_v4(), is_default: false, ..Target::clone(&view.target) });
    view
}

fn failure(reason: Reason, message: &str) -> Option<Finding> {
    Some(Finding::new(reason, message))
}

fn warning(reason: Reason) -> Option<Finding> {
    Some(Finding::new(reason, "look at it").into_warning())
}

fn query(text: &str) -> Result<Query, String> {
    Query::of(&text.parse::<Uri>().expect("a URI"), "/ui")
}

/// The overview of these targets, 4 s after their probes.
fn overview(targets: Vec<TargetView>, path: &str) -> String {
    let view = View { targets: targets.into_iter().map(Arc::new).collect(), ..View::default() };
    let facts = NodeFacts::read(at(-7200), &ChildCensus::new());
    let banners = Banners { view: &view, facts: &facts, registry_problem: None, is_config_rejected: false };
    let query = query(path).expect("valid");
    let shown = Overview { view: &view, facts: &facts, query: &query, now: at(4), nearly_full_percent: 90.0 };
    HtmlPage { title: shown.title(), refresh_seconds: None, now: at(4), body: shown.body(&banners) }.document()
}

fn page_of(view: &TargetView, history: &[Transition]) -> String {
    let body = TargetPage { view, history: Ok(history), now: at(4) }.body();
    HtmlPage { title: view.target.spec.export(), refresh_seconds: None, now: at(4), body }.document()
}

fn change(second: i64, from: Option<Status>, to: Status) -> Transition {
    Transition { target_id: Uuid::nil(), at: at(second), from, to, finding: None }
}

/// Texts must occur in this order.
fn assert_order(page: &str, texts: &[&str]) {
    let mut rest = page;
    for text in texts {
        rest = rest.split_once(text).unwrap_or_else(|| panic!("{text:?} is missing, or not in order: {page}")).1;
    }
}

#[test]
fn worst_target_comes_first_with_its_message() {
    let mut new = target("nas:/new", None);
    new.report = None;
    let page = overview(
        vec![
            target("nas:/well", None),
            target("nas:/full", warning(Reason::NearlyFull)),
            new,
            target("nas:/dead", failure(Reason::ConnectionRefused, "start the service")),
        ],
        "/ui",
    );
    assert_order(
        &page,
        &[
            "<title>offline: ",
            "As of ",
            "Look first at ",
            "nas:/dead",
            "Targets 1 to 4 of 4, the worst first",
            "nas:/dead",
            "■</span> offline",
            "4 s ago",
            "connection_refused</code> in capacity: start the service",
            "nas:/new",
            "○</span> not checked",
            "nas:/full",
            "▲</span> warning",
            "63 % of 3.9 MB",
            "nas:/well",
            "●</span> available",
        ],
    );
}

#[test]
fn time_to_full_is_shown_where_it_is_known() {
    let mut filling = target("nas:/b", None);
    filling.report = filling
        .report
        .as_deref()
        .map(|report| Arc::new(Report { time_to_full: Some(Duration::from_secs(200_000)), ..report.clone() }));
    assert!(page_of(&filling, &[]).contains("<dt>Time to full</dt><dd>about 2 d</dd>"));
    assert_order(&overview(vec![filling], "/ui"), &["63 % of 3.9 MB, full in about 2 d"]);
    assert!(!overview(vec![target("nas:/b", None)], "/ui").contains("full in"));
}

#[test]
fn status_of_a_target_that_is_not_probed_any_more_is_not_current() {
    let mut target = target("nas:/b", None);
    assert_eq!(Condition::of(&target), Condition::Available);
    target.status.finding = failure(Reason::ProbeOverdue, "the next ones do not end");
    assert_eq!(Condition::of(&target), Condition::NotCurrent);
}

#[test]
fn markup_and_invisible_characters_of_others_are_escaped() {
    let hostile = "<script>alert('x')</script>\"><b>\u{202e}\u{200b}\u{2028}\n\u{7}";
    let mut view = target("nas:/<script>alert(1)</script>\u{202e}\u{200b}", failure(Reason::AccessDenied, hostile));
    view.types = [Arc::new(crate::model::TargetType { name: hostile.to_owned(), ..(*view.types[0]).clone() })].into();
    let mut denied = change(-60, None, Status::Offline);
    denied.finding = Some(Finding::new(Reason::AccessDenied, hostile).into());
    for page in [
        overview(vec![view.clone()], "/ui"),
        overview(vec![view.clone()], "/ui?q=%3Cscript%3E&refresh=30"),
        overview(vec![view.clone()], "/ui?q=%22%3E%3Cscript%3E%E2%80%AE"),
        page_of(&view, &[denied]),
    ] {
        assert!(!page.contains("<script") && !page.contains("\"><b>") && !page.contains("\"><script"), "{page}");
        assert!(page.contains("&lt;script&gt;"), "{page}");
        assert!(page.contains("\\u{202e}"), "{page}");
        assert!(!page.contains(crate::model::line::is_invisible), "{page}");
    }
}

#[test]
fn filter_selects_by_status_and_text() {
    let targets = || {
        vec![
            target("nas:/one", None),
            target("nas:/two", failure(Reason::StaleHandle, "gone")),
            target("other:/Three", warning(Reason::Slow)),
        ]
    };
    for (path, shown) in [
        ("/ui", &["nas:/one", "nas:/two", "other:/Three"][..]),
        ("/ui?status=&q=&page=", &["nas:/one", "nas:/two", "other:/Three"]),
        ("/ui?status=available", &["nas:/one"]),
        ("/ui?status=warning", &["other:/Three"]),
        ("/ui?q=THREE", &["other:/Three"]),
        ("/ui?q=stale_handle", &["nas:/two"]),
        ("/ui?q=nas:&status=offline", &["nas:/two"]),
        ("/ui?status=not+checked", &[]),
        ("/ui?q=nothing", &[]),
    ] {
        let page = overview(targets(), path);
        let (_, table) = page.split_once("</form>").expect("the table");
        for export in ["nas:/one", "nas:/two", "other:/Three"] {
            assert_eq!(table.contains(export), shown.contains(&export), "{path}: {export}");
        }
        assert_eq!(page.contains("Show all targets"), shown.len() < 3, "{path}: the page links to hidden targets");
    }
}

#[test]
fn wrong_parameters_are_refused() {
    let long = format!("/ui?q={}", "x".repeat(256));
    for (path, word) in [
        ("/ui?status=dead", "status: \"dead\" is not one of: offline, not current, "),
        ("/ui?page=0", "page: \"0\""),
        ("/ui?page=x", "page: \"x\""),
        ("/ui?refresh=1", "from 5 to 3600"),
        ("/ui?page=1&page=2", "duplicate field"),
        (&long, "q: longer than 255"),
    ] {
        let message = query(path).expect_err(path);
        assert!(message.contains(word), "{path}: {message}");
    }
}

#[test]
fn links_keep_filter_and_reload_and_begin_again_at_the_first_page() {
    let targets = (0..250).map(|number| target(&format!("nas:/a&b{number:03}"), None)).collect::<Vec<_>>();
    let page = overview(targets.clone(), "/ui?q=a%26b&page=2&refresh=30");
    assert_order(
        &page,
        &[
            "href=\"/ui?status=offline&amp;q=a%26b&amp;refresh=30\"",
            "Targets 101 to 200 of 250, the worst first",
            "href=\"/ui?q=a%26b&amp;refresh=30\" rel=\"prev\"",
            "page 2 of 3",
            "href=\"/ui?q=a%26b&amp;page=3&amp;refresh=30\" rel=\"next\"",
            "href=\"/ui?q=a%26b&amp;page=2\">Stop reloading",
        ],
    );
    assert_eq!(page.matches("<tbody>").count(), PAGE_TARGETS);
    let last = overview(targets, "/ui?page=99");
    assert_order(&last, &["Targets 201 to 250 of 250", "page 3 of 3"]);
    assert!(!last.contains("rel=\"next\""));
}

#[tokio::test]
async fn page_about_a_thousand_targets_is_small() {
    let message = "the server answered with an error ".repeat(30);
    let targets = (0..1000).map(|number| {
        target(&format!("nas-{number}.example:/exports/{number}"), failure(Reason::MountFailed, &message))
    });
    let page = overview(targets.collect(), "/ui");
    let compressed = gzip(&[page.as_bytes()]).await.expect("compressed");
    assert!(page.contains("1000 in all"), "{page}");
    assert!(
        compressed.len() < PAGE_MAX_BYTES && page.len() < 4 * PAGE_MAX_BYTES,
        "{} {}",
        compressed.len(),
        page.len()
    );
}

#[test]
fn banners_name_problems_of_agent_and_host() {
    let dead = |export| target(export, failure(Reason::ConnectTimedOut, "no answer"));
    let view = View { targets: vec![Arc::new(dead("a:/1")), Arc::new(dead("b:/2"))], ..View::default() };
    let facts = NodeFacts::read(at(0), &ChildCensus::new());
    let banners = Banners {
        view: &view,
        facts: &facts,
        registry_problem: Some("read-only <file system>".to_owned()),
        is_config_rejected: true,
    };
    let text = banners.markup().into_string();
    for expected in
        ["such as the network of this host", "read-only &lt;file system&gt;", "rejected at the latest reload"]
    {
        assert!(text.contains(expected), "{text}");
    }
    let view = View { targets: vec![Arc::new(dead("a:/1")), Arc::new(target("b:/2", None))], ..View::default() };
    let banners = Banners { view: &view, registry_problem: None, is_config_rejected: false, ..banners };
    assert_eq!(banners.markup().into_string(), "");
}

#[test]
fn target_page_shows_checks_findings_remedy_and_history() {
    let view = target("nas:/b", failure(Reason::ExportDenied, "the server refuses /b"));
    let history = [change(-3600, Some(Status::Available), Status::Offline), change(-7200, None, Status::Available)];
    let page = page_of(&view, &history);
    assert_order(
        &page,
        &[
            "<h1>nas:/b</h1>",
            "■</span> offline",
            "What to do",
            "export_denied</code>: the server refuses /b",
            "add this host to the export (<code>exportfs -v</code> on the server",
            "targetwatch target check ",
            "Checks of the latest probe",
            "<th scope=\"row\">capacity</th>",
            "■</span> failed",
            "7.0 ms",
            "Facts",
            "3.9 MB",
            "Offline once in the last 7 days, for 60 min.",
            "role=\"img\"",
            "All changes as a table",
        ],
    );
    let mut new = view;
    new.report = None;
    assert_order(&page_of(&new, &[]), &["not checked", "No probe has ended yet.", "Not offline in the last 7 days."]);
}

#[test]
fn unreadable_history_does_not_hide_the_report() {
    let view = target("nas:/b", None);
    let body = TargetPage { view: &view, history: Err("its disk did not answer"), now: at(4) }.body().into_string();
    assert_order(&body, &["<th scope=\"row\">capacity</th>", "its disk did not answer"]);
}

#[test]
fn strip_begins_without_a_record_and_joins_equal_states() {
    let (up, down) = (Status::Available, Status::Offline);
    let begin = at(0) - SignedDuration::from_hours(7 * 24);
    let segment = |from, to, status| Segment { from, to, status };
    assert_eq!(segments(&[], at(0)), [segment(begin, at(0), None)]);
    // Newest first. The agent was started again at -50.
    let transitions =
        [change(-10, Some(down), up), change(-50, None, down), change(-90, Some(up), down), change(-100, None, up)];
    assert_eq!(
        segments(&transitions, at(0)),
        [
            segment(begin, at(-100), None),
            segment(at(-100), at(-90), Some(up)),
            segment(at(-90), at(-10), Some(down)),
            segment(at(-10), at(0), Some(up)),
        ]
    );
    let old = [change(-8 * 24 * 3600, None, up)];
    assert_eq!(segments(&old, at(0)), [segment(begin, at(0), Some(up))], "a record before the strip");
}

#[test]
fn style_says_when_a_page_is_old() {
    assert!(STYLE.contains(&format!("animation: old 0s linear {OLD_AFTER_SECONDS}s forwards")), "{}", *STYLE);
    assert!(!STYLE.contains('<') && !STYLE.contains("url("), "a style must end no element and request nothing");
    assert!(!STYLE.contains(crate::model::line::is_invisible), "an escaped character would make its hash wrong");
}
