//! The AWS SDK as a [`BucketApi`]. The only file that names the SDK.
//!
//! Nothing is made before the first probe: an agent without buckets does not read the system's
//! certificate authorities. At each probe the credentials and the CA bundle are read again, so
//! that rotated keys and certificates take effect by themselves; the connections are kept while
//! rule and bundle stay the same. There are no retries: the next probe is the retry.

use std::path::Path;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Region, RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::types::{BucketVersioningStatus, DefaultRetention, ObjectLockEnabled};
use aws_smithy_http_client::tls::{self, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeDeserializationInterceptorContextMut, BeforeDeserializationInterceptorContextRef,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::DateTime;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::date_time::Format;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::{BucketApi, BucketUsage, ObjectLock, S3Failure, Versioning};
use crate::model::S3Location;
use crate::model::settings::{S3AccessRule, S3Addressing, S3CredentialSource};

/// The longest answer that is read, in bytes. Those of these calls have a few hundred.
pub const ANSWER_LIMIT_BYTES: usize = 64 * 1024;

/// Temporary credentials are got anew when this little of their life is left.
pub const CREDENTIALS_RENEWED_BEFORE_END: Duration = Duration::from_secs(300);

/// The region signed for where none is configured; services other than AWS mostly ignore it.
pub const REGION_WITHOUT_CONFIGURATION: &str = "us-east-1";

/// Makes the client of one bucket, and remakes what changed.
pub struct BucketConnector {
    location: S3Location,
    connection: Option<Connection>,
}

struct Connection {
    rule: Option<S3AccessRule>,
    ca_bundle: Option<Vec<u8>>,
    http_client: SharedHttpClient,
    credentials: Option<Credentials>,
}

impl BucketConnector {
    /// A connector that has made nothing yet.
    #[must_use]
    pub fn new(location: S3Location) -> Self {
        Self { location, connection: None }
    }

    /// The host and port to which requests for the bucket go under a rule.
    pub async fn service_address(&self, rule: Option<&S3AccessRule>) -> (String, u16) {
        let bucket = self.location.bucket();
        let virtual_host = |host: &str| match rule.map(|rule| rule.addressing).unwrap_or_default() {
            S3Addressing::Path => host.to_owned(),
            S3Addressing::Virtual => format!("{bucket}.{host}"),
        };
        match self.location.endpoint() {
            Some(endpoint) => (virtual_host(endpoint.address()), endpoint.port()),
            None => {
                let region = self.region(rule).await;
                // The AWS China partition has a domain of its own.
                let suffix = if region.as_ref().starts_with("cn-") { ".cn" } else { "" };
                (virtual_host(&format!("s3.{region}.amazonaws.com{suffix}")), 443)
            }
        }
    }

    /// A client with the rule, credentials and CA bundle as they are now.
    ///
    /// # Errors
    /// [`S3Failure::Tls`] for a CA bundle that cannot be used, [`S3Failure::NoCredentials`].
    pub async fn connect(&mut self, rule: Option<&S3AccessRule>) -> Result<AwsBucket, S3Failure> {
        let ca_bundle = match rule.and_then(|rule| rule.ca_bundle.as_deref()) {
            Some(path) => Some(read_ca_bundle(path).await?),
            None => None,
        };
        let region = self.region(rule).await;
        let kept = self.connection.take().filter(|kept| kept.rule.as_ref() == rule && kept.ca_bundle == ca_bundle);
        let connection = match kept {
            Some(kept) => kept,
            None => {
                let plain = self.location.endpoint().is_some_and(|endpoint| !endpoint.is_tls());
                let http_client = http_client(plain, ca_bundle.as_deref())?;
                Connection { rule: rule.cloned(), ca_bundle, http_client, credentials: None }
            }
        };
        let connection = self.connection.insert(connection);
        let source = rule.map_or(&S3CredentialSource::DefaultChain, |rule| &rule.source);
        let credentials = match connection.credentials.take().filter(outlives_a_probe) {
            Some(credentials) => credentials,
            None => load_credentials(source, &region, &connection.http_client).await?,
        };
        connection.credentials = Some(credentials.clone());
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(region)
            .credentials_provider(credentials)
            .http_client(connection.http_client.clone())
            .force_path_style(rule.is_none_or(|rule| rule.addressing == S3Addressing::Path))
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .interceptor(LimitAnswer);
        if let Some(endpoint) = self.location.endpoint() {
            config = config.endpoint_url(endpoint.url());
        }
        Ok(AwsBucket {
            client: Client::from_conf(config.build()),
            bucket: self.location.bucket().to_owned(),
            asks_for_stats: self.location.endpoint().is_some(),
        })
    }

    async fn region(&self, rule: Option<&S3AccessRule>) -> Region {
        if let Some(region) = rule.and_then(|rule| rule.region.clone()) {
            return Region::new(region);
        }
        let otherwise = Region::from_static(REGION_WITHOUT_CONFIGURATION);
        if self.location.endpoint().is_some() {
            return otherwise;
        }
        RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
            .or_else(ProfileFileRegionProvider::new())
            .region()
            .await
            .unwrap_or(otherwise)
    }
}

/// Credentials without an end may have been replaced where they come from, so they are read again.
fn outlives_a_probe(credentials: &Credentials) -> bool {
    credentials.expiry().is_some_and(|end| end > SystemTime::now() + CREDENTIALS_RENEWED_BEFORE_END)
}

async fn load_credentials(
    source: &S3CredentialSource,
    region: &Region,
    http_client: &SharedHttpClient,
) -> Result<Credentials, S3Failure> {
    let settings =
        || ProviderConfig::without_region().with_region(Some(region.clone())).with_http_client(http_client.clone());
    let none =
        |what: &str, error: &dyn std::error::Error| S3Failure::NoCredentials(format!("{what}: {}", innermost(error)));
    match source {
        S3CredentialSource::DefaultChain => DefaultCredentialsChain::builder()
            .configure(settings())
            .region(region.clone())
            .build()
            .await
            .provide_credentials()
            .await
            .map_err(|error| {
                none("the AWS default chain (environment, shared files, instance metadata) has none", &error)
            }),
        S3CredentialSource::Profile(name) => ProfileFileCredentialsProvider::builder()
            .profile_name(name)
            .configure(&settings())
            .build()
            .provide_credentials()
            .await
            .map_err(|error| none(&format!("profile {name:?} of the AWS shared files gives none"), &error)),
        S3CredentialSource::Files { access_key_id, secret_access_key } => {
            let key = read_value(access_key_id).await?;
            let secret = read_value(secret_access_key).await?;
            Ok(Credentials::new(key, secret, None, None, "files"))
        }
    }
}

async fn read_value(path: &Path) -> Result<String, S3Failure> {
    let shown = path.display();
    let text = tokio::fs::read_to_string(path)
        .await
        .map_err(|error| S3Failure::NoCredentials(format!("{shown} cannot be read: {error}")))?;
    let value = text.trim();
    if value.is_empty() || value.contains(char::is_whitespace) {
        return Err(S3Failure::NoCredentials(format!("{shown} does not hold exactly one value")));
    }
    Ok(value.to_owned())
}

/// Reads a bundle and makes sure of it: the SDK would panic over a certificate that is none.
async fn read_ca_bundle(path: &Path) -> Result<Vec<u8>, S3Failure> {
    let unusable = |why: String| S3Failure::Tls(format!("ca_bundle {} {why}", path.display()));
    let pem = tokio::fs::read(path).await.map_err(|error| unusable(format!("cannot be read: {error}")))?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| unusable(format!("is not PEM: {error}")))?;
        roots
            .add(certificate)
            .map_err(|error| unusable(format!("holds a certificate that cannot be used: {error}")))?;
    }
    if roots.is_empty() {
        return Err(unusable("holds no certificate".to_owned()));
    }
    Ok(pem)
}

