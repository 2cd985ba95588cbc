//! Tests of the exposition: its golden file, names, bounds, and documentation.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use axum::http::header::{ACCEPT, ACCEPT_ENCODING};
use uuid::Uuid;

use super::targets::Targets;
use super::*;
use crate::agent::{Host, Intervals, ProcessRole, TargetView, View};
use crate::api::listen::{Peer, RequestHandler as _};
use crate::api::wire::tests::view;
use crate::model::report::{
    BucketFacts, CertificateEnd, Finding, HOST_VIEWER, KindFacts, LockProofState, MountFacts, MountTraffic,
    MountViewer, RequestCount, Verdict,
};
use crate::model::settings::AgentSettings;
use crate::model::usage_listing::{UsageTally, WholeCount};
use crate::model::{
    Capacity, CheckName, CheckResult, LockProof, LockVerdict, NfsExport, NfsTarget, Outcome, Reason, Report,
    S3Location, S3Target, TargetKind, TargetSpec, UsageListing,
};
use crate::model::{LabeledNode, MountMode, NodePresence};
use crate::notify::{NotificationResult, Notifier, ReceiverCounts, ReceiverKind};
use crate::registry::{MemoryStore, Registry as TargetRegistry, ReplicaStatus};
use crate::sys::node::{self, AgentFacts, FleetPlace, NodeFacts, SharedFactCount};
use crate::sys::{ChildCensus, MountTableWatch, WorkerPool, WorkerPoolSettings};

/// Most series of an NFS target with one reason: 29, and one for each consumer of the sample.
const NFS_SERIES_MAX: usize = 29 + 2;

/// Most series of an immutable S3 target with one reason.
const S3_SERIES_MAX: usize = 33;

/// Most series of the agent itself.
const AGENT_SERIES_MAX: usize = 363;

const GOLDEN: &str = "tests/fixtures/metrics.prom";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_764_000_000 + second).expect("a time")
}

fn passed(check: CheckName, milliseconds: u64) -> CheckResult {
    CheckResult::new(check, Outcome::Passed, Vec::new(), Duration::from_millis(milliseconds))
}

/// Adds a report to a target.
fn probed(mut view: TargetView, capacity: Option<Capacity>, facts: KindFacts, checks: Vec<CheckResult>) -> TargetView {
    let from = view.report.is_some().then_some(view.status.status);
    let report = Report {
        target_id: view.target.id,
        checked_at: at(60),
        duration: Duration::from_millis(12),
        verdict: Verdict::of(&checks),
        capacity,
        time_to_full: None,
        facts: Some(facts),
        checks,
    };
    let intervals = Intervals { probe: Duration::from_secs(10), canary: Some(Duration::from_secs(300)) };
    view.status = view.status.after(&report, 2);
    view.record = Arc::new(view.record.after(&report, intervals, from, view.status.status));
    view.report = Some(Arc::new(report));
    view
}

fn nfs_view(export: &str) -> TargetView {
    view(TargetSpec::Nfs(NfsTarget { export: NfsExport::parse(export).expect("an export"), options: None, mode: None }))
}

/// An NFS target with all facts and a warning.
fn nfs(export: &str) -> TargetView {
    let viewer = |name: &str, sees_it| MountViewer { name: name.to_owned(), sees_it };
    let viewers = [viewer(HOST_VIEWER, true), viewer("libvirtd", true), viewer("nova-compute", false)];
    let mount = MountFacts {
        options: "rw,soft".to_owned(),
        server_address: "192.0.2.7".parse().ok(),
        nfs_version: Some("4.2".to_owned()),
        is_hard: false,
        traffic: Some(MountTraffic {
            round_trip: None,
            round_trip_over: Duration::ZERO,
            requests: 1000,
            round_trips: Duration::from_millis(2500),
            retransmissions: 2,
            major_timeouts: 1,
            mounted_at: at(0),
            bytes_read: 4096,
            bytes_written: 1 << 40,
        }),
        viewers: viewers.into(),
    };
    let full = Finding::new(Reason::NearlyFull, "the message is in no label").into_warning();
    let checks = vec![
        passed(CheckName::Reachable, 1),
        passed(CheckName::Mounted, 1),
        CheckResult::new(CheckName::Capacity, Outcome::Passed, vec![full], Duration::from_millis(3)),
        passed(CheckName::WriteCanary, 7),
    ];
    let capacity = Capacity::from_blocks(4096, 1000, 40, 30, 500, 100);
    let facts = KindFacts::Nfs { mode: MountMode::Kernel, mount: Some(Box::new(mount)), in_use: None };
    probed(nfs_view(export), Some(capacity), facts, checks)
}

