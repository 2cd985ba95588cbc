//! The aggregator beside real agents.

use std::sync::{Arc, Mutex};

use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
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
async fn list_of_nodes_is_read_again_without_a_signal() {
    let workspace = aggregator(&["http://127.0.0.1:9".to_owned()], "");
    let fleet = Daemon::start_aggregator(&workspace).await;
    write_nodes(&workspace, &["http://127.0.0.1:9".to_owned(), "http://127.0.0.1:10".to_owned()]);
    eventually("the second node", async || {
        let nodes = fleet.get("/nodes").await;
        (nodes["nodes"].as_array().map(Vec::len) == Some(2)).then_some(())
    })
    .await;
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

/// A server in front of an agent: it answers as an agent of an earlier release, which has no list of verdicts, or as
/// one of this release. Returns its address and the requests with the status of each.
async fn recording(agent: &Daemon, has_verdicts: bool) -> (String, Arc<Mutex<Vec<(String, u16)>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let (address, agent) = (listener.local_addr().expect("its address"), agent.address());
    let requests: Arc<Mutex<Vec<(String, u16)>>> = Arc::default();
    let recorded = requests.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let recorded = recorded.clone();
            let answer = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let recorded = recorded.clone();
                async move {
                    let path = request.uri().path().to_owned();
                    let sent = if has_verdicts { path.as_str() } else { &path.replace("verdicts", "nothing") };
                    let mut passed = http::request("GET", sent, Vec::new());
                    if let Some(tag) = request.headers().get("if-none-match") {
                        passed.headers_mut().insert("if-none-match", tag.clone());
                    }
                    let answer = http::over_tcp(agent, passed).await;
                    recorded.lock().expect("no panic").push((path, answer.status));
                    let mut response = hyper::Response::new(Full::new(bytes::Bytes::from(answer.body.clone())));
                    *response.status_mut() = hyper::StatusCode::from_u16(answer.status).expect("a status");
                    if let Some(tag) = answer.headers.get("etag") {
                        response.headers_mut().insert("etag", tag.clone());
                    }
                    Ok::<_, std::convert::Infallible>(response)
                }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    });
    (format!("http://{address}"), requests)
}

#[tokio::test]
async fn polls_are_answered_with_304_while_only_times_of_probes_change() {
    let (server, _) = nfs().await;
    let (_a, agent) = agent(&server).await;
    let ids = with_targets(&agent, &["/backups", "/one"]).await;
    let (node, requests) = recording(&agent, true).await;
    let workspace = aggregator(&[node], "");
    let fleet = Daemon::start_aggregator(&workspace).await;
    list_with(&fleet, "two targets", |list| list["backup_targets"].as_array().map(Vec::len) == Some(2)).await;
    let polls = || requests.lock().expect("no panic").clone();
    // The used space of a busy host may change too, by more than is rounded away.
    eventually("a 304 after a probe", async || {
        agent.check(&ids[0]).await;
        let probed = polls().len();
        let next = eventually("a poll after the probe", async || polls().get(probed + 1).cloned()).await;
        (next == ("/backup_targets/verdicts".to_owned(), 304)).then_some(())
    })
    .await;
    let nodes = fleet.get(&format!("/backup_targets/{}/nodes", ids[0])).await;
    assert!(nodes["nodes"][0]["observed_at"].is_string(), "{nodes:#}");
    server.stop().await;
    for id in &ids {
        agent.check(id).await;
    }
    list_with(&fleet, "offline", |list| target(list, "/one")["nodes"]["offline"] == 1).await;
}

#[tokio::test]
async fn agent_of_an_earlier_release_is_asked_for_details() {
    let (server, _) = nfs().await;
    let (_a, agent) = agent(&server).await;
    with_targets(&agent, &["/backups"]).await;
    let (node, requests) = recording(&agent, false).await;
    let workspace = aggregator(&[node], "");
    let fleet = Daemon::start_aggregator(&workspace).await;
    list_with(&fleet, "the target", |list| target(list, "/backups")["nodes"] == counts(1, 0, 0, 0)).await;
    let polls = || requests.lock().expect("no panic").clone();
    eventually("two more polls", async || (polls().len() >= 4).then_some(())).await;
    let paths: Vec<_> = polls().into_iter().map(|(path, _)| path.replace("/backup_targets/", "")).collect();
    assert_eq!(paths[..4], ["verdicts", "detail", "detail", "detail"]);
    let metrics = fleet.request("GET", "/metrics", None).await.body;
    for family in ["target_size_bytes", "target_used_bytes"] {
        let line = format!("targetwatch_fleet_{family}{{export=\"127.0.0.1:/backups\"}} ");
        assert!(metrics.contains(&line), "{line} is not in:\n{metrics}");
    }
}

