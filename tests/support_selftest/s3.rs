//! The S3 server, tested with the AWS SDK.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, RequestChecksumCalculation};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{BucketVersioningStatus, ObjectLockEnabled, ObjectLockMode, ObjectLockRetentionMode};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::s3_server::{
    BucketFixture, BucketUsageFixture, ObjectLockFixture, RetentionFixture, RetentionMode, S3Fixture, S3Server,
};

const KEY: &str = "AKIDEXAMPLE";
const SECRET: &str = "example-secret";

async fn serve() -> S3Server {
    let retention = RetentionFixture { mode: RetentionMode::Governance, days: 30 };
    let bucket = |name: &str| BucketFixture { name: name.into(), ..BucketFixture::default() };
    let usage = BucketUsageFixture { used_bytes: 5000, object_count: 3, quota_bytes: Some(1 << 30) };
    let buckets = vec![
        bucket("plain"),
        BucketFixture { usage: Some(usage), versioning: true, ..bucket("versioned") },
        BucketFixture { object_lock: Some(ObjectLockFixture::default()), ..bucket("locked") },
        BucketFixture {
            object_lock: Some(ObjectLockFixture { default_retention: Some(retention), ..Default::default() }),
            usage: Some(BucketUsageFixture { quota_bytes: None, ..usage }),
            ..bucket("retained")
        },
    ];
    let fixture = S3Fixture { access_key_id: KEY.into(), secret_access_key: SECRET.into(), buckets };
    S3Server::start(fixture).await.unwrap()
}

fn client(server: &S3Server) -> Client {
    client_as(server, KEY, SECRET)
}

fn client_as(server: &S3Server, key: &str, secret: &str) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::new(key, secret, None, None, "test"))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(server.endpoint())
        .force_path_style(true)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .retry_config(RetryConfig::disabled());
    Client::from_conf(config.build())
}

/// The HTTP status and the error code of a refused request.
fn refusal<T: std::fmt::Debug, E>(answer: Result<T, SdkError<E, HttpResponse>>) -> (u16, String)
where
    E: ProvideErrorMetadata + std::fmt::Debug,
{
    let error = answer.unwrap_err();
    let status = error.raw_response().map_or(0, |raw| raw.status().as_u16());
    (status, error.code().unwrap_or_default().to_owned())
}

fn from_now(duration: Duration) -> aws_sdk_s3::primitives::DateTime {
    (SystemTime::now() + duration).into()
}

#[tokio::test]
async fn s3_distinguishes_wrong_secret_unknown_key_and_missing_bucket() {
    let server = serve().await;
    let list = async |key: &str, secret: &str, bucket: &str| {
        refusal(client_as(&server, key, secret).list_objects_v2().bucket(bucket).send().await)
    };
    assert_eq!(list(KEY, "another-secret", "plain").await, (403, "SignatureDoesNotMatch".into()));
    assert_eq!(list("AKIDOTHER", SECRET, "plain").await, (403, "InvalidAccessKeyId".into()));
    assert_eq!(list(KEY, SECRET, "missing").await, (404, "NoSuchBucket".into()));
    let head = async |secret: &str, bucket: &str| {
        refusal(client_as(&server, KEY, secret).head_bucket().bucket(bucket).send().await).0
    };
    assert_eq!(head("another-secret", "plain").await, 403);
    assert_eq!(head(SECRET, "missing").await, 404);
    assert!(client(&server).head_bucket().bucket("plain").send().await.is_ok());
    assert!(client(&server).get_bucket_location().bucket("plain").send().await.is_ok());
}

