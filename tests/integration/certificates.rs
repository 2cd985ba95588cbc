//! Ends of the certificates that S3 services present.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::daemon::Daemon;
use crate::key_manager::{self, OpenStack, payload, target_with_secret};
use crate::report::{assert_contains, assert_healthy, assert_warning};
use crate::storage::s3;
use crate::workspace::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, Workspace};

/// Name of the service, which only the proxy resolves.
const FAR_NAME: &str = "s3.nowhere.invalid";

type Authority = CertifiedIssuer<'static, KeyPair>;

/// Parameters of a certificate that ends in `days` from now. A quarter of a day is added, so that the test may be slow.
fn params(name: &str, days: u64) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = SystemTime::UNIX_EPOCH.into();
    params.not_after = (SystemTime::now() + Duration::from_secs(3600 * (24 * days + 6))).into();
    params
}

fn authority_params(name: &str, days: u64) -> CertificateParams {
    let mut params = params(name, days);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn authority() -> Authority {
    CertifiedIssuer::self_signed(authority_params("root", 3650), key()).expect("a certificate")
}

/// A chain with the key of its first certificate, as a server's TLS configuration.
fn server_config(issuer: &Authority, name: &str, days: u64, others: &[CertificateDer<'static>]) -> Arc<ServerConfig> {
    let key = key();
    let certificate = params(name, days).signed_by(&key, issuer).expect("a certificate");
    let chain = std::iter::once(certificate.der().clone()).chain(others.iter().cloned()).collect();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    Arc::new(config.with_no_client_auth().with_single_cert(chain, key).expect("a usable certificate"))
}

/// A TLS proxy in front of a plain service, whose certificate can be replaced.
struct TlsFront {
    port: u16,
    config: Arc<Mutex<Arc<ServerConfig>>>,
}

impl TlsFront {
    async fn start(service: u16, config: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let config = Arc::new(Mutex::new(config));
        let current = config.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let acceptor = TlsAcceptor::from(current.lock().expect("no panic").clone());
                tokio::spawn(async move {
                    let mut client = acceptor.accept(client).await?;
                    let mut service = TcpStream::connect(("127.0.0.1", service)).await?;
                    copy_bidirectional(&mut client, &mut service).await
                });
            }
        });
        Self { port, config }
    }

    fn replace(&self, config: Arc<ServerConfig>) {
        *self.config.lock().expect("no panic") = config;
    }

    fn target(&self, name: &str) -> Value {
        json!({ "type": "s3", "s3_endpoint_url": format!("https://{name}:{}", self.port), "s3_bucket": "plain" })
    }
}

fn workspace_trusting(authority: &Authority) -> Workspace {
    let workspace = Workspace::new();
    let bundle = workspace.write("ca.pem", authority.pem());
    // The entry of the credentials is the last one.
    workspace.write_config(&format!("{}\nca_bundle = {:?}", workspace.config_text(), bundle.display().to_string()));
    workspace
}

/// Asserts that the report has an end in this number of days.
fn assert_ends_in(report: &Value, days: u64) {
    let end = report["certificate_expires_at"].as_str().unwrap_or_else(|| panic!("no end: {report:#}"));
    let end: Timestamp = format!("{end}Z").parse().expect("a time");
    let hours = end.duration_since(Timestamp::now()).as_hours().unsigned_abs();
    assert!((24 * days..=24 * days + 6).contains(&hours), "{hours} h: {report:#}");
}

fn assert_ends_soon(report: &Value, words: &[&str]) {
    assert_warning(report, "certificate_expires_soon");
    assert_eq!(report["status"], "available", "{report:#}");
    assert_contains(report["message"].as_str().expect("a message"), words);
    assert_ends_in(report, 13);
}

#[tokio::test]
async fn warning_when_a_certificate_of_the_chain_expires_within_14_days() {
    let s3 = s3().await;
    let root = authority();
    let workspace = workspace_trusting(&root);
    let daemon = Daemon::start(&workspace).await;
    let check = async |config: Arc<ServerConfig>| {
        let front = TlsFront::start(s3.port(), config).await;
        daemon.check(&daemon.create(front.target("localhost")).await).await
    };

    let report = check(server_config(&root, "localhost", 13, &[])).await;
    assert_ends_soon(&report, &["the service's certificate", "CN=localhost", "renew it"]);
    for days in [15, 365 * 30] {
        let report = check(server_config(&root, "localhost", days, &[])).await;
        assert_healthy(&report);
        assert_ends_in(&report, days);
    }

    let intermediate =
        CertifiedIssuer::signed_by(authority_params("between", 13), key(), &root).expect("a certificate");
    let chain = [intermediate.der().clone()];
    let report = check(server_config(&intermediate, "localhost", 90, &chain)).await;
    assert_ends_soon(&report, &["certificate 2 of 2", "CN=between", "renew it"]);
}

