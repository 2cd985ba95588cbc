//! Secrets that systemd passes to the unit (`LoadCredential=`): the agent uses them and never shows them, and a restart
//! changes them.
//!
//! The S3 service of these tests verifies signatures, so a bucket is available only with the right secret.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use tokio::runtime::Runtime;

use crate::api::{Target, get, wait_until_answering};
use crate::machine::{
    EXPORT, FIRST_VERDICT, Machine, SERVICE, change_unit, main_pid, output, run, systemctl, unit_property,
};
use crate::process::mount_namespace;
use crate::support::s3_server::{BucketFixture, S3Fixture, S3Server};

const BUCKET: &str = "backups";
const ACCESS_KEY_ID: &str = "AKIATHELABSOWNUSER";
const SECRET: &str = "theLabsSecretWithAnUnmistakableText";
const NEXT_SECRET: &str = "theLabsNextSecretWithAnUnmistakableText";

/// The files of the example in docs/configuration.md.
const ID_FILE: &str = "/etc/targetwatch/ceph.id";
const SECRET_FILE: &str = "/etc/targetwatch/ceph.secret";

/// Unit settings from docs/configuration.md, and the most verbose log.
const WITH_CREDENTIALS: &str = "[Service]\nEnvironment=TARGETWATCH_LOG=trace\n\
    LoadCredential=ceph.id:/etc/targetwatch/ceph.id\nLoadCredential=ceph.secret:/etc/targetwatch/ceph.secret\n";
/// The same without the credentials.
const WITHOUT_CREDENTIALS: &str = "[Service]\nEnvironment=TARGETWATCH_LOG=trace\n";

/// The configuration that names these credentials.
const CONFIG_WITH_CREDENTIALS: &str = r#"
[probe]
nfs_interval = "1s"
s3_interval = "1s"

[[s3.credentials]]
location = "127.0.0.1:*"
access_key_id_file = "credential:ceph.id"
secret_access_key_file = "credential:ceph.secret"
"#;

/// A configuration without credentials. The AWS default chain finds them in the environment.
const CONFIG_WITH_DEFAULT_CHAIN: &str = r#"
[probe]
s3_interval = "1s"
"#;

/// An S3 service with one user and one bucket.
struct Service {
    runtime: Runtime,
    server: Option<S3Server>,
}

impl Service {
    fn start() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let server = runtime.block_on(S3Server::start(fixture(SECRET))).expect("a server");
        Self { runtime, server: Some(server) }
    }

    fn server(&self) -> &S3Server {
        self.server.as_ref().expect("a running server")
    }

    fn target(&self) -> Target {
        Target::create_bucket(&self.server().endpoint(), BUCKET)
    }

    /// Changes the secret of the user, by a restart with another one.
    fn change_secret(&mut self, secret: &str) {
        let port = self.server().port();
        let server = self.server.take().expect("a running server");
        self.runtime.block_on(server.stop());
        self.server = Some(self.runtime.block_on(S3Server::start_on(port, fixture(secret))).expect("a server"));
    }
}

fn fixture(secret: &str) -> S3Fixture {
    let buckets = vec![BucketFixture { name: BUCKET.to_owned(), ..BucketFixture::default() }];
    S3Fixture { access_key_id: ACCESS_KEY_ID.to_owned(), secret_access_key: secret.to_owned(), buckets }
}

/// Writes a file that only root may read.
fn write(path: &str, text: &str) {
    let _ = fs::remove_file(path);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    writeln!(file.expect("created"), "{text}").expect("written");
}

fn write_credentials() {
    write(ID_FILE, ACCESS_KEY_ID);
    write(SECRET_FILE, SECRET);
}

/// All visible texts of the agent with their sources: journal, process, unit and answers.
fn visible_texts(target: &Target) -> Vec<(String, String)> {
    let read = |name: &str| {
        let bytes = fs::read(format!("/proc/{}/{name}", main_pid())).expect("read");
        (name.to_owned(), String::from_utf8_lossy(&bytes).into_owned())
    };
    let id = &target.id;
    let paths = ["/backup_targets/detail", "/node", &format!("/backup_targets/{id}/checks")].map(str::to_owned);
    let paths = paths.into_iter().chain([format!("/backup_targets/{id}/history"), "/openapi.json".to_owned()]);
    let mut texts: Vec<_> = paths.map(|path| (path.clone(), get(&path).to_string())).collect();
    texts.extend(["cmdline", "environ"].map(read));
    texts.push(("the unit".to_owned(), output("systemctl", &["show", SERVICE])));
    texts.push(("the journal".to_owned(), output("journalctl", &["--no-pager", "--all", "--output=export"])));
    texts
}