/// An NFS target whose server has just died.
fn dead(export: &str) -> TargetView {
    let dead = Finding::new(Reason::ConnectionRefused, "no");
    let checks = vec![
        CheckResult::new(CheckName::Reachable, Outcome::Failed, vec![dead], Duration::from_millis(1)),
        CheckResult::new(CheckName::Mounted, Outcome::Skipped, Vec::new(), Duration::ZERO),
    ];
    probed(nfs(export), None, KindFacts::Nfs { mode: MountMode::Kernel, mount: None, in_use: None }, checks)
}

/// An immutable S3 target with all facts and a warning.
fn s3(export: &str) -> TargetView {
    let location = S3Location::parse(export).expect("a location");
    let tally = UsageTally { pages: 1, versions: 7, delete_markers: 0, bytes: 9, counts_versions: true };
    let proof = LockProof { verdict: LockVerdict::Enforced, why: "why".to_owned(), proved_at: at(30), node: None };
    let bucket = BucketFacts {
        versioning: Some(true),
        object_lock: Some(true),
        default_retention: Some("GOVERNANCE 1 day".to_owned()),
        default_retention_length: Some(Duration::from_secs(24 * 3600)),
        configuration_read_at: Some(at(20)),
        object_count: Some(7),
        usage_listing: Some(UsageListing {
            whole: Some(WholeCount { tally, began_at: at(1), ended_at: at(2) }),
            ..UsageListing::default()
        }),
        lock_proof: LockProofState::Found(proof),
        requests: Some(RequestCount { this_probe: 1, last_hour: 60, total: 61 }),
        clock_ahead_seconds: Some(-2),
        credentials_expire_at: Some(at(3600)),
        certificate_end: Some(CertificateEnd { at: at(7200), subject: "CN=s3".to_owned(), position: 1, of: 2 }),
        asked_at: Some(at(40)),
        watched_by: None,
        in_use: None,
    };
    let slow = Finding::new(Reason::Slow, "slow").into_warning();
    let checks = vec![
        passed(CheckName::Reachable, 1),
        CheckResult::new(CheckName::Bucket, Outcome::Passed, vec![slow], Duration::from_millis(2000)),
        passed(CheckName::WriteCanary, 80),
    ];
    let capacity = Capacity::from_bucket(Some(9), Some(100));
    let facts = KindFacts::S3(Box::new(bucket));
    probed(
        view(TargetSpec::S3(S3Target { location, immutable: true, secret_ref: None })),
        Some(capacity),
        facts,
        checks,
    )
}

fn view_of(targets: Vec<TargetView>) -> Arc<View> {
    Arc::new(View { targets: targets.into_iter().map(Arc::new).collect(), ..View::default() })
}

fn text_of(format: Format, registry: &Registry) -> String {
    let mut text = String::new();
    format.encode(registry, &mut text).expect("encoded");
    text
}

fn target_metrics(format: Format, targets: Vec<TargetView>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Targets { view: view_of(targets) }));
    text_of(format, &registry)
}

/// Metrics of an agent whose facts and counts do not change.
fn fixed_metrics(detail: MetricsDetail) -> Metrics {
    let census = ChildCensus::new();
    let workers = WorkerPool::new(WorkerPoolSettings::new("/nonexistent".into()), census.clone());
    let mounts = MountTableWatch::start().expect("/proc");
    let host = Host::new(workers, mounts, "test".to_owned(), ProcessRole::Daemon);
    host.buckets.operations().add(("HeadBucket", "2xx"), 5);
    host.key_manager.requests().add("2xx", 2);
    let registry = TargetRegistry::new(Arc::new(MemoryStore::default()));
    let settings = AgentSettings::quiet();
    let settings = AgentSettings {
        lock_proof: crate::model::settings::LockProofSettings { enabled: true, ..settings.lock_proof.clone() },
        ..settings
    };
    let agent = Agent::start(registry, Arc::new(host), settings, tokio::sync::mpsc::channel(1).0);
    let host = NodeFacts::read(at(0), &census).host;
    let facts = Arc::new(move || NodeFacts {
        host: host.clone(),
        agent: AgentFacts {
            version: "0",
            pid: 1,
            started_at: at(0),
            resident_bytes: Some(9_000_000),
            virtual_bytes: Some(80_000_000),
            cpu_time: Some(Duration::from_millis(1500)),
            threads: Some(6),
            open_files: Some(40),
            open_files_max: Some(65536),
            log_lines_dropped: 0,
            children: 2,
            stuck_children: Vec::new(),
        },
        fleet: Some(FleetPlace {
            node: LabeledNode { name: "compute-1".to_owned(), ..LabeledNode::default() },
            state: NodePresence::Present,
            problem: None,
            facts: vec![
                SharedFactCount { fact: "lock_proof", held: 1, used: 0, oldest: None },
                SharedFactCount { fact: "usage_listing", held: 0, used: 2, oldest: Some(Duration::from_secs(1800)) },
            ],
        }),
    });
    let config =
        ConfigState { fingerprint: "0123456789ab".to_owned(), is_last_reload_successful: true, loaded_at: at(0) };
    let metrics = Metrics::new(agent, facts, Arc::new(Auth::none()), Arc::new(Notifier::new(census)), detail, config);
    let statistics = metrics.agent.statistics();
    for (kind, target) in [(TargetKind::Nfs, nfs("nas:/b")), (TargetKind::S3, s3("https://s3.example.com/locked"))] {
        statistics.count(kind, target.report.as_deref().expect("a report"));
    }
    statistics.started_late(Duration::from_millis(2));
    metrics.http.observe("targets", StatusCode::OK, Duration::from_micros(700));
    metrics
}

