//! Credentials from a key manager: a fake of Keystone and Barbican in this process, with faults on demand.
//!
//! `tests/keystone` has the same with the real services.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::daemon::{Daemon, eventually};
use crate::report::{assert_contains, assert_healthy, assert_offline, assert_warning, detail_of};
use crate::storage::{s3, s3_target};
use crate::support::s3_server::{Denied, S3Server};
use crate::workspace::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, Workspace};

const ID: &str = "5f8c2c9e-52f3-4a0b-9f6b-0f5f1f6c9a11";

/// Password of the agent, which must appear in no output.
const PASSWORD: &str = "keystonePasswordWithAnUnmistakableText";

/// Token of the agent, which must appear in no output.
const TOKEN: &str = "keystoneTokenWithAnUnmistakableText";

/// Keystone and Barbican on one port.
pub struct OpenStack {
    pub address: SocketAddr,
    state: Arc<Behaviour>,
}

#[derive(Default)]
struct Behaviour {
    secrets: Mutex<HashMap<String, String>>,
    /// Status and body that replace each answer of Barbican.
    instead: Mutex<Option<(u16, String)>>,
    /// Address of Barbican in the catalog, instead of the one at which Keystone was asked.
    in_catalog: Mutex<Option<String>>,
    /// Paths of the requests to Barbican.
    requests: Mutex<Vec<String>>,
}

impl OpenStack {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Behaviour::default());
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = shared.clone();
                let service =
                    service_fn(move |request| std::future::ready(Ok::<_, Infallible>(state.answer(&request))));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, state }
    }

    pub fn store(&self, payload: &Value) {
        self.state.secrets.lock().expect("a lock").insert(ID.to_owned(), payload.to_string());
    }

    fn answer_instead(&self, answer: Option<(u16, &str)>) {
        *self.state.instead.lock().expect("a lock") = answer.map(|(status, body)| (status, body.to_owned()));
    }

    fn requests(&self) -> usize {
        self.state.requests.lock().expect("a lock").len()
    }

    /// Creates a workspace without other credentials, whose agent uses this key manager.
    fn workspace(&self, more: &str) -> Workspace {
        let workspace = Workspace::new();
        let text = workspace.config_text();
        let kept: Vec<&str> = text.lines().filter(|line| !line.contains("_file = ")).collect();
        workspace.write_config(&kept.join("\n"));
        self.configure(&workspace, more);
        workspace
    }

    fn configure(&self, workspace: &Workspace, more: &str) {
        configure(workspace, &self.url(), "", more);
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn target(&self, s3: &S3Server, bucket: &str) -> Value {
        target_with_secret(s3, bucket, &self.url())
    }
}

/// Configures the Keystone at `url`, and its key manager.
pub fn configure(workspace: &Workspace, url: &str, keystone: &str, key_manager: &str) {
    let password = workspace.write("password", PASSWORD);
    workspace.configure(&format!(
        "[api.keystone]\nurl = {url:?}\nusername = \"targetwatch\"\npassword_file = {password:?}\n{keystone}\n\
         [key_manager]\nenabled = true\n{key_manager}"
    ));
}

/// A target whose credentials are a secret of the key manager at `url`.
pub fn target_with_secret(s3: &S3Server, bucket: &str, url: &str) -> Value {
    let mut target = s3_target(s3, bucket);
    target["secret_ref"] = json!(format!("{url}/v1/secrets/{ID}"));
    target
}

