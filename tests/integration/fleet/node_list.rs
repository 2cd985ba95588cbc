//! Where the aggregator finds the agents.

use super::*;

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