fn exposition(metrics: &Metrics, targets: Vec<TargetView>, format: Format) -> String {
    let mut registry = Registry::default();
    let view = view_of(targets);
    registry.register_collector(Box::new(Targets { view: view.clone() }));
    let keystone = vec![("2xx", 3)];
    let results = NotificationResult::ALL.iter().map(|result| (*result, 0)).collect();
    let counts = |kind: &ReceiverKind| ReceiverCounts { kind: *kind, waiting: 0, results: Vec::clone(&results) };
    let notifications = ReceiverKind::ALL.iter().map(counts).collect();
    registry.register_collector(Box::new(AgentSample {
        keystone,
        notifications,
        certificate_expires_at: Some(at(7200)),
        keystone_certificate_expires_at: Some(at(7300)),
        key_manager_certificate_expires_at: Some(at(7400)),
        shared_registry: Some(ReplicaStatus {
            is_joined: true,
            compared_at: Some(at(7500)),
            problem: None,
            interval: Duration::from_secs(20),
        }),
        ..metrics.agent_sample(view)
    }));
    text_of(format, &registry)
}

fn sample_targets() -> Vec<TargetView> {
    let mut targets =
        vec![nfs("nas:/b"), dead("nas:/dead"), s3("https://s3.example.com/locked"), nfs("nas:/quo\"te\\d")];
    for (number, target) in targets.iter_mut().enumerate() {
        let id = Uuid::from_u128(number as u128 + 1);
        target.target = Arc::new(crate::model::Target { id, is_default: number == 0, ..(*target.target).clone() });
    }
    targets.push(nfs_view("nas:/not-checked"));
    targets
}

/// Series of an exposition: everything but comments.
fn series(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.starts_with('#')).collect()
}

/// Name and labels of a series.
fn identity(series: &str) -> &str {
    series.rsplit_once(' ').expect("a value").0
}

