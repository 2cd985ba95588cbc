//! Invalid TLS certificates in front of the gateway. The agent distinguishes an unknown authority, a wrong name and
//! a wrong time, because they have different remedies.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::daemon::Daemon;
use crate::gateway::{Gateway, target};
use crate::report::missing_words;
use crate::report::{assert_healthy, assert_offline};

/// A certificate authority.
struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// Starts a TLS proxy in front of a plain endpoint, with a certificate for this name and these years. Returns its
    /// endpoint.
    async fn tls_proxy(&self, gateway: &str, name: &str, years: (i32, i32)) -> String {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        (params.not_before, params.not_after) = (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
            )
            .expect("a usable certificate");
        let (acceptor, gateway) = (TlsAcceptor::from(Arc::new(config)), gateway.replace("http://", ""));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (acceptor, gateway) = (acceptor.clone(), gateway.clone());
                tokio::spawn(async move {
                    let mut client = acceptor.accept(client).await?;
                    let mut service = TcpStream::connect(gateway).await?;
                    copy_bidirectional(&mut client, &mut service).await
                });
            }
        });
        format!("https://localhost:{port}")
    }
}

#[tokio::test]
async fn tls_reason_for_unknown_ca_wrong_name_and_expiry() {
    let gateway = Gateway::shared().await;
    let (ours, other) = (Authority::new(), Authority::new());
    let trusted = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(&trusted, ours.certificate.pem()).expect("written");
    let workspace = gateway.workspace_with(&format!("ca_bundle = \"{}\"", trusted.path().display()));
    let daemon = Daemon::start(&workspace).await;
    let bucket = gateway.bucket().await;
    let valid_now = (2000, 4000);

    let good = ours.tls_proxy(&gateway.endpoint, "localhost", valid_now).await;
    let id = daemon.create(target(&good, &bucket)).await;
    assert_healthy(&daemon.check(&id).await);

    let mut wrong = Vec::new();
    for (what, endpoint, words) in [
        (
            "an unknown authority",
            other.tls_proxy(&gateway.endpoint, "localhost", valid_now).await,
            &["issued by an authority that is not trusted", "set ca_bundle", "[[s3.credentials]]"][..],
        ),
        (
            "a wrong name",
            ours.tls_proxy(&gateway.endpoint, "ceph.example.com", valid_now).await,
            &["is not for localhost, but for ceph.example.com", "ca_bundle does not help"],
        ),
        (
            "an expired certificate",
            ours.tls_proxy(&gateway.endpoint, "localhost", (2000, 2001)).await,
            &["expired at 2001-01-01T00:00:00Z", "renew the certificate"],
        ),
        (
            "a certificate that is not valid yet",
            ours.tls_proxy(&gateway.endpoint, "localhost", (3000, 4000)).await,
            &["not valid before 3000-01-01T00:00:00Z", "this host's clock"],
        ),
    ] {
        let id = daemon.create(target(&endpoint, &bucket)).await;
        let message = assert_offline(&daemon.check(&id).await, "tls_failed");
        wrong.extend(missing_words(what, &message, words.iter().copied().chain([&*bucket])));
        let output = workspace.check_s3(&endpoint, &bucket, &[]).await;
        assert_eq!(output.code, 2, "{output:?}");
        assert!(output.stdout.contains("tls_failed"), "{output:?}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