fn http_client(plain: bool, ca_bundle: Option<&[u8]>) -> Result<SharedHttpClient, S3Failure> {
    let builder = aws_smithy_http_client::Builder::new();
    if plain {
        return Ok(builder.build_http());
    }
    let mut trust = TrustStore::default();
    if let Some(pem) = ca_bundle {
        trust = trust.with_pem_certificate(pem);
    }
    let context =
        TlsContext::builder().with_trust_store(trust).build().map_err(|error| S3Failure::Tls(error.to_string()))?;
    Ok(builder.tls_provider(tls::Provider::Rustls(CryptoMode::Ring)).tls_context(context).build_https())
}

/// One bucket through the SDK, with the credentials of one probe.
pub struct AwsBucket {
    client: Client,
    bucket: String,
    asks_for_stats: bool,
}

#[async_trait]
impl BucketApi for AwsBucket {
    async fn head_bucket(&self) -> Result<BucketUsage, S3Failure> {
        let told = std::sync::Arc::new(std::sync::Mutex::new(Told::default()));
        let asks_for_stats = self.asks_for_stats;
        self.client
            .head_bucket()
            .bucket(&self.bucket)
            .customize()
            .mutate_request(move |request| {
                // Ceph from release 20 on tells the use only when asked; other services ignore it.
                if asks_for_stats {
                    let separator = if request.uri().contains('?') { '&' } else { '?' };
                    let uri = format!("{}{separator}read-stats", request.uri());
                    let _kept_on_error = request.set_uri(uri);
                }
            })
            .interceptor(ReadHeaders(told.clone()))
            .send()
            .await
            .map_err(|error| match failure(error) {
                // The SDK makes up a code for a HEAD from the status alone.
                S3Failure::Service { status, region, .. } => S3Failure::Service { status, code: None, region },
                other => other,
            })?;
        let told = std::mem::take(&mut *told.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        if told.is_html {
            return Err(S3Failure::NotS3("a web page came back".to_owned()));
        }
        Ok(told.usage)
    }

    async fn bucket_location(&self) -> Result<(), S3Failure> {
        self.client.get_bucket_location().bucket(&self.bucket).send().await.map(|_| ()).map_err(failure)
    }

    async fn versioning(&self) -> Result<Versioning, S3Failure> {
        let answer = self.client.get_bucket_versioning().bucket(&self.bucket).send().await.map_err(failure)?;
        match answer.status() {
            None => Ok(Versioning::Off),
            Some(BucketVersioningStatus::Enabled) => Ok(Versioning::Enabled),
            Some(BucketVersioningStatus::Suspended) => Ok(Versioning::Suspended),
            Some(_) => Err(S3Failure::NotS3("its versioning status is neither Enabled nor Suspended".to_owned())),
        }
    }

    async fn object_lock(&self) -> Result<ObjectLock, S3Failure> {
        let answer =
            match self.client.get_object_lock_configuration().bucket(&self.bucket).send().await.map_err(failure) {
                Ok(answer) => answer,
                Err(S3Failure::Service { code: Some(code), .. }) if code == "ObjectLockConfigurationNotFoundError" => {
                    return Ok(ObjectLock { enabled: false, default_retention: None });
                }
                Err(failure) => return Err(failure),
            };
        let configuration = answer.object_lock_configuration();
        Ok(ObjectLock {
            enabled: configuration
                .and_then(|found| found.object_lock_enabled())
                .is_some_and(|enabled| *enabled == ObjectLockEnabled::Enabled),
            default_retention: configuration
                .and_then(|found| found.rule()?.default_retention())
                .and_then(written_retention),
        })
    }
}

/// `GOVERNANCE 30 days`; none when a part is missing, since then it is not in force.
fn written_retention(retention: &DefaultRetention) -> Option<String> {
    let mode = retention.mode()?.as_str();
    let (count, unit) = match (retention.days(), retention.years()) {
        (Some(days), _) if days > 0 => (days, "day"),
        (_, Some(years)) if years > 0 => (years, "year"),
        _ => return None,
    };
    Some(format!("{mode} {count} {unit}{}", if count == 1 { "" } else { "s" }))
}

#[derive(Debug, Default)]
struct Told {
    usage: BucketUsage,
    is_html: bool,
}

/// Keeps what the headers of an answer tell and the SDK does not pass on.
#[derive(Debug)]
struct ReadHeaders(std::sync::Arc<std::sync::Mutex<Told>>);

impl Intercept for ReadHeaders {
    fn name(&self) -> &'static str {
        "ReadHeaders"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = context.response().headers();
        // RGW writes -1 for a quota without limit, which is no u64.
        let number = |name: &str| headers.get(name).and_then(|value| value.trim().parse().ok());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let date = headers.get("date").and_then(|value| DateTime::from_str(value, Format::HttpDate).ok());
        let usage = BucketUsage {
            used_bytes: number("x-rgw-bytes-used"),
            object_count: number("x-rgw-object-count"),
            quota_bytes: number("x-rgw-quota-bucket-size"),
            clock_ahead_seconds: date.map(|date| date.secs().saturating_sub_unsigned(now)),
        };
        let is_html = headers.get("content-type").is_some_and(|kind| kind.starts_with("text/html"));
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Told { usage, is_html };
        Ok(())
    }
}

