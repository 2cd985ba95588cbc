//! Protection of the API: a token, a certificate, the permissions of the socket, and client certificates.

use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::daemon::{Daemon, eventually, with_timeout};
use crate::workspace::{CommandOutput, Workspace, set_mode};

const SECRET: &str = "0123456789abcdef0123";
const NEW_SECRET: &str = "3210fedcba9876543210";

/// Writes a self-signed certificate and its key.
fn write_certificate(workspace: &Workspace) {
    let key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name").self_signed(&key);
    workspace.write("api.pem", certificate.expect("a certificate").pem());
    workspace.write("api.key", key.serialize_pem());
}

/// Lists the targets over TLS with this token and CA bundle.
async fn list(workspace: &Workspace, daemon: &Daemon, token: &str, bundle: &str) -> CommandOutput {
    workspace.write("client.token", token);
    let api = format!("https://localhost:{}", daemon.address().port());
    let mut command = workspace.command(&["--api", &api, "--token-file", "client.token", "--ca-bundle", bundle]);
    CommandOutput::of(command.args(["target", "list", "--json"])).await
}

/// A workspace whose API requires a token and uses TLS.
fn protected() -> Workspace {
    let workspace = Workspace::new();
    write_certificate(&workspace);
    workspace.write("api.token", SECRET);
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
    let daemon = Daemon::start(&workspace).await;
    daemon.wait_for_log("others may read").await;
    assert_eq!(list(&workspace, &daemon, SECRET, "api.pem").await.code, 0);
    let refused = list(&workspace, &daemon, NEW_SECRET, "api.pem").await;
    assert!(refused.code == 3 && refused.stderr.contains("[api.token] file"), "{refused:?}");
    assert_eq!(workspace.run(&["target", "list"]).await.code, 0, "the socket needs no token");

    workspace.write("api.key", "no key");
    workspace.write("api.token", "short");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("cannot reload the files of [api];").await;
    daemon.wait_for_log("cannot reload the files of [api.tls];").await;
    assert_eq!(list(&workspace, &daemon, SECRET, "old.pem").await.code, 0, "the old files stay in force");

    write_certificate(&workspace);
    workspace.write("api.token", NEW_SECRET);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("configuration reloaded").await;
    eventually("the new files in force", async || {
        (list(&workspace, &daemon, NEW_SECRET, "api.pem").await.code == 0).then_some(())
    })
    .await;
    let untrusted = list(&workspace, &daemon, NEW_SECRET, "old.pem").await;
    assert!(untrusted.code == 3 && untrusted.stderr.contains("--ca-bundle"), "{untrusted:?}");
    assert_eq!(list(&workspace, &daemon, SECRET, "api.pem").await.code, 3, "the old secret is invalid");
    let log = daemon.log();
    assert!(!log.contains(SECRET) && !log.contains(NEW_SECRET), "a secret is in the log");
}

/// The group that may use the socket.
const MEMBERS: u32 = 34;
/// A user and group without permissions.
const NOBODY: u32 = 65534;

#[tokio::test]
async fn socket_is_usable_by_its_group_and_refusal_names_the_group() {
    let workspace = Workspace::new();
    set_mode(workspace.directory().path(), 0o755);
    if !nix::unistd::geteuid().is_root() {
        println!("tested only with the agent's own user, because the test does not run as root");
        workspace.configure(&format!("[api]\nsocket_group = {:?}", nix::unistd::getegid().to_string()));
        let _daemon = Daemon::start(&workspace).await;
        assert_eq!(workspace.run(&["target", "list"]).await.code, 0);
        return;
    }
    workspace.configure(&format!("[api]\nsocket_group = {:?}", MEMBERS.to_string()));
    let _daemon = Daemon::start(&workspace).await;
    // Other users may not have access to the build directory.
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
    let stderr = String::from_utf8(other.stderr).expect("text");
    let groups = std::fs::read_to_string("/etc/group").expect("groups");
    let name = groups.lines().find(|line| line.split(':').nth(2) == Some("34")).and_then(|line| line.split(':').next());
    let expected = format!("join the group {}", name.unwrap_or("34"));
    assert!(other.status.code() == Some(3) && stderr.contains(&expected), "{stderr}");
}

