//! The AWS SDK as a [`BucketApi`](super::BucketApi). Only this file and those below it name the SDK.
//!
//! Nothing is made before the first probe: an agent without buckets does not read the system's
//! certificate authorities. At each probe the credentials and the CA bundle are read again, so
//! that rotated keys and certificates take effect by themselves; the connections are kept while
//! rule and bundle stay the same. There are no retries: the next probe is the retry.

mod answer;
mod bucket;
mod credentials;
mod errors;
mod objects;
mod trust;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Region, RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig,
};
use aws_smithy_runtime_api::client::http::SharedHttpClient;

use super::S3Failure;
use crate::model::S3Location;
use crate::model::settings::{S3AccessRule, S3Addressing, S3CredentialSource};

pub use answer::ANSWER_LIMIT_BYTES;
pub use bucket::AwsBucket;
pub use credentials::CREDENTIALS_RENEWED_BEFORE_END;

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
            Some(path) => Some(trust::read_ca_bundle(path).await?),
            None => None,
        };
        let region = self.region(rule).await;
        let kept = self.connection.take().filter(|kept| kept.rule.as_ref() == rule && kept.ca_bundle == ca_bundle);
        let connection = match kept {
            Some(kept) => kept,
            None => {
                let plain = self.location.endpoint().is_some_and(|endpoint| !endpoint.is_tls());
                let http_client = trust::http_client(plain, ca_bundle.as_deref())?;
                Connection { rule: rule.cloned(), ca_bundle, http_client, credentials: None }
            }
        };
        let connection = self.connection.insert(connection);
        let source = rule.map_or(&S3CredentialSource::DefaultChain, |rule| &rule.source);
        let credentials = match connection.credentials.take().filter(credentials::outlives_a_probe) {
            Some(credentials) => credentials,
            None => credentials::load(source, &region, &connection.http_client).await?,
        };
        connection.credentials = Some(credentials.clone());
        let access_key_id = credentials.access_key_id().to_owned();
        let clock = answer::WatchClock::default();
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
            .interceptor(answer::LimitAnswer)
            .interceptor(clock.clone());
        if let Some(endpoint) = self.location.endpoint() {
            config = config.endpoint_url(endpoint.url());
        }
        let client = Client::from_conf(config.build());
        Ok(AwsBucket::new(client, self.location.bucket(), access_key_id, self.location.endpoint().is_some(), clock))
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