#[tokio::test]
async fn exposition_equals_its_golden_file() {
    let metrics = fixed_metrics(MetricsDetail::Full);
    let text = exposition(&metrics, sample_targets(), Format::Text);
    let text = text.replace(
        &format!(r#"revision="{}",rustc="{}""#, node::REVISION, node::RUSTC),
        r#"revision="0123456789ab",rustc="1.95.0""#,
    );
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(GOLDEN);
    let expected = tokio::fs::read_to_string(&golden).await.unwrap_or_default();
    if text != expected {
        let actual = std::env::temp_dir().join("metrics.prom");
        tokio::fs::write(&actual, &text).await.expect("written");
        panic!(
            "the exposition differs: compare {} with {}, and copy it if the change is right",
            GOLDEN,
            actual.display()
        );
    }
}

#[tokio::test]
async fn both_formats_have_the_same_series_once_each() {
    let metrics = fixed_metrics(MetricsDetail::Full);
    let [text, open_metrics] =
        [Format::Text, Format::OpenMetrics].map(|format| exposition(&metrics, sample_targets(), format));
    let identities = |text: &str| -> BTreeSet<String> {
        let all: Vec<_> = series(text).iter().map(|line| identity(line).replace("le=\"1.0\"", "le=\"1\"")).collect();
        let unique: BTreeSet<_> = all.iter().cloned().collect();
        assert_eq!(unique.len(), all.len(), "a series is there twice");
        unique
    };
    let names = |text: &str| -> BTreeSet<String> {
        identities(text).iter().map(|line| line.split('{').next().unwrap_or(line).to_owned()).collect()
    };
    assert_eq!(names(&text), names(&open_metrics));
    assert_eq!(series(&text).len(), series(&open_metrics).len());
    assert!(open_metrics.ends_with("# EOF\n"));
}

#[test]
fn family_names_are_unique_and_follow_the_naming_rules() {
    let mut names = BTreeSet::new();
    for family in targets::families().chain(agent::families()) {
        let name = family.series_name();
        assert!(names.insert(name.clone()), "{name} is there twice");
        assert!(name.starts_with("targetwatch_") || name.starts_with("process_"), "{name}");
        assert!(!name.contains("total_total") && !name.contains("info_info"), "{name}");
        assert!(family.help.ends_with('.'), "{name}: {}", family.help);
        assert!(!family.labels.iter().any(|label| ["type", "message", "id", "le"].contains(label)), "{name}");
    }
}

#[tokio::test]
async fn every_family_is_in_the_golden_file_and_no_other() {
    let golden = include_str!("../../../tests/fixtures/metrics.prom");
    let written: BTreeSet<&str> =
        golden.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    // The sample has no stuck child, whose age would change.
    let absent = ["targetwatch_stuck_child_oldest_seconds"];
    for family in targets::families().chain(agent::families()) {
        let name = family.series_name();
        assert!(written.contains(&*name) || absent.contains(&&*name), "{name} is not written");
    }
    let known: BTreeSet<String> = targets::families().chain(agent::families()).map(|one| one.series_name()).collect();
    let unknown: Vec<_> = written.iter().filter(|name| !known.contains(**name)).collect();
    assert!(unknown.is_empty(), "not listed: {unknown:?}");
}

#[test]
fn every_label_is_listed_in_its_family() {
    let golden = include_str!("../../../tests/fixtures/metrics.prom");
    let listed: BTreeMap<String, BTreeSet<&str>> = targets::families()
        .chain(agent::families())
        .map(|family| (family.series_name(), family.labels.iter().copied().collect()))
        .collect();
    for line in series(golden) {
        let (name, labels) = identity(line).split_once('{').unwrap_or((identity(line), "}"));
        let family = ["", "_bucket", "_sum", "_count"].iter().find_map(|suffix| listed.get(name.strip_suffix(suffix)?));
        let family = family.unwrap_or_else(|| panic!("{name} is not listed"));
        for label in labels.split("=\"").filter_map(|part| part.rsplit([',', '"']).next()) {
            let is_name = !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            assert!(!is_name || label == "le" || family.contains(label), "{label} of {line}");
        }
    }
}

#[tokio::test]
async fn number_of_series_is_within_the_budget() {
    let of = |target: TargetView| series(&target_metrics(Format::Text, vec![target])).len();
    let (nfs, s3) = (of(nfs("nas:/b")), of(s3("https://s3.example.com/locked")));
    assert!(nfs <= NFS_SERIES_MAX, "an NFS target has {nfs} series");
    assert!(s3 <= S3_SERIES_MAX, "an immutable S3 target has {s3} series");

    let metrics = fixed_metrics(MetricsDetail::Full);
    let statistics = metrics.agent.statistics();
    let everything = CheckName::ALL.iter().map(|check| passed(*check, 1)).collect();
    let target = probed(
        nfs_view("nas:/b"),
        None,
        KindFacts::Nfs { mode: MountMode::None, mount: None, in_use: None },
        everything,
    );
    statistics.count(TargetKind::Nfs, target.report.as_deref().expect("a report"));
    for route in ["targets", "check", "report", "history", "types", "metrics", "health", "ui", "other"] {
        for status in [200, 304, 404, 503] {
            metrics.http.observe(route, StatusCode::from_u16(status).expect("a status"), Duration::ZERO);
        }
    }
    // The sample has one operation and one Keystone result. At most there are 12 operations with 5 results each, and 4
    // Keystone results.
    let agent = series(&exposition(&metrics, Vec::new(), Format::Text)).len() - 2 + 12 * 5 + 4;
    assert!((200..=AGENT_SERIES_MAX).contains(&agent), "the agent has {agent} series");

    let metrics = fixed_metrics(MetricsDetail::Targets);
    let agent = series(&exposition(&metrics, Vec::new(), Format::Text)).len();
    // Absent without receivers of notifications.
    let notifications = ReceiverKind::ALL.len() * (NotificationResult::ALL.len() + 1);
    // Absent without a shared registry.
    let (shared_registry, membership) = (3, 7);
    assert!(
        agent - notifications - shared_registry - membership <= 40,
        "with detail = \"targets\" the agent has {agent} series"
    );
}

#[tokio::test]
async fn exposition_of_thousand_targets_is_small_when_compressed() {
    let targets = (0..1000).map(|number| nfs(&format!("192.168.1.34:/mnt/backups/{number:04}"))).collect();
    let text = target_metrics(Format::Text, targets);
    let lines = series(&text).len();
    assert!((27_000..=31_000).contains(&lines), "{lines} series");
    let compressed = gzip(&[text.as_bytes()]).await.expect("compressed").len();
    assert!(text.len() < 3_000_000 && compressed < 1_000_000, "{} bytes, compressed {compressed}", text.len());
}

#[test]
fn target_without_a_report_has_no_series() {
    assert_eq!(target_metrics(Format::Text, vec![nfs_view("nas:/b")]), "");
}

#[test]
fn value_that_was_not_measured_is_absent() {
    let text = target_metrics(Format::Text, vec![dead("nas:/b")]);
    for name in ["size_bytes", "nfs_mounted", "nfs_requests", "nfs_mount_info", "objects", "s3_", "lock_proof"] {
        assert!(!text.contains(name), "{name}: {text}");
    }
    assert!(!text.contains("NaN"), "{text}");
    for line in [
        "targetwatch_target_available{export=\"nas:/b\"} 0",
        "targetwatch_target_reason{export=\"nas:/b\",check=\"capacity\",reason=\"nearly_full\",severity=\"warning\"} 0",
        "targetwatch_target_reason{export=\"nas:/b\",check=\"reachable\",reason=\"connection_refused\",severity=\"failure\"} 1",
        "targetwatch_target_transitions_total{export=\"nas:/b\",to=\"offline\"} 1",
        "targetwatch_target_transitions_total{export=\"nas:/b\",to=\"available\"} 0",
    ] {
        assert!(series(&text).contains(&line), "{line} is not in {text}");
    }
}

#[test]
fn second_target_of_an_export_is_left_out() {
    let text = target_metrics(Format::Text, vec![nfs("nas:/b"), dead("nas:/b")]);
    assert_eq!(series(&text).iter().filter(|line| line.starts_with("targetwatch_target_available{")).count(), 1);
}

#[tokio::test]
async fn answer_is_compressed_for_a_client_that_accepts_gzip() {
    let metrics = Arc::new(fixed_metrics(MetricsDetail::Full));
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/openmetrics-text;version=1.0.0"));
    let answer = super::metrics(Extension(metrics), Headers(headers)).await.expect("an answer");
    assert_eq!(answer.headers()[CONTENT_ENCODING], "gzip");
    assert_eq!(answer.headers()[CONTENT_TYPE], Format::OpenMetrics.content_type());
    let compressed = axum::body::to_bytes(answer.into_body(), 1 << 20).await.expect("a body");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&compressed[..]), &mut text).expect("gzip");
    assert!(text.ends_with("# EOF\n") && text.contains("targetwatch_build_info{"), "{text}");
}

