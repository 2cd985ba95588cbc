//! Secrets that systemd passes to the unit (`LoadCredential=`): they are used, they are nowhere to be
//! seen, and what is needed to change them.
//!
//! The service verifies signatures, so a bucket is available only to who has the secret.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use tokio::runtime::Runtime;

use crate::api::{Target, get, request};
use crate::machine::{FIRST_VERDICT, Machine, SERVICE, change_unit, eventually, main_pid, output, run, succeed};
use crate::support::s3_server::{BucketFixture, S3Fixture, S3Server};

const BUCKET: &str = "backups";
const ACCESS_KEY_ID: &str = "AKIATHELABSOWNUSER";
const SECRET: &str = "theLabsSecretWithAnUnmistakableText";
const NEXT_SECRET: &str = "theLabsNextSecretWithAnUnmistakableText";

/// The files, as docs/configuration.md has them.
const ID_FILE: &str = "/etc/targetwatch/ceph.id";
const SECRET_FILE: &str = "/etc/targetwatch/ceph.secret";

/// Unit settings from docs/configuration.md, and the most verbose log.
const PASSED: &str = "[Service]\nEnvironment=TARGETWATCH_LOG=trace\n\
    LoadCredential=ceph.id:/etc/targetwatch/ceph.id\nLoadCredential=ceph.secret:/etc/targetwatch/ceph.secret\n";
const NOT_PASSED: &str = "[Service]\nEnvironment=TARGETWATCH_LOG=trace\n";

/// The configuration that names them.
const NAMED: &str = r#"
[probe]
nfs_interval = "1s"
s3_interval = "1s"

[[s3.credentials]]
location = "127.0.0.1:*"
access_key_id_file = "credential:ceph.id"
secret_access_key_file = "credential:ceph.secret"
"#;

/// The same of a user whose key is in the environment, where the AWS default chain finds it.
const CHAIN: &str = r#"
[probe]
s3_interval = "1s"
"#;

/// A service with one user and one bucket. It may be told to know another secret from now on.
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
        self.server.as_ref().expect("it runs")
    }

    fn target(&self) -> Target {
        Target::create_bucket(&self.server().endpoint(), BUCKET)
    }

    /// Has the user's secret changed, as its administrator would.
    fn change_secret(&mut self, secret: &str) {
        let port = self.server().port();
        let server = self.server.take().expect("it runs");
        self.runtime.block_on(server.stop());
        self.server = Some(self.runtime.block_on(S3Server::start_on(port, fixture(secret))).expect("a server"));
    }
}

fn fixture(secret: &str) -> S3Fixture {
    let buckets = vec![BucketFixture { name: BUCKET.to_owned(), ..BucketFixture::default() }];
    S3Fixture { access_key_id: ACCESS_KEY_ID.to_owned(), secret_access_key: secret.to_owned(), buckets }
}

/// Writes a file that root alone may read.
fn write(path: &str, text: &str) {
    let _ = fs::remove_file(path);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    writeln!(file.expect("made"), "{text}").expect("written");
}

fn write_credentials() {
    write(ID_FILE, ACCESS_KEY_ID);
    write(SECRET_FILE, SECRET);
}

/// All that is to be seen of the agent: its journal, its process, its unit, and its answers.
fn all_that_is_said(target: &Target) -> Vec<(String, String)> {
    let read = |name: &str| {
        let bytes = fs::read(format!("/proc/{}/{name}", main_pid())).expect("read");
        (name.to_owned(), String::from_utf8_lossy(&bytes).into_owned())
    };
    let id = &target.id;
    let paths = ["/backup_targets/detail", "/node", &format!("/backup_targets/{id}/checks")].map(str::to_owned);
    let paths = paths.into_iter().chain([format!("/backup_targets/{id}/history"), "/openapi.json".to_owned()]);
    let mut said: Vec<_> = paths.map(|path| (path.clone(), get(&path).to_string())).collect();
    said.extend(["cmdline", "environ"].map(read));
    said.push(("the unit".to_owned(), output("systemctl", &["show", SERVICE])));
    said.push(("the journal".to_owned(), output("journalctl", &["--no-pager", "--all", "--output=export"])));
    said
}

