//! Notifications: what webhooks and commands get, and that none of them delays anything.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::daemon::{Daemon, eventually, with_timeout};
use crate::documents::{blocks, read};
use crate::storage::{nfs, nfs_target};
use crate::support::nfs_server::{Behaviour, NfsServer};
use crate::webhook_receiver::{Received, Reply, WebhookReceiver};
use crate::workspace::{Workspace, set_mode};

/// A secret in the form of Standard Webhooks, which no log may contain.
const SECRET: &str = "whsec_dW5taXN0YWthYmxlLXNlY3JldC1vZi10ZXN0cw==";
/// A token in the path of a URL, which no log may contain.
const TOKEN: &str = "unmistakableTokenInThePath";
/// Behaviour of a server whose targets are offline.
const BROKEN: Behaviour = Behaviour::VersionMismatch { low: 4, high: 4 };
/// Maximum time of a stop, also with hanging receivers.
const STOP: Duration = Duration::from_secs(2);

/// Makes the target of a server offline.
async fn fail(server: &NfsServer, daemon: &Daemon, id: &str) {
    server.set_behaviour(BROKEN);
    assert_eq!(daemon.check(id).await["status"], "offline");
}

/// Makes it available again.
async fn recover(server: &NfsServer, daemon: &Daemon, id: &str) {
    server.set_behaviour(Behaviour::Healthy);
    assert_eq!(daemon.check(id).await["status"], "available");
}

/// The number of notifications with a result, from the metrics.
async fn count(daemon: &Daemon, receiver: &str, result: &str) -> Option<u64> {
    let name = format!("targetwatch_notifications_total{{receiver=\"{receiver}\",result=\"{result}\"}} ");
    let text = daemon.request("GET", "/metrics", None).await.body;
    text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok())
}

async fn wait_for_count(daemon: &Daemon, receiver: &str, result: &str, expected: u64) {
    let what = format!("{expected} {result}");
    eventually(&what, async || (count(daemon, receiver, result).await == Some(expected)).then_some(())).await;
}

/// Writes an executable script, and returns the entry of the configuration that runs it.
fn command_entry(workspace: &Workspace, script: &str, more: &str) -> String {
    let path = workspace.write("hook", format!("#!/bin/sh\n{script}\n"));
    set_mode(&path, 0o700);
    format!("[[notify.command]]\nargv = [{path:?}, \"one argument\"]\n{more}")
}

/// Writes the secret, and returns the entry of the configuration for a webhook that is signed.
fn signed_entry(workspace: &Workspace, receiver: &WebhookReceiver) -> String {
    let secret = workspace.write("webhook.secret", SECRET);
    set_mode(&secret, 0o600);
    format!("[[notify.webhook]]\nurl = {:?}\nsecret_file = {secret:?}", receiver.url(&format!("/{TOKEN}?x=1")))
}

/// Runs the example of the documentation on a request. Returns whether it accepts the request.
async fn is_accepted_by_the_example(received: &Received, secret: &str) -> Option<bool> {
    let page = read("docs/notify.md");
    let example = blocks(&page, "python").into_iter().find(|block| block.contains("def verify(")).expect("the example");
    let headers: Value = received
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), json!(value.to_str().expect("text"))))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let program = format!(
        "import json, sys\n{example}\nprint(verify(json.loads(sys.argv[1]), sys.stdin.buffer.read(), sys.argv[2]))"
    );
    let mut python = tokio::process::Command::new("python3");
    python.args(["-c", &program, &headers.to_string(), secret]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut python) = python.spawn() else {
        eprintln!("skipped: python3 is not installed");
        return None;
    };
    python.stdin.take().expect("piped").write_all(&received.body).await.expect("written");
    let output = with_timeout("the example", python.wait_with_output()).await.expect("run");
    match String::from_utf8(output.stdout).expect("text").trim() {
        "True" => Some(true),
        "False" => Some(false),
        other => panic!("the example printed {other:?}"),
    }
}

