//! The gateway that `tests/peers/run` started, its buckets, and faults to inject.

use std::path::{Path, PathBuf};
use std::process::Command;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, RequestChecksumCalculation};
use aws_sdk_s3::types::{
    BucketVersioningStatus, DefaultRetention, ObjectLockConfiguration, ObjectLockEnabled, ObjectLockRetentionMode,
    ObjectLockRule, VersioningConfiguration,
};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use uuid::Uuid;

use crate::daemon::eventually;
use crate::workspace::Workspace;

/// Names the directory of the running gateway.
const DIRECTORY_VARIABLE: &str = "TARGETWATCH_PEERS_CEPH_RGW";

/// The script that starts the gateway and injects faults.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/ceph-rgw");

/// Maximum number of objects written at the same time.
const PUTS_AT_ONCE: usize = 16;

/// Tests share the gateway. A test that injects a fault holds it exclusively.
static IN_USE: RwLock<()> = RwLock::const_new(());

/// S3 credentials.
#[derive(Clone)]
pub struct Keys {
    pub access_key_id: String,
    pub secret_access_key: String,
}

impl Keys {
    pub fn new(access_key_id: &str, secret_access_key: &str) -> Self {
        Self { access_key_id: access_key_id.to_owned(), secret_access_key: secret_access_key.to_owned() }
    }
}

