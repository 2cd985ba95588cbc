//! An S3 server in memory, with versions and an object lock that is in force.
//!
//! `s3s` parses requests and verifies their signatures (Signature Version 4); what an operation
//! does is in `operations`, and what is kept in `store`. Both follow Ceph RADOS Gateway where
//! services differ: its usage headers on HEAD of a bucket, its answers to a locked DELETE.
//! Plain HTTP, path addressing.

mod operations;
mod store;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
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

use super::loopback::Loopback;
use operations::Operations;
use store::Store;

/// How long a client may take to send the head of a request.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);

/// What a server starts with: one user, and the buckets that belong to it.
pub struct S3Fixture {
    /// The user's access key id.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
    /// Its buckets.
    pub buckets: Vec<BucketFixture>,
}

/// A bucket.
#[derive(Debug, Clone, Default)]
pub struct BucketFixture {
    /// Its name.
    pub name: String,
    /// Whether each PUT makes a version.
    pub versioning: bool,
    /// Its object lock, which includes versioning; none when it was made without.
    pub object_lock: Option<ObjectLockFixture>,
    /// What the service tells about its use in `X-RGW-…` headers; none for a service that tells nothing.
    pub usage: Option<BucketUsageFixture>,
    /// How many entries a page of its listings has at most; none for as many as are asked for.
    pub page_max: Option<u8>,
}

/// The object lock of a bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ObjectLockFixture {
    /// The retention of objects that are put without one.
    pub default_retention: Option<RetentionFixture>,
    /// What the service makes of it.
    pub conduct: LockConduct,
}

/// How a service deals with retentions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LockConduct {
    /// As it should.
    #[default]
    Enforced,
    /// It stores and tells them, and deletes all the same.
    Ignored,
    /// It locks every object for the default retention, whatever a PUT asks for.
    DefaultWins,
    /// As it should, and it tells nobody its configuration.
    Untold,
}

/// How long, and how strictly, a version is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionFixture {
    /// Whether somebody may end it early.
    pub mode: RetentionMode,
    /// Its length from the PUT on, in days.
    pub days: u16,
}

/// The retention modes of S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetentionMode {
    /// A DELETE with bypass succeeds.
    Governance,
    /// Nobody deletes it before its time.
    Compliance,
}

/// The use of a bucket before the server started; what is stored since then is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketUsageFixture {
    /// Bytes in all versions.
    pub used_bytes: u64,
    /// Versions.
    pub object_count: u64,
    /// The quota in bytes, which is told and not enforced; none for no limit.
    pub quota_bytes: Option<u64>,
}

/// The running server.
pub struct S3Server {
    listener: Loopback,
    operations: Operations,
}

impl S3Server {
    /// Serves the buckets on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start(fixture: S3Fixture) -> io::Result<Self> {
        Self::start_on(0, fixture).await
    }

    /// The same on a given port: the server that comes back after [`S3Server::stop`], empty again.
    ///
    /// # Errors
    /// When the port cannot be had.
    pub async fn start_on(port: u16, fixture: S3Fixture) -> io::Result<Self> {
        let operations = Operations::new(Store::new(fixture.buckets));
        let mut builder = S3ServiceBuilder::new(operations.clone());
        builder.set_auth(OneUser {
            access_key_id: fixture.access_key_id,
            secret_access_key: fixture.secret_access_key.into(),
        });
        let service = builder.build();
        let clock = operations.clone();
        let listener = Loopback::start(port, move |stream| serve(stream, service.clone(), clock.clone())).await?;
        Ok(Self { listener, operations })
    }

    /// Where it is: `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.listener.address())
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.listener.address().port()
    }

    /// Lets time pass for retention and in what is told of the time (`Date`), and for nothing else: what is
    /// retained for less becomes deletable.
    pub fn advance_clock(&self, by: Duration) {
        self.operations.advance_clock(by);
    }

    /// Has a bucket's lock be dealt with in another way from now on.
    pub fn set_conduct(&self, bucket: &str, conduct: LockConduct) {
        self.operations.set_conduct(bucket, conduct);
    }

    /// Stores an object in a bucket.
    pub fn put(&self, bucket: &str, key: &str, content: impl Into<bytes::Bytes>) {
        self.operations.change(bucket, key, Some(content.into()));
    }

    /// Deletes an object of a bucket, which leaves a delete marker where versions are kept.
    pub fn hide(&self, bucket: &str, key: &str) {
        self.operations.change(bucket, key, None);
    }

    /// How many versions a bucket holds, beside what it was made with.
    pub fn stored_versions(&self, bucket: &str) -> u64 {
        self.operations.stored_versions(bucket)
    }

    /// The requests so far: method, path and query of each.
    pub fn requests(&self) -> Vec<String> {
        self.operations.requests()
    }

    /// How many connections have had a request.
    pub fn connections(&self) -> usize {
        self.operations.connections()
    }

    /// Closes the listener and every connection; from its return on, connections are refused.
    pub async fn stop(self) {
        self.listener.stop().await;
    }
}

async fn serve(stream: TcpStream, service: S3Service, clock: Operations) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE);
    let has_asked = AtomicBool::new(false);
    let dated = service_fn(|request: http::Request<Incoming>| {
        clock.note(format!("{} {}", request.method(), request.uri()), !has_asked.swap(true, Ordering::Relaxed));
        let (answering, clock) = (service.call(request.map(Body::from)), &clock);
        async move {
            let mut answer = answering.await?;
            let date = jiff::Timestamp::try_from(clock.now()).unwrap_or_default();
            let text = date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
            if let Ok(date) = HeaderValue::from_str(&text) {
                answer.headers_mut().insert(DATE, date);
            }
            Ok::<_, s3s::HttpError>(answer)
        }
    });
    let _client_broke_off = http.serve_connection(TokioIo::new(stream), dated).await;
}

/// The code for an unknown key is that of AWS and Ceph, unlike in `s3s::auth::SimpleAuth`.
struct OneUser {
    access_key_id: String,
    secret_access_key: SecretKey,
}

#[async_trait::async_trait]
impl S3Auth for OneUser {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        if access_key == self.access_key_id {
            Ok(self.secret_access_key.clone())
        } else {
            Err(s3_error!(InvalidAccessKeyId, "The access key id you provided does not exist."))
        }
    }
}