#[tokio::test]
async fn webhook_gets_a_signed_notification_of_each_transition() {
    let (server, workspace) = nfs().await;
    let receiver = WebhookReceiver::start(&[]).await;
    workspace.configure(&signed_entry(&workspace, &receiver));
    let daemon = Daemon::start_logging(&workspace, "debug").await;
    let id = daemon.create(nfs_target("/backups")).await;
    assert_eq!(daemon.check(&id).await["status"], "available");
    fail(&server, &daemon, &id).await;
    let down = daemon.report(&id).await;
    recover(&server, &daemon, &id).await;
    let received = receiver.wait_for(2).await;
    assert_eq!(received.len(), 2, "the first verdict of a new target is expected: {received:#?}");

    let event = received[0].json();
    let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&event), ["data", "timestamp", "type"]);
    let data = &event["data"];
    let fields = ["from", "host", "id", "message", "previous_since", "reason", "target", "to", "version"];
    assert_eq!(keys(data), fields);
    assert_eq!((&event["type"], &data["version"]), (&json!("target.offline"), &json!(1)));
    assert_eq!((&data["from"], &data["to"]), (&json!("available"), &json!("offline")));
    assert_eq!((&data["reason"], &data["message"]), (&down["reason"], &down["message"]));
    let target = json!({
        "id": id,
        "type": "nfs",
        "export": "127.0.0.1:/backups",
        "mount_path": daemon.show(&id).await["filesystem_export_mount_path"],
    });
    assert_eq!(data["target"], target);
    let second = received[1].json();
    assert_eq!((&second["type"], &second["data"]["reason"]), (&json!("target.available"), &Value::Null));
    assert_eq!(second["data"]["previous_since"], event["timestamp"], "{second:#}");

    let (first, second) = (&received[0], &received[1]);
    assert_eq!(first.header("content-type"), "application/json");
    assert_eq!(
        (first.header("webhook-id"), &*first.path),
        (data["id"].as_str().expect("an id"), "/unmistakableTokenInThePath?x=1")
    );
    assert_ne!(first.header("webhook-id"), second.header("webhook-id"));
    assert!(first.header("webhook-signature").starts_with("v1,"));
    let mut forged = first.clone();
    forged.body = second.body.clone();
    let other = SECRET.replace("dW5", "dW6");
    for (request, secret, expected) in [(first, SECRET, true), (&forged, SECRET, false), (first, &*other, false)] {
        let accepted = is_accepted_by_the_example(request, secret).await;
        assert!(accepted.is_none_or(|accepted| accepted == expected), "{secret}: {accepted:?}");
    }
    wait_for_count(&daemon, "webhook", "delivered", 2).await;
    assert_eq!(count(&daemon, "command", "delivered").await, None, "no command is configured");
    let log = daemon.log();
    assert!(!log.contains(TOKEN) && !log.contains(&SECRET[6..]), "a secret is in the log: {log}");
}

