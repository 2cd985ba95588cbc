//! Sources of S3 credentials, and proxies between the agent and a service.

use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};

use crate::daemon::{Daemon, with_timeout};
use crate::report::{assert_contains, assert_healthy, assert_offline, assert_warning, detail_of};
use crate::storage::{s3, s3_target};
use crate::support::s3_server::S3Server;
use crate::workspace::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, Workspace, set_mode};

/// The password of a proxy, which must appear in no output.
const PROXY_PASSWORD: &str = "proxyPasswordWithAnUnmistakableText";

/// Replaces the keys that name the credential files in the configuration by `source`.
fn set_source(workspace: &Workspace, source: &str) {
    let text = workspace.config_text();
    let is_file = |line: &&str| line.contains("_file = ");
    let kept: Vec<&str> = text.lines().filter(|line| !is_file(line)).collect();
    workspace.write_config(&format!("{}\n{source}\n", kept.join("\n")));
}

#[tokio::test]
async fn systemd_credentials_are_found_by_name_and_reread() {
    let s3 = s3().await;
    let mut workspace = Workspace::new();
    let directory = workspace.path("credentials");
    std::fs::create_dir(&directory).expect("created");
    std::fs::write(directory.join("ceph.id"), ACCESS_KEY_ID).expect("written");
    std::fs::write(directory.join("ceph.secret"), "another").expect("written");
    // The mode of a credential that systemd makes readable by an access control list.
    set_mode(&directory.join("ceph.secret"), 0o440);
    workspace.set_env("CREDENTIALS_DIRECTORY", directory.to_str().expect("text"));
    set_source(
        &workspace,
        "access_key_id_file = \"credential:ceph.id\"\nsecret_access_key_file = \"credential:ceph.secret\"",
    );
    let (daemon, id) = Daemon::with_target(&workspace, s3_target(&s3, "plain")).await;
    assert_eq!(daemon.check(&id).await["reason"], "wrong_secret");
    std::fs::write(directory.join("ceph.secret"), SECRET_ACCESS_KEY).expect("written");
    assert_healthy(&daemon.check(&id).await);
    // An access control list does not explain a file that is readable by everybody.
    set_mode(&directory.join("ceph.secret"), 0o444);
    assert_eq!(daemon.check(&id).await["reason"], "secret_exposed");
}

/// The region for which an agent signs its first request to a new service.
async fn signed_region(workspace: &Workspace) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let first = tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.expect("a connection");
            let mut head = vec![0; 4096];
            let length = connection.read(&mut head).await.unwrap_or_default();
            let head = String::from_utf8_lossy(&head[..length]).into_owned();
            // The first connection may be without a request.
            if let Some((_, scope)) = head.split_once("Credential=") {
                return scope.split('/').nth(2).expect("a region").to_owned();
            }
        }
    });
    workspace.check_s3(&endpoint, "plain", &[]).await;
    with_timeout("a signed request", first).await.expect("a request")
}

#[tokio::test]
async fn region_comes_from_the_environment_or_the_profile_even_with_an_endpoint() {
    let mut workspace = Workspace::new();
    assert_eq!(signed_region(&workspace).await, "us-east-1", "without any");
    std::fs::create_dir(workspace.path(".aws")).expect("created");
    workspace.write(".aws/config", "[default]\nregion = eu-default-1\n[profile ceph]\nregion = eu-profile-1\n");
    assert_eq!(signed_region(&workspace).await, "eu-default-1");
    let keys = format!("aws_access_key_id = {ACCESS_KEY_ID}\naws_secret_access_key = {SECRET_ACCESS_KEY}\n");
    workspace.write(".aws/credentials", format!("[ceph]\n{keys}"));
    set_source(&workspace, "profile = \"ceph\"");
    assert_eq!(signed_region(&workspace).await, "eu-profile-1");
    workspace.set_env("AWS_REGION", "eu-environment-1");
    assert_eq!(signed_region(&workspace).await, "eu-environment-1");
}

#[tokio::test]
async fn requests_are_sent_when_aws_execution_env_is_not_a_header() {
    let mut workspace = Workspace::new();
    workspace.set_env("AWS_EXECUTION_ENV", "two\nlines");
    assert_eq!(signed_region(&workspace).await, "us-east-1");
}

