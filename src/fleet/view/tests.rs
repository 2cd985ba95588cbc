use proptest::prelude::*;

use super::*;
use crate::model::LabeledNode;
use crate::model::node_scope::scope;

const INTERVAL: Duration = Duration::from_secs(10);

/// A target is available if it is on every node.
pub(in crate::fleet) const ALL: Policy =
    Policy { available_when: AvailableWhen::All, expected_on: ExpectedOn::All, interval: INTERVAL };

/// A time of the tests.
pub(in crate::fleet) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_764_000_000 + second).expect("valid")
}

/// A target of a node.
pub(in crate::fleet) fn target(export: &str, state: NodeTargetState) -> NodeTarget {
    let problem = matches!(state, NodeTargetState::Offline | NodeTargetState::Warning)
        .then(|| (Arc::from("connect_timed_out"), Arc::from("It does not answer")));
    let id = Uuid::new_v4();
    NodeTarget { id, export: export.into(), state, since: Some(at(1)), observed_at: Some(at(2)), problem }
}

/// A node that answered at this second, or has not answered since then.
pub(in crate::fleet) fn node(name: &str, answered_at: Option<i64>, has_stopped: bool) -> NodeSnapshot {
    NodeSnapshot {
        name: name.into(),
        is_polled: true,
        is_answering: !has_stopped,
        answered_at: answered_at.map(at),
        silent_since_start: None,
        failure: None,
        targets: Arc::default(),
        fleet_node: None,
    }
}

/// The node with these targets in its answer.
pub(in crate::fleet) fn with(node: NodeSnapshot, targets: &[NodeTarget]) -> NodeSnapshot {
    NodeSnapshot { targets: targets.into(), ..node }
}

fn described(export: &str) -> Option<Described> {
    let fields = serde_json::json!({
        "id": Uuid::nil(), "type": "nfs", "created_at": "2026-01-01T00:00:00.000000",
        "updated_at": "2026-01-01T00:00:00.000000", "version": "0.1.0", "filesystem_export": export,
        "filesystem_export_mount_path": "/m", "nfs_export": export, "nfs_export_mount_path": "/m",
        "s3_endpoint_url": null, "s3_bucket": null, "nfs_mount_opts": null, "secret_ref": null, "is_default": false,
        "capacity": null, "used": null, "status": "available", "backup_target_types": [],
        "backup_target_metadata": [],
    });
    let lock_proved_at = export.starts_with("https:").then(|| at(-3600));
    let sizes = Sizes {
        by: "a".into(),
        at: at(0),
        used: Some("976.6 KB".to_owned()),
        capacity: Some("3.8 MB".to_owned()),
        used_bytes: Some(1_000_000),
        size_bytes: Some(4_000_000),
    };
    Some(Described {
        by: "a".into(),
        target: Arc::new(serde_json::from_value(fields).expect("a target")),
        sizes: Some(Arc::new(sizes)),
        lock_proved_at,
    })
}

/// The view of these nodes.
pub(in crate::fleet) fn view(nodes: Vec<NodeSnapshot>, policy: Policy) -> FleetView {
    FleetView::new(nodes, policy, &[], described)
}

#[test]
fn every_node_of_the_list_counts() {
    let nodes = vec![
        with(node("a", Some(10), false), &[target("nas:/b", NodeTargetState::Available)]),
        with(node("b", Some(9), false), &[target("nas:/b", NodeTargetState::Warning)]),
        with(node("c", Some(8), false), &[target("nas:/b", NodeTargetState::Offline)]),
        with(node("d", Some(1), true), &[target("nas:/b", NodeTargetState::Available)]),
        with(node("e", Some(11), false), &[target("nas:/b", NodeTargetState::NotProbed)]),
        node("f", Some(12), false),
        node("g", None, true),
    ];
    let view = view(nodes, ALL);
    let target = &view.targets[0];
    let expected = NodeCounts { expected: 7, available: 2, warning: 1, offline: 1, unknown: 3, missing: 1 };
    assert_eq!(target.counts, expected);
    assert_eq!(target.status, Status::Offline);
    assert_eq!(target.reasons, BTreeMap::from([(Arc::from("connect_timed_out"), 2)]));
    let states: String =
        view.on_nodes(target).map(|on_node| on_node.state.as_str().chars().next().expect("a name")).collect();
    assert_eq!(states, "awouumu");
    assert_eq!(view.as_of, Some(at(8)), "the oldest answer in use");
    assert!(!view.is_complete);
}

