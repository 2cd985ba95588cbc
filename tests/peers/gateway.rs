//! The running gateway, a client that prepares buckets in it, and the program that probes them.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Output};

use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    BucketVersioningStatus, DefaultRetention, ObjectLockConfiguration, ObjectLockEnabled, ObjectLockRetentionMode,
    ObjectLockRule, VersioningConfiguration,
};
use aws_sdk_s3::{Client, Config};
use serde_json::Value;
use uuid::Uuid;

/// Names the directory of the gateway that runs; set by `tests/peers/run`.
const DIRECTORY_VARIABLE: &str = "TARGETWATCH_TEST_CEPH_RGW";

/// The longest name that a bucket can have.
pub const LONG: &str = "a-bucket-whose-name-has-the-sixty-three-characters-that-are-max";

/// The object lock of a new bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// It has none.
    None,
    /// It has one, and new objects get no retention by themselves.
    NoDefault,
    /// New objects are retained for 30 days, in GOVERNANCE mode.
    DefaultRetention,
}

/// Who probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// The owner of the buckets.
    Owner,
    /// The owner's key with another secret.
    WrongSecret,
    /// A key that the service has never seen.
    UnknownKey,
    /// A user who is suspended.
    Suspended,
}

/// The running gateway.
pub struct Gateway {
    directory: String,
    facts: HashMap<String, String>,
    runtime: tokio::runtime::Runtime,
    client: Client,
}

impl Gateway {
    /// The gateway that `tests/peers/run` has started.
    pub fn running() -> Self {
        let directory = std::env::var(DIRECTORY_VARIABLE)
            .unwrap_or_else(|_| panic!("{DIRECTORY_VARIABLE} is not set: run these tests by tests/peers/run"));
        let text = std::fs::read_to_string(Path::new(&directory).join("env")).expect("a gateway that serves");
        let facts: HashMap<String, String> = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("us-east-1"))
            .endpoint_url(&facts["ENDPOINT"])
            .force_path_style(true)
            .credentials_provider(Credentials::new(
                &facts["ACCESS_KEY_ID"],
                &facts["SECRET_ACCESS_KEY"],
                None,
                None,
                "tests",
            ))
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .build();
        Self { directory, facts, runtime, client: Client::from_conf(config) }
    }

    /// Makes a bucket of a new name.
    pub fn bucket(&self, lock: Lock) -> String {
        self.bucket_named(&format!("bucket-{}", Uuid::new_v4().simple()), lock)
    }

    /// Makes a bucket of this name.
    pub fn bucket_named(&self, name: &str, lock: Lock) -> String {
        let create = self.client.create_bucket().bucket(name).object_lock_enabled_for_bucket(lock != Lock::None);
        self.runtime.block_on(create.send()).expect("made");
        if lock == Lock::DefaultRetention {
            let retention = DefaultRetention::builder().mode(ObjectLockRetentionMode::Governance).days(30).build();
            let configuration = ObjectLockConfiguration::builder()
                .object_lock_enabled(ObjectLockEnabled::Enabled)
                .rule(ObjectLockRule::builder().default_retention(retention).build())
                .build();
            let put = self.client.put_object_lock_configuration().bucket(name).object_lock_configuration(configuration);
            self.runtime.block_on(put.send()).expect("locked");
        }
        name.to_owned()
    }

    /// Has a bucket keep versions.
    pub fn enable_versioning(&self, bucket: &str) {
        let configuration = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        let put = self.client.put_bucket_versioning().bucket(bucket).versioning_configuration(configuration);
        self.runtime.block_on(put.send()).expect("enabled");
    }

    /// Stores an object of this many bytes.
    pub fn put(&self, bucket: &str, bytes: usize) {
        let put = self.client.put_object().bucket(bucket).key("backup").body(ByteStream::from(vec![7; bytes]));
        self.runtime.block_on(put.send()).expect("stored");
    }

    /// Limits what a bucket may hold.
    pub fn quota(&self, bucket: &str, bytes: u64) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/ceph-rgw");
        let bytes = bytes.to_string();
        let set = Command::new(script).args(["quota", &self.directory, bucket, &bytes]).output().expect("run");
        assert!(set.status.success(), "{set:?}");
    }

    /// Has the program probe a bucket, as its owner.
    pub fn probe(&self, bucket: &str, arguments: &[&str]) -> Probe {
        self.probe_as(Keys::Owner, bucket, arguments)
    }

    /// Has the program probe a bucket with these keys.
    pub fn probe_as(&self, keys: Keys, bucket: &str, arguments: &[&str]) -> Probe {
        self.run(&self.facts["ENDPOINT"], keys, bucket, None, arguments)
    }

    /// Has the program probe a bucket over TLS, with the gateway's authority or without.
    pub fn probe_over_tls(&self, bucket: &str, knows_authority: bool) -> Probe {
        let bundle = knows_authority.then(|| self.facts["CA_BUNDLE"].as_str());
        self.run(&self.facts["TLS_ENDPOINT"], Keys::Owner, bucket, bundle, &[])
    }

    fn run(&self, endpoint: &str, keys: Keys, bucket: &str, ca_bundle: Option<&str>, arguments: &[&str]) -> Probe {
        let fact = |name: &str| self.facts[name].clone();
        let made_up = || Uuid::new_v4().simple().to_string();
        let (id, secret) = match keys {
            Keys::Owner => (fact("ACCESS_KEY_ID"), fact("SECRET_ACCESS_KEY")),
            Keys::WrongSecret => (fact("ACCESS_KEY_ID"), made_up()),
            Keys::UnknownKey => (made_up(), made_up()),
            Keys::Suspended => (fact("SUSPENDED_ACCESS_KEY_ID"), fact("SUSPENDED_SECRET_ACCESS_KEY")),
        };
        let directory = tempfile::tempdir().expect("a directory");
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).expect("written");
            path.display().to_string()
        };
        let bundle = ca_bundle.map(|path| format!("ca_bundle = \"{path}\"\n")).unwrap_or_default();
        let config = format!(
            "[[s3.credentials]]\nlocation = \"*\"\naccess_key_id_file = \"{}\"\nsecret_access_key_file = \"{}\"\n{bundle}",
            file("id", &id),
            file("secret", &secret),
        );
        let config = file("config.toml", &config);
        let location = format!("{endpoint}/{bucket}");
        let output = Command::new(env!("CARGO_BIN_EXE_targetwatch"))
            .args(["check", "s3", &location, "--json", "--config", &config])
            .args(arguments)
            .output()
            .expect("run");
        Probe::of(output, &secret)
    }
}

/// What the program said.
#[derive(Debug)]
pub struct Probe {
    /// Its exit code.
    pub code: Option<i32>,
    /// The report.
    pub report: Value,
}

impl Probe {
    fn of(output: Output, secret: &str) -> Self {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let told = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(!told.contains(secret), "a secret was told");
        let mut reports: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {told}"));
        assert_eq!(reports.len(), 1, "{told}");
        Self { code: output.status.code(), report: reports.remove(0) }
    }

    /// `available` or `offline`.
    pub fn status(&self) -> &str {
        self.report["status"].as_str().unwrap_or_default()
    }

    /// The reason code of the report; empty without one.
    pub fn reason(&self) -> &str {
        self.report["reason"].as_str().unwrap_or_default()
    }

    /// A figure of the report.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.report[key].as_u64()
    }
}
