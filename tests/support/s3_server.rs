//! An S3 server in memory, with versioning and an enforced object lock.
//!
//! `s3s` parses requests and verifies their signatures (Signature Version 4). `operations` implements the
//! operations, and `store` the buckets and objects. Both behave like Ceph RADOS Gateway where services differ,
//! for example in the usage headers of HEAD and in the answer to a locked DELETE. Clients use plain HTTP and
//! path addressing.

mod operations;
mod store;

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use http::header::DATE;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::auth::{S3Auth, SecretKey};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, S3Result, s3_error};
use tokio::net::TcpStream;

use super::loopback::LoopbackServer;
use operations::Operations;
use store::Store;

/// Deadline of a client for the head of its request.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);

/// The initial state of a server: one user and its buckets.
pub struct S3Fixture {
    /// The access key id of the user.
    pub access_key_id: String,
    /// The secret access key of the user.
    pub secret_access_key: String,
    /// The buckets, which belong to the user.
    pub buckets: Vec<BucketFixture>,
}

/// A bucket.
#[derive(Debug, Clone, Default)]
pub struct BucketFixture {
    /// The name in requests.
    pub name: String,
    /// Whether each PUT creates a version.
    pub versioning: bool,
    /// Object lock, which includes versioning. `None` for a bucket that was created without it.
    pub object_lock: Option<ObjectLockFixture>,
    /// Usage that the service reports in `X-RGW-…` headers. `None` for a service that does not report it.
    pub usage: Option<BucketUsageFixture>,
    /// Maximum number of entries on a page of its listings. `None` for the number that the client requests.
    pub page_max: Option<u8>,
}

/// The object lock of a bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ObjectLockFixture {
    /// The retention of objects whose PUT has none.
    pub default_retention: Option<RetentionFixture>,
    /// How the service implements it.
    pub behaviour: LockBehaviour,
}

/// How a service implements object lock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LockBehaviour {
    /// Correctly.
    #[default]
    Enforced,
    /// It stores and reports retentions, but deletes locked versions.
    NotEnforced,
    /// It does not delete locked versions, but any client can weaken their retention.
    Weakenable,
    /// It locks every object for the default retention and ignores the retention of a PUT.
    DefaultRetentionOnly,
    /// Correctly, but it denies reading the lock configuration.
    ConfigurationDenied,
}

/// The duration and mode of a retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionFixture {
    /// Whether a client may end it early.
    pub mode: RetentionMode,
    /// The duration from the PUT, in days.
    pub days: u16,
}

/// The retention modes of S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetentionMode {
    /// A DELETE with bypass succeeds.
    Governance,
    /// No client can delete the version before the retention ends.
    Compliance,
}

/// What a policy denies to the user, whatever the signature.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Denied {
    /// Nothing.
    #[default]
    Nothing,
    /// Everything but objects, so that buckets cannot be read or listed.
    Buckets,
    /// Every request.
    Everything,
}

/// The usage of a bucket before the server started. The server adds what is stored afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketUsageFixture {
    /// Size of all versions, in bytes.
    pub used_bytes: u64,
    /// Number of versions.
    pub object_count: u64,
    /// The quota in bytes, which is reported but not enforced. `None` for no limit.
    pub quota_bytes: Option<u64>,
}

/// The running server.
pub struct S3Server {
    listener: LoopbackServer,
    operations: Operations,
    access_key_id: String,
    secrets: Secrets,
    denied: Arc<Mutex<Denied>>,
}

/// The secret access key of each access key id.
type Secrets = Arc<Mutex<HashMap<String, SecretKey>>>;

