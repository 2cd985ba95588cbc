//! Tests of nodes that share a bucket: real drivers, a board for each of them, and a service that counts requests.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::*;
use crate::driver::driver_trait::{Depth, Driver, Probe};
use crate::driver::host::Host;
use crate::driver::s3::S3Driver;
use crate::driver::{FactBoard, FactKey, FactKind, FactRole, FleetPace, SharedFact};
use crate::model::report::Verdict;
use crate::model::settings::{AgentSettings, S3CredentialSource};
use crate::model::{MountName, PathKey, Reason, S3Location, S3Target, Status, TargetSpec};

/// Number of nodes.
const NODES: usize = 10;

/// Real time for a minute of the fleet.
const MINUTE: Duration = Duration::from_millis(40);

/// Interval in the settings, so that a fact does not get old on a loaded host.
const INTERVAL: Duration = Duration::from_secs(60);

/// Longer than any test, also on a loaded host.
const RARELY: Duration = Duration::from_hours(1);

/// State of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BucketState {
    Available,
    Deleted,
    Versioned,
}

/// State of a service, the access key and method of each request, and the usage that the service reports, in bytes.
type ServiceState = (BucketState, Vec<(String, Method)>, Option<u64>);

/// Quota of the bucket, in bytes, if the service reports its usage.
const QUOTA: u64 = 1_000;

/// A service with one bucket, which records the access key and method of each request.
struct CountingService {
    address: SocketAddr,
    state: Arc<Mutex<ServiceState>>,
    serving: tokio::task::JoinHandle<()>,
}

impl CountingService {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new((BucketState::Available, Vec::new(), None)));
        let router = Router::new().fallback(answer).with_state(state.clone());
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let service = TowerToHyperService::new(router.clone());
                connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, state, serving }
    }

    fn set(&self, bucket: BucketState) {
        self.state.lock().expect("no panic").0 = bucket;
    }

    fn set_used_bytes(&self, used_bytes: u64) {
        self.state.lock().expect("no panic").2 = Some(used_bytes);
    }

    /// Forgets the requests so far, and returns them.
    fn take(&self) -> Vec<(String, Method)> {
        std::mem::take(&mut self.state.lock().expect("no panic").1)
    }
}

async fn answer(State(state): State<Arc<Mutex<ServiceState>>>, request: Request) -> Response {
    let signed = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let key = signed.split_once("Credential=").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(key, _)| key);
    let mut state = state.lock().expect("no panic");
    state.1.push((key.to_owned(), request.method().clone()));
    let query = request.uri().query().unwrap_or_default();
    let error = |status, code| (status, format!("<Error><Code>{code}</Code></Error>")).into_response();
    match state.0 {
        _ if !key.starts_with("AKIA") => error(StatusCode::FORBIDDEN, "InvalidAccessKeyId"),
        BucketState::Deleted => error(StatusCode::NOT_FOUND, "NoSuchBucket"),
        _ if query.contains("object-lock") => error(StatusCode::NOT_FOUND, "ObjectLockConfigurationNotFoundError"),
        BucketState::Versioned if query.contains("versioning") => {
            "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>".into_response()
        }
        _ if query.contains("versioning") => "<VersioningConfiguration/>".into_response(),
        _ => match state.2 {
            Some(used_bytes) => [
                ("X-RGW-Bytes-Used", used_bytes.to_string()),
                ("X-RGW-Object-Count", "3".to_owned()),
                ("X-RGW-Quota-Bucket-Size", QUOTA.to_string()),
            ]
            .into_response(),
            None => StatusCode::OK.into_response(),
        },
    }
}

struct SharingNode {
    driver: S3Driver,
    board: Arc<FactBoard>,
    settings: AgentSettings,
    directory: TempDir,
}