/// Stops reading an answer at [`ANSWER_LIMIT_BYTES`].
#[derive(Debug)]
struct LimitAnswer;

impl Intercept for LimitAnswer {
    fn name(&self) -> &'static str {
        "LimitAnswer"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.response_mut().body_mut();
        let whole = std::mem::replace(body, SdkBody::taken());
        *body = SdkBody::from_body_1_x(http_body_util::Limited::new(whole, ANSWER_LIMIT_BYTES));
        Ok(())
    }
}

fn failure<E>(error: SdkError<E, HttpResponse>) -> S3Failure
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    if let SdkError::ServiceError(refusal) = &error {
        let (raw, told) = (refusal.raw(), refusal.err());
        let parsed = told.code().is_some() || !raw.status().is_success();
        if parsed {
            return S3Failure::service(raw.status().as_u16(), told.code(), raw.headers().get("x-amz-bucket-region"));
        }
        return S3Failure::NotS3(innermost(told));
    }
    transport(&error).unwrap_or_else(|| match &error {
        SdkError::ConstructionFailure(_) => S3Failure::Agent(innermost(&error)),
        SdkError::ResponseError(_) => S3Failure::NotS3(innermost(&error)),
        _ => S3Failure::ConnectionBroken(innermost(&error)),
    })
}