#[tokio::test]
async fn s3_refuses_an_unsigned_request() {
    let server = serve().await;
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    stream.write_all(b"GET /plain HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("<Code>AccessDenied</Code>"), "{answer}");
}

#[tokio::test]
async fn s3_reports_versioning_and_object_lock() {
    let server = serve().await;
    let client = client(&server);
    let versioning =
        async |bucket: &str| client.get_bucket_versioning().bucket(bucket).send().await.unwrap().status().cloned();
    assert_eq!(versioning("plain").await, None);
    assert_eq!(versioning("versioned").await, Some(BucketVersioningStatus::Enabled));
    assert_eq!(versioning("locked").await, Some(BucketVersioningStatus::Enabled));

    let lock = async |bucket: &str| client.get_object_lock_configuration().bucket(bucket).send().await;
    assert_eq!(refusal(lock("versioned").await), (404, "ObjectLockConfigurationNotFoundError".into()));
    assert_eq!(refusal(lock("missing").await), (404, "NoSuchBucket".into()));
    let locked = lock("locked").await.unwrap().object_lock_configuration.unwrap();
    assert_eq!((locked.object_lock_enabled, locked.rule), (Some(ObjectLockEnabled::Enabled), None));
    let retention = lock("retained").await.unwrap().object_lock_configuration.unwrap();
    let default = retention.rule.unwrap().default_retention.unwrap();
    assert_eq!((default.mode, default.days), (Some(ObjectLockRetentionMode::Governance), Some(30)));
}

#[tokio::test]
async fn s3_reports_usage_in_ceph_headers() {
    let server = serve().await;
    let client = client(&server);
    let headers = async |bucket: &str| {
        let found = Arc::new(Mutex::new(Vec::new()));
        let head = client.head_bucket().bucket(bucket).customize().interceptor(UsageHeaders(found.clone()));
        // Ceph requires this query since release 20.
        head.mutate_request(|request| {
            let uri = format!("{}?read-stats", request.uri());
            request.set_uri(uri).unwrap();
        })
        .send()
        .await
        .unwrap();
        found.lock().unwrap().clone()
    };
    let usage = |values: [&str; 3]| values.map(|value| Some(value.to_owned())).to_vec();
    assert_eq!(headers("plain").await, [None, None, None]);
    assert_eq!(headers("versioned").await, usage(["3", "5000", "1073741824"]));
    assert_eq!(headers("retained").await, usage(["3", "5000", "-1"]));
    client.put_object().bucket("versioned").key("x").body(ByteStream::from_static(b"12345")).send().await.unwrap();
    assert_eq!(headers("versioned").await, usage(["4", "5005", "1073741824"]));
}

/// Stores the usage headers of an answer.
#[derive(Debug)]
struct UsageHeaders(Arc<Mutex<Vec<Option<String>>>>);

impl Intercept for UsageHeaders {
    fn name(&self) -> &'static str {
        "UsageHeaders"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = context.response().headers();
        let names = ["x-rgw-object-count", "x-rgw-bytes-used", "x-rgw-quota-bucket-size"];
        *self.0.lock().unwrap() = names.map(|name| headers.get(name).map(str::to_owned)).to_vec();
        Ok(())
    }
}

#[tokio::test]
async fn s3_objects_have_versions_and_are_listed() {
    let server = serve().await;
    let client = client(&server);
    let put = async |bucket: &str, key: &str, body: &'static [u8]| {
        let put = client.put_object().bucket(bucket).key(key).body(ByteStream::from_static(body));
        put.send().await.unwrap().version_id
    };
    let get = async |bucket: &str, version: Option<String>| {
        let answer = client.get_object().bucket(bucket).key("disk/1").set_version_id(version).send().await?;
        Ok::<_, SdkError<_, HttpResponse>>(answer.body.collect().await.unwrap().into_bytes())
    };
    let first = put("versioned", "disk/1", b"one").await;
    let second = put("versioned", "disk/1", b"two").await;
    assert_ne!(first, second);
    assert_eq!(get("versioned", None).await.unwrap(), "two");
    assert_eq!(get("versioned", first.clone()).await.unwrap(), "one");

    let deleted = client.delete_object().bucket("versioned").key("disk/1").send().await.unwrap();
    assert_eq!(deleted.delete_marker(), Some(true));
    assert_eq!(refusal(get("versioned", None).await), (404, "NoSuchKey".into()));
    let marker_id = deleted.version_id;
    assert_eq!(refusal(get("versioned", marker_id.clone()).await), (405, "MethodNotAllowed".into()));
    assert_eq!(get("versioned", second.clone()).await.unwrap(), "two");
    let all = client.list_object_versions().bucket("versioned").prefix("disk/").send().await.unwrap();
    assert_eq!((all.versions().len(), all.delete_markers().len(), all.is_truncated()), (2, 1, Some(false)));
    let (mut listed, mut after) = (Vec::new(), (None, None));
    for is_last in [false, false, true] {
        let page = client.list_object_versions().bucket("versioned").max_keys(1);
        let page = page.set_key_marker(after.0).set_version_id_marker(after.1).send().await.unwrap();
        assert_eq!(page.is_truncated(), Some(!is_last));
        listed.extend(page.versions().iter().filter_map(|found| found.version_id().map(str::to_owned)));
        listed.extend(page.delete_markers().iter().filter_map(|found| found.version_id().map(str::to_owned)));
        after = (page.next_key_marker, page.next_version_id_marker);
    }
    let versions: Vec<String> = [&marker_id, &second, &first].into_iter().flatten().cloned().collect();
    assert_eq!(listed, versions, "the latest first");
    let none = client.list_object_versions().bucket("versioned").prefix("log/").send().await.unwrap();
    assert_eq!((none.versions().len(), none.delete_markers().len()), (0, 0));

    assert_eq!(put("plain", "disk/1", b"one").await, None);
    put("plain", "disk/2", b"two").await;
    put("plain", "log/1", b"three").await;
    let page = client.list_objects_v2().bucket("plain").prefix("disk/").max_keys(1).send().await.unwrap();
    assert_eq!((page.contents()[0].key(), page.is_truncated()), (Some("disk/1"), Some(true)));
    let next = client.list_objects_v2().bucket("plain").prefix("disk/");
    let next = next.set_continuation_token(page.next_continuation_token).send().await.unwrap();
    assert_eq!((next.contents()[0].key(), next.is_truncated()), (Some("disk/2"), Some(false)));
    assert_eq!(next.contents()[0].size(), Some(3));
    client.delete_object().bucket("plain").key("disk/1").send().await.unwrap();
    assert_eq!(refusal(get("plain", None).await), (404, "NoSuchKey".into()));
}