#[tokio::test]
async fn changed_profile_is_read_again() {
    let s3 = s3().await;
    let workspace = Workspace::new();
    set_source(&workspace, "profile = \"ceph\"");
    std::fs::create_dir(workspace.path(".aws")).expect("created");
    let write = |secret: &str| {
        let text = format!("[ceph]\naws_access_key_id = {ACCESS_KEY_ID}\naws_secret_access_key = {secret}\n");
        workspace.write(".aws/credentials", text);
    };
    write("another");
    set_mode(&workspace.path(".aws/credentials"), 0o600);
    let daemon = Daemon::start_logging(&workspace, "trace").await;
    let id = daemon.create(s3_target(&s3, "plain")).await;
    assert_eq!(daemon.check(&id).await["reason"], "wrong_secret");
    write(SECRET_ACCESS_KEY);
    let report = daemon.check(&id).await;
    assert_healthy(&report);
    let shown = format!("{report} {}", daemon.log());
    assert!(shown.contains("TRACE") && !shown.contains(SECRET_ACCESS_KEY), "the secret of a profile is shown");
}

/// Sources of keys: the configuration, an environment variable with the path of a file, and the file.
const SHARED_SOURCES: [(&str, Option<&str>, &str); 4] = [
    ("profile = \"ceph\"", None, ".aws/credentials"),
    ("profile = \"ceph\"", Some("AWS_SHARED_CREDENTIALS_FILE"), "shared"),
    ("", None, ".aws/credentials"),
    ("", Some("AWS_SHARED_CREDENTIALS_FILE"), "shared"),
];

#[tokio::test]
async fn routine_probes_pick_up_rotated_keys() {
    let s3 = s3().await;
    let sources = std::iter::once(None).chain(SHARED_SOURCES.map(Some));
    futures::future::join_all(sources.map(|source| assert_rotation_is_noticed(&s3, source))).await;
}

