//! The agent's own login, whom it takes for an admin, and how it reaches Keystone.

use std::sync::Arc;

use futures::future::join_all;
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::daemon::{Daemon, eventually};
use crate::peer::{Keystone, ask, status};

const LOGIN: &str = "POST /v3/auth/tokens";
const VALIDATION: &str = "GET /v3/auth/tokens?nocatalog";

#[tokio::test]
async fn agent_login_with_application_credential() {
    let keystone = Keystone::start().await;
    keystone.member_of("alpha").await;
    let (id, secret) = keystone.application_credential().await;
    let workspace = keystone.workspace_with(|workspace| {
        std::fs::write(workspace.path("secret-of-it"), &secret).expect("written");
        format!(
            "application_credential_id = {id:?}\napplication_credential_secret_file = {:?}",
            workspace.path("secret-of-it")
        )
    });
    let agent = Daemon::start(&workspace).await;
    let member = keystone.token("alpha", "alpha", Some("alpha")).await;
    assert_eq!((status(&agent, &member).await, status(&agent, "garbage").await), (200, 401));
    assert!(!agent.log().contains(&secret), "a secret is in the log");
}

#[tokio::test]
async fn wrong_agent_password_is_reported_and_reread() {
    let keystone = Keystone::start().await;
    keystone.member_of("alpha").await;
    let workspace = keystone.workspace("");
    std::fs::write(workspace.path("password"), "not the password").expect("written");
    let agent = Daemon::start(&workspace).await;
    let member = keystone.token("alpha", "alpha", Some("alpha")).await;
    let before = keystone.asked(LOGIN);
    assert_eq!(status(&agent, &member).await, 503);
    agent.wait_for_log("does not accept the login").await;
    for number in 0..20 {
        assert_eq!(status(&agent, &format!("garbage-{number}")).await, 503);
    }
    assert_eq!(keystone.asked(LOGIN), before + 1, "each wrong one counts towards a lock");
    std::fs::write(workspace.path("password"), keystone.fact("SERVICE_PASSWORD")).expect("written");
    eventually("the right password", async || (status(&agent, &member).await == 200).then_some(())).await;
    assert!(!agent.log().contains("not the password"), "a secret is in the log");
}

#[tokio::test]
async fn admin_role_is_configurable() {
    let keystone = Keystone::start().await;
    keystone.member_of("alpha").await;
    keystone.give_role("backup-operator", "alpha").await;
    let agent = Daemon::start(&keystone.workspace("admin_role = \"backup-operator\"")).await;
    let operator = keystone.token("alpha", "alpha", Some("alpha")).await;
    let admin = keystone.admin_token().await;
    assert_eq!(ask(&agent, "POST", "/backup_targets", &admin, &[]).await.status, 403);
    assert_eq!(status(&agent, &admin).await, 200);
    assert_eq!(ask(&agent, "POST", "/backup_targets", &operator, &[]).await.status, 200);
}

#[tokio::test]
async fn expired_token_is_refused_at_first_use() {
    let keystone = Keystone::start().await;
    keystone.member_of("alpha").await;
    keystone.control("halt");
    keystone.shorten(2);
    keystone.control("again");
    let token = keystone.token("alpha", "alpha", Some("alpha")).await;
    eventually("its end", async || keystone.has_ended(&token).await.then_some(())).await;
    let agent = Daemon::start(&keystone.workspace("")).await;
    assert_eq!(status(&agent, &token).await, 401);
    assert_eq!(keystone.asked(VALIDATION), 1);
}

#[tokio::test]
async fn concurrent_requests_with_one_token_validate_once() {
    let keystone = Keystone::start().await;
    keystone.member_of("alpha").await;
    let agent = Daemon::start(&keystone.workspace("")).await;
    let member = keystone.token("alpha", "alpha", Some("alpha")).await;
    // Its requests wait for the same answer.
    keystone.control("pause");
    let asking = join_all((0..100).map(|_| status(&agent, &member)));
    let resuming = async {
        agent.get("/healthz").await;
        keystone.control("resume");
    };
    let (answers, ()) = tokio::join!(asking, resuming);
    assert!(answers.iter().all(|answer| *answer == 200), "{answers:?}");
    assert_eq!(keystone.asked(VALIDATION), 1);
}

/// Puts TLS before a Keystone, as a load balancer does. Gives its port and writes its certificate.
async fn behind_tls(keystone: &Keystone, certificate: &std::path::Path) -> u16 {
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
    let acceptor = TlsAcceptor::from(Arc::new(config.expect("they fit")));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (port, behind) = (listener.local_addr().expect("an address").port(), keystone.address());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // Who does not trust the certificate leaves.
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
    let port = behind_tls(&keystone, &certificate).await;
    workspace.configure(&format!("[api.keystone]\nurl = \"https://localhost:{port}\""));
    let member = keystone.token("alpha", "alpha", Some("alpha")).await;
    {
        let agent = Daemon::start(&workspace).await;
        assert_eq!(status(&agent, &member).await, 503);
        let line = agent.wait_for_log("tokens cannot be validated").await;
        assert!(line.contains("certificate"), "{line}");
    }
    workspace.configure(&format!("[api.keystone]\nca_bundle = {certificate:?}"));
    let agent = Daemon::start(&workspace).await;
    assert_eq!((status(&agent, &member).await, status(&agent, "garbage").await), (200, 401));
    assert!(!agent.log().contains("without TLS"), "{}", agent.log());
}
