//! The aggregator beside real agents.

mod node_list;
mod polls;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::daemon::{Daemon, eventually, with_timeout};
use crate::http;
use crate::storage::{nfs, nfs_target};
use crate::support::nfs_server::NfsServer;
use crate::workspace::{Workspace, set_mode};

/// An agent whose storage is this server.
async fn agent(server: &NfsServer) -> (Workspace, Daemon) {
    let workspace = Workspace::new();
    let port = server.port();
    workspace.configure(&format!("[mounts]\nnfs_options = \"nfsvers=3,port={port},mountport={port}\""));
    let daemon = Daemon::start(&workspace).await;
    (workspace, daemon)
}

/// Creates targets on an agent and probes them.
async fn with_targets(daemon: &Daemon, paths: &[&str]) -> Vec<String> {
    let mut ids = Vec::new();
    for path in paths {
        let id = daemon.create(nfs_target(path)).await;
        daemon.check(&id).await;
        ids.push(id);
    }
    ids
}

/// Address of an agent or aggregator.
pub fn address(daemon: &Daemon) -> String {
    format!("http://{}", daemon.address())
}

/// The configuration of an aggregator of these nodes, which it reads from a file.
pub fn aggregator(nodes: &[String], more: &str) -> Workspace {
    let workspace = Workspace::new();
    write_nodes(&workspace, nodes);
    let file = workspace.path("nodes");
    workspace.configure(&format!("[aggregate]\nnodes_file = {file:?}\ninterval = \"1s\"\n{more}"));
    workspace
}

fn write_nodes(workspace: &Workspace, nodes: &[String]) {
    workspace.write("nodes", format!("# nodes of the test\n{}\n", nodes.join("\n")));
}

/// Waits until the list of targets meets a condition, and returns it.
pub async fn list_with(aggregator: &Daemon, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
    eventually(what, async || {
        let answer = aggregator.request("GET", "/backup_targets", None).await;
        Some(answer.json()).filter(|list| answer.status == 200 && condition(list))
    })
    .await
}

fn target<'a>(list: &'a Value, path: &str) -> &'a Value {
    let export = format!("127.0.0.1:{path}");
    let targets = list["backup_targets"].as_array().expect("a list");
    targets.iter().find(|target| target["filesystem_export"] == export).unwrap_or(&Value::Null)
}

fn counts(available: u64, offline: u64, unknown: u64, missing: u64) -> Value {
    let expected = available + offline + unknown + missing;
    json!({"expected": expected, "available": available, "warning": 0, "offline": offline, "unknown": unknown, "missing": missing})
}

