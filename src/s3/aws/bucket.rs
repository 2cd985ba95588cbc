//! Calls on one bucket.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use aws_sdk_s3::operation::get_bucket_location::{GetBucketLocation, GetBucketLocationInput};
use aws_sdk_s3::operation::get_bucket_versioning::{GetBucketVersioning, GetBucketVersioningInput};
use aws_sdk_s3::operation::get_object_lock_configuration::{
    GetObjectLockConfiguration, GetObjectLockConfigurationInput,
};
use aws_sdk_s3::operation::head_bucket::{HeadBucket, HeadBucketInput};
use aws_sdk_s3::operation::list_objects_v2::{ListObjectsV2, ListObjectsV2Input};
use aws_sdk_s3::types::{self, BucketVersioningStatus, ObjectLockEnabled};
use jiff::Timestamp;

use super::address::BucketAddress;
use super::answer::{ClockOffset, is_html, usage};
use super::clients::SigningClient;
use super::count::RequestCounter;
use super::credentials::Renewal;
use super::sender::RequestSender;
use crate::model::{LockMode, S3Location};
use crate::s3::bucket::{BucketApi, BucketUsage, DefaultRetention, ObjectLock, RetentionLength, Versioning};
use crate::s3::failure::S3Failure;
use crate::s3::pages::{Entries, ListedPage, PageMarker};

/// Whether HEAD has the parameter `read-stats`. Ceph since release 20 reports the usage only on request. Other
/// services ignore the parameter, or refuse it. The flag is kept across probes, so that a service that refuses the
/// parameter gets only one such request.
#[derive(Debug, Clone)]
pub(super) struct StatsParameter(Arc<AtomicBool>);

impl StatsParameter {
    /// AWS does not know the parameter.
    pub(super) fn new(location: &S3Location) -> Self {
        Self(Arc::new(AtomicBool::new(location.endpoint().is_some())))
    }