/// The failure that the innermost known cause stands for.
fn transport(error: &(dyn std::error::Error + 'static)) -> Option<S3Failure> {
    use std::io::ErrorKind;
    let mut found = None;
    for cause in std::iter::successors(Some(error), |cause| next_cause(*cause)) {
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return Some(S3Failure::Tls(tls.to_string()));
        }
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            found = Some(match io.kind() {
                ErrorKind::ConnectionRefused => S3Failure::ConnectionRefused,
                ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
                    S3Failure::HostUnreachable(io.to_string())
                }
                _ if io.to_string().contains("lookup address") => S3Failure::NameNotResolved(io.to_string()),
                _ => S3Failure::ConnectionBroken(io.to_string()),
            });
        }
    }
    found
}

/// What an error says it was caused by. An `io::Error` that wraps another error names that one's
/// cause as its own and so skips it, and the connector wraps TLS errors in two of them.
fn next_cause<'error>(
    cause: &'error (dyn std::error::Error + 'static),
) -> Option<&'error (dyn std::error::Error + 'static)> {
    match cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => cause.source(),
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = cause.to_string();
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn a_tls_error_is_found_below_the_errors_that_wrap_it() {
        let tls = || rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let once = io::Error::new(io::ErrorKind::InvalidData, tls());
        let twice = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, tls()));
        for error in [once, twice] {
            assert!(matches!(transport(&error), Some(S3Failure::Tls(why)) if why.contains("UnknownIssuer")));
        }
        let refused = io::Error::other(io::Error::from(io::ErrorKind::ConnectionRefused));
        assert_eq!(transport(&refused), Some(S3Failure::ConnectionRefused));
    }
}