impl Behaviour {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let respond = |status: u16, header: (&str, &str), body: String| {
            let response = Response::builder().status(status).header(header.0, header.1);
            response.body(Full::from(body)).expect("a response")
        };
        let (path, json) = (request.uri().path(), ("content-type", "application/json"));
        if request.method() == Method::POST && path == "/v3/auth/tokens" {
            let endpoint = format!("http://{}", request.headers()["host"].to_str().expect("text"));
            let endpoint = self.in_catalog.lock().expect("a lock").clone().unwrap_or(endpoint);
            let endpoint = json!({ "interface": "public", "region": "one", "url": endpoint });
            let token = json!({ "token": { "expires_at": "2100-01-01T00:00:00.000000Z",
                "catalog": [{ "type": "key-manager", "endpoints": [endpoint] }] } });
            return respond(201, ("x-subject-token", TOKEN), token.to_string());
        }
        if path == "/v3" {
            return respond(200, json, json!({ "version": { "id": "v3.14", "status": "stable" } }).to_string());
        }
        assert_eq!(request.headers()["x-auth-token"], TOKEN);
        self.requests.lock().expect("a lock").push(path.to_owned());
        if let Some((status, body)) = self.instead.lock().expect("a lock").clone() {
            return respond(status, if status == 302 { ("location", body.as_str()) } else { json }, body.clone());
        }
        if path == "/v1/secrets" {
            return respond(200, json, json!({ "secrets": [], "total": 0 }).to_string());
        }
        let id = path.strip_prefix("/v1/secrets/").and_then(|rest| rest.strip_suffix("/payload")).expect(path);
        match self.secrets.lock().expect("a lock").get(id) {
            Some(payload) => respond(200, ("content-type", "application/octet-stream"), payload.clone()),
            None => respond(404, json, json!({ "code": 404, "title": "Not Found" }).to_string()),
        }
    }
}

/// The payload that Trilio stores.
pub fn payload(access_key: &str, secret_key: &str) -> Value {
    json!({
        "access_key": access_key, "secret_key": secret_key, "vault_s3_region_name": "", "vault_s3_endpoint_url": "",
        "vault_s3_bucket": "plain", "vault_s3_ssl": false, "vault_s3_ssl_verify": false, "vault_s3_ssl_cert": "",
        "vault_s3_signature_version": "default", "vault_s3_auth_version": "DEFAULT", "bucket_object_lock": false,
        "another": [1],
    })
}

#[tokio::test]
async fn credentials_of_secret_ref_are_read_and_never_shown() {
    let (s3, openstack) = (s3().await, OpenStack::start().await);
    openstack.store(&payload(ACCESS_KEY_ID, SECRET_ACCESS_KEY));
    let daemon = Daemon::start_logging(&openstack.workspace(""), "trace").await;
    let id = daemon.create(openstack.target(&s3, "plain")).await;
    let report = daemon.check(&id).await;
    assert_healthy(&report);
    assert_eq!(detail_of(&report, "bucket"), "", "{report:#}");
    let metrics = daemon.request("GET", "/metrics", None).await.body;
    assert!(metrics.contains("targetwatch_key_manager_requests_total{result=\"2xx\"}"), "{metrics}");
    let details = daemon.get("/backup_targets/detail").await;
    let shown = format!("{report} {metrics} {details} {}", daemon.log());
    assert!(shown.contains("TRACE"));
    for secret in [ACCESS_KEY_ID, SECRET_ACCESS_KEY, PASSWORD, TOKEN] {
        assert!(!shown.contains(secret), "{secret} is shown");
    }
}

#[tokio::test]
async fn rotated_secret_is_read_by_the_next_probe_after_a_refusal() {
    let (s3, openstack) = (s3().await, OpenStack::start().await);
    openstack.store(&payload(ACCESS_KEY_ID, SECRET_ACCESS_KEY));
    let workspace = openstack.workspace("refresh_interval = \"24h\"");
    workspace.configure("[probe]\ns3_interval = \"1s\"");
    let (daemon, id) = Daemon::with_target(&workspace, openstack.target(&s3, "plain")).await;
    daemon.wait_for_report(&id, "the first verdict", |report| report["verdict"] == "available").await;
    let before = openstack.requests();
    let probed = s3.requests().len();
    eventually("more probes", async || (s3.requests().len() > probed + 2).then_some(())).await;
    assert_eq!(openstack.requests(), before, "read at each probe");

    // The service knows the key no longer before the key manager has the new one.
    s3.set_secret("rotated");
    daemon.wait_for_report(&id, "a refusal", |report| report["reason"] == "wrong_secret").await;
    openstack.store(&payload(ACCESS_KEY_ID, "rotated"));
    daemon.wait_for_report(&id, "the new credentials", |report| report["verdict"] == "available").await;
}