#[test]
fn systemd_credentials_are_used_and_appear_nowhere() {
    let _machine = Machine::stopped(CONFIG_WITH_CREDENTIALS);
    let service = Service::start();
    write_credentials();
    change_unit(WITH_CREDENTIALS);
    systemctl("start", SERVICE);
    let target = service.target();
    target.wait_until_available(FIRST_VERDICT);
    let report = target.check();
    assert_eq!((report.get("reason").as_str(), report.outcome("write_canary")), (None, "passed"), "{report:?}");

    // The unit still shares the mount namespace of the host.
    assert_eq!(mount_namespace(main_pid()), mount_namespace(1));
    // A command of root, without the agent, finds the credentials too.
    let url = format!("{}/{BUCKET}", service.server().endpoint());
    let checked = run("targetwatch", &["check", "s3", &url]);
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");

    let mut texts = visible_texts(&target);
    texts.push(("the command".to_owned(), format!("{checked:?}")));
    let journal = &texts.iter().find(|(source, _)| source == "the journal").expect("the journal").1;
    assert!(journal.contains("TRACE") && journal.contains(BUCKET), "the journal has no trace of probes");
    for (source, text) in texts {
        assert!(!text.contains(SECRET), "the secret is in {source}");
    }
}

#[test]
fn systemd_credentials_change_with_a_restart() {
    let _machine = Machine::stopped(CONFIG_WITH_CREDENTIALS);
    let mut service = Service::start();
    write_credentials();
    change_unit(WITH_CREDENTIALS);
    systemctl("start", SERVICE);
    let target = service.target();
    target.wait_until_available(FIRST_VERDICT);

    service.change_secret(NEXT_SECRET);
    target.wait_until_offline(&["wrong_secret"], FIRST_VERDICT);
    // The unit has a copy from its start, which systemd does not renew at a reload.
    write(SECRET_FILE, NEXT_SECRET);
    systemctl("reload", SERVICE);
    target.wait_for_probes(2, FIRST_VERDICT);
    assert_eq!(target.report().reasons(), ["wrong_secret"]);
    systemctl("restart", SERVICE);
    target.wait_until_available(FIRST_VERDICT);
    for (source, text) in visible_texts(&target) {
        assert!(!text.contains(SECRET) && !text.contains(NEXT_SECRET), "a secret is in {source}");
    }
}

#[test]
fn missing_systemd_credentials_are_reported_and_agent_runs() {
    let _machine = Machine::stopped(CONFIG_WITH_CREDENTIALS);
    let service = Service::start();
    write_credentials();
    change_unit(WITH_CREDENTIALS);
    systemctl("start", SERVICE);
    let target = service.target();
    target.wait_until_available(FIRST_VERDICT);

    change_unit(WITHOUT_CREDENTIALS);
    systemctl("restart", SERVICE);
    target.wait_until_offline(&["no_credentials"], FIRST_VERDICT);
    let report = target.report();
    assert!(report.message().contains("/run/credentials/targetwatch.service/ceph.id"), "{report:?}");
    // Targets without these credentials are not affected.
    Target::create_available(EXPORT);

    // Without the file, systemd does not start the unit. It retries until the file exists.
    fs::remove_file(SECRET_FILE).expect("removed");
    change_unit(WITH_CREDENTIALS);
    assert!(!run("systemctl", &["restart", SERVICE]).status.success());
    assert_eq!(unit_property("ExecMainStatus"), "243", "EXIT_CREDENTIALS of systemd.exec(5)");
    write(SECRET_FILE, SECRET);
    wait_until_answering(FIRST_VERDICT);
    target.wait_until_available(FIRST_VERDICT);
}

#[test]
fn environment_file_keys_change_with_a_restart() {
    const FILE: &str = "/etc/targetwatch/environment";
    let _machine = Machine::stopped(CONFIG_WITH_DEFAULT_CHAIN);
    let mut service = Service::start();
    let environment = |secret| format!("AWS_ACCESS_KEY_ID={ACCESS_KEY_ID}\nAWS_SECRET_ACCESS_KEY={secret}");
    write(FILE, &environment(SECRET));
    change_unit(&format!("[Service]\nEnvironmentFile={FILE}\n"));
    systemctl("start", SERVICE);
    let target = service.target();
    target.wait_until_available(FIRST_VERDICT);

    service.change_secret(NEXT_SECRET);
    write(FILE, &environment(NEXT_SECRET));
    systemctl("reload", SERVICE);
    target.wait_until_offline(&["wrong_secret"], FIRST_VERDICT);
    systemctl("restart", SERVICE);
    target.wait_until_available(FIRST_VERDICT);
}