impl SharingNode {
    fn new(service: &CountingService, number: usize, check_interval: Duration) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut settings = AgentSettings::quiet();
        settings.probe.s3_interval = INTERVAL;
        settings.probe.bucket_check_interval = check_interval;
        let [id, secret] = ["id", "secret"].map(|name| directory.path().join(name));
        settings.s3_access[0].source = S3CredentialSource::Files { access_key_id: id, secret_access_key: secret };
        let board = Arc::new(FactBoard::default());
        board.set_pace(FleetPace { nodes: NODES as u64, look_interval: INTERVAL });
        let host = Arc::new(Host { facts: Some(board.clone()), ..Host::without_workers() });
        let location = S3Location::parse(&format!("http://{}/backups", service.address)).expect("a location");
        let spec = S3Target { location, immutable: false, secret_ref: None };
        let name = MountName::derive(&TargetSpec::S3(spec.clone()), PathKey::Path).expect("a short export");
        let node = Self { driver: S3Driver::new(Uuid::from_u128(1), spec, name, &host), board, settings, directory };
        node.set_key(&format!("AKIA{number}"));
        node
    }

    /// Replaces the access key. That of a node is its own only to count its requests, so the facts are shared anyway.
    fn set_key(&self, access_key_id: &str) {
        for (name, content) in [("id", access_key_id), ("secret", "secret")] {
            let path = self.directory.path().join(name);
            std::fs::write(&path, content).expect("written");
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(&path, private).expect("private");
        }
    }

    async fn probe(&mut self) -> Probe {
        self.driver.probe(&self.settings, Depth::Routine).await
    }

    fn key(&self) -> Option<FactKey> {
        let mut asked = self.board.asked_for(Duration::ZERO).into_iter().map(|(key, _)| key);
        asked.rfind(|key| key.kind == FactKind::Bucket)
    }
}

/// Passes what the first node found to all nodes, as etcd does.
fn exchange(nodes: &[SharingNode]) {
    let Some(key) = nodes[0].key() else { return };
    nodes[0].board.set_role(&key, FactRole::Holder);
    let Some(fact) = nodes[0].board.found(&key) else { return };
    for node in nodes {
        if let Some(key) = node.key() {
            node.board.receive(&key, SharedFact { node: "n0".to_owned(), ..fact.clone() });
        }
    }
}

/// Probes all nodes once a minute, and exchanges their facts.
async fn pass(nodes: &mut [SharingNode], minutes: usize) -> Vec<Probe> {
    let mut latest = Vec::new();
    for _ in 0..minutes {
        let next = tokio::time::Instant::now() + MINUTE;
        latest.clear();
        for node in nodes.iter_mut() {
            latest.push(node.probe().await);
        }
        exchange(nodes);
        tokio::time::sleep_until(next).await;
    }
    latest
}

fn status(probe: &Probe) -> Status {
    Verdict::of(&probe.checks).status()
}

fn failure(probe: &Probe) -> Option<Reason> {
    Verdict::of(&probe.checks).finding().map(|finding| finding.reason)
}

/// Starts the nodes. The first one watches the bucket, and the others ask it at `check_interval`.
async fn start(check_interval: Duration) -> (CountingService, Vec<SharingNode>) {
    let service = CountingService::start().await;
    let mut nodes: Vec<_> = (0..NODES).map(|number| SharingNode::new(&service, number, check_interval)).collect();
    // The holder is elected after the first probes, and shares what it finds with the second.
    let probes = pass(&mut nodes, 3).await;
    assert!(probes.iter().all(|probe| status(probe) == Status::Available), "{probes:#?}");
    service.take();
    (service, nodes)
}

fn heads_of(requests: &[(String, Method)], number: usize) -> usize {
    let key = format!("AKIA{number}");
    requests.iter().filter(|(of, method)| *of == key && *method == Method::HEAD).count()
}