#[tokio::test]
async fn secret_is_not_read_again_because_a_bucket_permits_only_writing() {
    let (s3, openstack) = (s3().await, OpenStack::start().await);
    openstack.store(&payload(ACCESS_KEY_ID, SECRET_ACCESS_KEY));
    let workspace = openstack.workspace("refresh_interval = \"24h\"");
    workspace.configure("[probe]\ns3_interval = \"1s\"");
    s3.deny(Denied::Buckets);
    let (daemon, id) = Daemon::with_target(&workspace, openstack.target(&s3, "plain")).await;
    let report = daemon.wait_for_report(&id, "the first verdict", |report| report["verdict"] == "available").await;
    assert_warning(&report, "access_denied");
    let (before, probed) = (openstack.requests(), s3.requests().len());
    eventually("more probes", async || (s3.requests().len() > probed + 12).then_some(())).await;
    assert_eq!(openstack.requests(), before, "read at each probe");

    // Without the permission to write, the credentials may have been replaced.
    s3.deny(Denied::Everything);
    assert_offline(&daemon.check(&id).await, "access_denied");
    let before = openstack.requests();
    eventually("another read", async || (openstack.requests() > before + 1).then_some(())).await;
    s3.deny(Denied::Nothing);
    daemon.wait_for_report(&id, "the permission", |report| report["verdict"] == "available").await;
    // That probe may have begun without the permission, and then it has a warning.
    assert_healthy(&daemon.check(&id).await);
}

#[tokio::test]
async fn fault_of_the_key_manager_is_a_reason_or_a_warning() {
    let (s3, openstack, other) = (s3().await, OpenStack::start().await, OpenStack::start().await);
    let location = format!("http://{}/v1/secrets/{ID}/payload", other.address);
    let mut missing = payload(ACCESS_KEY_ID, SECRET_ACCESS_KEY);
    missing.as_object_mut().expect("an object").remove("secret_key");
    let missing = missing.to_string();
    let not_found = json!({ "code": 404 }).to_string();
    for (status, body, reason, words) in [
        (404, not_found.as_str(), "secret_not_found", "no such secret"),
        (403, "{}", "secret_forbidden", "acl user add"),
        (200, "{", "secret_malformed", "not a JSON object"),
        (200, &missing, "secret_malformed", "secret_key is missing"),
        (302, &location, "key_manager_unavailable", "not followed"),
        (500, "", "key_manager_unavailable", "500"),
    ] {
        let daemon = Daemon::start(&openstack.workspace("")).await;
        let before = s3.requests().len();
        openstack.answer_instead(Some((status, body)));
        let id = daemon.create(openstack.target(&s3, "plain")).await;
        let report = daemon.check(&id).await;
        // One answer with a server error says nothing about the secret.
        let verdict = if status == 500 { "timed_out" } else { "failed" };
        assert_eq!((&report["verdict"], &report["reason"]), (&json!(verdict), &json!(reason)), "{report:#}");
        assert_contains(report["message"].as_str().expect("a message"), &[words, "plain"]);
        assert_eq!(s3.requests().len(), before, "a request without credentials");

        let fresh = Daemon::start(&openstack.workspace("")).await;
        openstack.answer_instead(None);
        openstack.store(&payload(ACCESS_KEY_ID, SECRET_ACCESS_KEY));
        let id = fresh.create(openstack.target(&s3, "plain")).await;
        fresh.wait_for_report(&id, "the first secret", |report| report["verdict"] == "available").await;
        openstack.answer_instead(Some((status, body)));
        let report = fresh.check(&id).await;
        assert_warning(&report, reason);
        assert_contains(report["message"].as_str().expect("a message"), &[words, "last good credentials"]);
    }
    assert_eq!(other.requests(), 0, "a redirect was followed");
}