    fn is_used(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn drop_parameter(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// One bucket, with the credentials of one probe.
#[derive(Clone)]
pub struct AwsBucket {
    pub(super) sender: Arc<RequestSender>,
    pub(super) bucket: String,
    access_key_id: String,
    credentials_expire_at: Option<Timestamp>,
    renewal: Renewal,
    stats: StatsParameter,
    pub(super) clock: ClockOffset,
    pub(super) requests: RequestCounter,
    exposed: Option<PathBuf>,
    /// Headers of each PUT of an object.
    pub(super) put_headers: Arc<BTreeMap<String, String>>,
}

/// Credentials, CA bundle and region of a client. It is equal as long as none of them has changed.
#[derive(Debug, Clone)]
pub struct ClientIdentity(Renewal);

impl PartialEq for ClientIdentity {
    fn eq(&self, other: &Self) -> bool {
        self.0.is_same(&other.0)
    }
}

impl AwsBucket {
    /// Returns the identity of its client.
    #[must_use]
    pub fn identity(&self) -> ClientIdentity {
        ClientIdentity(self.renewal.clone())
    }

    pub(super) fn new(
        connected: SigningClient,
        (location, region): (&S3Location, &str),
        address: Arc<BucketAddress>,
        stats: StatsParameter,
        requests: RequestCounter,
        put_headers: Arc<BTreeMap<String, String>>,
    ) -> Self {
        Self {
            sender: Arc::new(RequestSender {
                connector: connected.connector,
                identity: connected.identity,
                region: region.to_owned(),
                address,
            }),
            bucket: location.bucket().to_owned(),
            access_key_id: connected.credentials.access_key_id().to_owned(),
            credentials_expire_at: connected.credentials.expiry().and_then(|end| Timestamp::try_from(end).ok()),
            renewal: connected.renewal,
            stats,
            clock: ClockOffset::default(),
            requests,
            exposed: connected.exposed,
            put_headers,
        }
    }

    /// HEAD bucket, with or without the parameter that asks Ceph for the usage.
    async fn head(&self, asks_for_stats: bool) -> Result<BucketUsage, S3Failure> {
        let input = HeadBucketInput::builder().bucket(&self.bucket).build();
        let mut request = self.request::<HeadBucket>(input)?;
        if asks_for_stats {
            let separator = if request.http.uri().contains('?') { '&' } else { '?' };
            let uri = format!("{}{separator}read-stats", request.http.uri());
            let _kept_on_error = request.http.set_uri(uri);
        }
        let answer = request.send().await.map_err(|failure| match failure {
            // A failed HEAD has no code. The SDK derives one from the status.
            S3Failure::Service { status, region, leads_to, clock_ahead_seconds, .. } => {
                S3Failure::service(status, None, region.as_deref())
                    .with_headers(clock_ahead_seconds, leads_to.as_deref())
            }
            other => other,
        })?;
        if is_html(&answer.http) {
            return Err(S3Failure::WebPage);
        }
        Ok(BucketUsage { clock_ahead_seconds: self.clock_ahead_seconds(), ..usage(&answer.http) })
    }

    /// Returns the same bucket for calls outside probes. Their requests do not count as requests of probes, and their
    /// answers do not change the offset of the service's clock.
    #[must_use]
    pub fn for_background(&self) -> Self {
        Self { clock: ClockOffset::default(), requests: self.requests.for_background(), ..self.clone() }
    }

    /// Returns the file with the secret of the credentials, if other users of this host may read or change it.
    #[must_use]
    pub fn exposed_secret(&self) -> Option<&Path> {
        self.exposed.as_deref()
    }

    /// Returns the offset of the service's clock from this host's at the latest answer, in seconds. Positive if it
    /// was ahead.
    #[must_use]
    pub fn clock_ahead_seconds(&self) -> Option<i64> {
        self.clock.ahead_seconds()
    }

    /// Returns when the credentials expire. `None` if they do not.
    #[must_use]
    pub fn credentials_expire_at(&self) -> Option<Timestamp> {
        self.credentials_expire_at
    }

    /// Returns whether the source of the credentials provided the same ones when others were due.
    #[must_use]
    pub fn is_renewal_overdue(&self) -> bool {
        self.renewal.is_overdue()
    }

    /// Returns the access key ID of the credentials. It is not a secret.
    #[must_use]
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }
}

#[async_trait]
impl BucketApi for AwsBucket {
    async fn head_bucket(&self) -> Result<BucketUsage, S3Failure> {
        if !self.stats.is_used() {
            return self.head(false).await;
        }
        match self.head(true).await {
            // A service or proxy may refuse an unknown parameter, or fail because of it.
            Err(refused) if matches!(refused.status(), Some(400..=502)) => {
                let usage = self.head(false).await.map_err(|_| refused)?;
                self.stats.drop_parameter();
                Ok(usage)
            }
            answer => answer,
        }
    }

    async fn bucket_location(&self) -> Result<(), S3Failure> {
        let input = GetBucketLocationInput::builder().bucket(&self.bucket).build();
        self.request::<GetBucketLocation>(input)?.send().await.map(|_| ())
    }

    async fn list_below(&self, prefix: &str) -> Result<(), S3Failure> {
        let list = ListObjectsV2Input::builder().bucket(&self.bucket).prefix(prefix).max_keys(1).build();
        self.request::<ListObjectsV2>(list)?.send().await.map(|_| ())
    }

    async fn versioning(&self) -> Result<Versioning, S3Failure> {
        let input = GetBucketVersioningInput::builder().bucket(&self.bucket).build();
        let answer = self.request::<GetBucketVersioning>(input)?.requiring_xml().send().await?;
        match answer.content.status() {
            None => Ok(Versioning::Off),
            Some(BucketVersioningStatus::Enabled) => Ok(Versioning::Enabled),
            Some(BucketVersioningStatus::Suspended) => Ok(Versioning::Suspended),
            Some(_) => Err(S3Failure::NotS3("its versioning status is neither Enabled nor Suspended".to_owned())),
        }
    }

    async fn object_lock(&self) -> Result<ObjectLock, S3Failure> {
        let input = GetObjectLockConfigurationInput::builder().bucket(&self.bucket).build();
        let answer = match self.request::<GetObjectLockConfiguration>(input)?.requiring_xml().send().await {
            Ok(answer) => answer,
            Err(S3Failure::Service { code: Some(code), .. }) if code == "ObjectLockConfigurationNotFoundError" => {
                return Ok(ObjectLock { enabled: Some(false), default_retention: None });
            }
            Err(failure) => return Err(failure),
        };
        let configuration = answer.content.object_lock_configuration();
        Ok(ObjectLock {
            enabled: Some(
                configuration
                    .and_then(|found| found.object_lock_enabled())
                    .is_some_and(|enabled| *enabled == ObjectLockEnabled::Enabled),
            ),
            default_retention: configuration
                .and_then(|found| found.rule()?.default_retention())
                .and_then(written_retention),
        })
    }

    async fn page(&self, entries: Entries, after: Option<&PageMarker>) -> Result<ListedPage, S3Failure> {
        match entries {
            Entries::Versions => self.versions_page(after).await,
            Entries::Objects => self.objects_page(after).await,
        }
    }
}

/// Returns the configured retention. Returns none if a part is missing or unknown, because then no retention is in
/// force.
fn written_retention(retention: &types::DefaultRetention) -> Option<DefaultRetention> {
    let mode = lock_mode(retention.mode()?.as_str())?;
    let count = |count: Option<i32>| count.and_then(|count| u32::try_from(count).ok()).filter(|count| *count > 0);
    let length = count(retention.days())
        .map(RetentionLength::Days)
        .or_else(|| count(retention.years()).map(RetentionLength::Years))?;
    Some(DefaultRetention { mode, length })
}

/// Returns the mode of this name.
pub(super) fn lock_mode(name: &str) -> Option<LockMode> {
    LockMode::ALL.iter().copied().find(|mode| mode.as_str() == name)
}
