//! Agents of many nodes: one server with a loopback address for each node. It answers as a real agent did.

use std::collections::hash_map::DefaultHasher;
use std::convert::Infallible;
use std::hash::{Hash as _, Hasher as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Sub;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::daemon::Daemon;
use crate::http;

/// Number of targets of each node.
pub const TARGETS: usize = 20;

/// Number of servers with these targets.
const SERVERS: usize = 4;

/// Number of targets of the server that dies.
pub const DEAD_TARGETS: usize = TARGETS / SERVERS;

/// Time between two probes of an agent.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// First loopback address of a node: 127.16.0.0.
const FIRST_ADDRESS: u32 = 0x7f10_0000;

/// Lists of targets that the aggregator and the loops may get.
const LISTS: [&str; 3] = ["/backup_targets/detail", VERDICTS, "/backup_targets"];

const VERDICTS: &str = "/backup_targets/verdicts";

/// The agents. Their server stops when they are dropped.
pub struct Agents {
    state: Arc<State>,
    addresses: Vec<String>,
    serving: JoinHandle<()>,
}

/// Requests so far.
#[derive(Debug, Clone, Copy)]
pub struct Counts {
    pub requests: u64,
    pub unchanged: u64,
    /// Bytes of the bodies.
    pub bytes: u64,
}

impl Sub for Counts {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            requests: self.requests - earlier.requests,
            unchanged: self.unchanged - earlier.unchanged,
            bytes: self.bytes - earlier.bytes,
        }
    }
}

struct State {
    /// Each of [`LISTS`], before and after the server's death.
    templates: [[Template; 2]; LISTS.len()],
    has_verdicts: bool,
    is_server_dead: AtomicBool,
    started_at: Instant,
    requests: AtomicU64,
    unchanged: AtomicU64,
    bytes: AtomicU64,
}

/// A body whose ids and times of probes are filled in for each node.
struct Template {
    parts: Vec<Part>,
}

enum Part {
    Text(String),
    /// Id of the target with this number.
    Id(usize),
    /// Time of the latest probe.
    ProbedAt,
}

impl Agents {
    /// Starts the agents of `nodes` nodes, which answer as `agent` does. Those of an earlier release do not have the
    /// list of verdicts.
    pub async fn start(nodes: usize, agent: &Daemon, has_verdicts: bool) -> anyhow::Result<Self> {
        let mut templates = Vec::new();
        for path in LISTS {
            let list: Value = serde_json::from_slice(&http::get(agent.address, path).await?.body)?;
            let targets = list["backup_targets"].as_array().map_or(0, Vec::len);
            ensure!(targets == TARGETS, "the agent has {targets} targets at {path}, expected {TARGETS}");
            templates.push([Template::of(&list), Template::of(&without_a_server(list.clone()))]);
        }
        let templates = templates.try_into().map_err(|_| anyhow::anyhow!("not one template for each list"))?;
        let state = Arc::new(State {
            templates,
            has_verdicts,
            is_server_dead: AtomicBool::new(false),
            started_at: Instant::now(),
            requests: AtomicU64::new(0),
            unchanged: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        });
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        let port = listener.local_addr()?.port();
        let address = |node: usize| anyhow::Ok(Ipv4Addr::from_bits(FIRST_ADDRESS + u32::try_from(node)?));
        let addresses = (0..nodes).map(|node| anyhow::Ok(format!("http://{}:{port}", address(node)?)));
        let addresses = addresses.collect::<anyhow::Result<Vec<_>>>()?;
        let serving = tokio::spawn(serve(listener, state.clone()));
        Ok(Self { state, addresses, serving })
    }

