//! An agent with a secret and a certificate, both replaced while it runs.

use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::daemon::{Daemon, with_timeout};
use crate::workspace::{CommandOutput, Workspace};

const SECRET: &str = "0123456789abcdef0123";
const NEW_SECRET: &str = "3210fedcba9876543210";

/// Writes a certificate that is its own authority, and its key.
fn certify(workspace: &Workspace) {
    let key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name").self_signed(&key);
    std::fs::write(workspace.path("api.pem"), certificate.expect("a certificate").pem()).expect("written");
    std::fs::write(workspace.path("api.key"), key.serialize_pem()).expect("written");
}

/// Lists the targets over TLS, with a token of this content and this authority.
async fn list(workspace: &Workspace, agent: &Daemon, token: &str, bundle: &str) -> CommandOutput {
    std::fs::write(workspace.path("client.token"), token).expect("written");
    let api = format!("https://localhost:{}", agent.address().port());
    let mut command = workspace.command(&["--api", &api, "--token-file", "client.token", "--ca-bundle", bundle]);
    CommandOutput::of(command.args(["target", "list", "--json"])).await
}

fn protected() -> Workspace {
    let workspace = Workspace::new();
    certify(&workspace);
    std::fs::write(workspace.path("api.token"), SECRET).expect("written");
    workspace.configure(&format!(
        "[api]\nauth = \"token\"\n[api.token]\nfile = {:?}\n[api.tls]\ncertificate = {:?}\nkey = {:?}",
        workspace.path("api.token"),
        workspace.path("api.pem"),
        workspace.path("api.key"),
    ));
    workspace
}

#[tokio::test]
async fn sighup_replaces_secret_and_certificate_and_ignores_bad_ones() {
    let workspace = protected();
    std::fs::copy(workspace.path("api.pem"), workspace.path("old.pem")).expect("copied");
    let agent = Daemon::start(&workspace).await;
    agent.wait_for_log("others may read").await;
    assert_eq!(list(&workspace, &agent, SECRET, "api.pem").await.code, 0);
    let refused = list(&workspace, &agent, NEW_SECRET, "api.pem").await;
    assert!(refused.code == 3 && refused.stderr.contains("[api.token] file"), "{refused:?}");
    assert_eq!(workspace.run(&["target", "list"]).await.code, 0, "the socket needs no token");

    std::fs::write(workspace.path("api.key"), "no key").expect("written");
    std::fs::write(workspace.path("api.token"), "short").expect("written");
    agent.signal(Signal::SIGHUP);
    agent.wait_for_log("cannot reload authentication").await;
    agent.wait_for_log("cannot reload [api.tls]").await;
    assert_eq!(list(&workspace, &agent, SECRET, "old.pem").await.code, 0, "the old ones stay");

    certify(&workspace);
    std::fs::write(workspace.path("api.token"), NEW_SECRET).expect("written");
    agent.signal(Signal::SIGHUP);
    agent.wait_for_log("configuration reloaded").await;
    crate::daemon::eventually("the new files in force", async || {
        (list(&workspace, &agent, NEW_SECRET, "api.pem").await.code == 0).then_some(())
    })
    .await;
    let untrusted = list(&workspace, &agent, NEW_SECRET, "old.pem").await;
    assert!(untrusted.code == 3 && untrusted.stderr.contains("--ca-bundle"), "{untrusted:?}");
    assert_eq!(list(&workspace, &agent, SECRET, "api.pem").await.code, 3, "the old secret is over");
    let log = agent.log();
    assert!(!log.contains(SECRET) && !log.contains(NEW_SECRET), "a secret is in the log");
}

/// Group and user of whom the socket is for, and nobody's.
const MEMBERS: u32 = 34;
const NOBODY: u32 = 65534;

