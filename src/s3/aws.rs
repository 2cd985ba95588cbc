//! The AWS SDK as a [`BucketApi`](super::BucketApi). Only this file and those below it name the SDK.
//!
//! A client is created at the first probe: an agent without buckets does not read the system's certificate
//! authorities. Every probe re-reads the credentials and the CA bundle, so rotated keys and certificates take
//! effect without a restart. Client and connections are kept while credentials and CA bundle stay the same. Targets
//! with the same client key share them ([`clients`]). Requests use the parts of the SDK without its client ([`request`]).

mod address;
mod answer;
mod bucket;
mod clients;
mod count;
mod credentials;
mod errors;
#[cfg(test)]
pub(crate) mod fake_service;
mod handshake;
mod objects;
mod operation;
mod pages;
mod request;
mod sender;
mod shared_files;
mod trust;
mod xml;

use std::sync::Arc;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::ProvideRegion as _;
use jiff::Timestamp;
use tokio::net::TcpStream;

use super::failure::S3Failure;
use crate::model::report::CertificateEnd;
use crate::model::settings::{S3AccessRule, S3Addressing, S3CredentialSource};
use crate::model::{BucketSecret, S3Endpoint, S3Location};
use address::BucketAddress;
use bucket::StatsParameter;
use clients::{ClientKey, SharedClient};
use credentials::ClientSource;

pub use answer::ANSWER_LIMIT_BYTES;
pub use bucket::{AwsBucket, ClientIdentity};
pub use clients::ClientPool;
pub use count::{OperationTally, RequestCounter};
pub use credentials::CREDENTIALS_RENEWED_BEFORE_END;
pub use pages::PAGE_LIMIT_BYTES;
pub use xml::TAGS_DEPTH_MAX;

/// Region of signatures if none is configured. Services other than AWS mostly ignore it.
pub const REGION_WITHOUT_CONFIGURATION: &str = "us-east-1";

/// Finds the client of one bucket, and replaces it when its key has changed.
pub struct BucketConnector {
    location: S3Location,
    pool: Arc<ClientPool>,
    client: Option<Arc<SharedClient>>,
    /// Latest address, with the addressing and the region that it belongs to.
    address: Option<(S3Addressing, String, Arc<BucketAddress>)>,
    stats: StatsParameter,
    requests: RequestCounter,
}

impl BucketConnector {
    /// Creates a connector without a client.
    #[must_use]
    pub fn new(location: S3Location, pool: &Arc<ClientPool>) -> Self {
        let stats = StatsParameter::new(&location);
        let requests = RequestCounter::new(pool.operations().clone());
        Self { location, pool: pool.clone(), client: None, address: None, stats, requests }
    }

    /// Returns the counter of requests for the bucket.
    #[must_use]
    pub fn requests(&self) -> &RequestCounter {
        &self.requests
    }

    /// Returns the host and port to which requests for the bucket are sent under a rule.
    ///
    /// # Errors
    /// [`S3Failure::Agent`] when the SDK has no address for the bucket.
    pub async fn service_address(
        &mut self,
        rule: Option<&S3AccessRule>,
        region: &str,
    ) -> Result<(String, u16), S3Failure> {
        self.address(addressing(rule), region).await?.host_and_port()
    }

    /// Returns the address of the bucket. It is resolved once, because the rules of the SDK take time.
    async fn address(&mut self, addressing: S3Addressing, region: &str) -> Result<Arc<BucketAddress>, S3Failure> {
        if let Some((known_addressing, known_region, address)) = &self.address
            && *known_addressing == addressing
            && known_region == region
        {
            return Ok(address.clone());
        }
        let address = Arc::new(BucketAddress::resolve(&self.location, addressing, region).await?);
        self.address = Some((addressing, region.to_owned(), address.clone()));
        Ok(address)
    }

    /// Returns the host and port of the proxy for this address, if there is one.
    ///
    /// # Errors
    /// [`S3Failure::Agent`] for a proxy that cannot be used.
    pub fn proxy_to(&self, host: &str, port: u16) -> Result<Option<(String, u16)>, S3Failure> {
        trust::proxy_to(host, port, !self.uses_tls())
    }

