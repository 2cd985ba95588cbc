//! What the aggregator asks the agents, and what it takes from which of them.

use std::sync::{Arc, Mutex};

use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::*;

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