#[test]
fn systemd_credentials_are_used_and_appear_nowhere() {
    let _machine = Machine::stopped(NAMED);
    let service = Service::start();
    write_credentials();
    change_unit(PASSED);
    succeed("systemctl", &["start", SERVICE]);
    let target = service.target();
    target.wait_until_available(FIRST_VERDICT);
    let report = target.check();
    assert_eq!((report.get("reason").as_str(), report.outcome("write_canary")), (None, "passed"), "{report:?}");

    // What it mounts is still the whole host's.
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).expect("a namespace");
    assert_eq!(namespace(&main_pid().to_string()), namespace("1"));
    // A command beside the agent finds them too, when root gives it.
    let url = format!("{}/{BUCKET}", service.server().endpoint());
    let told = run("targetwatch", &["check", "s3", &url]);
    assert_eq!(told.status.code(), Some(0), "{told:?}");

    let mut said = all_that_is_said(&target);
    said.push(("the command".to_owned(), format!("{told:?}")));
    let journal = &said.iter().find(|(place, _)| place == "the journal").expect("there").1;
    assert!(journal.contains("TRACE") && journal.contains(BUCKET), "it has nothing of the probes");
    for (place, text) in said {
        assert!(!text.contains(SECRET), "the secret is in {place}");
    }
}

#[test]
fn systemd_credentials_change_with_a_restart() {
    let _machine = Machine::stopped(NAMED);
    let mut service = Service::start();
    write_credentials();
    change_unit(PASSED);
    succeed("systemctl", &["start", SERVICE]);
    let target = service.target();
    target.wait_until_available(FIRST_VERDICT);

    service.change_secret(NEXT_SECRET);
    target.wait_until_offline(&["wrong_secret"], FIRST_VERDICT);
    // What the unit has is a copy from its start, which systemd does not renew at a reload either.
    write(SECRET_FILE, NEXT_SECRET);
    succeed("systemctl", &["reload", SERVICE]);
    target.wait_for_probes(2, FIRST_VERDICT);
    assert_eq!(target.report().reasons(), ["wrong_secret"]);
    succeed("systemctl", &["restart", SERVICE]);
    target.wait_until_available(FIRST_VERDICT);
    for (place, text) in all_that_is_said(&target) {
        assert!(!text.contains(SECRET) && !text.contains(NEXT_SECRET), "a secret is in {place}");
    }
}

#[test]
fn missing_systemd_credentials_are_reported_and_agent_runs() {
    let _machine = Machine::stopped(NAMED);
    let service = Service::start();
    write_credentials();
    change_unit(PASSED);
    succeed("systemctl", &["start", SERVICE]);
    let target = service.target();
    target.wait_until_available(FIRST_VERDICT);

    change_unit(NOT_PASSED);
    succeed("systemctl", &["restart", SERVICE]);
    target.wait_until_offline(&["no_credentials"], FIRST_VERDICT);
    let report = target.report();
    let message = report.get("message").as_str().expect("a sentence");
    assert!(message.contains("/run/credentials/targetwatch.service/ceph.id"), "{message}");
    // Other targets have theirs.
    Target::create_available("10.0.0.1:/srv/exports/one");

    // A file that is not there is told by systemd, which starts the unit when it is.
    fs::remove_file(SECRET_FILE).expect("removed");
    change_unit(PASSED);
    assert!(!run("systemctl", &["restart", SERVICE]).status.success());
    let status = output("systemctl", &["show", "--property=ExecMainStatus", "--value", SERVICE]);
    assert_eq!(status.trim(), "243", "EXIT_CREDENTIALS of systemd.exec(5)");
    write(SECRET_FILE, SECRET);
    eventually("started by itself", FIRST_VERDICT, || (request("GET", "/healthz", None).code == 200).then_some(()));
    target.wait_until_available(FIRST_VERDICT);
}

#[test]
fn environment_file_keys_change_with_a_restart() {
    const FILE: &str = "/etc/targetwatch/environment";
    let _machine = Machine::stopped(CHAIN);
    let mut service = Service::start();
    let environment = |secret| format!("AWS_ACCESS_KEY_ID={ACCESS_KEY_ID}\nAWS_SECRET_ACCESS_KEY={secret}");
    write(FILE, &environment(SECRET));
    change_unit(&format!("[Service]\nEnvironmentFile={FILE}\n"));
    succeed("systemctl", &["start", SERVICE]);
    let target = service.target();
    target.wait_until_available(FIRST_VERDICT);

    service.change_secret(NEXT_SECRET);
    write(FILE, &environment(NEXT_SECRET));
    succeed("systemctl", &["reload", SERVICE]);
    target.wait_until_offline(&["wrong_secret"], FIRST_VERDICT);
    succeed("systemctl", &["restart", SERVICE]);
    target.wait_until_available(FIRST_VERDICT);
}
