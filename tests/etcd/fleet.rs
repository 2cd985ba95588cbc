//! Agents that share a registry in etcd, and what must be true of them in every failure.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::daemon::{Daemon, eventually};
use crate::http::Answer;
use crate::workspace::Workspace;

/// Longest time of 99 % of the requests for the list of targets.
const LIST_P99_MAX: Duration = Duration::from_millis(10);

/// Number of requests whose times are measured.
const REQUESTS: usize = 100;

/// How much longer a list may take than a request that only says that the process is alive.
const LOAD_FACTOR: u32 = 3;

/// Latest start of a due probe, in seconds. It is a bound of the histogram, and less than the 4 s for which a request
/// to a member waits.
const LATENESS_MAX: &str = "2.5";

/// Time in which a target is probed, also while a change waits for etcd: an interval of 1 s with its jitter, and
/// [`LATENESS_MAX`].
const PROBED_WITHIN: Duration = Duration::from_millis(1100 + 2500);

/// Largest resident memory of an agent that was built without optimization.
const MEMORY_MAX_BYTES: f64 = 96.0 * 1024.0 * 1024.0;

/// An agent and its directory.
pub struct Node {
    pub workspace: Workspace,
    pub agent: Daemon,
    /// Number of probes that may be late, because the agent was paused when they were due.
    pub late_max: f64,
}

/// The workspace of an agent whose registry is in etcd.
pub fn workspace(urls: &[String]) -> Workspace {
    static NODES: AtomicU32 = AtomicU32::new(0);
    let (workspace, number) = (Workspace::new(), NODES.fetch_add(1, Ordering::Relaxed));
    // The agents of one host would otherwise have one name.
    use_etcd(&workspace, urls, &format!("[fleet]\nnode = \"node-{number}\"\n"));
    workspace
}

/// Lets the agent of a workspace use the registry in etcd, with more keys of its section.
pub fn use_etcd(workspace: &Workspace, urls: &[String], more: &str) {
    use_etcd_as(workspace, urls, "cloud", more);
}

/// The same with another prefix.
pub fn use_etcd_as(workspace: &Workspace, urls: &[String], prefix: &str, more: &str) {
    let (scheme, _) = urls[0].split_once("://").expect("a URL");
    let scheme = if scheme == "https" { "etcd+https" } else { "etcd" };
    let hosts: Vec<&str> = urls.iter().filter_map(|url| Some(url.split_once("://")?.1)).collect();
    let (hosts, cache) = (hosts.join(","), workspace.registry());
    // Short, so that each test would see a late probe.
    workspace.configure("[probe]\nnfs_interval = \"1s\"");
    workspace.configure(&format!(
        "[registry]\nurl = \"{scheme}://{hosts}/{prefix}\"\ncache = {cache:?}\ncompare_interval = \"1s\"\n{more}"
    ));
}

impl Node {
    /// Starts an agent whose registry is in etcd, and waits until it has joined.
    pub async fn start(urls: &[String]) -> Self {
        let node = Self::start_in(workspace(urls)).await;
        node.wait_until_compared().await;
        node
    }

    pub async fn start_in(workspace: Workspace) -> Self {
        let agent = Daemon::start(&workspace).await;
        Self { workspace, agent, late_max: 0.0 }
    }

    /// Stops the agent, and starts it again.
    pub async fn restart(&mut self) {
        self.agent.stop().await;
        self.agent = Daemon::start(&self.workspace).await;
    }

    /// Kills the agent, and starts it again.
    pub async fn restart_killed(&mut self) {
        self.agent.kill().await;
        self.agent = Daemon::start(&self.workspace).await;
    }

    /// State of the shared registry, as the agent sees it.
    pub async fn shared_registry(&self) -> Value {
        self.agent.get("/node").await["agent"]["shared_registry"].clone()
    }

    /// Waits until a quorum has confirmed the copy, and the shared registry can be used.
    pub async fn wait_until_compared(&self) {
        eventually("the first comparison", async || {
            let state = self.shared_registry().await;
            (!state["compared_at"].is_null() && state["problem"].is_null()).then_some(())
        })
        .await;
    }

    /// Waits until the shared registry cannot be used, and returns why.
    pub async fn wait_for_problem(&self, part: &str) -> String {
        eventually(&format!("a problem with {part:?}"), async || {
            let state = self.shared_registry().await;
            state["problem"].as_str().filter(|problem| problem.contains(part)).map(str::to_owned)
        })
        .await
    }

    pub async fn exports(&self) -> Vec<String> {
        let export = |target: &Value| target["filesystem_export"].as_str().expect("text").to_owned();
        self.agent.targets().await.iter().map(export).collect()
    }

    pub async fn try_create(&self, export: &str) -> Answer {
        self.agent.try_create(target(export)).await
    }

    pub async fn create(&self, export: &str) -> String {
        self.agent.create(target(export)).await
    }

    /// Asserts that changes are refused because of the shared registry, and returns the message about a creation.
    pub async fn refuses_changes(&self) -> String {
        let refused = async |answer: Answer| {
            assert_eq!(answer.status, 503, "{answer:?}");
            assert!(answer.body.contains("fleet_unavailable"), "{answer:?}");
            answer.body
        };
        let message = refused(self.try_create("127.0.0.1:/refused").await).await;
        let targets = self.agent.targets().await;
        // The default target cannot be deleted before the others.
        if let Some(last) = targets.last() {
            let id = last["id"].as_str().expect("text");
            let path = format!("/backup_targets/{id}");
            let began = Instant::now();
            let probed = async {
                wait_until_probed(&self.agent, id).await;
                began.elapsed()
            };
            let (answer, probed_after) = tokio::join!(self.agent.request("DELETE", &path, None), probed);
            refused(answer).await;
            assert_eq!(self.agent.targets().await.len(), targets.len(), "a refused deletion deletes nothing");
            assert!(probed_after < PROBED_WITHIN, "the target was probed {probed_after:?} after the deletion began");
        }
        message
    }
}