#[tokio::test]
async fn aggregator_answers_with_one_status_for_each_target() {
    let (server, _) = nfs().await;
    let (_a, one) = agent(&server).await;
    let (b, mut two) = agent(&server).await;
    let ids = with_targets(&one, &["/backups", "/one", "/not-exported"]).await;
    with_targets(&two, &["/backups", "/not-exported"]).await;
    let workspace = aggregator(&[address(&one), address(&two)], "");
    let fleet = Daemon::start_aggregator(&workspace).await;

    let list =
        list_with(&fleet, "three targets", |list| list["complete"] == true && !target(list, "/one").is_null()).await;
    let backups = target(&list, "/backups");
    assert_eq!((&backups["status"], &backups["nodes"]), (&json!("available"), &counts(2, 0, 0, 0)), "{backups:#}");
    assert!(backups["capacity"].is_string(), "{backups:#}");
    let missing = target(&list, "/one");
    assert_eq!((&missing["status"], &missing["nodes"]), (&json!("offline"), &counts(1, 0, 0, 1)), "{missing:#}");
    assert_eq!(missing["not_available"][0]["node"], two.address().to_string());
    assert_eq!(missing["not_available"][0]["state"], "missing");
    let refused = target(&list, "/not-exported");
    assert_eq!((&refused["status"], &refused["nodes"]), (&json!("offline"), &counts(0, 2, 0, 0)), "{refused:#}");
    assert_eq!(refused["reasons"], json!({"export_denied": 2}), "{refused:#}");
    assert!(refused["capacity"].is_null(), "{refused:#}");

    // By the id of the fleet and by that of an agent.
    let by_fleet = fleet
        .get(&format!("/v1/0123456789abcdef0123456789abcdef/backup_targets/{}", backups["id"].as_str().expect("text")))
        .await;
    let by_agent = fleet.get(&format!("/backup_targets/{}", ids[0])).await;
    assert_eq!(by_fleet["backup_targets"], by_agent["backup_targets"]);
    assert_ne!(by_agent["backup_targets"]["id"], ids[0]);

    // On the command line.
    let api = address(&fleet);
    let status = workspace.run(&["--api", &api, "status", "--fleet"]).await;
    assert_eq!(status.code, 2, "{status:?}");
    for words in ["2/2", "1/2", "0/2", "(missing): The agent does not have this target", "export_denied"] {
        assert!(status.stdout.contains(words), "{words}: {}", status.stdout);
    }
    let columns = ["--api", &api, "status", "--fleet", "-f", "value", "-c", "Filesystem Export", "-c", "Missing"];
    let columns = workspace.run(&columns).await;
    assert!(columns.stdout.contains("127.0.0.1:/one 1\n"), "{columns:?}");
    let of_agent = workspace.run(&["--api", &address(&one), "status", "--fleet"]).await;
    assert!(of_agent.code == 3 && of_agent.stderr.contains("is this an aggregator"), "{of_agent:?}");

    // A client that polls gets a 304 while nothing changes, and a large list is compressed for one that accepts gzip.
    let first = fleet.request("GET", "/backup_targets", None).await;
    let raw = "GET /backup_targets HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n";
    let mut connection = TcpStream::connect(fleet.address()).await.expect("connected");
    connection.write_all(raw.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    with_timeout("the list", connection.read_to_end(&mut answer)).await.expect("an answer");
    let head = String::from_utf8_lossy(&answer).to_lowercase();
    assert!(head.contains("content-encoding: gzip") && head.contains("vary: accept-encoding"), "{head}");
    let mut again = http::request("GET", "/backup_targets", Vec::new());
    again.headers_mut().insert("if-none-match", first.header("etag").parse().expect("a tag"));
    assert_eq!(http::over_tcp(fleet.address(), again).await.status, 304);

    // A node that does not answer is unknown, and neither offline nor available.
    two.kill().await;
    let list = list_with(&fleet, "an unknown node", |list| target(list, "/backups")["nodes"]["unknown"] == 1).await;
    let backups = target(&list, "/backups");
    assert_eq!((&backups["status"], &backups["nodes"]), (&json!("offline"), &counts(1, 0, 1, 0)), "{backups:#}");
    let stopped = &backups["not_available"][0];
    assert!(stopped["since"].is_string() && stopped["reason"].is_null(), "{stopped:#}");
    let message = stopped["message"].as_str().expect("text");
    assert!(message.starts_with("The node does not answer: the agent cannot be reached"), "{message}");
    assert_eq!(target(&list, "/not-exported")["reasons"], json!({"export_denied": 1}), "its words are not current");
    assert_eq!(list["complete"], false);
    let nodes = fleet.get("/nodes").await;
    assert_eq!(nodes["nodes"].as_array().map(Vec::len), Some(2), "{nodes:#}");

    // It comes back with another address, and the list of nodes is read again.
    let two = Daemon::start(&b).await;
    for target in two.targets().await {
        two.check(target["id"].as_str().expect("text")).await;
    }
    write_nodes(&workspace, &[address(&one), address(&two)]);
    fleet.signal(Signal::SIGHUP);
    fleet.wait_for_log("configuration reloaded").await;
    let nodes = fleet.get("/nodes").await;
    assert_eq!(nodes["nodes"].as_array().map(Vec::len), Some(2), "it does not wait for the next view: {nodes:#}");
    assert!(nodes.to_string().contains(&two.address().to_string()), "{nodes:#}");
    let list = list_with(&fleet, "the recovery", |list| target(list, "/backups")["nodes"] == counts(2, 0, 0, 0)).await;
    assert_eq!(list["complete"], true, "{list:#}");
}

#[tokio::test]
async fn aggregator_with_a_policy_and_pages() {
    let (server, _) = nfs().await;
    let (_a, one) = agent(&server).await;
    let (_b, two) = agent(&server).await;
    with_targets(&one, &["/backups", "/one", "/two"]).await;
    with_targets(&two, &["/backups"]).await;
    let workspace = aggregator(&[address(&one), address(&two)], "available_when = \"ratio:0.5\"");
    let mut fleet = Daemon::start_aggregator(&workspace).await;
    let list =
        list_with(&fleet, "three targets", |list| list["backup_targets"].as_array().map(Vec::len) == Some(3)).await;
    assert_eq!(target(&list, "/one")["status"], "available", "on half of the nodes");

    let id = target(&list, "/one")["id"].as_str().expect("text").to_owned();
    let nodes = fleet.get(&format!("/backup_targets/{id}/nodes")).await;
    let states: Vec<_> = nodes["nodes"].as_array().expect("a list").iter().map(|node| node["state"].clone()).collect();
    assert!(states.contains(&json!("available")) && states.contains(&json!("missing")), "{nodes:#}");
    let missing = fleet.get(&format!("/backup_targets/{id}/nodes?state=missing&limit=5")).await;
    assert_eq!(missing["nodes"].as_array().map(Vec::len), Some(1), "{missing:#}");
    let page = fleet.get(&format!("/backup_targets/{id}/nodes?limit=1")).await;
    let marker = page["nodes"][0]["node"].as_str().expect("a name").to_owned();
    let rest = fleet.get(&format!("/backup_targets/{id}/nodes?marker={marker}")).await;
    // The times change with each poll.
    let states = |nodes: &Value| -> Vec<(Value, Value)> {
        let state = |node: &Value| (node["node"].clone(), node["state"].clone());
        nodes["nodes"].as_array().expect("a list").iter().map(state).collect()
    };
    assert_eq!([states(&page), states(&rest)].concat(), states(&nodes), "{rest:#}");
    let first = fleet.get("/backup_targets?limit=1").await;
    let marker = first["backup_targets"][0]["id"].as_str().expect("text").to_owned();
    let rest = fleet.get(&format!("/backup_targets?marker={marker}")).await;
    assert_eq!(rest["backup_targets"].as_array().map(Vec::len), Some(2), "{rest:#}");

    let metrics = fleet.request("GET", "/metrics", None).await;
    let metrics = metrics.body;
    for line in [
        "targetwatch_fleet_nodes{state=\"answering\"} 2",
        "targetwatch_fleet_target_nodes{export=\"127.0.0.1:/one\",state=\"missing\"} 1",
        "targetwatch_fleet_target_available{export=\"127.0.0.1:/one\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in:\n{metrics}");
    }

    for (method, path, status, words) in [
        ("POST", "/backup_targets", 405, "send changes to the agents"),
        ("GET", "/backup_target_types", 404, "on an aggregator"),
        ("GET", "/backup_targets/x", 404, "is not the id of a target"),
        ("GET", "/backup_targets?limit=0", 400, "limit"),
        ("GET", "/backup_targets?marker=00000000-0000-4000-8000-000000000000", 400, "marker"),
        ("GET", &*format!("/backup_targets/{id}/nodes?state=fine"), 400, "expected one of offline"),
        ("GET", &*format!("/backup_targets/{id}/nodes?marker=none"), 400, "marker"),
        ("GET", &*format!("/backup_targets/{id}/nodes?limit=-1"), 400, "limit"),
        ("GET", &*format!("/backup_targets/{id}/nodes?limit=1&limit=2"), 400, "badRequest"),
    ] {
        let answer = fleet.request(method, path, None).await;
        assert!(answer.status == status && answer.body.contains(words), "{method} {path}: {answer:?}");
    }
    assert!(fleet.stop().await < std::time::Duration::from_secs(2));
}