#[tokio::test]
async fn nodes_ask_a_watched_bucket_rarely_and_say_when_they_did() {
    let (service, mut nodes) = start(15 * MINUTE).await;
    let began = Instant::now();
    let probes = pass(&mut nodes, 60).await;
    let intervals = began.elapsed().as_secs_f64() / (15 * MINUTE).as_secs_f64();
    let requests = service.take();
    assert_eq!(heads_of(&requests, 0), 60, "the holder asks at each interval");
    for (number, probe) in probes.iter().enumerate().skip(1) {
        let asked = heads_of(&requests, number);
        assert!((1..=intervals.ceil() as usize).contains(&asked), "{number}: {asked} times in {intervals} intervals");
        assert_eq!(status(probe), Status::Available);
        let facts = probe.facts.as_ref().and_then(|facts| facts.bucket()).expect("a bucket");
        assert!(facts.asked_at.is_some() && facts.watched_by.as_deref() == Some("n0"), "{facts:?}");
        let check = probe.checks.iter().find(|result| result.check == CheckName::Bucket).expect("the check");
        if check.outcome == Outcome::Skipped {
            let detail = check.detail.as_deref().unwrap_or_default();
            assert!(detail.starts_with("asked by this node at ") && detail.contains("the node n0 asks"), "{detail}");
        }
    }
    let of_holder = probes[0].facts.as_ref().and_then(|facts| facts.bucket()).expect("a bucket");
    assert_eq!(of_holder.watched_by, None);
}

#[tokio::test]
async fn nodes_report_the_usage_that_the_watching_node_has_read() {
    let (service, mut nodes) = start(RARELY).await;
    let capacity = |probe: &Probe| {
        let bucket = probe.facts.as_ref().and_then(|facts| facts.bucket()).expect("a bucket");
        let result = probe.checks.iter().find(|result| result.check == CheckName::Capacity).expect("the check");
        let warning = result.findings().first().map(|finding| finding.reason);
        (probe.capacity, bucket.object_count, warning, result.detail.clone().unwrap_or_default())
    };
    let unreported = (Some(Capacity::default()), None, None);
    for (used_bytes, warning) in [(400, None), (500, None), (999, Some(Reason::NearlyFull))] {
        service.set_used_bytes(used_bytes);
        // A node learns in the second minute what the first node has read in the first.
        let probes = pass(&mut nodes, 2).await;
        let requests = service.take();
        assert_eq!((1..NODES).map(|number| heads_of(&requests, number)).sum::<usize>(), 0, "{requests:?}");
        for probe in &probes[1..] {
            let (capacity, objects, warned, detail) = capacity(probe);
            assert_eq!(capacity, Some(Capacity::from_bucket(Some(used_bytes), Some(QUOTA))));
            assert_eq!((objects, warned), (Some(3), warning));
            assert!(detail.starts_with("as read by the node n0 at "), "{detail}");
        }
        // The usage is no news, for which a node would ask the bucket.
        let settings = nodes[1].settings.clone();
        assert!(futures::FutureExt::now_or_never(nodes[1].driver.outdated(&settings)).is_none());
    }
    // The settings of a node decide what it calls nearly full.
    nodes[1].settings.probe.nearly_full_percent = 99.95;
    let probes = pass(&mut nodes, 1).await;
    let warnings = [1, 2].map(|number| capacity(&probes[number]).2);
    assert_eq!(warnings, [None, Some(Reason::NearlyFull)]);

    service.state.lock().expect("no panic").2 = None;
    let probes = pass(&mut nodes, 2).await;
    let (capacity, objects, warned, detail) = capacity(&probes[1]);
    assert_eq!((capacity, objects, warned), unreported, "as the node found it itself");
    assert!(detail.starts_with("the service does not report") && detail.contains(", as read at "), "{detail}");
}