#[test]
fn answer_of_a_node_that_stopped_does_not_count() {
    let nodes = vec![
        with(node("a", Some(10), false), &[target("nas:/b", NodeTargetState::Available)]),
        with(node("b", Some(5), true), &[target("nas:/b", NodeTargetState::Offline)]),
    ];
    let view = view(nodes, ALL);
    let target = &view.targets[0];
    assert_eq!((target.counts.offline, target.counts.unknown), (0, 1));
    assert!(target.reasons.is_empty());
    let stopped = view.on_nodes(target).nth(1).expect("two nodes");
    assert_eq!((stopped.problem(), stopped.since()), (None, Some(at(5))));
}

#[test]
fn policy_makes_the_status_and_the_unknown_is_not_available() {
    let nodes = || {
        vec![
            with(node("a", Some(10), false), &[target("nas:/b", NodeTargetState::Available)]),
            with(node("b", Some(1), true), &[target("nas:/b", NodeTargetState::Available)]),
            node("c", Some(10), false),
        ]
    };
    for (available_when, expected_on, status) in [
        (AvailableWhen::All, ExpectedOn::All, Status::Offline),
        (AvailableWhen::Any, ExpectedOn::All, Status::Available),
        (AvailableWhen::Ratio(0.33), ExpectedOn::All, Status::Available),
        (AvailableWhen::Ratio(0.34), ExpectedOn::All, Status::Offline),
        (AvailableWhen::All, ExpectedOn::Reporting, Status::Offline),
        (AvailableWhen::Ratio(0.5), ExpectedOn::Reporting, Status::Available),
    ] {
        let policy = Policy { available_when, expected_on, interval: INTERVAL };
        assert_eq!(view(nodes(), policy).targets[0].status, status, "{policy:?}");
    }
}

#[test]
fn id_depends_on_the_export_and_ids_of_agents_are_found() {
    let on_a = target("nas:/b", NodeTargetState::Available);
    let nodes = vec![
        with(node("a", Some(10), false), std::slice::from_ref(&on_a)),
        with(node("b", Some(10), false), &[target("nas:/c", NodeTargetState::Available)]),
    ];
    let view = view(nodes, ALL);
    assert_eq!(view.targets.len(), 2);
    let found = view.target(on_a.id).expect("known to an agent");
    assert_eq!((found.id, &*found.described.filesystem_export), (id_by_export("nas:/b"), "nas:/b"));
    assert_eq!(view.target(found.id).map(|target| target.id), Some(found.id));
    assert!(view.target(Uuid::new_v4()).is_none());
    assert_eq!(found.id.get_version_num(), 8);
}

#[test]
fn node_that_never_answered_may_have_every_target() {
    let nodes = vec![
        with(node("a", Some(10), false), &[target("nas:/b", NodeTargetState::Available)]),
        node("b", Some(10), false),
        node("c", None, true),
    ];
    let policy = Policy { expected_on: ExpectedOn::Reporting, ..ALL };
    let view = view(nodes, policy);
    let target = &view.targets[0];
    let expected = NodeCounts { expected: 2, available: 1, unknown: 1, ..NodeCounts::default() };
    assert_eq!((target.counts, target.status), (expected, Status::Offline));
    assert_eq!(view.on_nodes(target).count(), 2);
}

#[test]
fn view_without_nodes_is_not_complete() {
    let view = view(Vec::new(), ALL);
    assert!(!view.is_complete && !view.has_answers && view.targets.is_empty());
}

#[test]
fn worst_nodes_come_first() {
    let nodes = vec![
        with(node("a", Some(10), false), &[target("nas:/b", NodeTargetState::Available)]),
        with(node("b", Some(10), false), &[target("nas:/b", NodeTargetState::Warning)]),
        node("c", None, true),
        node("d", Some(10), false),
        with(node("e", Some(10), false), &[target("nas:/b", NodeTargetState::Offline)]),
    ];
    let view = view(nodes, ALL);
    let names = |max| {
        let found = view.not_available(&view.targets[0], max);
        found.iter().map(|on_node| on_node.node.name.to_string()).collect::<String>()
    };
    assert_eq!((names(20), names(2)), ("edcb".to_owned(), "ed".to_owned()));
}