#[tokio::test]
async fn silent_node_delays_neither_the_answers_nor_the_other_nodes() {
    let (server, _) = nfs().await;
    let (_a, one) = agent(&server).await;
    with_targets(&one, &["/backups"]).await;
    // Its kernel accepts connections, and nothing answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let silent = format!("http://{}", silent.local_addr().expect("its address"));
    let workspace = aggregator(&[address(&one), silent], "available_when = \"any\"");
    let fleet = Daemon::start_aggregator(&workspace).await;
    let message = fleet.request("GET", "/backup_targets", None).await.fault(503, "serviceUnavailable");
    assert!(message.contains("have not been polled yet"), "{message}");
    assert_eq!(fleet.request("GET", "/readyz", None).await.status, 503);
    let metrics = fleet.request("GET", "/metrics", None).await.body;
    assert!(metrics.contains("targetwatch_fleet_nodes") && !metrics.contains("targetwatch_fleet_target"), "{metrics}");
    fleet.get("/healthz").await;
    let list = list_with(&fleet, "a list", |_| true).await;
    assert_eq!(target(&list, "/backups")["nodes"], counts(1, 0, 1, 0));
    assert_eq!((&list["complete"], &target(&list, "/backups")["status"]), (&json!(false), &json!("available")));
    assert_eq!(fleet.request("GET", "/readyz", None).await.status, 200);
}

