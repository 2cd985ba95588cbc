//! An agent with a secret and a certificate, both replaced while it runs.

use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

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

/// Group and user of whom the socket is for, and nobody's.
const MEMBERS: u32 = 34;
const NOBODY: u32 = 65534;

#[tokio::test]
async fn members_of_the_sockets_group_use_it_and_others_are_told_which() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    std::fs::set_permissions(&*place.directory(), std::fs::Permissions::from_mode(0o755)).expect("open to all");
    if !nix::unistd::geteuid().is_root() {
        println!("not shown that others than the agent's user may: this is not root");
        place.configure(&format!("[api]\nsocket_group = {:?}", nix::unistd::getegid().to_string()));
        let _agent = Daemon::start(&place).await;
        assert_eq!(place.run(&["target", "list"]).await.code, 0);
        return;
    }
    place.configure(&format!("[api]\nsocket_group = {:?}", MEMBERS.to_string()));
    let _agent = Daemon::start(&place).await;
    // Others may not come near the build's directory.
    let program = place.path("targetwatch");
    std::fs::copy(crate::place::BINARY, &program).expect("copied");
    let list = async |group: u32| {
        let mut command = tokio::process::Command::new(&program);
        command.args(["--api", &place.socket(), "target", "list"]).env_clear().current_dir("/").uid(NOBODY).gid(group);
        in_time("the list", command.output()).await.expect("run")
    };
    let member = list(MEMBERS).await;
    assert!(member.status.success(), "{member:?}");
    let other = list(NOBODY).await;
    let said = String::from_utf8(other.stderr).expect("text");
    let named = std::fs::read_to_string("/etc/group").expect("groups");
    let named = named.lines().find(|line| line.split(':').nth(2) == Some("34")).and_then(|line| line.split(':').next());
    let expected = format!("join the group {}", named.unwrap_or("34"));
    assert!(other.status.code() == Some(3) && said.contains(&expected), "{said}");
}

#[tokio::test]
async fn pipes_for_files_hold_up_neither_a_reload_nor_the_end() {
    let place = protected();
    let mut agent = Daemon::start(&place).await;
    for file in ["api.token", "api.key", "config.toml"] {
        std::fs::remove_file(place.path(file)).expect("removed");
        nix::unistd::mkfifo(&place.path(file), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    }
    let since = std::time::Instant::now();
    agent.signal(Signal::SIGHUP);
    assert!(agent.logged("authentication was not changed").await.contains("no regular file"));
    assert!(agent.logged("TLS was not changed").await.contains("no regular file"));
    assert!(agent.logged("the configuration was not changed").await.contains("not a regular file"));
    assert!(since.elapsed() < std::time::Duration::from_secs(4), "{:?}", since.elapsed());
    assert!(agent.end(Signal::SIGTERM).await.0.success());
}

#[tokio::test]
async fn a_keystone_in_plain_text_and_secrets_that_others_may_change_are_told() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    std::fs::write(place.path("password"), "s3cret").expect("written");
    let keystone = |host: &str| {
        format!(
            "[api]\nauth = \"keystone\"\n[api.keystone]\nurl = \"http://{host}:5000\"\nusername = \"t\"\npassword_file = {:?}",
            place.path("password"),
        )
    };
    for (host, is_told) in [("192.0.2.1", true), ("keystone.example", true), ("localhost", false), ("[::1]", false)] {
        place.configure(&keystone(host));
        let agent = Daemon::start(&place).await;
        assert_eq!(agent.log().contains("Keystone is asked without TLS"), is_told, "{host}: {}", agent.log());
    }
    for (mode, is_refused) in [(0o620, true), (0o602, true), (0o644, false)] {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(place.path("password"), mode.clone()).expect("set");
        if is_refused {
            let said = Daemon::refuses_to_start(&place).await;
            assert!(said.contains("others may change") && said.contains("chmod 0600"), "{mode:?}: {said}");
        } else {
            Daemon::start(&place).await.logged("others may read").await;
        }
    }
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

#[tokio::test]
async fn with_required_certificates_nobody_else_is_answered() {
    let place = protected();
    let mut params = CertificateParams::new(Vec::<String>::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let client = CertificateParams::new(vec!["client".to_owned()]).expect("a name").signed_by(&key, &authority);
    std::fs::write(place.path("clients.pem"), authority.pem()).expect("written");
    std::fs::write(place.path("client.pem"), client.expect("a certificate").pem()).expect("written");
    std::fs::write(place.path("client.key"), key.serialize_pem()).expect("written");
    std::fs::write(place.path("client.token"), SECRET).expect("written");
    let clients = place.path("clients.pem");
    place.configure(&format!("[api.tls]\nclient_ca = {clients:?}\nrequire_client_certificate = true"));
    let agent = Daemon::start(&place).await;
    let api = format!("https://localhost:{}", agent.address().port());
    let common = ["--api", &api, "--token-file", "client.token", "--ca-bundle", "api.pem"];
    let shown = ["--client-certificate", "client.pem", "--client-key", "client.key"];
    let list = ["target", "list", "--json"];

    let told = place.run(&[&common[..], &shown, &list].concat()).await;
    assert_eq!(told.code, 0, "{told:?}");
    let told = place.run(&[&common[..], &list].concat()).await;
    assert_eq!(told.code, 3, "{told:?}");
    assert!(told.err.to_lowercase().contains("certificate"), "{told:?}");
}