/// The lock on the gateway that a test holds.
enum Hold {
    Shared { _guard: RwLockReadGuard<'static, ()> },
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

/// The gateway.
pub struct Gateway {
    pub endpoint: String,
    pub tls_endpoint: String,
    pub ca_bundle: PathBuf,
    /// Credentials of the owner of the buckets.
    pub keys: Keys,
    /// Credentials of a suspended user.
    pub suspended: Keys,
    /// Credentials of a user with a quota of one byte.
    pub guest: Keys,
    /// Credentials of a user in the tenant `acme`.
    pub tenant: Keys,
    directory: PathBuf,
    client: Client,
    hold: Hold,
}

impl Gateway {
    /// The gateway for a test that injects no fault.
    pub async fn shared() -> Self {
        Self::held(Hold::Shared { _guard: IN_USE.read().await })
    }

    /// The gateway for a test that injects faults.
    pub async fn alone() -> Self {
        Self::held(Hold::Alone { _guard: IN_USE.write().await })
    }

    fn held(hold: Hold) -> Self {
        let directory = std::env::var_os(DIRECTORY_VARIABLE).map(PathBuf::from);
        let directory = directory.unwrap_or_else(|| panic!("{DIRECTORY_VARIABLE} is not set: run tests/peers/run"));
        let text = std::fs::read_to_string(directory.join("env")).expect("the gateway's env file");
        let value = |name: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            found.unwrap_or_else(|| panic!("the gateway's env file has no {name}")).to_owned()
        };
        let keys = Keys::new(&value("ACCESS_KEY_ID"), &value("SECRET_ACCESS_KEY"));
        let suspended = Keys::new(&value("SUSPENDED_ACCESS_KEY_ID"), &value("SUSPENDED_SECRET_ACCESS_KEY"));
        let guest = Keys::new(&value("GUEST_ACCESS_KEY_ID"), &value("GUEST_SECRET_ACCESS_KEY"));
        let tenant = Keys::new(&value("TENANT_ACCESS_KEY_ID"), &value("TENANT_SECRET_ACCESS_KEY"));
        let endpoint = value("ENDPOINT");
        let client = client(&endpoint, &keys);
        Self {
            tls_endpoint: value("TLS_ENDPOINT"),
            ca_bundle: value("CA_BUNDLE").into(),
            endpoint,
            keys,
            suspended,
            guest,
            tenant,
            directory,
            client,
            hold,
        }
    }

    /// A workspace with the credentials of the buckets' owner.
    pub fn workspace(&self) -> Workspace {
        workspace_for(&self.keys)
    }

    /// The same with more keys for the entry of the credentials.
    pub fn workspace_with(&self, more_keys: &str) -> Workspace {
        workspace(&self.keys, more_keys)
    }

    /// A new bucket.
    pub async fn bucket(&self) -> String {
        let name = new_name();
        self.bucket_named(&name).await;
        name
    }

    /// A new bucket of this name.
    pub async fn bucket_named(&self, name: &str) {
        self.client.create_bucket().bucket(name).send().await.expect("a bucket");
    }

    /// A new bucket that the guest owns.
    pub async fn guest_bucket(&self) -> String {
        self.bucket_of(&self.guest).await
    }

    /// A new bucket that belongs to the user of these credentials.
    pub async fn bucket_of(&self, keys: &Keys) -> String {
        let name = new_name();
        client(&self.endpoint, keys).create_bucket().bucket(&name).send().await.expect("a bucket");
        name
    }

    /// Starts another gateway to the same buckets with a clock that is this far ahead, and returns its
    /// endpoint. It runs until the end of the tests.
    pub fn with_clock(&self, ahead_seconds: i64) -> String {
        let mut command = Command::new(SCRIPT);
        let output = command.arg("clock").arg(&self.directory).arg(ahead_seconds.to_string()).output();
        let output = output.expect("the script runs");
        assert!(output.status.success(), "{SCRIPT} clock: {output:?}");
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    /// Whether the gateway reports the versioning of a bucket. While the storage hangs, it answers from its cache.
    pub async fn reports_versioning(&self, bucket: &str) -> bool {
        let request = self.client.get_bucket_versioning().bucket(bucket).send();
        tokio::time::timeout(std::time::Duration::from_secs(2), request).await.is_ok_and(|answer| answer.is_ok())
    }

    /// A new bucket with object lock, which includes versioning.
    pub async fn locked_bucket(&self) -> String {
        let name = new_name();
        let create = self.client.create_bucket().bucket(&name).object_lock_enabled_for_bucket(true);
        create.send().await.expect("a bucket");
        name
    }

    /// Enables versioning of a bucket.
    pub async fn enable_versioning(&self, bucket: &str) {
        self.set_versioning(bucket, BucketVersioningStatus::Enabled).await;
    }

    async fn set_versioning(&self, bucket: &str, status: BucketVersioningStatus) {
        let configuration = VersioningConfiguration::builder().status(status).build();
        let put = self.client.put_bucket_versioning().bucket(bucket).versioning_configuration(configuration);
        put.send().await.expect("versioning");
    }

    /// Gives a locked bucket a default retention.
    pub async fn retain_by_default(&self, bucket: &str, mode: ObjectLockRetentionMode, days: i32) {
        let retention = DefaultRetention::builder().mode(mode).days(days).build();
        let configuration = ObjectLockConfiguration::builder()
            .object_lock_enabled(ObjectLockEnabled::Enabled)
            .rule(ObjectLockRule::builder().default_retention(retention).build())
            .build();
        let put = self.client.put_object_lock_configuration().bucket(bucket);
        put.object_lock_configuration(configuration).send().await.expect("a default retention");
    }

    /// Denies an action on the objects of a bucket to everybody, including its owner. `None` removes the policy.
    pub async fn deny(&self, bucket: &str, action: Option<&str>) {
        let Some(action) = action else {
            self.client.delete_bucket_policy().bucket(bucket).send().await.expect("no policy");
            return;
        };
        let resource = format!("arn:aws:s3:::{bucket}/*");
        let statement = json!({ "Effect": "Deny", "Principal": "*", "Action": action, "Resource": resource });
        self.set_policy(bucket, json!([statement])).await;
    }

    /// Denies PUTs of objects without this header to everybody, including the owner.
    pub async fn demand_header(&self, bucket: &str, name: &str, value: &str) {
        let (resource, condition) = (format!("arn:aws:s3:::{bucket}/*"), format!("s3:{name}"));
        let statement = json!({
            "Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": resource,
            // Ceph has an empty value for a header that is missing.
            "Condition": { "StringNotEquals": { condition: value } },
        });
        self.set_policy(bucket, json!([statement])).await;
    }

    /// Denies actions on the objects of a bucket, and on the bucket itself, to everybody, including its owner.
    pub async fn deny_all_of(&self, bucket: &str, of_objects: &[&str], of_bucket: &[&str]) {
        let resource = format!("arn:aws:s3:::{bucket}");
        let statements: Vec<Value> = [(of_objects, format!("{resource}/*")), (of_bucket, resource)]
            .into_iter()
            .filter(|(actions, _)| !actions.is_empty())
            .map(|(actions, resource)| {
                json!({ "Effect": "Deny", "Principal": "*", "Action": actions, "Resource": resource })
            })
            .collect();
        self.set_policy(bucket, json!(statements)).await;
    }

    /// Removes the policy of a bucket.
    pub async fn remove_policy(&self, bucket: &str) {
        self.client.delete_bucket_policy().bucket(bucket).send().await.expect("no policy");
    }

    /// Suspends versioning of a bucket.
    pub async fn suspend_versioning(&self, bucket: &str) {
        self.set_versioning(bucket, BucketVersioningStatus::Suspended).await;
    }

    /// Allows the guest the actions that backups need below a prefix, and nothing else.
    pub async fn allow_guest_below(&self, bucket: &str, prefix: &str) {
        let guest = json!({ "AWS": ["arn:aws:iam:::user/guest"] });
        let actions = ["s3:PutObject", "s3:GetObject", "s3:DeleteObject"];
        self.set_policy(
            bucket,
            json!([
                {
                    "Effect": "Allow",
                    "Principal": guest,
                    "Action": "s3:ListBucket",
                    "Resource": format!("arn:aws:s3:::{bucket}"),
                    "Condition": { "StringLike": { "s3:prefix": format!("{prefix}*") } },
                },
                {
                    "Effect": "Allow",
                    "Principal": guest,
                    "Action": actions,
                    "Resource": format!("arn:aws:s3:::{bucket}/{prefix}*"),
                },
            ]),
        )
        .await;
    }

    /// Allows the guest to write objects, and nothing else.
    pub async fn allow_guest_to_put(&self, bucket: &str) {
        let (guest, objects) = (json!({ "AWS": ["arn:aws:iam:::user/guest"] }), format!("arn:aws:s3:::{bucket}/*"));
        let statement = json!({ "Effect": "Allow", "Principal": guest, "Action": "s3:PutObject", "Resource": objects });
        self.set_policy(bucket, json!([statement])).await;
    }

    async fn set_policy(&self, bucket: &str, statements: Value) {
        let policy = json!({ "Version": "2012-10-17", "Statement": statements }).to_string();
        self.client.put_bucket_policy().bucket(bucket).policy(policy).send().await.expect("a policy");
    }

    /// Writes an object of this size.
    pub async fn put(&self, bucket: &str, key: &str, bytes: usize) {
        let body = vec![b'x'; bytes].into();
        self.client.put_object().bucket(bucket).key(key).body(body).send().await.expect("written");
    }

    /// Writes many objects of this size, several at a time.
    pub async fn put_all(&self, bucket: &str, keys: impl IntoIterator<Item = String>, bytes: usize) {
        let puts = keys.into_iter().map(|key| async move { self.put(bucket, &key, bytes).await });
        futures::stream::iter(puts).buffer_unordered(PUTS_AT_ONCE).collect::<()>().await;
    }

    /// Deletes an object, which leaves a delete marker in a versioned bucket.
    pub async fn delete(&self, bucket: &str, key: &str) {
        self.client.delete_object().bucket(bucket).key(key).send().await.expect("deleted");
    }

    /// Denies an action on a bucket itself to everybody, including its owner.
    pub async fn deny_of_bucket(&self, bucket: &str, action: &str) {
        let resource = format!("arn:aws:s3:::{bucket}");
        let statement = json!({ "Effect": "Deny", "Principal": "*", "Action": action, "Resource": resource });
        self.set_policy(bucket, json!([statement])).await;
    }

    /// The number of multipart uploads in a bucket that have not ended.
    pub async fn uploads(&self, bucket: &str) -> usize {
        let found = self.client.list_multipart_uploads().bucket(bucket).send().await.expect("a listing");
        found.uploads().len()
    }

    /// The sorted keys of all versions in a bucket, including delete markers.
    pub async fn versions(&self, bucket: &str) -> Vec<String> {
        let found = self.client.list_object_versions().bucket(bucket).send().await.expect("a listing");
        let versions = found.versions().iter().filter_map(|version| version.key());
        let markers = found.delete_markers().iter().filter_map(|marker| marker.key());
        let mut keys: Vec<String> = versions.chain(markers).map(str::to_owned).collect();
        keys.sort();
        keys
    }

    /// Waits until the keys of all versions meet a condition.
    pub async fn wait_for_versions(&self, bucket: &str, condition: impl Fn(&[String]) -> bool) -> Vec<String> {
        let poll = async || Some(self.versions(bucket).await).filter(|keys| condition(keys));
        eventually("the versions of a bucket", poll).await
    }

    /// Sets the quota of a bucket. `None` removes it.
    pub fn set_quota(&self, bucket: &str, bytes: Option<u64>) {
        let bytes = bytes.map_or_else(|| "-1".to_owned(), |bytes| bytes.to_string());
        succeed("quota", &self.directory, &[bucket, &bytes]);
    }

    /// Pauses the storage daemon under the gateway until the returned value is dropped. Requests that need it
    /// get no answer.
    pub fn pause(&self) -> InjectedFault<'_> {
        self.inject("pause", "resume")
    }

    /// Stops the gateway until the returned value is dropped. Connections to it are refused.
    pub fn stop(&self) -> InjectedFault<'_> {
        self.inject("down", "up")
    }