    /// Returns which certificate that the service presents ends first after `now`. `None` if the service does not use
    /// TLS, or if that is not known. The caller sets a deadline.
    pub async fn certificate_end(&self, host: &str, port: u16, now: Timestamp) -> Option<CertificateEnd> {
        if !self.uses_tls() {
            return None;
        }
        handshake::certificate_end(host, port, now).await
    }

    /// Whether the latest client would accept the certificate of the service, which a handshake without a request
    /// shows. Always true without TLS. `direct` is a connection to the service or to the proxy before it. The caller
    /// sets a deadline.
    pub async fn accepts_service(&self, host: &str, port: u16, direct: TcpStream) -> bool {
        if !self.uses_tls() {
            return true;
        }
        match self.client.as_ref().and_then(|client| client.handshake()) {
            Some(config) => handshake::is_accepted(host, port, direct, config).await,
            None => false,
        }
    }

    fn uses_tls(&self) -> bool {
        self.location.endpoint().is_none_or(S3Endpoint::is_tls)
    }

    /// Returns a client with the current rule, credentials and CA bundle, for the [`region`] of rule and secret. The
    /// credentials of a `secret` are used instead of those of the rule. The CA bundle of the rule is used instead of
    /// that of the secret.
    ///
    /// # Errors
    /// [`S3Failure::Tls`] for a CA bundle that cannot be used, [`S3Failure::NoCredentials`], [`S3Failure::Agent`].
    pub async fn connect(
        &mut self,
        rule: Option<&S3AccessRule>,
        secret: Option<&Arc<BucketSecret>>,
        region: &str,
    ) -> Result<AwsBucket, S3Failure> {
        let ca_bundle = match rule.and_then(|rule| rule.ca_bundle.as_deref()) {
            Some(path) => Some(trust::read_ca_bundle(path).await?),
            None => secret.and_then(|secret| secret.certificate()).map(<[u8]>::to_vec),
        };
        let configured = || rule.map_or(S3CredentialSource::DefaultChain, |rule| rule.source.clone());
        let key = ClientKey {
            endpoint: self.location.endpoint().cloned(),
            source: secret.cloned().map_or_else(|| ClientSource::Configured(configured()), ClientSource::Secret),
            region: region.to_owned(),
            ca_bundle,
            addressing: addressing(rule),
        };
        let client = match self.client.take().filter(|kept| kept.key == key) {
            Some(kept) => kept,
            None => self.pool.client(&key)?,
        };
        let connected = self.client.insert(client).connected().await?;
        let address = self.address(addressing(rule), region).await?;
        let put_headers = rule.map(|rule| rule.put_headers.clone()).unwrap_or_default();
        let (stats, requests) = (self.stats.clone(), self.requests.clone());
        Ok(AwsBucket::new(connected, (&self.location, region), address, stats, requests, put_headers))
    }
}

/// Returns the region of signatures: that of the rule, the secret, the environment or the profile, or
/// [`REGION_WITHOUT_CONFIGURATION`].
///
/// # Errors
/// [`S3Failure::NoCredentials`] when the AWS shared files are not read in time.
pub async fn region(rule: Option<&S3AccessRule>, secret: Option<&BucketSecret>) -> Result<String, S3Failure> {
    let configured = rule.and_then(|rule| rule.region.as_deref()).or_else(|| secret?.region());
    if let Some(region) = configured {
        return Ok(region.to_owned());
    }
    if let Some(region) = EnvironmentVariableRegionProvider::new().region().await {
        return Ok(region.to_string());
    }
    let profile = match rule.map(|rule| &rule.source) {
        Some(S3CredentialSource::Profile(name)) => Some(name.as_str()),
        _ => None,
    };
    let region = shared_files::region(profile).await?;
    Ok(region.unwrap_or_else(|| REGION_WITHOUT_CONFIGURATION.to_owned()))
}

fn addressing(rule: Option<&S3AccessRule>) -> S3Addressing {
    rule.map(|rule| rule.addressing).unwrap_or_default()
}

#[cfg(test)]
mod tests;
