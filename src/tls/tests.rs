//! Tests of the certificates of server and clients, and of their replacement.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::TlsConnector;

use super::*;

fn in_days(days: u64) -> SystemTime {
    SystemTime::now() + Duration::from_secs(days * 24 * 3600)
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate"))
    }

    fn write(&self, path: &Path) {
        std::fs::write(path, self.0.pem()).expect("written");
    }

    /// Certificate and key of a name, in PEM.
    fn issue(&self, name: &str) -> (String, String) {
        self.issue_until(name, in_days(4000))
    }

    fn issue_until(&self, name: &str, end: SystemTime) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        params.not_after = end.into();
        (params.signed_by(&key, &self.0).expect("a certificate").pem(), key.serialize_pem())
    }
}

fn settings(directory: &Path) -> TlsSettings {
    TlsSettings {
        certificate: directory.join("api.pem"),
        key: directory.join("api.key"),
        client_ca: None,
        require_client_certificate: false,
    }
}

fn write(settings: &TlsSettings, (certificate, key): &(String, String)) {
    std::fs::write(&settings.certificate, certificate).expect("written");
    std::fs::write(&settings.key, key).expect("written");
}

/// Says "ok" over TLS, as a server does, and answers with what the client reads.
async fn greeting(server: &ServerTls, client: ClientConfig) -> std::io::Result<String> {
    let (ours, theirs): (DuplexStream, DuplexStream) = tokio::io::duplex(64 << 10);
    let acceptor = server.acceptor();
    let serving = tokio::spawn(async move {
        let mut stream = acceptor.accept(theirs).await?;
        stream.write_all(b"ok").await?;
        stream.shutdown().await
    });
    let name = ServerName::try_from("localhost").expect("a name");
    let mut text = String::new();
    let outcome = match TlsConnector::from(Arc::new(client)).connect(name, ours).await {
        Ok(mut stream) => stream.read_to_string(&mut text).await,
        Err(error) => Err(error),
    };
    let served = serving.await.expect("no panic");
    outcome.and(served).map(|()| text)
}

#[tokio::test]
async fn new_files_are_shown_after_a_reload_and_bad_ones_change_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let (old, new) = (Authority::new(), Authority::new());
    let settings = settings(directory.path());
    write(&settings, &old.issue("localhost"));
    let server = ServerTls::load(settings.clone()).await.expect("good files");
    let bundle = |name: &str| directory.path().join(name);
    old.write(&bundle("old.pem"));
    new.write(&bundle("new.pem"));
    let client = async |name: &str| client_config(Some(&bundle(name)), None).await.expect("a bundle");
    assert_eq!(greeting(&server, client("old.pem").await).await.expect("trusted"), "ok");
    assert!(greeting(&server, client("new.pem").await).await.is_err(), "an unknown authority was trusted");

    let (other_certificate, _) = new.issue("localhost");
    std::fs::write(&settings.certificate, other_certificate).expect("written");
    let error = server.reload().await.expect_err("another's key").to_string();
    assert!(error.contains("do not belong together") && error.contains("api.key"), "{error}");
    for (file, content) in [(&settings.certificate, "nothing"), (&settings.key, "nothing")] {
        write(&settings, &new.issue("localhost"));
        std::fs::write(file, content).expect("written");
        let error = server.reload().await.expect_err("no PEM").to_string();
        assert!(error.contains(&file.display().to_string()) && error.contains("PEM"), "{error}");
    }
    assert_eq!(greeting(&server, client("old.pem").await).await.expect("the old one stays"), "ok");

    write(&settings, &new.issue("localhost"));
    server.reload().await.expect("good files");
    assert_eq!(greeting(&server, client("new.pem").await).await.expect("the new one"), "ok");
}

#[tokio::test]
async fn clients_present_certificates_if_the_server_requires_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let (authority, stranger) = (Authority::new(), Authority::new());
    let bundle = directory.path().join("ca.pem");
    authority.write(&bundle);
    let settings = TlsSettings { client_ca: Some(bundle.clone()), ..settings(directory.path()) };
    write(&settings, &authority.issue("localhost"));
    let with = async |(certificate, key): (String, String)| {
        let (shown, private) = (directory.path().join("client.pem"), directory.path().join("client.key"));
        std::fs::write(&shown, certificate).expect("written");
        std::fs::write(&private, key).expect("written");
        client_config(Some(&bundle), Some((&shown, &private))).await.expect("a client")
    };
    let anonymous = async || client_config(Some(&bundle), None).await.expect("a bundle");
    for require in [false, true] {
        let settings = TlsSettings { require_client_certificate: require, ..settings.clone() };
        let server = ServerTls::load(settings).await.expect("good files");
        assert_eq!(greeting(&server, anonymous().await).await.is_ok(), !require, "required: {require}");
        assert!(greeting(&server, with(authority.issue("client")).await).await.is_ok(), "required: {require}");
        assert!(greeting(&server, with(stranger.issue("client")).await).await.is_err(), "required: {require}");
    }
}