fn target(export: &str) -> Value {
    json!({"type": "nfs", "filesystem_export": export})
}

/// What all nodes must agree on: the id, the export and the default of each target, in this order.
async fn content(node: &Node) -> Vec<(String, String, bool)> {
    let fields = |target: &Value| {
        let text = |name: &str| target[name].as_str().expect("text").to_owned();
        (text("id"), text("filesystem_export"), is_default(target))
    };
    node.agent.targets().await.iter().map(fields).collect()
}

fn is_default(target: &Value) -> bool {
    target["is_default"] == json!(true) || target["is_default"] == json!(1)
}

/// Waits until all nodes have these targets, and asserts the invariants.
pub async fn wait_until_equal(nodes: &[&Node], expected: &[&str]) {
    for node in nodes {
        eventually(&format!("{expected:?} on all nodes"), async || {
            let exports = node.exports().await;
            (exports == expected).then_some(())
        })
        .await;
    }
    // The default may still be on its way.
    let first = content(nodes[0]).await;
    for node in nodes {
        eventually("the same default on all nodes", async || {
            let content = content(node).await;
            (content == first).then_some(())
        })
        .await;
    }
    assert_invariants(nodes).await;
}

/// Asserts what must be true on each node at any time, with targets that no host serves: [`assert_sound`], and no
/// verdict of another node.
pub async fn assert_invariants(nodes: &[&Node]) {
    for node in nodes {
        assert_sound(&node.agent, node.late_max).await;
        for target in node.agent.targets().await {
            assert_eq!(target["status"], "offline", "{target:#}");
        }
    }
}

/// Asserts what must be true of an agent at any time, whatever its verdicts: no target twice, one default, a list that
/// waits for nothing, probes at their time, and bounded memory. `late_max` is [`Node::late_max`].
pub async fn assert_sound(agent: &Daemon, late_max: f64) {
    let targets = agent.targets().await;
    for field in ["id", "filesystem_export"] {
        let mut values: Vec<&str> = targets.iter().map(|target| target[field].as_str().expect("text")).collect();
        values.sort_unstable();
        values.dedup();
        assert_eq!(values.len(), targets.len(), "{targets:#?}");
    }
    let defaults = targets.iter().filter(|target| is_default(target)).count();
    assert_eq!(defaults, usize::from(!targets.is_empty()), "{targets:#?}");
    assert_list_is_fast(agent).await;
    assert_probes_are_not_late(agent, &targets, late_max).await;
    let memory = metric(agent, "process_resident_memory_bytes").await.expect("the memory");
    assert!(memory > 0.0 && memory < MEMORY_MAX_BYTES, "the agent has {memory} bytes of memory");
}

/// The value of a metric of an agent.
pub async fn metric(agent: &Daemon, series: &str) -> Option<f64> {
    metric_in(&metrics(agent).await, series)
}

async fn metrics(agent: &Daemon) -> String {
    agent.request("GET", "/metrics", None).await.body
}

fn metric_in(metrics: &str, series: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// Number of probes that began later than [`LATENESS_MAX`] after they were due, and of all that were due.
async fn late_probes(agent: &Daemon) -> (f64, f64) {
    // Both values come from one answer.
    let metrics = metrics(agent).await;
    let of = |series: &str| {
        let series = format!("targetwatch_probe_lateness_seconds_{series}");
        metric_in(&metrics, &series).expect("a number of probes")
    };
    let (in_time, all) = (of(&format!("bucket{{le=\"{LATENESS_MAX}\"}}")), of("count"));
    (all - in_time, all)
}

/// Waits until a probe ends.
async fn wait_until_probed(agent: &Daemon, id: &str) {
    let checked_at = agent.report(id).await["checked_at"].clone();
    eventually("a probe", async || (agent.report(id).await["checked_at"] != checked_at).then_some(())).await;
}

/// Asserts that each target is probed now, and that at most `late_max` probes began late.
async fn assert_probes_are_not_late(agent: &Daemon, targets: &[Value], late_max: f64) {
    let (_, before) = late_probes(agent).await;
    for target in targets {
        wait_until_probed(agent, target["id"].as_str().expect("text")).await;
    }
    if !targets.is_empty() {
        eventually("a probe that was due", async || (late_probes(agent).await.1 > before).then_some(())).await;
    }
    let (late, all) = late_probes(agent).await;
    assert!(late <= late_max, "{late} of {all} probes began more than {LATENESS_MAX} s after they were due");
}

/// Asserts that 99 % of the lists take less than [`LIST_P99_MAX`]. On a loaded host, they may take [`LOAD_FACTOR`]
/// times as long as requests that only say that the process is alive.
async fn assert_list_is_fast(agent: &Daemon) {
    let (mut lists, mut others) = (Vec::new(), Vec::new());
    for _ in 0..REQUESTS {
        lists.push(agent.request("GET", "/backup_targets", None).await.took);
        others.push(agent.request("GET", "/healthz", None).await.took);
    }
    let p99 = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[REQUESTS * 99 / 100 - 1]
    };
    let (list, other) = (p99(lists), p99(others));
    assert!(list < LIST_P99_MAX.max(other * LOAD_FACTOR), "99 % of the lists take {list:?}, and of /healthz {other:?}");
}
