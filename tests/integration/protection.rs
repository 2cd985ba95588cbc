//! An agent with a secret and a certificate, both replaced while it runs.

use nix::sys::signal::Signal;
use rcgen::{CertificateParams, KeyPair};

use crate::daemon::{Daemon, in_time};
use crate::place::{Place, Told};

const SECRET: &str = "0123456789abcdef0123";
const NEW_SECRET: &str = "3210fedcba9876543210";

/// Writes a certificate that is its own authority, and its key.
fn certify(place: &Place) {
    let key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name").self_signed(&key);
    std::fs::write(place.path("api.pem"), certificate.expect("a certificate").pem()).expect("written");
    std::fs::write(place.path("api.key"), key.serialize_pem()).expect("written");
}

/// Lists the targets over TLS, with a token of this content and this authority.
async fn list(place: &Place, agent: &Daemon, token: &str, bundle: &str) -> Told {
    std::fs::write(place.path("client.token"), token).expect("written");
    let api = format!("https://localhost:{}", agent.address().port());
    let mut command = place.command(&["--api", &api, "--token-file", "client.token", "--ca-bundle", bundle]);
    let output = in_time("the list", command.args(["target", "list", "--json"]).output()).await.expect("run");
    Told {
        code: output.status.code().expect("an exit code"),
        out: String::from_utf8(output.stdout).expect("text"),
        err: String::from_utf8(output.stderr).expect("text"),
    }
}

fn protected() -> Place {
    let place = Place::new();
    certify(&place);
    std::fs::write(place.path("api.token"), SECRET).expect("written");
    place.configure(&format!(
        "[api]\nauth = \"token\"\n[api.token]\nfile = {:?}\n[api.tls]\ncertificate = {:?}\nkey = {:?}",
        place.path("api.token"),
        place.path("api.pem"),
        place.path("api.key"),
    ));
    place
}

#[tokio::test]
async fn secret_and_certificate_are_replaced_by_sighup_and_bad_ones_change_nothing() {
    let place = protected();
    std::fs::copy(place.path("api.pem"), place.path("old.pem")).expect("copied");
    let agent = Daemon::start(&place).await;
    agent.logged("others may read").await;
    assert_eq!(list(&place, &agent, SECRET, "api.pem").await.code, 0);
    let refused = list(&place, &agent, NEW_SECRET, "api.pem").await;
    assert!(refused.code == 3 && refused.err.contains("[api.token] file"), "{refused:?}");
    assert_eq!(place.run(&["target", "list"]).await.code, 0, "the socket needs no token");

    std::fs::write(place.path("api.key"), "no key").expect("written");
    std::fs::write(place.path("api.token"), "short").expect("written");
    agent.signal(Signal::SIGHUP);
    agent.logged("authentication was not changed").await;
    agent.logged("TLS was not changed").await;
    assert_eq!(list(&place, &agent, SECRET, "old.pem").await.code, 0, "the old ones stay");

    certify(&place);
    std::fs::write(place.path("api.token"), NEW_SECRET).expect("written");
    agent.signal(Signal::SIGHUP);
    agent.logged("the configuration was read again").await;
    crate::daemon::eventually("the new files in force", async || {
        (list(&place, &agent, NEW_SECRET, "api.pem").await.code == 0).then_some(())
    })
    .await;
    let untrusted = list(&place, &agent, NEW_SECRET, "old.pem").await;
    assert!(untrusted.code == 3 && untrusted.err.contains("--ca-bundle"), "{untrusted:?}");
    assert_eq!(list(&place, &agent, SECRET, "api.pem").await.code, 3, "the old secret is over");
    let log = agent.log();
    assert!(!log.contains(SECRET) && !log.contains(NEW_SECRET), "a secret is in the log");
}

#[tokio::test]
async fn files_that_cannot_be_used_stop_the_start() {
    for (file, content, expected) in [
        ("api.token", "short", "[api.token] file"),
        ("api.pem", "nothing", "holds no certificate"),
        ("api.key", "nothing", "holds no private key"),
    ] {
        let place = protected();
        std::fs::write(place.path(file), content).expect("written");
        let said = Daemon::refuses_to_start(&place).await;
        assert!(said.contains(expected) && said.contains(file), "{said}");
    }
}