    /// The addresses of the agents.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// The requests so far.
    pub fn counts(&self) -> Counts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let State { requests, unchanged, bytes, .. } = &*self.state;
        Counts { requests: of(requests), unchanged: of(unchanged), bytes: of(bytes) }
    }

    /// Makes the targets of one server offline for all agents.
    pub fn kill_a_server(&self) {
        self.state.is_server_dead.store(true, Ordering::Relaxed);
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Path of the export of a target.
pub fn path(number: usize) -> String {
    format!("/server-{}/{number:02}", number % SERVERS)
}

/// Export of a target.
pub fn export(number: usize) -> String {
    format!("127.0.0.1:{}", path(number))
}

/// Whether the server of this export dies.
pub fn is_of_dead_server(export: &str) -> bool {
    export.contains("/server-0/")
}

/// The list after the death of a server.
fn without_a_server(mut list: Value) -> Value {
    for target in list["backup_targets"].as_array_mut().into_iter().flatten() {
        if is_of_dead_server(target["filesystem_export"].as_str().unwrap_or_default()) {
            target["status"] = json!("offline");
            let report = &mut target["report"];
            report["status"] = json!("offline");
            report["verdict"] = json!("offline");
            report["reason"] = json!("connect_timed_out");
            report["message"] = json!("no answer from 127.0.0.1:2049 within 3 s: check the network and the server");
        }
    }
    list
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(converse(stream, state.clone()));
    }
}

async fn converse(stream: TcpStream, state: Arc<State>) {
    let Ok(SocketAddr::V4(local)) = stream.local_addr() else { return };
    let node = *local.ip();
    let answer = service_fn(|request: Request<hyper::body::Incoming>| {
        let state = state.clone();
        async move { Ok::<_, Infallible>(state.answer(node, &request)) }
    });
    // A client that ends its connection is no failure.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
}

impl State {
    fn answer<B>(&self, node: Ipv4Addr, request: &Request<B>) -> Response<Full<Bytes>> {
        let mut answer = Response::new(Full::default());
        let path = request.uri().path();
        let is_served = |list: &&str| **list == *path && (self.has_verdicts || *path != *VERDICTS);
        let Some(list) = LISTS.iter().position(is_served) else {
            *answer.status_mut() = StatusCode::NOT_FOUND;
            return answer;
        };
        self.requests.fetch_add(1, Ordering::Relaxed);
        let template = &self.templates[list][usize::from(self.is_server_dead.load(Ordering::Relaxed))];
        // The agents do not probe at the same time.
        let offset = PROBE_INTERVAL.mul_f64(f64::from(node.to_bits() % 1009) / 1009.0);
        let probe = (self.started_at.elapsed() + offset).as_secs() / PROBE_INTERVAL.as_secs();
        let body = template.fill(node, probe);
        let mut hasher = DefaultHasher::new();
        body.hash(&mut hasher);
        let tag = format!("W/\"{:016x}\"", hasher.finish());
        let is_known = request.headers().get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
        if let Ok(tag) = tag.parse() {
            answer.headers_mut().insert(ETAG, tag);
        }
        if is_known {
            self.unchanged.fetch_add(1, Ordering::Relaxed);
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
            return answer;
        }
        self.bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        *answer.body_mut() = Full::new(body.into());
        answer
    }
}

impl Template {
    fn of(list: &Value) -> Self {
        let mut text = list.to_string();
        let targets = list["backup_targets"].as_array().map_or(&[][..], Vec::as_slice);
        for (number, target) in targets.iter().enumerate() {
            let id = target["id"].as_str().unwrap_or_default();
            text = text.replace(id, &format!("\0i{number}\0"));
            for time in ["checked_at", "last_available_at"] {
                if let Some(time) = target["report"][time].as_str() {
                    text = text.replace(time, "\0t\0");
                }
            }
        }
        let parts = text.split('\0').map(|part| match part.split_at_checked(1) {
            Some(("i", number)) if number.parse::<usize>().is_ok() => Part::Id(number.parse().unwrap_or_default()),
            Some(("t", "")) => Part::ProbedAt,
            _ => Part::Text(part.to_owned()),
        });
        Self { parts: parts.collect() }
    }

    fn fill(&self, node: Ipv4Addr, probe: u64) -> String {
        let mut body = String::with_capacity(64 << 10);
        for part in &self.parts {
            match part {
                Part::Text(text) => body += text,
                Part::Id(number) => body += &format!("{:08x}-0000-4000-8000-{number:012x}", node.to_bits()),
                Part::ProbedAt => {
                    body += &format!("2026-01-01T{:02}:{:02}:{:02}.000000", probe / 360, probe / 6 % 60, probe % 6 * 10)
                }
            }
        }
        body
    }
}
