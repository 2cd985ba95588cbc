//! Alerts end to end: Prometheus (Debian package `prometheus`) scrapes agents and evaluates the rules of `monitoring`.
//!
//! The rules are the real ones. Only their durations are shortened, so that a test takes seconds.

use std::net::SocketAddr;
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::daemon::{Daemon, eventually, with_timeout};
use crate::documents::read;
use crate::http::{over_tcp, request};
use crate::storage::{exports, nfs, nfs_target};
use crate::support::nfs_server::NfsServer;
use crate::workspace::Workspace;

/// Interval of scrapes and evaluations.
const INTERVAL: &str = "500ms";

/// Time for which a condition must be true before its alert fires: several evaluations.
const FOR: &str = "1s";

/// A running Prometheus, killed when dropped.
struct Prometheus {
    _child: Child,
    address: SocketAddr,
    _directory: TempDir,
}

impl Prometheus {
    /// Starts Prometheus for some agents, and waits until it listens.
    async fn start(agents: &[&Daemon]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let targets: Vec<String> = agents.iter().map(|agent| agent.address().to_string()).collect();
        // JSON is YAML.
        let config = json!({
            "global": { "scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL },
            "rule_files": ["rules.yml"],
            "scrape_configs": [{ "job_name": "targetwatch", "static_configs": [{ "targets": targets }] }],
        });
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("prometheus.yml"), config.to_string()).expect("written");
        std::fs::write(path("rules.yml"), quick(&read("monitoring/targetwatch.rules.yml"))).expect("written");
        let mut child = Command::new("prometheus")
            .arg("--web.listen-address=127.0.0.1:0")
            .arg(format!("--config.file={}", path("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", path("data").display()))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("prometheus (Debian package) is installed");
        let mut log = BufReader::new(child.stderr.take().expect("piped")).lines();
        let listening = async {
            while let Some(line) = log.next_line().await.expect("text") {
                let address = line.split_once("msg=\"Listening on\" address=").map(|(_, address)| address);
                if let Some(address) = address {
                    return address.parse().expect("an address");
                }
            }
            panic!("prometheus ended before it listened");
        };
        let address = with_timeout("the address of Prometheus", listening).await;
        // Prometheus must be able to write its log.
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        Self { _child: child, address, _directory: directory }
    }

    /// The firing alerts of a name: labels and summary.
    async fn firing(&self, name: &str) -> Option<Vec<(Value, String)>> {
        let answer = over_tcp(self.address, request("GET", "/api/v1/alerts", Vec::new())).await;
        // Prometheus answers with 503 until it is ready.
        if answer.status != 200 {
            return None;
        }
        let answer = answer.json();
        let alerts = answer["data"]["alerts"].as_array().expect("a list").iter();
        let of_name = alerts.filter(|alert| alert["labels"]["alertname"] == name && alert["state"] == "firing");
        let summary = |alert: &Value| alert["annotations"]["summary"].as_str().expect("text").to_owned();
        Some(of_name.map(|alert| (alert["labels"].clone(), summary(alert))).collect())
    }

    /// Waits until exactly this alert of its name fires.
    async fn wait_for(&self, labels: Value, summary: &str) {
        let name = labels["alertname"].as_str().expect("text").to_owned();
        let expected = vec![(labels, summary.to_owned())];
        eventually(summary, async || (self.firing(&name).await? == expected).then_some(())).await;
    }

    /// Waits until no alert of a name fires.
    async fn wait_for_end(&self, name: &str) {
        eventually(name, async || self.firing(name).await?.is_empty().then_some(())).await;
    }
}

/// Rules with short durations.
fn quick(rules: &str) -> String {
    let shortened = rules.lines().map(|line| match line.trim_start().split_once(": ") {
        Some(("for", value)) => line.replace(value, FOR),
        Some(("interval", value)) => line.replace(value, INTERVAL),
        _ => line.to_owned(),
    });
    shortened.collect::<Vec<_>>().join("\n")
}

/// An agent that probes a target on a port every second.
async fn agent(workspace: &Workspace) -> Daemon {
    workspace.configure("[probe]\nnfs_interval = \"1s\"");
    Daemon::with_target(workspace, nfs_target("/backups")).await.0
}

#[tokio::test]
#[ignore = "slow, and needs Prometheus: tests/run monitoring"]
async fn alerts_fire_when_a_server_stops_and_end_after_recovery() {
    let (server, healthy) = nfs().await;
    let port = server.port();
    let broken = Workspace::new();
    broken.configure("[mounts]\nnfs_options = \"nfsvers=3,port=1,mountport=1\"");
    let agents = [agent(&healthy).await, agent(&broken).await];
    let prometheus = Prometheus::start(&[&agents[0], &agents[1]]).await;

    let export = "127.0.0.1:/backups";
    let on_nodes = "TargetwatchTargetOfflineOnNodes";
    let everywhere = "TargetwatchTargetOfflineEverywhere";
    let reason = "connection_refused";
    let labels = json!({ "alertname": on_nodes, "export": export, "reason": reason, "severity": "warning" });
    let one_node = "1 node(s) cannot write to 127.0.0.1:/backups: connection_refused";
    prometheus.wait_for(labels.clone(), one_node).await;
    assert_eq!(prometheus.firing(everywhere).await, Some(Vec::new()));

    server.stop().await;
    let critical = json!({ "alertname": everywhere, "export": export, "severity": "critical" });
    prometheus.wait_for(critical, "None of 2 node(s) can write to 127.0.0.1:/backups: connection_refused").await;
    prometheus.wait_for_end(on_nodes).await;

    let _server = NfsServer::start_on(port, exports()).await.expect("a server on the same port");
    prometheus.wait_for_end(everywhere).await;
    prometheus.wait_for(labels, one_node).await;

    for agent in &agents {
        agent.signal(Signal::SIGKILL);
    }
    let down = json!({ "alertname": "TargetwatchManyAgentsDown", "severity": "critical" });
    prometheus.wait_for(down, "The agents of 2 node(s), more than 15 %, do not answer: check the network first").await;
    prometheus.wait_for_end(on_nodes).await;
}
