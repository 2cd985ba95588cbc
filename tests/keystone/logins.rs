//! The agent's own login, its admin role, and its connections to Keystone.

use std::sync::Arc;

use futures::future::join_all;
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::daemon::{Daemon, eventually};
use crate::peer::{Keystone, request, status};

const LOGIN: &str = "POST /v3/auth/tokens";
const VALIDATION: &str = "GET /v3/auth/tokens?nocatalog";

#[tokio::test]
async fn agent_login_with_application_credential() {
    let keystone = Keystone::start().await;
    keystone.member_of("alpha").await;
    let (id, secret) = keystone.application_credential().await;
    let workspace = keystone.workspace_with(|workspace| {
        workspace.write("secret-of-it", &secret);
        format!(
            "application_credential_id = {id:?}\napplication_credential_secret_file = {:?}",
            workspace.path("secret-of-it")
        )
    });
    let daemon = Daemon::start(&workspace).await;
    let member = keystone.token("alpha", "alpha", Some("alpha")).await;
    assert_eq!((status(&daemon, &member).await, status(&daemon, "garbage").await), (200, 401));
    assert!(!daemon.log().contains(&secret), "a secret is in the log");
}

#[tokio::test]
async fn wrong_agent_password_is_reported_and_reread() {
    let keystone = Keystone::start().await;
    keystone.member_of("alpha").await;
    let workspace = keystone.workspace("");
    workspace.write("password", "not the password");
    let daemon = Daemon::start(&workspace).await;
    let member = keystone.token("alpha", "alpha", Some("alpha")).await;
    let before = keystone.count_requests(LOGIN);
    assert_eq!(status(&daemon, &member).await, 503);
    daemon.wait_for_log("does not accept the login").await;
    for number in 0..20 {
        assert_eq!(status(&daemon, &format!("garbage-{number}")).await, 503);
    }
    // Keystone may lock the user after several failed logins.
    assert_eq!(keystone.count_requests(LOGIN), before + 1);
    workspace.write("password", keystone.fact("SERVICE_PASSWORD"));
    eventually("the right password", async || (status(&daemon, &member).await == 200).then_some(())).await;
    assert!(!daemon.log().contains("not the password"), "a secret is in the log");
}

#[tokio::test]
async fn admin_role_is_configurable() {
    let keystone = Keystone::start().await;
    keystone.member_of("alpha").await;
    keystone.give_role("backup-operator", "alpha").await;
    let daemon = Daemon::start(&keystone.workspace("admin_role = \"backup-operator\"")).await;
    let operator = keystone.token("alpha", "alpha", Some("alpha")).await;
    let admin = keystone.admin_token().await;
    assert_eq!(request(&daemon, "POST", "/backup_targets", &admin, &[]).await.status, 403);
    assert_eq!(status(&daemon, &admin).await, 200);
    assert_eq!(request(&daemon, "POST", "/backup_targets", &operator, &[]).await.status, 200);
}

#[tokio::test]
async fn expired_token_is_refused_at_first_use() {
    let keystone = Keystone::start().await;
    keystone.member_of("alpha").await;
    keystone.restart_with_token_lifetime(2);
    let token = keystone.token("alpha", "alpha", Some("alpha")).await;
    eventually("its expiry", async || keystone.rejects(&token).await.then_some(())).await;
    let daemon = Daemon::start(&keystone.workspace("")).await;
    assert_eq!(status(&daemon, &token).await, 401);
    assert_eq!(keystone.count_requests(VALIDATION), 1);
}

#[tokio::test]
async fn concurrent_requests_with_one_token_validate_once() {
    let keystone = Keystone::start().await;
    keystone.member_of("alpha").await;
    let daemon = Daemon::start(&keystone.workspace("")).await;
    let member = keystone.token("alpha", "alpha", Some("alpha")).await;
    // All requests wait for the same validation.
    keystone.control("pause");
    let requests = join_all((0..100).map(|_| status(&daemon, &member)));
    let resuming = async {
        daemon.get("/healthz").await;
        keystone.control("resume");
    };
    let (answers, ()) = tokio::join!(requests, resuming);
    assert!(answers.iter().all(|answer| *answer == 200), "{answers:?}");
    assert_eq!(keystone.count_requests(VALIDATION), 1);
}

/// Starts a TLS proxy in front of a Keystone, like a load balancer. Writes its certificate and returns its port.
async fn tls_proxy(keystone: &Keystone, certificate: &std::path::Path) -> u16 {
    let key = KeyPair::generate().expect("a key");
    let own = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name").self_signed(&key);
    let own = own.expect("a certificate");
    std::fs::write(certificate, own.pem()).expect("written");
    let private = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![own.der().clone()], private);
    let acceptor = TlsAcceptor::from(Arc::new(config.expect("a usable certificate")));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (port, behind) = (listener.local_addr().expect("an address").port(), keystone.address());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust the certificate disconnects.
                if let Ok(mut client) = acceptor.accept(stream).await {
                    let mut server = TcpStream::connect(behind).await.expect("Keystone");
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn keystone_tls_is_trusted_only_with_ca_bundle() {
    let keystone = Keystone::start().await;
    keystone.member_of("alpha").await;
    let workspace = keystone.workspace("");
    let certificate = workspace.path("keystone-ca.pem");
    let port = tls_proxy(&keystone, &certificate).await;
    workspace.configure(&format!("[api.keystone]\nurl = \"https://localhost:{port}\""));
    let member = keystone.token("alpha", "alpha", Some("alpha")).await;
    {
        let daemon = Daemon::start(&workspace).await;
        assert_eq!(status(&daemon, &member).await, 503);
        let line = daemon.wait_for_log("tokens cannot be validated").await;
        assert!(line.contains("certificate"), "{line}");
    }
    workspace.configure(&format!("[api.keystone]\nca_bundle = {certificate:?}"));
    let daemon = Daemon::start(&workspace).await;
    assert_eq!((status(&daemon, &member).await, status(&daemon, "garbage").await), (200, 401));
    assert!(!daemon.log().contains("without TLS"), "{}", daemon.log());
}