#[tokio::test]
async fn renewed_certificate_ends_the_warning_at_the_next_routine_probe() {
    let s3 = s3().await;
    let root = authority();
    let workspace = workspace_trusting(&root);
    workspace.configure("[probe]\ns3_interval = \"1s\"");
    let daemon = Daemon::start(&workspace).await;
    let front = TlsFront::start(s3.port(), server_config(&root, "localhost", 13, &[])).await;
    let id = daemon.create(front.target("localhost")).await;
    assert_ends_soon(&daemon.check(&id).await, &["CN=localhost"]);
    front.replace(server_config(&root, "localhost", 90, &[]));
    let is_renewed = |report: &Value| report["verdict"] == "available" && report["reason"].is_null();
    let report = daemon.wait_for_report(&id, "the new certificate", is_renewed).await;
    assert_ends_in(&report, 90);
    // A requested check always reads the certificate.
    front.replace(server_config(&root, "localhost", 13, &[]));
    assert_ends_soon(&daemon.check(&id).await, &["CN=localhost"]);
}

#[tokio::test]
async fn certificate_is_read_through_a_proxy() {
    let s3 = s3().await;
    let root = authority();
    let front = TlsFront::start(s3.port(), server_config(&root, FAR_NAME, 13, &[])).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let proxy = listener.local_addr().expect("an address").port();
    let port = front.port;
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && client.read_buf(&mut head).await? > 0 {}
                let head = String::from_utf8_lossy(&head).to_lowercase();
                let is_known = head.contains("proxy-authorization: basic c29tzwjvzhk6c2vjcmv0\r\n");
                if !head.starts_with(&format!("connect {FAR_NAME}:")) || !is_known {
                    return client
                        .write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
                        .await
                        .map(|()| (0, 0));
                }
                client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
                let mut service = TcpStream::connect(("127.0.0.1", port)).await?;
                copy_bidirectional(&mut client, &mut service).await
            });
        }
    });
    let mut workspace = workspace_trusting(&root);
    workspace.set_env("HTTPS_PROXY", &format!("http://somebody:secret@127.0.0.1:{proxy}"));
    let daemon = Daemon::start(&workspace).await;
    let report = daemon.check(&daemon.create(front.target(FAR_NAME)).await).await;
    assert_ends_soon(&report, &[&format!("CN={FAR_NAME}")]);
}

#[tokio::test]
async fn service_without_tls_has_no_certificate() {
    let s3 = s3().await;
    let (daemon, id) = Daemon::with_target(&Workspace::new(), crate::storage::s3_target(&s3, "plain")).await;
    let report = daemon.check(&id).await;
    assert_healthy(&report);
    assert_eq!(report["certificate_expires_at"], Value::Null, "{report:#}");
}

#[tokio::test]
async fn ends_of_the_certificates_of_keystone_and_the_key_manager_are_announced() {
    const METRICS: [&str; 2] = [
        "targetwatch_keystone_certificate_expiry_timestamp_seconds ",
        "targetwatch_key_manager_certificate_expiry_timestamp_seconds ",
    ];
    let (s3, openstack, root) = (s3().await, OpenStack::start().await, authority());
    openstack.store(&payload(ACCESS_KEY_ID, SECRET_ACCESS_KEY));
    let intermediate_key = key();
    let intermediate = authority_params("intermediate", 13).signed_by(&intermediate_key, &root).expect("a certificate");
    let chain = [intermediate.der().clone()];
    let front = TlsFront::start(openstack.address.port(), server_config(&root, "localhost", 400, &chain)).await;
    let workspace = Workspace::new();
    let text = workspace.config_text();
    let kept: Vec<&str> = text.lines().filter(|line| !line.contains("_file = ")).collect();
    workspace.write_config(&kept.join("\n"));
    let bundle = format!("ca_bundle = {:?}", workspace.write("ca.pem", root.pem()).display().to_string());
    let url = format!("https://localhost:{}", front.port);
    key_manager::configure(&workspace, &url, &bundle, &format!("endpoint = {url:?}\n{bundle}"));

    let daemon = Daemon::start(&workspace).await;
    let metrics = async || daemon.request("GET", "/metrics", None).await.body;
    let body = metrics().await;
    assert!(!METRICS.iter().any(|name| body.contains(name)), "known before a connection");
    let id = daemon.create(target_with_secret(&s3, "plain", &url)).await;
    assert_healthy(&daemon.check(&id).await);
    let days_left = |body: &str, name: &str| {
        let value = body.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}"));
        let seconds = value.parse::<f64>().expect("a number") - Timestamp::now().as_second() as f64;
        seconds / 86400.0
    };
    let body = metrics().await;
    for name in METRICS {
        assert!((13.0..13.3).contains(&days_left(&body, name)), "{name}");
    }
    for service in ["Keystone", "the key manager"] {
        let log = daemon.log();
        let lines: Vec<_> = log.lines().filter(|line| line.contains(&format!("{service} at {url}"))).collect();
        assert_eq!(lines.len(), 1, "{log}");
        assert_contains(lines[0], &["WARN", "CN=intermediate", "expires at", "renew it"]);
    }

    let output = workspace.run(&["doctor", "--json", "--config", workspace.config().to_str().expect("text")]).await;
    let checks = output.json()["checks"].take();
    let check = checks.as_array().expect("a list").iter().find(|check| check["name"] == "keystone").expect("a check");
    assert_eq!((&check["outcome"], output.stderr.as_str()), (&json!("warning"), ""), "{checks:#}");
    assert_contains(&check.to_string(), &["CN=intermediate", "2 of 2", "renew it"]);
}