#[tokio::test]
async fn secret_of_another_key_manager_is_not_requested() {
    let (s3, openstack, other) = (s3().await, OpenStack::start().await, OpenStack::start().await);
    other.store(&payload(ACCESS_KEY_ID, SECRET_ACCESS_KEY));
    let endpoint = format!("endpoint = \"http://{}/v1/\"", openstack.address);
    for more in ["", &endpoint] {
        let daemon = Daemon::start(&openstack.workspace(more)).await;
        let id = daemon.create(other.target(&s3, "plain")).await;
        let message = assert_offline(&daemon.check(&id).await, "secret_not_found");
        assert_contains(&message, &["not a secret of the configured key manager", &openstack.address.to_string()]);
    }
    assert_eq!((openstack.requests(), other.requests()), (0, 0));
}

#[tokio::test]
async fn entry_with_files_replaces_the_secret_and_other_keys_apply_to_it() {
    let (s3, openstack) = (s3().await, OpenStack::start().await);
    openstack.store(&payload("AKIANOBODY", "another"));
    let workspace = Workspace::new();
    openstack.configure(&workspace, "");
    let daemon = Daemon::start(&workspace).await;
    let id = daemon.create(openstack.target(&s3, "plain")).await;
    assert_healthy(&daemon.check(&id).await);
    assert_eq!(openstack.requests(), 0);

    // Without files, the rest of the entry applies to the credentials of the secret.
    let text = workspace.config_text();
    let kept: Vec<&str> = text.lines().filter(|line| !line.contains("access_key")).collect();
    workspace.write_config(&format!("{}\nread_only = true\n", kept.join("\n")));
    openstack.store(&payload(ACCESS_KEY_ID, SECRET_ACCESS_KEY));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("configuration reloaded").await;
    let report = daemon.check(&id).await;
    assert_eq!(report["verdict"], "available", "{report:#}");
    assert!(openstack.requests() > 0);
    assert_contains(detail_of(&report, "write_canary"), &["read_only"]);
}

#[tokio::test]
async fn secret_ref_is_not_read_without_the_section() {
    let (s3, openstack) = (s3().await, OpenStack::start().await);
    let daemon = Daemon::start(&Workspace::new()).await;
    let id = daemon.create(openstack.target(&s3, "plain")).await;
    assert_healthy(&daemon.check(&id).await);
    assert_eq!(openstack.requests(), 0);
}

#[tokio::test]
async fn missing_key_of_a_secret_is_a_detail() {
    let (s3, openstack) = (s3().await, OpenStack::start().await);
    let mut short = payload(ACCESS_KEY_ID, SECRET_ACCESS_KEY);
    short.as_object_mut().expect("an object").remove("bucket_object_lock");
    openstack.store(&short);
    let daemon = Daemon::start(&openstack.workspace("")).await;
    let id = daemon.create(openstack.target(&s3, "plain")).await;
    let report = daemon.check(&id).await;
    assert_healthy(&report);
    assert_contains(detail_of(&report, "bucket"), &["no bucket_object_lock"]);
}