    fn inject(&self, command: &str, undo: &'static str) -> InjectedFault<'_> {
        assert!(matches!(self.hold, Hold::Alone { .. }), "others use the gateway: Gateway::alone");
        succeed(command, &self.directory, &[]);
        InjectedFault { gateway: self, undo }
    }
}

/// A fault of the gateway, which ends when this value is dropped.
pub struct InjectedFault<'gateway> {
    gateway: &'gateway Gateway,
    undo: &'static str,
}

impl InjectedFault<'_> {
    /// Ends it.
    pub fn undo(self) {}
}

impl Drop for InjectedFault<'_> {
    fn drop(&mut self) {
        let code = run(self.undo, &self.gateway.directory, &[]);
        // A second panic during unwinding would abort all tests.
        assert!(code == Some(0) || std::thread::panicking(), "{SCRIPT} {}: exit code {code:?}", self.undo);
    }
}

/// A workspace with these credentials, in which a nearly full bucket is a warning.
pub fn workspace_for(keys: &Keys) -> Workspace {
    workspace(keys, "")
}

fn workspace(keys: &Keys, more_keys: &str) -> Workspace {
    let workspace = Workspace::with_credentials(
        &keys.access_key_id,
        &keys.secret_access_key,
        &format!("region = \"us-east-1\"\n{more_keys}"),
    );
    workspace.configure("[probe]\nnearly_full_percent = 90.0\n[s3.canary]\nretention = \"5s\"");
    workspace
}

/// The fields of a target.
pub fn target(endpoint: &str, bucket: &str) -> Value {
    json!({ "type": "s3", "s3_endpoint_url": endpoint, "s3_bucket": bucket })
}

/// The same, declared immutable.
pub fn immutable_target(endpoint: &str, bucket: &str) -> Value {
    let mut target = target(endpoint, bucket);
    target["immutable"] = json!(1);
    target
}

/// A name that no bucket has yet.
pub fn new_name() -> String {
    format!("bucket-{}", Uuid::new_v4())
}

fn succeed(command: &str, directory: &Path, more: &[&str]) {
    let code = run(command, directory, more);
    assert_eq!(code, Some(0), "{SCRIPT} {command}");
}

fn run(command: &str, directory: &Path, more: &[&str]) -> Option<i32> {
    Command::new(SCRIPT).arg(command).arg(directory).args(more).status().expect("the script runs").code()
}

fn client(endpoint: &str, keys: &Keys) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::new(&keys.access_key_id, &keys.secret_access_key, None, None, "tests"))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(endpoint)
        .force_path_style(true)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired);
    Client::from_conf(config.build())
}
