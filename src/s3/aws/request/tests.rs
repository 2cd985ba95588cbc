//! Requests compared with those of the SDK's client, and with an example of AWS.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{ObjectLockMode, ObjectLockRetention, ObjectLockRetentionMode};
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::identity::Identity;
use aws_smithy_runtime_api::client::result::ConnectorError;
use bytes::Bytes;
use md5::{Digest as _, Md5};

use super::*;
use crate::model::settings::S3Addressing;
use crate::model::{LockMode, S3Endpoint, S3Location};
use crate::s3::aws::address::BucketAddress;
use crate::s3::aws::bucket::StatsParameter;
use crate::s3::aws::clients::SigningClient;
use crate::s3::aws::count::RequestCounter;
use crate::s3::aws::credentials::Renewal;
use crate::s3::aws::sender::RequestSender;
use crate::s3::pages::{Entries, PageMarker};
use crate::s3::{BucketApi as _, ObjectApi as _, Retention};

/// Headers about the SDK's retries, and a copy of `User-Agent`. No service needs them.
const LEFT_OUT: [&str; 3] = ["amz-sdk-invocation-id", "amz-sdk-request", "x-amz-user-agent"];

/// Headers that signing adds, or that the SDK adds to a signed request.
const NOT_SIGNED: [&str; 6] = [
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "authorization",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-security-token",
];

/// Connector that keeps the request and sends nothing.
#[derive(Debug, Clone, Default)]
struct Recorder(Arc<Mutex<Option<HttpRequest>>>);

impl Recorder {
    fn taken(&self) -> HttpRequest {
        self.0.lock().expect("no panic").take().expect("a request")
    }
}

impl HttpConnector for Recorder {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let kept = self.0.lock().expect("no panic").replace(request);
        assert!(kept.is_none(), "another request: {kept:?}");
        HttpConnectorFuture::ready(Err(ConnectorError::other("recorded".into(), None)))
    }
}

/// The same bucket through the SDK's client and through the agent's requests.
struct Both {
    recorder: Recorder,
    client: Client,
    bucket: AwsBucket,
}

async fn both(location: &str, addressing: S3Addressing, region: &str, session_token: Option<&str>) -> Both {
    let location = S3Location::parse(location).expect(location);
    let credentials = Credentials::from_keys("AKIAIOSFODNN7EXAMPLE", "secret", session_token.map(str::to_owned));
    let recorder = Recorder::default();
    let connector = SharedHttpConnector::new(recorder.clone());
    let mut config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region.to_owned()))
        .credentials_provider(credentials.clone())
        .http_client(http_client_fn({
            let connector = connector.clone();
            move |_, _| connector.clone()
        }))
        .force_path_style(addressing == S3Addressing::Path)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .disable_s3_express_session_auth(true)
        .retry_config(RetryConfig::disabled());
    config.set_endpoint_url(location.endpoint().map(S3Endpoint::url));
    let signing = SigningClient {
        connector,
        identity: Identity::from(credentials.clone()),
        credentials,
        exposed: None,
        renewal: Renewal::at_first_read(None, SystemTime::now()),
    };
    let address = BucketAddress::resolve(&location, addressing, region).await.expect("an address");
    // AWS is asked without `read-stats`, which is not a parameter of the SDK.
    let without_stats = StatsParameter::new(&S3Location::parse("backups").expect("a location"));
    let requests = RequestCounter::default();
    let bucket =
        AwsBucket::new(signing, (&location, region), Arc::new(address), without_stats, requests, Arc::default());
    Both { recorder, client: Client::from_conf(config.build()), bucket }
}

/// What a service sees of a request, without what differs between two equal requests.
fn seen(request: &HttpRequest) -> (String, String, BTreeMap<String, String>, Vec<u8>) {
    let mut headers = BTreeMap::new();
    for (name, value) in request.headers().iter().filter(|(name, _)| !LEFT_OUT.contains(name)) {
        let value = match name {
            "x-amz-date" => String::new(),
            // The SDK adds the features of its client in use.
            "user-agent" => value.split(" m/").next().unwrap_or_default().to_owned(),
            "authorization" => {
                let (scope, rest) = value.split_once(", SignedHeaders=").expect("a signature");
                let names = rest.split_once(", Signature=").expect("a signature").0.split(';');
                let names: Vec<&str> = names.filter(|name| !LEFT_OUT.contains(name)).collect();
                format!("{scope} {}", names.join(";"))
            }
            _ => value.to_owned(),
        };
        headers.insert(name.to_owned(), value);
    }
    let body = request.body().bytes().expect("a body in memory").to_vec();
    (request.method().to_owned(), request.uri().to_owned(), headers, body)
}