#[tokio::test]
async fn secret_of_another_bucket_or_endpoint_is_not_used() {
    let (s3, openstack) = (s3().await, OpenStack::start().await);
    for (key, value, words) in [
        ("vault_s3_bucket", "another\u{1b}[2J", r#"vault_s3_bucket is "another\u{1b}[2J""#),
        ("vault_s3_endpoint_url", "https://user:urlPassword@another.example.com:9000/x", "another.example.com:9000"),
    ] {
        let mut other = payload(ACCESS_KEY_ID, SECRET_ACCESS_KEY);
        other[key] = json!(value);
        openstack.store(&other);
        let daemon = Daemon::start(&openstack.workspace("")).await;
        let before = s3.requests().len();
        let id = daemon.create(openstack.target(&s3, "plain")).await;
        let report = daemon.check(&id).await;
        let message = assert_offline(&report, "secret_malformed");
        assert_contains(&message, &["plain", "are not used", key, words, "secret_ref"]);
        assert_eq!(s3.requests().len(), before, "a request with credentials of another target");
        let shown = format!("{report} {}", daemon.log());
        for secret in [ACCESS_KEY_ID, SECRET_ACCESS_KEY, "urlPassword"] {
            assert!(!shown.contains(secret), "{secret} is shown");
        }

        // The right secret ends it.
        openstack.store(&payload(ACCESS_KEY_ID, SECRET_ACCESS_KEY));
        assert_healthy(&daemon.check(&id).await);
    }
}

#[tokio::test]
async fn secret_of_another_endpoint_is_used_if_it_is_accepted() {
    let (s3, openstack) = (s3().await, OpenStack::start().await);
    let mut other = payload(ACCESS_KEY_ID, SECRET_ACCESS_KEY);
    other["vault_s3_endpoint_url"] = json!("http://internal.example.com");
    openstack.store(&other);
    let daemon = Daemon::start(&openstack.workspace("accept_other_endpoints = true")).await;
    let id = daemon.create(openstack.target(&s3, "plain")).await;
    let report = daemon.check(&id).await;
    assert_healthy(&report);
    assert_contains(detail_of(&report, "bucket"), &["vault_s3_endpoint_url", "internal.example.com"]);

    // The name of the bucket must be right all the same.
    other["vault_s3_bucket"] = json!("another");
    openstack.store(&other);
    assert_offline(&daemon.check(&id).await, "secret_malformed");
}

/// The check `key_manager` of `targetwatch doctor`: its outcome and its text.
async fn doctor(workspace: &Workspace) -> (String, String) {
    let output = workspace.run(&["doctor", "--json", "--config", workspace.config().to_str().expect("text")]).await;
    assert_eq!(output.stderr, "");
    let checks = output.json()["checks"].take();
    let check = checks.as_array().expect("a list").iter().find(|check| check["name"] == "key_manager");
    let check = check.unwrap_or_else(|| panic!("no key_manager in {checks:#}"));
    (check["outcome"].as_str().expect("text").to_owned(), check.to_string())
}

#[tokio::test]
async fn doctor_logs_in_to_the_key_manager() {
    let openstack = OpenStack::start().await;
    let workspace = openstack.workspace("");
    let (outcome, text) = doctor(&workspace).await;
    assert_eq!(outcome, "passed", "{text}");
    assert_contains(&text, &[&openstack.url()]);
    for (status, expected, words) in [
        (403, "passed", openstack.url()),
        (401, "failed", "[keystone_authtoken]".to_owned()),
        (503, "failed", "HTTP status 503".to_owned()),
        (404, "failed", "HTTP status 404".to_owned()),
    ] {
        openstack.answer_instead(Some((status, "{}")));
        let (outcome, text) = doctor(&workspace).await;
        assert_eq!(outcome, expected, "{text}");
        assert_contains(&text, &[&words]);
        assert!(!text.contains(PASSWORD) && !text.contains(TOKEN), "{text}");
    }
}

#[tokio::test]
async fn address_of_the_catalog_without_tls_is_a_warning() {
    let (s3, openstack) = (s3().await, OpenStack::start().await);
    openstack.store(&payload(ACCESS_KEY_ID, SECRET_ACCESS_KEY));
    // This host as well, but not a loopback address.
    let url = format!("http://0.0.0.0:{}", openstack.address.port());
    *openstack.state.in_catalog.lock().expect("a lock") = Some(url.clone());
    let workspace = openstack.workspace("");
    let daemon = Daemon::start(&workspace).await;
    let id = daemon.create(target_with_secret(&s3, "plain", &url)).await;
    for _ in 0..2 {
        assert_healthy(&daemon.check(&id).await);
    }
    let log = daemon.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("is used without TLS")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert_contains(lines[0], &["WARN", &url, "catalog", "[key_manager] endpoint"]);

    let (outcome, text) = doctor(&workspace).await;
    assert_eq!(outcome, "warning", "{text}");
    assert_contains(&text, &[&url, "is used without TLS"]);
}