#[test]
fn mass_outage_is_one_notice() {
    let fleet = |stopped: &[i64], answering: usize| {
        let stopped = stopped.iter().map(|second| node("s", Some(*second), true));
        stopped.chain((0..answering).map(|_| node("a", Some(500), false))).collect::<Vec<_>>()
    };
    for (stopped, answering, expected) in [
        (&[][..], 10, None),
        (&[100][..], 1, None),
        (&[100, 110][..], 8, Some("2 of 10 nodes")),
        (&[100, 110, 130][..], 17, None),
        (&[100, 110, 130, 220][..], 16, Some("4 of 20 nodes")),
        (&[100, 221, 342, 463][..], 6, None),
        (&[0, 300, 310][..], 7, Some("2 of 10 nodes")),
    ] {
        let notice = view(fleet(stopped, answering), ALL).notice;
        let is_expected = match expected {
            None => notice.is_none(),
            Some(text) => notice.as_deref().is_some_and(|notice| notice.starts_with(text)),
        };
        assert!(is_expected, "{stopped:?} {answering}: {notice:?}");
    }
    let long = Policy { interval: Duration::from_secs(300), ..ALL };
    assert!(view(fleet(&[0, 290, 590], 7), long).notice.is_some(), "their latest answers are spread over an interval");
    let never = vec![node("a", None, true), node("b", None, true)];
    assert_eq!(view(never, ALL).notice, None, "they have not been polled, or refuse the token");
}

#[test]
fn restart_of_the_aggregator_does_not_end_a_mass_outage() {
    let silent = |name| NodeSnapshot { silent_since_start: Some(at(100)), ..node(name, None, true) };
    let answering = |name| with(node(name, Some(110), false), &[target("nas:/b", NodeTargetState::Available)]);
    let nodes = vec![answering("a"), answering("b"), silent("c"), silent("d"), node("e", Some(120), true)];
    let view = view(nodes, ALL);
    let notice = view.notice.as_deref().expect("an outage");
    assert!(notice.starts_with("3 of 5 nodes stopped answering within 120 s from "), "{notice}");
    assert!(notice.contains(", or before the start of this aggregator. "), "{notice}");
    let target = &view.targets[0];
    let expected = NodeCounts { expected: 5, available: 2, unknown: 3, ..NodeCounts::default() };
    assert_eq!((target.counts, target.status, view.is_complete), (expected, Status::Offline, false));
}

#[test]
fn target_whose_probes_are_overdue_is_unknown() {
    let nodes = vec![
        with(node("a", Some(10), false), &[target("nas:/b", NodeTargetState::Available)]),
        with(node("b", Some(10), false), &[target("nas:/b", NodeTargetState::Overdue)]),
    ];
    let view = view(nodes, ALL);
    let target = &view.targets[0];
    let expected = NodeCounts { expected: 2, available: 1, unknown: 1, ..NodeCounts::default() };
    assert_eq!((target.counts, target.status), (expected, Status::Offline));
    assert!(view.on_nodes(target).nth(1).is_some_and(|on_node| on_node.is_overdue()));
}

#[test]
fn status_on_the_nodes_that_answer_is_known_during_an_outage() {
    let (well, bad) = (NodeTargetState::Available, NodeTargetState::Offline);
    let nodes = |state| {
        let answering = |name| with(node(name, Some(10), false), &[target("nas:/b", state)]);
        vec![
            answering("a"),
            answering("b"),
            with(node("c", Some(1), true), &[target("nas:/b", well)]),
            node("d", None, true),
        ]
    };
    for expected_on in [ExpectedOn::All, ExpectedOn::Reporting] {
        let policy = Policy { expected_on, ..ALL };
        for (state, expected) in [(well, true), (bad, false)] {
            let view = view(nodes(state), policy);
            let target = &view.targets[0];
            assert_eq!(
                (target.status, target.is_available_on_answering),
                (Status::Offline, Some(expected)),
                "{policy:?}"
            );
        }
    }
    let silent = with(node("c", Some(1), true), &[target("nas:/b", well)]);
    assert_eq!(view(vec![silent], ALL).targets[0].is_available_on_answering, None);
}