/// Asserts that the SDK and the agent send the same request, and that the agent would have signed the SDK's request as
/// the SDK did.
async fn assert_same<A, B>(both: &Both, by_sdk: impl Future<Output = A>, by_agent: impl Future<Output = B>) {
    by_sdk.await;
    let mut expected = both.recorder.taken();
    by_agent.await;
    assert_eq!(seen(&both.recorder.taken()), seen(&expected));

    let header = |request: &HttpRequest, name: &str| request.headers().get(name).expect(name).to_owned();
    let (signature, date) = (header(&expected, "authorization"), header(&expected, "x-amz-date"));
    let date = jiff::Timestamp::strptime("%Y%m%dT%H%M%SZ%z", format!("{date}+0000")).expect("a date");
    for name in NOT_SIGNED {
        expected.headers_mut().remove(name);
    }
    let seconds = date.as_second().try_into().expect("after 1970");
    let date = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    both.bucket.sender.sign(&mut expected, date).expect("signed");
    assert_eq!(header(&expected, "authorization"), signature);
}

#[tokio::test]
async fn requests_are_those_of_the_sdk() {
    let (path, host) = (S3Addressing::Path, S3Addressing::Virtual);
    for (location, addressing, region, token) in [
        ("http://s3.example.com:7480/backups", path, "us-east-1", None),
        ("https://s3.example.com/backups", host, "eu-1", Some("token+/=")),
        ("https://[2001:db8::1]:9000/Back_Ups", host, "us-east-1", None),
        ("https://s3.example.com/tenant:back.ups", path, "default", None),
        ("https://s3.example.com/tenant:backups", host, "default", None),
        ("https://s3.eu-west-1.amazonaws.com/backups", host, "eu-west-1", None),
        ("backups", host, "us-east-1", Some("token")),
        ("back.ups", host, "cn-north-1", None),
        ("backups", path, "us-gov-west-1", None),
    ] {
        let both = both(location, addressing, region, token).await;
        let (sdk, ours) = (&both.client, &both.bucket);
        let bucket = S3Location::parse(location).expect(location).bucket().to_owned();
        let (key, version) = ("canaries/n o+de/a&b=c?#é~*'()//k", "3/L4kqt+JlcpXroDTDmJ rmSpXd3dIb=");

        let head = sdk.head_bucket().bucket(&bucket);
        assert_same(&both, head.send(), ours.head_bucket()).await;
        assert_same(&both, sdk.get_bucket_location().bucket(&bucket).send(), ours.bucket_location()).await;
        assert_same(&both, sdk.get_bucket_versioning().bucket(&bucket).send(), ours.versioning()).await;
        assert_same(&both, sdk.get_object_lock_configuration().bucket(&bucket).send(), ours.object_lock()).await;
        let list = sdk.list_objects_v2().bucket(&bucket).prefix(key).max_keys(1);
        assert_same(&both, list.send(), ours.list_below(key)).await;
        let list = sdk.list_object_versions().bucket(&bucket).prefix(key).max_keys(7);
        assert_same(&both, list.send(), ours.list(key, true, 7)).await;
        let list = sdk.list_objects_v2().bucket(&bucket).prefix(key).max_keys(7);
        assert_same(&both, list.send(), ours.list(key, false, 7)).await;
        let after = PageMarker::Version { key: key.to_owned(), version: Some(version.to_owned()) };
        let list = sdk.list_object_versions().bucket(&bucket).max_keys(1000).key_marker(key).version_id_marker(version);
        assert_same(&both, list.send(), ours.page(Entries::Versions, Some(&after))).await;
        let after = PageMarker::Token(version.to_owned());
        let list = sdk.list_objects_v2().bucket(&bucket).max_keys(1000).continuation_token(version);
        assert_same(&both, list.send(), ours.page(Entries::Objects, Some(&after))).await;

        let get = sdk.get_object().bucket(&bucket).key(key);
        assert_same(&both, get.send(), ours.get(key, None)).await;
        let get = sdk.get_object().bucket(&bucket).key(key).version_id(version);
        assert_same(&both, get.send(), ours.get(key, Some(version))).await;
        let head = sdk.head_object().bucket(&bucket).key(key).version_id(version);
        assert_same(&both, head.send(), ours.head(key, Some(version))).await;
        let delete = sdk.delete_object().bucket(&bucket).key(key);
        assert_same(&both, delete.send(), ours.delete(key, None, false)).await;
        let delete = sdk.delete_object().bucket(&bucket).key(key).version_id(version);
        let delete = delete.bypass_governance_retention(true);
        assert_same(&both, delete.send(), ours.delete(key, Some(version), true)).await;

        let content = Bytes::from_static(b"content");
        let put = || {
            let put = sdk.put_object().bucket(&bucket).key(key).content_md5(CONTENT_MD5);
            put.body(ByteStream::from_static(b"content"))
        };
        assert_same(&both, Box::pin(put().send()), ours.put(key, content.clone(), None)).await;
        let retention = Retention { mode: LockMode::Compliance, until: 1_795_000_000 };
        let put = put().object_lock_mode(ObjectLockMode::Compliance);
        let put = put.object_lock_retain_until_date(DateTime::from_secs(retention.until));
        assert_same(&both, Box::pin(put.send()), ours.put(key, content.clone(), Some(retention))).await;

        let create = sdk.create_multipart_upload().bucket(&bucket).key(key);
        assert_same(&both, create.send(), ours.create_upload(key, None)).await;
        let part = sdk.upload_part().bucket(&bucket).key(key).upload_id(version).part_number(1);
        let part = part.body(ByteStream::from(content.clone()));
        assert_same(&both, part.send(), ours.upload_part(key, version, content)).await;
        let abort = sdk.abort_multipart_upload().bucket(&bucket).key(key).upload_id(version);
        assert_same(&both, abort.send(), ours.abort_upload(key, version)).await;
        let list = sdk.list_multipart_uploads().bucket(&bucket).prefix(key);
        assert_same(&both, list.send(), ours.uploads(key)).await;

        let element = ObjectLockRetention::builder().mode(ObjectLockRetentionMode::Compliance);
        let element = element.retain_until_date(DateTime::from_secs(retention.until)).build();
        let put = sdk.put_object_retention().bucket(&bucket).key(key).version_id(version).retention(element);
        let put = put.bypass_governance_retention(true).customize().mutate_request(|request| {
            let digest = base64::Engine::encode(
                &base64::engine::general_purpose::STANDARD,
                Md5::digest(request.body().bytes().expect("in memory")),
            );
            request.headers_mut().remove("x-amz-checksum-crc32");
            request.headers_mut().remove("x-amz-sdk-checksum-algorithm");
            request.headers_mut().insert("content-md5", digest);
        });
        assert_same(&both, Box::pin(put.send()), ours.put_retention(key, Some(version), Some(retention), true)).await;
    }
}