#[tokio::test]
async fn certificate_warning_ends_when_its_replacement_is_loaded() {
    let directory = tempfile::tempdir().expect("a directory");
    let (authority, settings) = (Authority::new(), settings(directory.path()));
    let issue = |days: u64| {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        params.not_after = (SystemTime::now() + Duration::from_secs(3600 * (24 * days + 6))).into();
        (params.signed_by(&key, &authority.0).expect("a certificate").pem(), key.serialize_pem())
    };
    write(&settings, &issue(13));
    let server = ServerTls::load(settings.clone()).await.expect("good files");
    let now = Timestamp::now();
    let end = server.certificate_expires_at().expect("an end");
    assert_eq!(end.duration_since(now).as_hours() / 24, 13);
    let warning = server.expiry_warning(now).expect("a warning");
    assert!(warning.contains("api.pem") && warning.contains("expires at") && warning.contains("reload"), "{warning}");
    let warning = server.expiry_warning(end).expect("a warning");
    assert!(warning.contains("expired at"), "{warning}");
    write(&settings, &issue(15));
    server.reload().await.expect("good files");
    assert_eq!(server.expiry_warning(now), None);
}

#[tokio::test]
async fn latest_certificate_of_a_service_is_observed() {
    let directory = tempfile::tempdir().expect("a directory");
    let (authority, stranger) = (Authority::new(), Authority::new());
    let bundle = directory.path().join("ca.pem");
    authority.write(&bundle);
    let settings = settings(directory.path());
    write(&settings, &authority.issue_until("localhost", in_days(13)));
    let server = ServerTls::load(settings.clone()).await.expect("good files");
    let observed = ObservedCertificate::of("the service");
    observed.set_url("https://localhost");
    let client = observing_client_config(Some(&bundle), &observed).await.expect("a bundle");
    let (now, soon) = (Timestamp::now(), Timestamp::try_from(in_days(14)).expect("a time"));
    assert_eq!((observed.expires_at(), observed.expiry_warning(now)), (None, None));

    greeting(&server, client.clone()).await.expect("trusted");
    assert!(observed.expires_at().is_some_and(|end| now < end && end < soon), "{observed:?}");
    let warning = observed.expiry_warning(now).expect("a warning");
    assert!(
        warning.starts_with("the service at https://localhost presents") && warning.contains(" expires at "),
        "{warning}"
    );

    // The next connection sees the renewed certificate, because it does not resume a session.
    write(&settings, &authority.issue_until("localhost", in_days(400)));
    server.reload().await.expect("good files");
    greeting(&server, client.clone()).await.expect("trusted");
    let renewed = observed.expires_at();
    assert!(renewed > Some(soon) && observed.expiry_warning(now).is_none(), "{observed:?}");

    // A chain that is not accepted says nothing about the service.
    write(&settings, &stranger.issue_until("localhost", in_days(1)));
    server.reload().await.expect("good files");
    assert!(greeting(&server, client).await.is_err());
    assert_eq!(observed.expires_at(), renewed);
    observed.set_url("https://localhost");
    assert_eq!(observed.expires_at(), renewed);
    observed.set_url("https://other.example");
    assert_eq!(observed.expires_at(), None);
}

#[tokio::test]
async fn handshake_succeeds_only_with_a_valid_certificate_of_a_trusted_authority() {
    let directory = tempfile::tempdir().expect("a directory");
    let (authority, stranger) = (Authority::new(), Authority::new());
    let settings = settings(directory.path());
    write(&settings, &authority.issue("localhost"));
    let server = ServerTls::load(settings.clone()).await.expect("good files");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let bundle = authority.0.pem();
    let config = Arc::new(handshake_config(Some(bundle.as_bytes())).expect("a configuration"));
    let accepts = async |config: &Arc<ClientConfig>| {
        let stream = TcpStream::connect(address).await.expect("connected");
        let (serving, _) = listener.accept().await.expect("accepted");
        let (accepted, _) =
            tokio::join!(is_accepted(config.clone(), stream, "localhost"), server.acceptor().accept(serving));
        accepted
    };
    assert!(accepts(&config).await && accepts(&config).await);
    assert!(!accepts(&Arc::new(handshake_config(None).expect("a configuration"))).await, "an unknown authority");
    let past = SystemTime::now() - Duration::from_secs(3600);
    for certificate in [authority.issue_until("localhost", past), stranger.issue("localhost"), authority.issue("other")]
    {
        write(&settings, &certificate);
        server.reload().await.expect("good files");
        assert!(!accepts(&config).await, "no session was resumed");
    }
}