impl S3Server {
    /// Serves the buckets on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start(fixture: S3Fixture) -> io::Result<Self> {
        Self::start_on(0, fixture).await
    }

    /// The same on a given port, to restart a server after [`S3Server::stop`]. Its buckets are empty again.
    ///
    /// # Errors
    /// When the port is not free.
    pub async fn start_on(port: u16, fixture: S3Fixture) -> io::Result<Self> {
        let operations = Operations::new(Store::new(fixture.buckets));
        let mut builder = S3ServiceBuilder::new(operations.clone());
        let access_key_id = fixture.access_key_id;
        let secret = fixture.secret_access_key.into();
        let secrets = Arc::new(Mutex::new(HashMap::from([(access_key_id.clone(), secret)])));
        builder.set_auth(SingleUserAuth(secrets.clone()));
        let service = builder.build();
        let (serving, denied) = (operations.clone(), Arc::<Mutex<Denied>>::default());
        let current = denied.clone();
        let serve = move |stream| serve(stream, service.clone(), serving.clone(), current.clone());
        let listener = LoopbackServer::start(port, serve).await?;
        Ok(Self { listener, operations, access_key_id, secrets, denied })
    }

    /// The endpoint URL: `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.listener.address())
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.listener.address().port()
    }

    /// Advances the clock that ends retentions and that the server reports in `Date`.
    pub fn advance_clock(&self, by: Duration) {
        self.operations.advance_clock(by);
    }

    /// Replaces the secret access key of the user.
    pub fn set_secret(&self, secret_access_key: &str) {
        self.add_key(&self.access_key_id, secret_access_key);
    }

    /// Gives the user another access key.
    pub fn add_key(&self, access_key_id: &str, secret_access_key: &str) {
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.insert(access_key_id.to_owned(), secret_access_key.into());
    }

    /// Denies requests from now on.
    pub fn deny(&self, denied: Denied) {
        *self.denied.lock().unwrap_or_else(PoisonError::into_inner) = denied;
    }

    /// Changes how the object lock of a bucket behaves from now on.
    pub fn set_lock_behaviour(&self, bucket: &str, behaviour: LockBehaviour) {
        self.operations.set_lock_behaviour(bucket, behaviour);
    }

    /// Stores an object in a bucket.
    pub fn put(&self, bucket: &str, key: &str, content: impl Into<bytes::Bytes>) {
        self.operations.put_or_delete(bucket, key, Some(content.into()));
    }

    /// Deletes an object of a bucket, which leaves a delete marker in a versioned bucket.
    pub fn delete(&self, bucket: &str, key: &str) {
        self.operations.put_or_delete(bucket, key, None);
    }

    /// Number of versions in a bucket, without its initial usage.
    pub fn stored_versions(&self, bucket: &str) -> u64 {
        self.operations.stored_versions(bucket)
    }

    /// Method, path and query of each request so far.
    pub fn requests(&self) -> Vec<String> {
        self.operations.requests()
    }

    /// Number of connections with at least one request.
    pub fn connections(&self) -> usize {
        self.operations.connections()
    }

    /// Closes the listener and every connection. After it returns, connections are refused.
    pub async fn stop(self) {
        self.listener.stop().await;
    }
}

async fn serve(stream: TcpStream, service: S3Service, operations: Operations, denied: Arc<Mutex<Denied>>) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE);
    let is_used = AtomicBool::new(false);
    let dated = service_fn(|request: http::Request<Incoming>| {
        let is_first = !is_used.swap(true, Ordering::Relaxed);
        operations.record_request(format!("{} {}", request.method(), request.uri()), is_first);
        let is_of_bucket = !request.uri().path().trim_matches('/').contains('/');
        let is_denied = match *denied.lock().unwrap_or_else(PoisonError::into_inner) {
            Denied::Nothing => false,
            Denied::Buckets => is_of_bucket,
            Denied::Everything => true,
        };
        let (answering, operations) = (service.call(request.map(Body::from)), &operations);
        async move {
            let mut answer = if is_denied { access_denied() } else { answering.await? };
            let date = jiff::Timestamp::try_from(operations.now()).unwrap_or_default();
            let text = date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
            if let Ok(date) = HeaderValue::from_str(&text) {
                answer.headers_mut().insert(DATE, date);
            }
            Ok::<_, s3s::HttpError>(answer)
        }
    });
    // An error means that the client disconnected.
    let _ = http.serve_connection(TokioIo::new(stream), dated).await;
}

fn access_denied() -> http::Response<Body> {
    let mut answer = http::Response::new(Body::from("<Error><Code>AccessDenied</Code></Error>".to_owned()));
    *answer.status_mut() = http::StatusCode::FORBIDDEN;
    answer
}

/// Authentication of the only user. Unlike `s3s::auth::SimpleAuth`, it answers an unknown key as AWS and Ceph do.
struct SingleUserAuth(Secrets);

#[async_trait::async_trait]
impl S3Auth for SingleUserAuth {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let secret = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(access_key).cloned();
        secret.ok_or_else(|| s3_error!(InvalidAccessKeyId, "The access key id you provided does not exist."))
    }
}