#[test]
fn sizes_of_a_node_that_stopped_have_their_time() {
    let shared_name = described("nas:/b").expect("described").sizes.expect("sizes").by.clone();
    let described_by = |name: Arc<str>| {
        move |export: &str| {
            let found = described(export)?;
            let sizes = Sizes { by: name.clone(), ..Sizes::clone(found.sizes.as_deref()?) };
            Some(Described { by: name.clone(), sizes: Some(Arc::new(sizes)), ..found })
        }
    };
    let on = |name: &Arc<str>, has_stopped| {
        let node = NodeSnapshot { name: name.clone(), ..node("a", Some(10), has_stopped) };
        with(node, &[target("nas:/b", NodeTargetState::Available)])
    };
    let other: Arc<str> = "b".into();
    for (has_stopped, as_of) in [(false, None), (true, Some(at(0)))] {
        let nodes = vec![on(&shared_name, has_stopped), on(&other, false)];
        let view = FleetView::new(nodes, ALL, &[], described_by(shared_name.clone()));
        let target = &view.targets[0];
        assert_eq!((target.sizes_node(), target.sizes_as_of()), (Some("a"), as_of));
        assert_eq!(target.sizes_in_bytes(), (Some(1_000_000), Some(4_000_000)));
        assert_eq!(target.is_described_where_available, !has_stopped);
    }
    let view = FleetView::new(vec![on(&shared_name, true)], ALL, &[], described_by(shared_name));
    assert_eq!(view.targets[0].sizes_in_bytes(), (None, None), "it is available nowhere");
}

#[test]
fn registered_target_is_missing_until_agents_have_it_and_has_its_id() {
    let registered = |id: u128, export: &str| {
        let target = described(export).expect("described").target;
        Arc::new(wire::Target { id: Uuid::from_u128(id).to_string(), ..wire::Target::clone(&target) })
    };
    let nodes =
        vec![with(node("a", Some(10), false), &[target("nas:/b", NodeTargetState::Available)]), node("b", None, true)];
    let all = [registered(1, "nas:/b"), registered(2, "nas:/new")];
    let only_b = |export: &str| described(export).filter(|_| export == "nas:/b");
    let view = FleetView::new(nodes, ALL, &all, only_b);
    let new = view.target(Uuid::from_u128(2)).expect("registered");
    let expected = NodeCounts { expected: 2, missing: 1, unknown: 1, ..NodeCounts::default() };
    assert_eq!((new.counts, new.status, new.sizes()), (expected, Status::Offline, (None, None)));
    let known = view.target(Uuid::from_u128(1)).expect("registered");
    assert_eq!(
        (known.counts.available, view.target(id_by_export("nas:/b")).map(|found| found.id)),
        (1, Some(known.id))
    );
    assert_eq!(view.targets.len(), 2);
}

/// The node, whose agent has said that it has this name and this rack.
fn in_fleet(node: NodeSnapshot, name: &str, rack: &str) -> NodeSnapshot {
    let labels = [("rack".to_owned(), rack.to_owned())].into();
    NodeSnapshot { fleet_node: Some(Arc::new(LabeledNode { name: name.to_owned(), labels })), ..node }
}

#[test]
fn advice_about_a_missing_target_depends_on_the_registry_of_the_node() {
    let single = node("a:1", Some(10), false);
    assert!(single.missing_target_message().ends_with("Create it there"));
    let message = in_fleet(single, "compute-1", "a").missing_target_message();
    assert!(message.contains("from the shared registry") && !message.contains("Create"), "{message}");
}

/// The view of a target with this scope in the registry.
fn scoped_view(nodes: Vec<NodeSnapshot>, scope: NodeScope, expected_on: ExpectedOn) -> FleetView {
    let target = described("nas:/b").expect("described").target;
    let id = Uuid::from_u128(1).to_string();
    let registered = Arc::new(wire::Target { id, scope: Some(scope), ..wire::Target::clone(&target) });
    FleetView::new(nodes, Policy { expected_on, ..ALL }, &[registered], described)
}

