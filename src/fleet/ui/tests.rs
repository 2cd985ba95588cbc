//! Pages of constructed views: content, order, escaping, filter and size.

use super::parts::condition;
use super::*;
use crate::api::ui::condition::Condition;
use crate::api::ui::layout::HtmlPage;
use crate::api::ui::query::Query;
use crate::fleet::answer::NodeTargetState::{Available, Offline, Warning};
use crate::fleet::node_snapshot::NodeSnapshot;
use crate::fleet::view::FleetView;
use crate::fleet::view::tests::{ALL, at, node, target, view, with};

fn page(view: &FleetView, path: &str) -> String {
    let query = Query::of(&path.parse().expect("a URI"), PATH).expect("valid");
    let overview = FleetOverview { view, query: &query, now: at(20) };
    HtmlPage { title: overview.title(), refresh_seconds: None, now: at(20), body: overview.body() }.document()
}

/// Texts must occur in this order.
fn assert_order(page: &str, texts: &[&str]) {
    let mut rest = page;
    for text in texts {
        rest = rest.split_once(text).unwrap_or_else(|| panic!("{text:?} is missing, or not in order: {page}")).1;
    }
}

/// Two targets on three nodes. One node does not answer.
fn fleet() -> FleetView {
    view(
        vec![
            with(node("a:1", Some(10), false), &[target("nas:/one", Offline), target("nas:/two", Available)]),
            with(node("b:1", Some(12), false), &[target("nas:/one", Warning)]),
            with(node("c:1", Some(1), true), &[target("nas:/one", Available), target("nas:/two", Available)]),
        ],
        ALL,
    )
}

#[test]
fn fleet_page_has_the_nodes_of_a_target_by_state_and_reason() {
    assert_order(
        &page(&fleet(), PATH),
        &[
            "<title>offline: fleet",
            "As of ",
            "2 of 3 nodes answer, the oldest answer in use ",
            "1 of 3 nodes do not answer",
            "Targets 1 to 2 of 2, the worst first",
            "nas:/one",
            "■</span> offline",
            "1 of 3",
            "■</span> offline</span> on 1 node, <code>connect_timed_out</code>: a:1",
            "It does not answer",
            "?</span> unknown</span> on 1 node: c:1",
            "▲</span> warning</span> on 1 node, <code>connect_timed_out</code>: b:1",
            "nas:/two",
            "○</span> missing</span> on 1 node: b:1",
            "Nodes that do not answer",
            "1 of 3 nodes",
            "c:1",
        ],
    );
}

#[test]
fn page_of_a_fleet_target_lists_its_nodes() {
    let view = fleet();
    let target = view.targets.iter().find(|target| target.described.filesystem_export == "nas:/one").expect("it");
    let body = FleetTargetPage { view: &view, target, now: at(20) }.body().into_string();
    assert_order(
        &body,
        &[
            "nas:/one",
            "available on 1 of 3 nodes",
            "In the fleet it is offline.",
            "3 of 3 nodes, the worst first",
            "<th scope=\"row\">a:1</th>",
            "<th scope=\"row\">c:1</th>",
            "<th scope=\"row\">b:1</th>",
        ],
    );
}

#[test]
fn target_that_no_node_answers_about_is_not_current() {
    let silent = || with(node("a:1", Some(1), true), &[target("nas:/b", Available)]);
    let view = view(vec![silent(), NodeSnapshot { name: "b:1".into(), ..silent() }], ALL);
    assert_eq!(condition(&view, &view.targets[0]), Condition::NotCurrent);
    let page = page(&view, PATH);
    assert_order(&page, &["2 of 2 nodes stopped answering within", "?</span> not current"]);
    assert!(!page.contains("nodes do not answer, so"), "one banner is enough");
}

#[test]
fn filter_and_search_select_targets_of_the_fleet() {
    for (path, texts, hidden) in [
        ("/ui/fleet?q=TWO", &["1 of 2 targets match", "href=\"/ui/fleet\"", "nas:/two"][..], "nas:/one"),
        ("/ui/fleet?q=connect_timed", &["1 of 2 targets match", "nas:/one"], "nas:/two"),
        ("/ui/fleet?status=available", &["None of 2 targets matches"], "nas:/"),
    ] {
        let page = page(&fleet(), path);
        assert_order(&page, texts);
        assert!(!page.contains(hidden), "{path}: {hidden}");
    }
}

#[test]
fn texts_of_other_nodes_are_escaped() {
    let hostile = "nas:/<script>alert(1)</script>\u{202e}";
    let view = view(vec![with(node("a:1", Some(10), false), &[target(hostile, Offline)])], ALL);
    for page in [page(&view, PATH), FleetTargetPage { view: &view, target: &view.targets[0], now: at(20) }.body().0] {
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script"), "{page}");
    }
    assert!(!page(&view, PATH).contains('\u{202e}'));
}

#[test]
fn page_about_ten_thousand_nodes_is_bounded() {
    let exports: Vec<String> = (0..30).map(|number| format!("nas:/{number}")).collect();
    let targets = || exports.iter().map(|export| target(export, Offline)).collect::<Vec<_>>();
    let nodes = (0..10_000).map(|number| with(node(&format!("n{number}:1"), Some(10), number % 3 == 0), &targets()));
    let page = page(&view(nodes.collect(), ALL), PATH);
    assert!(page.len() < 200_000, "{} bytes", page.len());
}