#[tokio::test]
async fn deleted_bucket_is_noticed_by_each_node_itself_and_so_is_its_return() {
    let (service, mut nodes) = start(RARELY).await;
    service.set(BucketState::Deleted);
    let probes = pass(&mut nodes, 1).await;
    assert_eq!(failure(&probes[0]), Some(Reason::BucketNotFound));
    // The news makes the driver of a waiting node probe before its interval ends.
    let settings = nodes[1].settings.clone();
    nodes[1].driver.outdated(&settings).await;
    service.take();
    let probes = pass(&mut nodes, 1).await;
    assert!(probes.iter().all(|probe| failure(probe) == Some(Reason::BucketNotFound)), "{probes:#?}");
    // A HEAD that fails is sent again without the parameter for Ceph.
    let requests = service.take();
    assert!((0..NODES).all(|number| heads_of(&requests, number) >= 1), "{requests:?}");

    service.set(BucketState::Available);
    let probes = pass(&mut nodes, 1).await;
    assert!(probes.iter().all(|probe| status(probe) == Status::Available), "{probes:#?}");
    let requests = service.take();
    assert!((0..NODES).all(|number| heads_of(&requests, number) >= 1), "{requests:?}");
    pass(&mut nodes, 2).await;
    service.take();
    pass(&mut nodes, 1).await;
    let requests = service.take();
    assert!((1..NODES).all(|number| heads_of(&requests, number) == 0), "they ask rarely again");
}

#[tokio::test]
async fn refused_credentials_of_one_node_make_only_that_node_offline() {
    let (service, mut nodes) = start(RARELY).await;
    nodes[3].set_key("revoked");
    let probes = pass(&mut nodes, 1).await;
    for (number, probe) in probes.iter().enumerate() {
        let expected = (number == 3).then_some(Reason::UnknownAccessKey);
        assert_eq!(failure(probe), expected, "{number}");
    }
    // It asks at each interval until it has credentials again.
    nodes[3].set_key("AKIA3");
    assert_eq!(status(&pass(&mut nodes, 1).await[3]), Status::Available);
    drop(service);
}

#[tokio::test]
async fn path_that_breaks_is_noticed_at_once_whatever_the_holder_says() {
    let (service, mut nodes) = start(RARELY).await;
    service.serving.abort();
    let _ = service.serving.await;
    let probe = nodes[1].probe().await;
    assert_eq!((status(&probe), failure(&probe)), (Status::Offline, Some(Reason::ConnectionRefused)), "{probe:#?}");
    assert_eq!(probe.checks[1].outcome, Outcome::Skipped);
}

#[tokio::test]
async fn node_reads_the_configuration_when_another_node_found_another_one() {
    let (service, mut nodes) = start(RARELY).await;
    service.set(BucketState::Versioned);
    // The holder reads the configuration when a check is requested.
    let settings = nodes[0].settings.clone();
    nodes[0].driver.probe(&settings, Depth::Full).await;
    exchange(&nodes);
    service.take();
    let probe = nodes[1].probe().await;
    let facts = probe.facts.as_ref().and_then(|facts| facts.bucket()).expect("a bucket");
    assert_eq!((facts.versioning, heads_of(&service.take(), 1)), (Some(true), 1));
}

/// Lets the fact that all nodes know get old.
fn make_fact_old(nodes: &[SharingNode]) {
    let key = nodes[0].key().expect("a key");
    let fact = nodes[0].board.found(&key).expect("a fact");
    for node in &nodes[1..] {
        let observed_at = Timestamp::now() - 4 * INTERVAL;
        let key = node.key().expect("a key");
        node.board.receive(&key, SharedFact { node: "n0".to_owned(), observed_at, ..fact.clone() });
    }
}