#[tokio::test]
async fn metrics_address_names_no_other_route_in_its_errors() {
    let service = crate::api::metrics_router(Arc::new(Auth::none()), &Arc::new(fixed_metrics(MetricsDetail::Full)));
    for (method, path, status) in
        [("GET", "/backup_targets", 404), ("GET", "/openapi.json", 404), ("POST", "/metrics", 405)]
    {
        let request = Request::builder().method(method).uri(path).header("host", "localhost:9781");
        let request = request.body(Body::empty()).expect("a request");
        let answer = service.answer(Peer::Tcp, request).await;
        assert_eq!(answer.status().as_u16(), status, "{method} {path}");
        let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.expect("a body");
        let body = String::from_utf8_lossy(&body);
        assert!(body.contains("GET") && !body.contains("GET /openapi.json"), "{method} {path}: {body}");
    }
}

#[test]
fn documentation_lists_every_family() {
    let page = include_str!("../../../docs/metrics.md");
    let rows = page.lines().filter(|line| line.starts_with("| `targetwatch_") || line.starts_with("| `process_"));
    let documented: BTreeSet<&str> = rows.collect();
    let known: BTreeSet<String> = targets::families().chain(agent::families()).map(family::Family::row).collect();
    let missing: Vec<_> = known.iter().filter(|row| !documented.contains(&***row)).collect();
    let unknown: Vec<_> = documented.iter().filter(|row| !known.contains(**row)).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "docs/metrics.md lacks:\n{}\nand lists unknown families: {unknown:#?}",
        missing.iter().map(|row| row.as_str()).collect::<Vec<_>>().join("\n")
    );
}
