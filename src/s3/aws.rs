//! The AWS SDK as a [`BucketApi`](super::BucketApi). Only this file and those below it name the SDK.
//!
//! A client is created at the first probe: an agent without buckets does not read the system's certificate
//! authorities. Every probe re-reads the credentials and the CA bundle, so rotated keys and certificates take
//! effect without a restart. Client and connections are kept while these stay the same. Targets with the same
//! client key share them ([`clients`]). The SDK's retries are off: the next probe is the retry.

mod answer;
mod bucket;
mod clients;
mod count;
mod credentials;
mod errors;
mod objects;
mod pages;
mod trust;
mod xml;

use std::sync::Arc;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_sdk_s3::config::Region;

use super::S3Failure;
use crate::model::S3Location;
use crate::model::settings::{S3AccessRule, S3Addressing, S3CredentialSource};
use clients::{ClientKey, SharedClient};

pub use answer::ANSWER_LIMIT_BYTES;
pub use bucket::AwsBucket;
pub use clients::ClientPool;
pub use count::RequestCounter;
pub use credentials::CREDENTIALS_RENEWED_BEFORE_END;
pub use pages::PAGE_LIMIT_BYTES;
pub use xml::TAGS_DEPTH_MAX;

/// Region of signatures if none is configured. Services other than AWS mostly ignore it.
pub const REGION_WITHOUT_CONFIGURATION: &str = "us-east-1";

/// Finds the client of one bucket, and another one after its key has changed.
pub struct BucketConnector {
    location: S3Location,
    pool: Arc<ClientPool>,
    client: Option<Arc<SharedClient>>,
    requests: RequestCounter,
}

impl BucketConnector {
    /// Creates a connector without a client.
    #[must_use]
    pub fn new(location: S3Location, pool: &Arc<ClientPool>) -> Self {
        Self { location, pool: pool.clone(), client: None, requests: RequestCounter::default() }
    }

    /// Returns the counter of requests for the bucket.
    #[must_use]
    pub fn requests(&self) -> &RequestCounter {
        &self.requests
    }

    /// Returns the host and port that requests for the bucket go to under a rule.
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

    /// Returns the host and port of the proxy for this address, if there is one.
    ///
    /// # Errors
    /// [`S3Failure::Agent`] for a proxy that cannot be used.
    pub fn proxy_to(&self, host: &str, port: u16) -> Result<Option<(String, u16)>, S3Failure> {
        let plain = self.location.endpoint().is_some_and(|endpoint| !endpoint.is_tls());
        trust::proxy_to(host, port, plain)
    }

    /// Returns a client with the current rule, credentials and CA bundle.
    ///
    /// # Errors
    /// [`S3Failure::Tls`] for a CA bundle that cannot be used, [`S3Failure::NoCredentials`].
    pub async fn connect(&mut self, rule: Option<&S3AccessRule>) -> Result<AwsBucket, S3Failure> {
        let ca_bundle = match rule.and_then(|rule| rule.ca_bundle.as_deref()) {
            Some(path) => Some(trust::read_ca_bundle(path).await?),
            None => None,
        };
        let key = ClientKey {
            endpoint: self.location.endpoint().cloned(),
            source: rule.map_or(S3CredentialSource::DefaultChain, |rule| rule.source.clone()),
            region: self.region(rule).await.to_string(),
            ca_bundle,
            addressing: rule.map(|rule| rule.addressing).unwrap_or_default(),
        };
        let client = match self.client.take().filter(|kept| kept.key == key) {
            Some(kept) => kept,
            None => self.pool.client(&key)?,
        };
        let connected = self.client.insert(client).connected().await?;
        Ok(AwsBucket::new(connected, &self.location, self.requests.clone()))
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