#[tokio::test]
async fn failed_request_is_repeated_with_the_same_id_and_a_refusal_is_not() {
    let (server, workspace) = nfs().await;
    let receiver = WebhookReceiver::start(&[Reply::Status(500), Reply::Status(200), Reply::Status(400)]).await;
    workspace.configure(&format!("[[notify.webhook]]\nurl = {:?}", receiver.url("/")));
    let (daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    daemon.check(&id).await;
    fail(&server, &daemon, &id).await;
    let received = receiver.wait_for(2).await;
    assert_eq!(received[0].header("webhook-id"), received[1].header("webhook-id"));
    assert_eq!(received[0].body, received[1].body);
    assert!(!received[0].headers.contains_key("webhook-signature"), "it has no secret");
    let line = daemon.wait_for_log("could not be delivered yet").await;
    assert!(line.contains("HTTP status 500"), "{line}");
    daemon.wait_for_log("accepts notifications again").await;
    recover(&server, &daemon, &id).await;
    let line = daemon.wait_for_log("a notification was not delivered").await;
    assert!(line.contains("HTTP status 400") && line.contains("127.0.0.1:/backups"), "{line}");
    wait_for_count(&daemon, "webhook", "failed", 1).await;
    assert_eq!((receiver.received().len(), count(&daemon, "webhook", "delivered").await), (3, Some(1)));
}

#[tokio::test]
async fn redirect_is_not_followed() {
    let (server, workspace) = nfs().await;
    let other = WebhookReceiver::start(&[]).await;
    let receiver = WebhookReceiver::start(&[Reply::Redirect(other.url("/"))]).await;
    workspace.configure(&format!("[[notify.webhook]]\nurl = {:?}", receiver.url("/")));
    let (daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    daemon.check(&id).await;
    fail(&server, &daemon, &id).await;
    daemon.wait_for_log("redirects are not followed").await;
    wait_for_count(&daemon, "webhook", "failed", 1).await;
    assert_eq!((receiver.received().len(), other.received().len()), (1, 0));
}

#[tokio::test]
async fn hanging_receivers_delay_nothing() {
    let (server, workspace) = nfs().await;
    let hanging = WebhookReceiver::start(&[Reply::Silence]).await;
    let receiver = WebhookReceiver::start(&[]).await;
    let entries = format!(
        "[[notify.webhook]]\nurl = {:?}\ntimeout = \"60s\"\n[[notify.webhook]]\nurl = {:?}\n{}",
        hanging.url("/"),
        receiver.url("/"),
        command_entry(&workspace, "sleep 600", "timeout = \"600s\""),
    );
    workspace.configure(&entries);
    let (mut daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    daemon.check(&id).await;
    for _ in 0..3 {
        fail(&server, &daemon, &id).await;
        recover(&server, &daemon, &id).await;
    }
    receiver.wait_for(6).await;
    assert_eq!(hanging.wait_for(1).await.len(), 1);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("configuration reloaded").await;
    let metrics = daemon.request("GET", "/metrics", None).await;
    assert!(metrics.body.contains("targetwatch_notifications_waiting{receiver=\"webhook\"} 6"), "{}", metrics.body);
    assert!(metrics.body.contains("targetwatch_notifications_waiting{receiver=\"command\"} 6"), "{}", metrics.body);
    let took = daemon.stop().await;
    assert!(took < STOP, "{took:?}");
    let line = daemon.wait_for_log("notifications were not delivered").await;
    assert!(line.contains("the agent stops") && line.contains('6'), "{line}");
}

#[tokio::test]
async fn webhook_verifies_the_certificate_of_its_server() {
    let (server, workspace) = nfs().await;
    let key = rcgen::KeyPair::generate().expect("a key");
    let names = vec!["localhost".to_owned()];
    let certificate = rcgen::CertificateParams::new(names).expect("a name").self_signed(&key).expect("a certificate");
    let receiver = WebhookReceiver::start_tls(&certificate.pem(), &key.serialize_pem()).await;
    let bundle = workspace.write("ca.pem", certificate.pem());
    let entry = format!("[[notify.webhook]]\nurl = \"https://localhost:{}/\"", receiver.port());
    workspace.configure(&entry);
    let (daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    daemon.check(&id).await;
    fail(&server, &daemon, &id).await;
    let line = daemon.wait_for_log("could not be delivered yet").await;
    assert!(line.contains("certificate"), "{line}");
    assert_eq!(receiver.received().len(), 0);

    workspace.configure(&format!("{entry}\nca_bundle = {bundle:?}"));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("the receiver was removed from the configuration").await;
    daemon.wait_for_log("configuration reloaded").await;
    recover(&server, &daemon, &id).await;
    let received = receiver.wait_for(1).await;
    assert_eq!(received[0].json()["type"], "target.available");
}

#[tokio::test]
async fn command_gets_facts_in_its_environment_and_json_on_its_input() {
    let (server, workspace) = nfs().await;
    let script =
        "cd \"$(dirname \"$0\")\"; { echo \"$1\"; env | grep ^TARGETWATCH_ | sort; cat; } > new; mv new facts; exit 3";
    let entry = command_entry(&workspace, &format!("{script} 2>&1"), "on = [\"offline\"]");
    workspace.configure(&entry);
    let (daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    daemon.check(&id).await;
    fail(&server, &daemon, &id).await;
    let facts = workspace.path("facts");
    let facts = eventually("the facts", async || std::fs::read_to_string(&facts).ok()).await;
    let lines: Vec<&str> = facts.lines().collect();
    let (json, lines) = lines.split_last().expect("a line");
    let event: Value = serde_json::from_str(json).expect("JSON");
    let data = &event["data"];
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let expected = [
        "one argument".to_owned(),
        format!("TARGETWATCH_EVENT_ID={}", text(&data["id"])),
        "TARGETWATCH_EVENT_TYPE=target.offline".to_owned(),
        "TARGETWATCH_FROM=available".to_owned(),
        format!("TARGETWATCH_HOST={}", text(&data["host"])),
        format!("TARGETWATCH_MESSAGE={}", text(&data["message"])),
        format!("TARGETWATCH_PREVIOUS_SINCE={}", text(&data["previous_since"])),
        format!("TARGETWATCH_REASON={}", text(&data["reason"])),
        "TARGETWATCH_TARGET_EXPORT=127.0.0.1:/backups".to_owned(),
        format!("TARGETWATCH_TARGET_ID={id}"),
        format!("TARGETWATCH_TARGET_MOUNT_PATH={}", text(&data["target"]["mount_path"])),
        "TARGETWATCH_TARGET_TYPE=nfs".to_owned(),
        format!("TARGETWATCH_TIMESTAMP={}", text(&event["timestamp"])),
        "TARGETWATCH_TO=offline".to_owned(),
    ];
    assert_eq!(lines, expected);
    let page = read("docs/notify.md");
    for name in expected[1..].iter().map(|line| line.split('=').next().expect("a name")) {
        assert!(page.contains(&format!("`{name}`")), "docs/notify.md does not list {name}");
    }
    let line = daemon.wait_for_log("a notification was not delivered").await;
    assert!(line.contains("exit code 3"), "{line}");
    recover(&server, &daemon, &id).await;
    wait_for_count(&daemon, "command", "failed", 1).await;
    assert_eq!(count(&daemon, "command", "delivered").await, Some(0), "it is notified of offline only");
}

#[tokio::test]
async fn hanging_command_is_killed_with_its_children() {
    let (server, workspace) = nfs().await;
    let script = "cd \"$(dirname \"$0\")\"; sleep 600 & echo $! > new; mv new pid; wait";
    workspace.configure(&command_entry(&workspace, script, "timeout = \"1s\""));
    let (daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    daemon.check(&id).await;
    fail(&server, &daemon, &id).await;
    let line = daemon.wait_for_log("was killed").await;
    assert!(line.contains("did not end within 1 s"), "{line}");
    let pid = std::fs::read_to_string(workspace.path("pid")).expect("its child");
    let pid = Pid::from_raw(pid.trim().parse().expect("a process id"));
    let is_dead = |pid: Pid| {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        kill(pid, None).is_err() || state.contains(") Z ")
    };
    eventually("the end of its child", async || is_dead(pid).then_some(())).await;
    assert_eq!(daemon.get("/node").await["agent"]["stuck_children"], json!([]));
}

#[tokio::test]
async fn first_verdict_after_a_start_is_notified_if_it_differs_from_the_history() {
    let (server, workspace) = nfs().await;
    let receiver = WebhookReceiver::start(&[]).await;
    workspace.configure(&format!("[[notify.webhook]]\nurl = {:?}", receiver.url("/")));
    let (mut daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    daemon.check(&id).await;
    daemon.stop().await;
    let mut daemon = Daemon::start(&workspace).await;
    daemon.check(&id).await;
    daemon.stop().await;
    server.set_behaviour(BROKEN);
    let mut daemon = Daemon::start(&workspace).await;
    let received = receiver.wait_for(1).await;
    let data = &received[0].json()["data"];
    assert_eq!((&data["from"], &data["to"]), (&json!("available"), &json!("offline")), "{data:#}");
    let history = daemon.get(&format!("/backup_targets/{id}/history")).await;
    let first = history["transitions"].as_array().and_then(|all| all.last()).expect("a history");
    let at = first["at"].as_str().expect("a time").trim_end_matches('0');
    assert!(data["previous_since"].as_str().expect("a time").starts_with(at), "{data:#} {history:#}");
    daemon.stop().await;
    let daemon = Daemon::start(&workspace).await;
    daemon.check(&id).await;
    recover(&server, &daemon, &id).await;
    let received = receiver.wait_for(2).await;
    assert_eq!(received[1].json()["data"]["to"], "available", "a restart alone notifies nobody");
}

#[tokio::test]
async fn new_target_that_is_offline_is_notified() {
    let (server, workspace) = nfs().await;
    let receiver = WebhookReceiver::start(&[]).await;
    workspace.configure(&format!("[[notify.webhook]]\nurl = {:?}", receiver.url("/")));
    server.set_behaviour(BROKEN);
    let (_daemon, _) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    let received = receiver.wait_for(1).await;
    let data = &received[0].json()["data"];
    assert_eq!((&data["from"], &data["previous_since"]), (&Value::Null, &Value::Null), "{data:#}");
}

#[tokio::test]
async fn unusable_receiver_stops_the_start_and_keeps_the_old_ones_at_a_reload() {
    let (server, workspace) = nfs().await;
    let receiver = WebhookReceiver::start(&[]).await;
    workspace.configure(&signed_entry(&workspace, &receiver));
    let (daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    daemon.check(&id).await;
    let hook = workspace.write("hook", "#!/bin/sh\n");
    for (mode, problem) in [(0o644, "is not an executable file"), (0o722, "others may change it: chmod go-w")] {
        set_mode(&hook, mode);
        workspace.configure(&format!("[[notify.command]]\nargv = [{hook:?}]"));
        let config = workspace.config();
        let checked = workspace.run(&["config", "check", config.to_str().expect("text")]).await;
        assert_eq!(checked.code, 2, "{checked:?}");
        assert!(checked.stdout.contains("[[notify.command]] argv") && checked.stdout.contains(problem), "{checked:?}");
    }
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("cannot reload [notify]; the old receivers stay in force").await;
    fail(&server, &daemon, &id).await;
    receiver.wait_for(1).await;
    drop(daemon);
    let refused = Daemon::fails_to_start(&workspace).await;
    assert!(refused.contains("[[notify.command]] argv"), "{refused}");

    workspace.write("webhook.secret", "unmistakable");
    set_mode(&hook, 0o755);
    let config = workspace.config();
    let checked = workspace.run(&["config", "check", config.to_str().expect("text")]).await;
    assert!(checked.stdout.contains("openssl rand") && !checked.stdout.contains("unmistakable"), "{checked:?}");
}