#[tokio::test]
async fn sizes_come_from_another_node_when_their_node_stops() {
    let (server, _) = nfs().await;
    let (_a, mut one) = agent(&server).await;
    let (_b, two) = agent(&server).await;
    with_targets(&one, &["/backups"]).await;
    let workspace = aggregator(&[address(&one)], "available_when = \"any\"");
    let fleet = Daemon::start_aggregator(&workspace).await;
    list_with(&fleet, "the first node", |list| target(list, "/backups")["capacity"].is_string()).await;
    with_targets(&two, &["/backups"]).await;
    let (second, requests) = recording(&two, true).await;
    write_nodes(&workspace, &[address(&one), second]);
    fleet.signal(Signal::SIGHUP);
    list_with(&fleet, "two nodes", |list| target(list, "/backups")["nodes"] == counts(2, 0, 0, 0)).await;
    one.kill().await;
    let whole = || requests.lock().expect("no panic").iter().filter(|(_, status)| *status == 200).count();
    list_with(&fleet, "one node", |list| target(list, "/backups")["nodes"] == counts(1, 0, 1, 0)).await;
    eventually("a second whole answer", async || (whole() >= 2).then_some(())).await;
}

#[tokio::test]
async fn sizes_come_from_another_node_when_theirs_is_removed_or_finds_the_target_offline() {
    let ((first_server, _), (second_server, _)) = (nfs().await, nfs().await);
    let (_a, one) = agent(&first_server).await;
    let (_b, two) = agent(&second_server).await;
    let ids = with_targets(&one, &["/backups"]).await;
    with_targets(&two, &["/backups"]).await;
    let mut first_server = Some(first_server);
    for is_removed in [true, false] {
        let workspace = aggregator(&[address(&one)], "available_when = \"any\"");
        let fleet = Daemon::start_aggregator(&workspace).await;
        list_with(&fleet, "the first node", |list| target(list, "/backups")["capacity"].is_string()).await;
        write_nodes(&workspace, &[address(&one), address(&two)]);
        fleet.signal(Signal::SIGHUP);
        let list = list_with(&fleet, "two nodes", |list| target(list, "/backups")["nodes"] == counts(2, 0, 0, 0)).await;
        assert_eq!(target(&list, "/backups")["sizes_node"], one.address().to_string());
        let offline = if is_removed {
            write_nodes(&workspace, &[address(&two)]);
            fleet.signal(Signal::SIGHUP);
            0
        } else {
            first_server.take().expect("it runs").stop().await;
            one.check(&ids[0]).await;
            1
        };
        let remaining = counts(1, offline, 0, 0);
        let list = list_with(&fleet, "one node", |list| target(list, "/backups")["nodes"] == remaining).await;
        assert!(target(&list, "/backups")["capacity"].is_string(), "{list:#}");
        let node = json!(two.address().to_string());
        let list = list_with(&fleet, "its sizes", |list| target(list, "/backups")["sizes_node"] == node).await;
        let backups = target(&list, "/backups");
        assert!(backups["capacity"].is_string() && backups["sizes_as_of"].is_null(), "{list:#}");
    }
}