#[tokio::test]
async fn aggregator_sends_its_token_to_the_agents() {
    const SECRET: &str = "a-long-secret-of-the-fleet";
    let (server, _) = nfs().await;
    let (a, one) = agent(&server).await;
    with_targets(&one, &["/backups"]).await;
    drop(one);
    set_mode(&a.write("token", SECRET), 0o600);
    let token = a.path("token");
    a.configure(&format!("[api]\nauth = \"token\"\n[api.token]\nfile = {token:?}"));
    let one = Daemon::start(&a).await;
    for (file, state, words) in [
        (None, "unknown", "needs a token. Set [aggregate] token_file"),
        (Some("the-wrong-secret-of-the-fleet"), "unknown", "refuses the token"),
        (Some(SECRET), "answering", ""),
    ] {
        let workspace = aggregator(&[address(&one)], "");
        if let Some(secret) = file {
            set_mode(&workspace.write("fleet-token", secret), 0o600);
            let path = workspace.path("fleet-token");
            workspace.configure(&format!("[aggregate]\ntoken_file = {path:?}"));
        }
        let fleet = Daemon::start_aggregator(&workspace).await;
        let node = eventually("a poll", async || {
            let node = fleet.get("/nodes").await["nodes"][0].clone();
            Some(node).filter(|node| node["state"] == "answering" || !node["message"].is_null())
        })
        .await;
        assert_eq!(node["state"], state, "{node:#}");
        assert!(node["message"].as_str().unwrap_or_default().contains(words), "{node:#}");
        assert!(!fleet.log().contains(SECRET), "{}", fleet.log());
    }
}

#[tokio::test]
async fn aggregator_that_no_agent_answers_does_not_answer_with_an_empty_list() {
    let workspace = aggregator(&["http://127.0.0.1:9".to_owned()], "");
    let fleet = Daemon::start_aggregator(&workspace).await;
    let tasks = std::fs::read_dir(format!("/proc/{}/task", fleet.pid())).expect("threads");
    let name =
        |task: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.expect("a thread").path().join("comm"));
    assert!(tasks.map(name).any(|name| name.is_ok_and(|name| name == "heap\n")), "free memory is returned");
    let message = eventually("the first poll", async || {
        let message = fleet.request("GET", "/backup_targets", None).await.fault(503, "serviceUnavailable");
        Some(message).filter(|message| !message.contains("not been polled"))
    })
    .await;
    assert!(message.contains("no node has answered") && message.contains("127.0.0.1:9: the agent cannot"), "{message}");
    // A list that another program is about to write can be empty.
    workspace.write("nodes", "");
    fleet.signal(Signal::SIGHUP);
    fleet.wait_for_log("no nodes are listed").await;
    assert_eq!(fleet.get("/nodes").await["nodes"].as_array().map(Vec::len), Some(1));
    let nodes = fleet.get("/v1/nodes").await;
    assert!(nodes["nodes"].is_array(), "{nodes:#}");
}

#[tokio::test]
async fn openapi_of_the_aggregator_lists_its_routes() {
    let workspace = aggregator(&["http://127.0.0.1:9".to_owned()], "");
    let mut fleet = Daemon::start_aggregator(&workspace).await;
    let description = fleet.get("/openapi.json").await;
    assert_eq!(description["info"]["title"], "targetwatch aggregate", "{description}");
    let paths = description["paths"].as_object().expect("an object");
    let listed: Vec<&str> = paths.keys().map(String::as_str).collect();
    let expected = [
        "/",
        "/backup_targets",
        "/backup_targets/{id}",
        "/backup_targets/{id}/nodes",
        "/healthz",
        "/metrics",
        "/nodes",
        "/openapi.json",
        "/readyz",
        "/ui/fleet",
        "/ui/fleet/targets/{id}",
    ];
    assert_eq!(listed, expected);
    let text = description.to_string();
    let schemas = description["components"]["schemas"].as_object().expect("an object");
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().expect("a name");
        assert!(schemas.contains_key(name), "{name} is not described");
    }
    let counts = &schemas["FleetTarget"].to_string();
    for field in ["not_available", "reasons", "nodes", "Target"] {
        assert!(counts.contains(field), "{field}: {counts}");
    }
    // Without pages, they are not described either.
    fleet.stop().await;
    workspace.configure("[aggregate]\nnodes = [\"http://127.0.0.1:9\"]\n[ui]\nenabled = false");
    let fleet = Daemon::start_aggregator(&workspace).await;
    assert!(fleet.get("/openapi.json").await["paths"]["/ui/fleet"].is_null());
    assert_eq!(fleet.request("GET", "/ui/fleet", None).await.status, 404);
}