#[tokio::test]
async fn requests_to_a_directory_bucket_are_those_of_the_sdk_without_a_session() {
    let name = "backups--use1-az4--x-s3";
    let both = both(name, S3Addressing::Virtual, "us-east-1", Some("token")).await;
    assert_same(&both, both.client.head_bucket().bucket(name).send(), both.bucket.head_bucket()).await;
    let get = both.client.get_object().bucket(name).key("key");
    assert_same(&both, get.send(), both.bucket.get("key", None)).await;
}

/// MD5 digest of `content`.
const CONTENT_MD5: &str = "mgNkuembtIDdJeHwKEyFVQ==";

#[tokio::test]
async fn signature_is_that_of_the_example_of_aws() {
    // Amazon S3 API reference, "Signature Calculations for the Authorization Header", GET Bucket Lifecycle.
    let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    let sender = RequestSender {
        connector: SharedHttpConnector::new(Recorder::default()),
        identity: Identity::from(Credentials::from_keys("AKIAIOSFODNN7EXAMPLE", secret, None)),
        region: "us-east-1".to_owned(),
        address: Arc::new(BucketAddress {
            url: "https://examplebucket.s3.amazonaws.com".to_owned(),
            signing_name: "s3".to_owned(),
            signing_region: "us-east-1".to_owned(),
        }),
    };
    let mut request = HttpRequest::get("https://examplebucket.s3.amazonaws.com/?lifecycle").expect("a request");
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_369_353_600);
    sender.sign(&mut request, time).expect("signed");
    assert_eq!(
        request.headers().get("authorization"),
        Some(
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, \
             SignedHeaders=host;x-amz-content-sha256;x-amz-date, \
             Signature=fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
        )
    );
}