#[tokio::test]
async fn socket_is_for_its_group_and_refusal_names_the_group() {
    use std::os::unix::fs::PermissionsExt as _;
    let workspace = Workspace::new();
    std::fs::set_permissions(&*workspace.directory(), std::fs::Permissions::from_mode(0o755)).expect("open to all");
    if !nix::unistd::geteuid().is_root() {
        println!("not shown that others than the agent's user may: this is not root");
        workspace.configure(&format!("[api]\nsocket_group = {:?}", nix::unistd::getegid().to_string()));
        let _agent = Daemon::start(&workspace).await;
        assert_eq!(workspace.run(&["target", "list"]).await.code, 0);
        return;
    }
    workspace.configure(&format!("[api]\nsocket_group = {:?}", MEMBERS.to_string()));
    let _agent = Daemon::start(&workspace).await;
    // Others may not come near the build's directory.
    let program = workspace.path("targetwatch");
    std::fs::copy(crate::workspace::BINARY, &program).expect("copied");
    let list = async |group: u32| {
        let mut command = tokio::process::Command::new(&program);
        command
            .args(["--api", &workspace.socket(), "target", "list"])
            .env_clear()
            .current_dir("/")
            .uid(NOBODY)
            .gid(group);
        with_timeout("the list", command.output()).await.expect("run")
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
async fn pipes_instead_of_files_block_neither_reload_nor_stop() {
    let workspace = protected();
    let mut agent = Daemon::start(&workspace).await;
    for file in ["api.token", "api.key", "config.toml"] {
        std::fs::remove_file(workspace.path(file)).expect("removed");
        nix::unistd::mkfifo(&workspace.path(file), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    }
    let since = std::time::Instant::now();
    agent.signal(Signal::SIGHUP);
    assert!(agent.wait_for_log("cannot reload authentication").await.contains("not a regular file"));
    assert!(agent.wait_for_log("cannot reload [api.tls]").await.contains("not a regular file"));
    assert!(agent.wait_for_log("cannot reload the configuration").await.contains("not a regular file"));
    assert!(since.elapsed() < std::time::Duration::from_secs(4), "{:?}", since.elapsed());
    assert!(agent.end(Signal::SIGTERM).await.0.success());
}

#[tokio::test]
async fn warns_of_plaintext_keystone_and_writable_secrets() {
    use std::os::unix::fs::PermissionsExt as _;
    let workspace = Workspace::new();
    std::fs::write(workspace.path("password"), "s3cret").expect("written");
    let keystone = |host: &str| {
        format!(
            "[api]\nauth = \"keystone\"\n[api.keystone]\nurl = \"http://{host}:5000\"\nusername = \"t\"\npassword_file = {:?}",
            workspace.path("password"),
        )
    };
    for (host, is_told) in [("192.0.2.1", true), ("keystone.example", true), ("localhost", false), ("[::1]", false)] {
        workspace.configure(&keystone(host));
        let agent = Daemon::start(&workspace).await;
        assert_eq!(agent.log().contains("is used without TLS"), is_told, "{host}: {}", agent.log());
    }
    for (mode, is_refused) in [(0o620, true), (0o602, true), (0o644, false)] {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(workspace.path("password"), mode.clone()).expect("set");
        if is_refused {
            let said = Daemon::fails_to_start(&workspace).await;
            assert!(said.contains("others may change") && said.contains("chmod 0600"), "{mode:?}: {said}");
        } else {
            Daemon::start(&workspace).await.wait_for_log("others may read").await;
        }
    }
}

#[tokio::test]
async fn start_fails_when_security_files_are_unusable() {
    for (file, content, expected) in [
        ("api.token", "short", "[api.token] file"),
        ("api.pem", "nothing", "holds no certificate"),
        ("api.key", "nothing", "holds no private key"),
    ] {
        let workspace = protected();
        std::fs::write(workspace.path(file), content).expect("written");
        let said = Daemon::fails_to_start(&workspace).await;
        assert!(said.contains(expected) && said.contains(file), "{said}");
    }
}

#[tokio::test]
async fn clients_without_required_certificate_get_no_answer() {
    let workspace = protected();
    let mut params = CertificateParams::new(Vec::<String>::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let client = CertificateParams::new(vec!["client".to_owned()]).expect("a name").signed_by(&key, &authority);
    std::fs::write(workspace.path("clients.pem"), authority.pem()).expect("written");
    std::fs::write(workspace.path("client.pem"), client.expect("a certificate").pem()).expect("written");
    std::fs::write(workspace.path("client.key"), key.serialize_pem()).expect("written");
    std::fs::write(workspace.path("client.token"), SECRET).expect("written");
    let clients = workspace.path("clients.pem");
    workspace.configure(&format!("[api.tls]\nclient_ca = {clients:?}\nrequire_client_certificate = true"));
    let agent = Daemon::start(&workspace).await;
    let api = format!("https://localhost:{}", agent.address().port());
    let common = ["--api", &api, "--token-file", "client.token", "--ca-bundle", "api.pem"];
    let shown = ["--client-certificate", "client.pem", "--client-key", "client.key"];
    let list = ["target", "list", "--json"];

    let output = workspace.run(&[&common[..], &shown, &list].concat()).await;
    assert_eq!(output.code, 0, "{output:?}");
    let output = workspace.run(&[&common[..], &list].concat()).await;
    assert_eq!(output.code, 3, "{output:?}");
    assert!(output.stderr.to_lowercase().contains("certificate"), "{output:?}");
}