#[tokio::test]
async fn nodes_that_hear_no_other_one_ask_and_write_at_a_tenth_of_the_rate() {
    let (service, mut nodes) = start(RARELY).await;
    nodes[0].probe().await;
    make_fact_old(&nodes);
    // Without etcd, and with an etcd in which nobody watches the bucket.
    let key = nodes[1].key().expect("a key");
    nodes[1].board.set_role(&key, FactRole::Alone);
    service.take();
    for node in &mut nodes[1..3] {
        node.settings.probe.s3_interval = MINUTE;
        // A fact stays old in these minutes.
        node.board.set_pace(FleetPace { nodes: NODES as u64, look_interval: Duration::ZERO });
    }
    let (began, mut probes) = (Instant::now(), [0, 0]);
    while began.elapsed() < 60 * MINUTE {
        for (node, probes) in nodes[1..3].iter_mut().zip(&mut probes) {
            let probe = node.probe().await;
            assert_eq!(status(&probe), Status::Available);
            let facts = probe.facts.as_ref().and_then(|facts| facts.bucket()).expect("a bucket");
            assert!(facts.asked_at.is_some() && facts.watched_by.is_none(), "{facts:?}");
            let result = probe.checks.iter().find(|result| result.check == CheckName::Bucket).expect("the check");
            if result.outcome == Outcome::Skipped {
                let detail = result.detail.as_deref().unwrap_or_default();
                assert!(detail.starts_with("asked by this node at ") && detail.contains("no recent news"), "{detail}");
            }
            *probes += 1;
        }
        tokio::time::sleep(MINUTE).await;
    }
    let requests = service.take();
    let most = (began.elapsed().as_secs_f64() / (10 * MINUTE).as_secs_f64()).ceil() as usize;
    for (number, probes) in [1, 2].into_iter().zip(probes) {
        let asked = heads_of(&requests, number);
        assert!((2..=most).contains(&asked), "{number}: {asked} questions in {probes} probes, at most {most}");
    }

    for node in &nodes[1..3] {
        let mut writing = node.settings.clone();
        (writing.s3_canary.enabled, writing.s3_canary.interval) = (true, INTERVAL);
        writing.s3_access[0].read_only = false;
        assert_eq!(node.driver.canary_interval(&writing), Some(INTERVAL * 10));
    }

    // The next question shows that the bucket is gone. From then on, the node asks at each interval.
    service.set(BucketState::Deleted);
    let began = Instant::now();
    while failure(&nodes[1].probe().await).is_none() {
        assert!(began.elapsed() < INTERVAL, "it is never asked");
        tokio::time::sleep(MINUTE).await;
    }
    service.take();
    for _ in 0..3 {
        assert_eq!(failure(&nodes[1].probe().await), Some(Reason::BucketNotFound));
    }
    assert!(heads_of(&service.take(), 1) >= 3);
}

#[tokio::test]
async fn target_that_the_fleet_does_not_have_is_asked_at_each_interval() {
    let service = CountingService::start().await;
    let mut node = SharingNode::new(&service, 0, RARELY);
    node.probe().await;
    let key = node.key().expect("a key");
    for (role, expected) in [(FactRole::Unregistered, 3), (FactRole::Other, 3), (FactRole::Alone, 0)] {
        node.board.set_role(&key, role);
        service.take();
        for _ in 0..3 {
            node.probe().await;
        }
        assert_eq!(heads_of(&service.take(), 0), expected, "{role:?}");
    }
}

#[tokio::test]
async fn changed_settings_make_a_node_ask_once() {
    let (service, mut nodes) = start(RARELY).await;
    nodes[1].driver.settings_changed();
    for _ in 0..2 {
        nodes[1].probe().await;
    }
    assert_eq!(heads_of(&service.take(), 1), 1);
}

#[test]
fn nodes_ask_after_news_within_the_interval_and_few_of_them_soon() {
    for (nodes, most) in [(0, 0), (3, 60), (1_000, 20_000), (u64::MAX, 60_000)] {
        let waits = (0..100).map(|_| wait_after_news(nodes, Duration::from_secs(60)));
        let longest = waits.max().expect("a wait");
        assert!(longest <= Duration::from_millis(most) && longest >= Duration::from_millis(most / 2), "{nodes}");
    }
}