#[test]
fn only_nodes_of_the_scope_count() {
    let (well, bad) = (NodeTargetState::Available, NodeTargetState::Offline);
    let has = |name, second, has_stopped, state| with(node(name, second, has_stopped), &[target("nas:/b", state)]);
    let nodes = || {
        vec![
            in_fleet(has("a:1", Some(10), false, well), "compute-1", "a"),
            // It still has the target, and is not in the scope any more.
            in_fleet(has("b:1", Some(10), false, bad), "compute-2", "b"),
            in_fleet(node("c:1", Some(10), false), "compute-3", "b"),
            in_fleet(has("d:1", Some(1), true, well), "compute-4", "c"),
            in_fleet(node("e:1", Some(10), false), "compute-5", "c"),
            node("f:1", None, true),
        ]
    };
    for (scope, expected, status) in [
        (
            scope(&["compute-1"], &[]),
            NodeCounts { expected: 1, available: 1, ..NodeCounts::default() },
            Status::Available,
        ),
        (
            scope(&["compute-1"], &[("rack", "c")]),
            NodeCounts { expected: 3, available: 1, unknown: 1, missing: 1, ..NodeCounts::default() },
            Status::Offline,
        ),
        (scope(&["nobody"], &[]), NodeCounts::default(), Status::Offline),
    ] {
        let view = scoped_view(nodes(), scope.clone(), ExpectedOn::All);
        let found = &view.targets[0];
        assert_eq!((found.counts, found.status), (expected, status), "{scope:?}");
        assert_eq!(view.on_nodes(found).count(), expected.expected);
        assert_eq!(found.reasons.len(), expected.offline);
        assert_eq!(view.node_with(found), (expected.available > 0).then_some(0));
    }
    let view = scoped_view(nodes(), scope(&[], &[("rack", "c")]), ExpectedOn::Reporting);
    let expected = NodeCounts { expected: 1, unknown: 1, ..NodeCounts::default() };
    assert_eq!((view.targets[0].counts, view.targets[0].is_available_on_answering), (expected, None));
}

#[test]
fn node_that_has_not_said_its_name_counts_if_it_is_named_or_has_the_target() {
    let nodes = vec![
        node("compute-1:8781", None, true),
        node("compute-2:8781", Some(10), false),
        // An agent of an earlier release, which ignores scopes.
        with(node("compute-3:8781", Some(10), false), &[target("nas:/b", NodeTargetState::Offline)]),
        node("compute-4:8781", None, true),
    ];
    let scope = scope(&["compute-1", "compute-2"], &[("rack", "a")]);
    let view = scoped_view(nodes, scope, ExpectedOn::All);
    let expected = NodeCounts { expected: 3, unknown: 1, missing: 1, offline: 1, ..NodeCounts::default() };
    assert_eq!(view.targets[0].counts, expected);
    let names: Vec<&str> = view.on_nodes(&view.targets[0]).map(|on_node| &*on_node.node.name).collect();
    assert_eq!(names, ["compute-1:8781", "compute-2:8781", "compute-3:8781"]);
}

proptest! {
    #[test]
    fn counts_are_those_of_the_listed_nodes(
        racks in prop::collection::vec((0_u8..3, any::<bool>(), any::<bool>(), 0_u8..3), 0..8),
        listed in prop::collection::btree_set(0_u8..3, 1..3),
        reporting in any::<bool>(),
    ) {
        let nodes = racks.iter().enumerate().map(|(number, (rack, is_known, has_stopped, has_it))| {
            let plain = node(&format!("n{number}:1"), Some(10), *has_stopped);
            let targets = [target("nas:/b", NodeTargetState::Available), target("nas:/c", NodeTargetState::Warning)];
            let node = with(plain, &targets[..usize::from(*has_it)]);
            if *is_known { in_fleet(node, &format!("n{number}"), &rack.to_string()) } else { node }
        });
        let labels: Vec<String> = listed.iter().map(u8::to_string).collect();
        let labels: Vec<(&str, &str)> = labels.iter().map(|value| ("rack", value.as_str())).collect();
        let expected_on = if reporting { ExpectedOn::Reporting } else { ExpectedOn::All };
        let view = scoped_view(nodes.collect(), scope(&["n0"], &labels), expected_on);
        for target in &view.targets {
            let mut counts = NodeCounts::default();
            view.on_nodes(target).for_each(|on_node| counts.add(on_node.state));
            prop_assert_eq!(counts, target.counts);
        }
    }
}