/// Asserts that an agent notices each change of its keys in this source.
async fn assert_rotation_is_noticed(s3: &S3Server, source: Option<(&str, Option<&str>, &str)>) {
    let mut workspace = Workspace::new();
    workspace.configure("[probe]\ns3_interval = \"1s\"");
    if let Some((configured, variable, file)) = source {
        set_source(&workspace, configured);
        std::fs::create_dir(workspace.path(".aws")).expect("created");
        if let Some(variable) = variable {
            let path = workspace.path(file);
            workspace.set_env(variable, path.to_str().expect("text"));
        }
    }
    let rotate = |id: &str, secret: &str| {
        let Some((configured, _, file)) = source else {
            replace(&workspace, "id", id);
            return replace(&workspace, "secret", secret);
        };
        let profile = if configured.is_empty() { "default" } else { "ceph" };
        let text = format!("[{profile}]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
        replace(&workspace, file, &text);
    };
    rotate(ACCESS_KEY_ID, SECRET_ACCESS_KEY);
    let (daemon, id) = Daemon::with_target(&workspace, s3_target(s3, "plain")).await;
    for (key, secret, reason) in [
        (ACCESS_KEY_ID, SECRET_ACCESS_KEY, Value::Null),
        ("AKIANOBODY", "another", json!("unknown_access_key")),
        (ACCESS_KEY_ID, "another", json!("wrong_secret")),
        (ACCESS_KEY_ID, SECRET_ACCESS_KEY, Value::Null),
    ] {
        rotate(key, secret);
        let is_noticed = |report: &Value| !report["verdict"].is_null() && report["reason"] == reason;
        daemon.wait_for_report(&id, &format!("{reason} with {source:?}"), is_noticed).await;
    }
}

/// Replaces a file atomically, with permissions for its owner only.
fn replace(workspace: &Workspace, name: &str, text: &str) {
    let new = workspace.path("new");
    std::fs::write(&new, text).expect("written");
    set_mode(&new, 0o600);
    std::fs::rename(new, workspace.path(name)).expect("renamed");
}

#[tokio::test]
async fn warning_when_secret_file_is_readable_by_others() {
    let s3 = s3().await;
    let mut workspace = Workspace::new();
    // An empty variable names no directory.
    workspace.set_env("CREDENTIALS_DIRECTORY", "");
    let (daemon, id) = Daemon::with_target(&workspace, s3_target(&s3, "plain")).await;
    assert_healthy(&daemon.check(&id).await);
    for mode in [0o640, 0o604, 0o660] {
        set_mode(&workspace.path("secret"), mode);
        let report = daemon.check(&id).await;
        assert_warning(&report, "secret_exposed");
        let message = report["message"].as_str().expect("a message");
        assert_contains(message, &[workspace.path("secret").to_str().expect("text"), "chmod 0600"]);
    }
    set_mode(&workspace.path("secret"), 0o600);
    assert_healthy(&daemon.check(&id).await);
    set_source(&workspace, "profile = \"ceph\"");
    std::fs::create_dir(workspace.path(".aws")).expect("created");
    let text = format!("[ceph]\naws_access_key_id = {ACCESS_KEY_ID}\naws_secret_access_key = {SECRET_ACCESS_KEY}\n");
    workspace.write(".aws/credentials", text);
    set_mode(&workspace.path(".aws/credentials"), 0o644);
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    daemon.wait_for_log("configuration reloaded").await;
    let report = daemon.check(&id).await;
    assert_eq!(report["reason"], "secret_exposed", "{report:#}");
    assert!(report["message"].as_str().is_some_and(|message| message.contains(".aws/credentials")), "{report:#}");
}

/// Starts a proxy that forwards every request to a server, independent of its host, and returns the proxy's port.
async fn proxy(to: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| async move {
                let is_known = request.headers_mut().remove("proxy-authorization").is_some();
                assert!(is_known && request.uri().host().is_some(), "a request to a proxy: {request:?}");
                *request.uri_mut() = request.uri().path_and_query().expect("a path").as_str().parse().expect("a path");
                let stream = TcpStream::connect(("127.0.0.1", to)).await.expect("connected");
                let (mut sender, connection) =
                    hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
                tokio::spawn(connection);
                let (head, body) = sender.send_request(request).await.expect("an answer").into_parts();
                let body = body.collect().await.expect("a body").to_bytes();
                Ok::<_, std::convert::Infallible>(hyper::Response::from_parts(head, Full::new(body)))
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    port
}

#[tokio::test]
async fn s3_uses_environment_proxy_and_hides_its_password() {
    let s3 = s3().await;
    let port = proxy(s3.port()).await;
    let mut workspace = Workspace::new();
    workspace.set_env("HTTP_PROXY", &format!("http://somebody:{PROXY_PASSWORD}@127.0.0.1:{port}"));
    let daemon = Daemon::start_logging(&workspace, "trace").await;
    // Only the proxy can resolve this name.
    let target = json!({ "type": "s3", "s3_endpoint_url": "http://s3.nowhere.invalid", "s3_bucket": "plain" });
    let id = daemon.create(target).await;
    let report = daemon.check(&id).await;
    assert_healthy(&report);
    assert_contains(detail_of(&report, "reachable"), &[&format!("127.0.0.1 port {port} is the proxy")]);
    let shown = format!("{report} {} {}", daemon.log(), daemon.get("/backup_targets/detail").await);
    assert!(daemon.log().contains("TRACE"));
    // The beginning of the credentials in the header, in base64.
    let encoded = "c29tZWJvZHk6";
    assert!(!shown.contains(PROXY_PASSWORD) && !shown.contains(encoded), "the password is shown");
}

#[tokio::test]
async fn s3_uses_all_proxy_when_scheme_has_no_proxy() {
    let s3 = s3().await;
    let port = proxy(s3.port()).await;
    for variable in ["ALL_PROXY", "all_proxy"] {
        let mut workspace = Workspace::new();
        workspace.set_env(variable, &format!("http://somebody:{PROXY_PASSWORD}@127.0.0.1:{port}"));
        // ALL_PROXY does not apply to excepted hosts, and HTTPS_PROXY not to plain HTTP.
        workspace.set_env("HTTPS_PROXY", "http://nowhere.invalid:3128");
        workspace.set_env("NO_PROXY", "localhost,127.0.0.0/8");
        let daemon = Daemon::start_logging(&workspace, "trace").await;
        let target = json!({ "type": "s3", "s3_endpoint_url": "http://s3.nowhere.invalid", "s3_bucket": "plain" });
        let far = daemon.check(&daemon.create(target).await).await;
        assert_healthy(&far);
        assert_contains(detail_of(&far, "reachable"), &[&format!("127.0.0.1 port {port} is the proxy")]);
        let near = daemon.check(&daemon.create(s3_target(&s3, "plain")).await).await;
        assert_healthy(&near);
        assert_eq!(detail_of(&near, "reachable"), "", "{near:#}");
        let shown = format!("{far} {near} {}", daemon.log());
        assert!(shown.contains("TRACE") && !shown.contains(PROXY_PASSWORD), "the password is shown");
    }
}

#[tokio::test]
async fn unusable_proxy_is_named_instead_of_the_service() {
    let s3 = s3().await;
    for (proxy, words) in [
        (format!("socks5h://somebody:{PROXY_PASSWORD}@127.0.0.1:{}", s3.port()), "by socks5h://"),
        (format!("https://somebody:{PROXY_PASSWORD}@127.0.0.1:{}", s3.port()), "by https://"),
    ] {
        let mut workspace = Workspace::new();
        workspace.set_env("ALL_PROXY", &proxy);
        let daemon = Daemon::start(&workspace).await;
        let report = daemon.check(&daemon.create(s3_target(&s3, "plain")).await).await;
        let message = assert_offline(&report, "agent_error");
        assert_contains(&message, &[words, "ALL_PROXY", "NO_PROXY"]);
        assert!(!message.contains(PROXY_PASSWORD) && s3.requests().is_empty(), "{message}");
    }
}

#[tokio::test]
async fn s3_bypasses_proxy_for_no_proxy_hosts() {
    let s3 = s3().await;
    for variable in ["HTTP_PROXY", "ALL_PROXY"] {
        for (excepted, is_direct) in [("127.0.0.1,localhost", true), ("localhost", false)] {
            let mut workspace = Workspace::new();
            workspace.set_env(variable, "http://nowhere.invalid:3128");
            workspace.set_env("NO_PROXY", excepted);
            let daemon = Daemon::start(&workspace).await;
            let report = daemon.check(&daemon.create(s3_target(&s3, "plain")).await).await;
            if is_direct {
                assert_healthy(&report);
            } else {
                let message = report["message"].as_str().expect("a message");
                assert!(report["verdict"] != "available" && message.contains("nowhere.invalid"), "{report:#}");
            }
        }
    }
}

/// Makes a credential process the source of the keys. `end` is the part of its script that prints the end.
fn set_credential_process(workspace: &Workspace, end: &str) {
    set_source(workspace, "profile = \"ceph\"");
    std::fs::create_dir(workspace.path(".aws")).expect("created");
    let script = format!(
        "#!/bin/sh\necho asked >> {asked}\n\
         printf '{{\"Version\":1,\"AccessKeyId\":\"{ACCESS_KEY_ID}\",\"SecretAccessKey\":\"{SECRET_ACCESS_KEY}\",\
         \"Expiration\":\"%s\"}}' \"{end}\"\n",
        asked = workspace.path("asked").display()
    );
    workspace.write("process", script);
    set_mode(&workspace.path("process"), 0o700);
    let process = workspace.path("process").display().to_string();
    workspace.write(".aws/config", format!("[profile ceph]\ncredential_process = {process}\n"));
}

fn times_asked(workspace: &Workspace) -> usize {
    std::fs::read_to_string(workspace.path("asked")).unwrap_or_default().lines().count()
}

#[tokio::test]
async fn warning_when_credentials_expire_soon_and_are_not_renewed() {
    let s3 = s3().await;
    for (lifetime, asked_again) in [("13 days", true), ("15 days", false), ("35 hours", false), ("4 minutes", true)] {
        let span: jiff::SignedDuration = match lifetime.split_once(' ').expect("a unit") {
            (days, "days") => jiff::SignedDuration::from_hours(24 * days.parse::<i64>().expect("days")),
            (hours, "hours") => jiff::SignedDuration::from_hours(hours.parse().expect("hours")),
            (minutes, _) => jiff::SignedDuration::from_mins(minutes.parse().expect("minutes")),
        };
        let end = format!("{:.0}", jiff::Timestamp::now() + span);
        let workspace = Workspace::new();
        set_credential_process(&workspace, &end);
        let (daemon, id) = Daemon::with_target(&workspace, s3_target(&s3, "plain")).await;
        // The answer to the question for newer credentials may come after the report.
        let is_warned = |report: &Value| report["reason"] == "credentials_expire_soon";
        let reported = async {
            loop {
                let report = daemon.check(&id).await;
                if !asked_again || is_warned(&report) {
                    break report;
                }
            }
        };
        let report = with_timeout(lifetime, reported).await;
        let shown = report["credentials_expire_at"].as_str().expect("a time");
        assert_eq!(shown.get(..19), end.get(..19), "{report:#}");
        if asked_again {
            assert_warning(&report, "credentials_expire_soon");
            assert_contains(report["message"].as_str().expect("a message"), &[&end, ACCESS_KEY_ID, "renew them"]);
        } else {
            assert_healthy(&daemon.check(&id).await);
            assert_eq!(times_asked(&workspace), 1, "{lifetime}");
        }
    }
}

#[tokio::test]
async fn no_warning_when_the_source_answers_with_newer_credentials() {
    let s3 = s3().await;
    let workspace = Workspace::new();
    // Each answer ends a minute later than the one before.
    let first = jiff::Timestamp::now().as_second() + 13 * 24 * 3600;
    let asked = workspace.path("asked").display().to_string();
    let end = format!("$(date -u +%Y-%m-%dT%H:%M:%SZ -d @$(({first} + 60 * $(wc -l < {asked}))))");
    set_credential_process(&workspace, &end);
    let (daemon, id) = Daemon::with_target(&workspace, s3_target(&s3, "plain")).await;
    let second = jiff::Timestamp::from_second(first + 120).expect("a time").to_string();
    let replaced = async {
        loop {
            let report = daemon.check(&id).await;
            assert_healthy(&report);
            if report["credentials_expire_at"].as_str().and_then(|end| end.get(..19)) == second.get(..19) {
                break;
            }
        }
    };
    with_timeout("the second credentials", replaced).await;
    assert!(times_asked(&workspace) >= 2);
}

#[tokio::test]
async fn silent_source_of_credentials_leaves_the_target_available() {
    let s3 = s3().await;
    let workspace = Workspace::new();
    let end = format!("{:.0}", jiff::Timestamp::now() + jiff::SignedDuration::from_hours(13 * 24));
    let asked = workspace.path("asked").display().to_string();
    set_credential_process(&workspace, &format!("$([ $(wc -l < {asked}) -gt 1 ] && echo failed || echo {end})"));
    let (daemon, id) = Daemon::with_target(&workspace, s3_target(&s3, "plain")).await;
    let asked = async {
        while times_asked(&workspace) < 2 {
            assert_healthy(&daemon.check(&id).await);
        }
    };
    with_timeout("the second question", asked).await;
    assert_healthy(&daemon.check(&id).await);
}

#[tokio::test]
async fn home_directory_that_does_not_answer_stops_only_the_buckets_that_need_it() {
    let s3 = s3().await;
    let workspace = Workspace::new();
    std::fs::create_dir(workspace.path(".aws")).expect("created");
    // Opening a pipe waits for its writer, as reading a file waits for a dead server.
    let config = workspace.path(".aws/config");
    nix::unistd::mkfifo(&config, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let daemon = Daemon::start(&workspace).await;
    // More targets than the agent's runtime has threads.
    let created = ["plain", "locked", "versioned"].map(|bucket| daemon.create(s3_target(&s3, bucket)));
    let ids = with_timeout("the answers to POST", futures::future::join_all(created)).await;
    let report = daemon.check(&ids[0]).await;
    assert_offline(&report, "no_credentials");
    let message = report["message"].as_str().expect("a message");
    assert_contains(message, &["~/.aws/config", "region", "within 5 s", "[[s3.credentials]]"]);
    daemon.get("/healthz").await;

    let pipe = workspace.path("pipe");
    std::fs::rename(&config, &pipe).expect("renamed");
    drop(std::fs::OpenOptions::new().write(true).open(&pipe).expect("a reader"));
    for id in ids {
        assert_healthy(&daemon.check(&id).await);
    }
}