/// A name server whose only service has this port on this host. It stops answering when the handle is aborted.
async fn name_server(service: &'static str, port: u16) -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    let address = socket.local_addr().expect("its address");
    let answering = tokio::spawn(async move {
        let mut query = [0; 512];
        loop {
            let (length, client) = socket.recv_from(&mut query).await.expect("a query");
            let query = simple_dns::Packet::parse(&query[..length]).expect("a query");
            let mut answer = simple_dns::Packet::new_reply(query.id());
            answer.questions.clone_from(&query.questions);
            let name = query.questions[0].qname.clone();
            assert_eq!(name.to_string(), service);
            let target = simple_dns::Name::new_unchecked("localhost");
            let record = simple_dns::rdata::SRV { priority: 0, weight: 0, port, target };
            let record = simple_dns::rdata::RData::SRV(record);
            answer.answers.push(simple_dns::ResourceRecord::new(name, simple_dns::CLASS::IN, 60, record));
            socket.send_to(&answer.build_bytes_vec().expect("encoded"), client).await.expect("sent");
        }
    });
    (address, answering)
}

#[tokio::test]
async fn nodes_come_from_srv_records_and_stay_while_the_name_server_is_down() {
    const SERVICE: &str = "_targetwatch._tcp.example.com";
    let (server, _) = nfs().await;
    let (_a, agent) = agent(&server).await;
    with_targets(&agent, &["/backups"]).await;
    let (name_server, answering) = name_server(SERVICE, agent.address().port()).await;
    let workspace = Workspace::new();
    workspace.configure(&format!(
        "[aggregate]\nnodes_srv = \"{SERVICE}\"\nnodes_srv_scheme = \"http\"\nnodes_srv_server = \"{name_server}\""
    ));
    let mut fleet = Daemon::start_aggregator(&workspace).await;
    list_with(&fleet, "the target", |list| target(list, "/backups")["nodes"] == counts(1, 0, 0, 0)).await;
    answering.abort();
    fleet.signal(Signal::SIGHUP);
    fleet.wait_for_log("no name server answered").await;
    assert_eq!(fleet.get("/nodes").await["nodes"].as_array().map(Vec::len), Some(1));
    fleet.stop().await;
    let stderr = Daemon::aggregator_fails_to_start(&workspace).await;
    assert!(stderr.contains("nodes_srv _targetwatch._tcp.example.com: no name server answered"), "{stderr}");

    // With another source, its nodes are polled.
    workspace.configure(&format!(
        "[aggregate]\nnodes = [\"{}\"]\nnodes_srv = \"{SERVICE}\"\nnodes_srv_server = \"{name_server}\"",
        address(&agent)
    ));
    let fleet = Daemon::start_aggregator(&workspace).await;
    fleet.wait_for_log("some nodes are not known, and the others are polled").await;
    let list = list_with(&fleet, "the target", |list| target(list, "/backups")["nodes"] == counts(1, 0, 0, 0)).await;
    assert_eq!(list["complete"], false, "the nodes of the service are not known: {list:#}");
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

#[tokio::test]
async fn aggregator_without_a_usable_list_does_not_start() {
    for (nodes, more, words) in [
        (None, "", "no nodes are listed"),
        (Some("# later\n"), "", "no nodes are listed"),
        (Some("http://a\nhttps://a"), "", "a:8781 is listed with http:// and with https://"),
        (None, "nodes = [\"compute-1\"]", "\"compute-1\" is not the address of an agent"),
        (None, "nodes = [\"https://a\", \"https://A/\"]", "\"a:8781\" is listed twice"),
        (None, "available_when = \"most\"", "expected \"all\", \"any\""),
        (Some("https://a\nftp://b"), "", "line 2: \"ftp://b\" is not the address"),
        (Some("\u{0}"), "", "line 1"),
        (None, "nodes_srv = \" \"", "nodes_srv: expected a name"),
        (None, "nodes_srv = \"a..b\"", "it is not a DNS name"),
        (None, "nodes_srv_server = \"ns.example.com\"", "is not an address, expected one such as 192.0.2.1:53"),
        (None, "nodes_srv_scheme = \"ftp\"", "nodes_srv_scheme"),
    ] {
        let workspace = Workspace::new();
        let file = nodes.map(|nodes| format!("nodes_file = {:?}", workspace.write("nodes", nodes))).unwrap_or_default();
        workspace.configure(&format!("[aggregate]\n{file}\n{more}"));
        let stderr = Daemon::aggregator_fails_to_start(&workspace).await;
        assert!(stderr.contains(words), "{words}: {stderr}");
    }
}