#[tokio::test]
async fn fifos_in_place_of_files_block_neither_reload_nor_stop() {
    let workspace = protected();
    let mut daemon = Daemon::start(&workspace).await;
    for file in ["api.token", "api.key", "config.toml"] {
        std::fs::remove_file(workspace.path(file)).expect("removed");
        nix::unistd::mkfifo(&workspace.path(file), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    }
    let began = std::time::Instant::now();
    daemon.signal(Signal::SIGHUP);
    assert!(daemon.wait_for_log("cannot reload the files of [api];").await.contains("not a regular file"));
    assert!(daemon.wait_for_log("cannot reload the files of [api.tls];").await.contains("not a regular file"));
    assert!(daemon.wait_for_log("cannot reload the configuration").await.contains("not a regular file"));
    assert!(began.elapsed() < std::time::Duration::from_secs(4), "{:?}", began.elapsed());
    daemon.stop().await;
}

#[tokio::test]
async fn warning_when_keystone_has_no_tls_or_a_secret_is_exposed() {
    let workspace = Workspace::new();
    workspace.write("password", "s3cret");
    let keystone = |host: &str| {
        format!(
            "[api]\nauth = \"keystone\"\n[api.keystone]\nurl = \"http://{host}:5000\"\nusername = \"t\"\npassword_file = {:?}",
            workspace.path("password"),
        )
    };
    for (host, is_warned) in [("192.0.2.1", true), ("keystone.example", true), ("localhost", false), ("[::1]", false)] {
        workspace.configure(&keystone(host));
        let daemon = Daemon::start(&workspace).await;
        assert_eq!(daemon.log().contains("is used without TLS"), is_warned, "{host}: {}", daemon.log());
    }
    for (mode, is_refused) in [(0o620, true), (0o602, true), (0o644, false)] {
        set_mode(&workspace.path("password"), mode);
        if is_refused {
            let stderr = Daemon::fails_to_start(&workspace).await;
            assert!(stderr.contains("others may change") && stderr.contains("chmod 0600"), "{mode:o}: {stderr}");
        } else {
            Daemon::start(&workspace).await.wait_for_log("others may read").await;
        }
    }
}

#[tokio::test]
async fn reload_applies_keystone_settings_without_a_restart() {
    let workspace = Workspace::new();
    workspace.write("password", "s3cret");
    workspace.configure(&format!(
        "[api]\nauth = \"keystone\"\n[api.keystone]\nurl = \"http://127.0.0.1:1\"\nusername = \"t\"\npassword_file = {:?}",
        workspace.path("password"),
    ));
    let daemon = Daemon::start(&workspace).await;
    let challenge = async || daemon.request("GET", "/node", None).await.header("www-authenticate").to_owned();
    assert_eq!(challenge().await, "Keystone uri=\"http://127.0.0.1:1\"");
    workspace.configure("[api.keystone]\nurl = \"http://keystone.example:5000\"");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("configuration reloaded").await;
    assert_eq!(challenge().await, "Keystone uri=\"http://keystone.example:5000\"");
    assert!(daemon.log().contains("is used without TLS"), "{}", daemon.log());
    assert!(!daemon.log().contains("need a restart"), "{}", daemon.log());
}

#[tokio::test]
async fn start_fails_when_security_files_are_unusable() {
    for (file, content, expected) in [
        ("api.token", "short", "[api.token] file"),
        ("api.pem", "nothing", "contains no certificate"),
        ("api.key", "nothing", "contains no private key"),
    ] {
        let workspace = protected();
        std::fs::write(workspace.path(file), content).expect("written");
        let stderr = Daemon::fails_to_start(&workspace).await;
        assert!(stderr.contains(expected) && stderr.contains(file), "{stderr}");
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
    workspace.write("clients.pem", authority.pem());
    workspace.write("client.pem", client.expect("a certificate").pem());
    workspace.write("client.key", key.serialize_pem());
    workspace.write("client.token", SECRET);
    let clients = workspace.path("clients.pem");
    workspace.configure(&format!("[api.tls]\nclient_ca = {clients:?}\nrequire_client_certificate = true"));
    let daemon = Daemon::start(&workspace).await;
    let api = format!("https://localhost:{}", daemon.address().port());
    let common = ["--api", &api, "--token-file", "client.token", "--ca-bundle", "api.pem"];
    let certificate = ["--client-certificate", "client.pem", "--client-key", "client.key"];
    let list = ["target", "list", "--json"];

    let output = workspace.run(&[&common[..], &certificate, &list].concat()).await;
    assert_eq!(output.code, 0, "{output:?}");
    let output = workspace.run(&[&common[..], &list].concat()).await;
    assert_eq!(output.code, 3, "{output:?}");
    assert!(output.stderr.to_lowercase().contains("certificate"), "{output:?}");
}