#[tokio::test]
async fn s3_locked_version_is_deletable_after_expiry_or_by_governance_bypass() {
    let server = serve().await;
    let client = client(&server);
    let put = async |key: &str, mode: ObjectLockMode, retention: Duration| {
        let put = client.put_object().bucket("locked").key(key).object_lock_mode(mode);
        put.object_lock_retain_until_date(from_now(retention)).body(ByteStream::from_static(b"x")).send().await
    };
    let delete = async |key: &str, version: &str, bypass: bool| {
        let delete = client.delete_object().bucket("locked").key(key).version_id(version);
        delete.set_bypass_governance_retention(bypass.then_some(true)).send().await
    };
    // The server refuses requests with a larger clock skew.
    let retention = Duration::from_secs(600);
    let denied = || (403, "AccessDenied".to_owned());

    let strict = put("strict", ObjectLockMode::Compliance, retention).await.unwrap().version_id.unwrap();
    assert_eq!(refusal(delete("strict", &strict, false).await), denied());
    assert_eq!(refusal(delete("strict", &strict, true).await), denied());
    let shown = client.head_object().bucket("locked").key("strict").send().await.unwrap();
    assert_eq!(shown.object_lock_mode(), Some(&ObjectLockMode::Compliance));
    assert!(shown.object_lock_retain_until_date().is_some_and(|until| *until > from_now(retention / 2)));

    let loose = put("loose", ObjectLockMode::Governance, retention).await.unwrap().version_id.unwrap();
    assert_eq!(refusal(delete("loose", &loose, false).await), denied());
    assert!(delete("loose", &loose, true).await.is_ok());
    assert_eq!(refusal(client.head_object().bucket("locked").key("loose").send().await).0, 404);

    let brief = put("brief", ObjectLockMode::Compliance, retention).await.unwrap();
    let brief = brief.version_id.unwrap();
    assert_eq!(refusal(delete("brief", &brief, false).await), denied());
    server.advance_clock(retention);
    assert!(delete("brief", &brief, false).await.is_ok(), "its retention has ended");

    assert_eq!(refusal(put("late", ObjectLockMode::Compliance, retention / 2).await), (400, "InvalidArgument".into()));
    let half = client.put_object().bucket("locked").key("half").object_lock_mode(ObjectLockMode::Compliance);
    assert_eq!(refusal(half.send().await), (400, "InvalidArgument".into()));
    let unlocked = client.put_object().bucket("plain").key("x").object_lock_mode(ObjectLockMode::Governance);
    let unlocked = unlocked.object_lock_retain_until_date(from_now(retention)).send().await;
    assert_eq!(refusal(unlocked), (400, "InvalidRequest".into()));

    let by_default = client.put_object().bucket("retained").key("x").send().await.unwrap().version_id.unwrap();
    let delete = client.delete_object().bucket("retained").key("x").version_id(by_default).send().await;
    assert_eq!(refusal(delete), denied());
}

#[tokio::test]
async fn s3_server_refuses_connections_after_stop() {
    let server = serve().await;
    let (client, port) = (client(&server), server.port());
    client.head_bucket().bucket("plain").send().await.unwrap();
    server.stop().await;
    assert!(client.head_bucket().bucket("plain").send().await.is_err());
    let error = TcpStream::connect(("127.0.0.1", port)).await.err().map(|error| error.kind());
    assert_eq!(error, Some(std::io::ErrorKind::ConnectionRefused));
}
