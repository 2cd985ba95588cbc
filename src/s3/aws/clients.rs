//! Clients of the agent: one client with one connection pool for each [`ClientKey`].
//!
//! Targets with the same endpoint, source of credentials, authorities, region and addressing share a client,
//! its connections and the credentials that were read. A client lives as long as a target uses it, so there
//! are at most as many clients as targets.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use aws_credential_types::Credentials;
use aws_sdk_s3::config::Region;
use aws_smithy_http_client::tls::TlsContext;
use aws_smithy_runtime_api::client::http::{SharedHttpClient, SharedHttpConnector};
use aws_smithy_runtime_api::client::identity::Identity;
use rustls::ClientConfig;

use super::count::OperationTally;
use super::credentials::{ClientSource, Renewal};
use super::{credentials, trust};
use crate::model::S3Endpoint;
use crate::model::settings::S3Addressing;
use crate::s3::failure::S3Failure;
use crate::tls;

/// Everything that a client depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ClientKey {
    /// Endpoint of the service. None for AWS.
    pub(super) endpoint: Option<S3Endpoint>,
    /// Source of the credentials.
    pub(super) source: ClientSource,
    /// Region of signatures.
    pub(super) region: String,
    /// Content of the CA bundle.
    pub(super) ca_bundle: Option<Vec<u8>>,
    /// Addressing of the bucket: in the path or in the host name.
    pub(super) addressing: S3Addressing,
}

/// Clients in use, by key, and the requests of all clients so far.
#[derive(Debug, Default)]
pub struct ClientPool {
    clients: Mutex<HashMap<ClientKey, Weak<SharedClient>>>,
    operations: Arc<OperationTally>,
}

impl ClientPool {
    /// Returns the requests of all clients by operation and result.
    #[must_use]
    pub fn operations(&self) -> &Arc<OperationTally> {
        &self.operations
    }

    /// Returns the client of a key.
    ///
    /// # Errors
    /// [`S3Failure::Tls`] when the client cannot be created.
    pub(super) fn client(&self, key: &ClientKey) -> Result<Arc<SharedClient>, S3Failure> {
        // Every change is a single insert or remove, so a panic leaves nothing half done.
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = clients.get(key).and_then(Weak::upgrade) {
            return Ok(shared);
        }
        clients.retain(|_, client| client.strong_count() > 0);
        let shared = Arc::new(SharedClient::new(key.clone())?);
        clients.insert(key.clone(), Arc::downgrade(&shared));
        Ok(shared)
    }
}

/// Deadline of a question for newer credentials, which no probe waits for.
const ASK_AGAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// HTTP client and credentials that targets share.
pub(super) struct SharedClient {
    /// Key of the client.
    pub(super) key: ClientKey,
    http_client: SharedHttpClient,
    context: TlsContext,
    /// Connections of requests, from the first probe on.
    connector: OnceLock<SharedHttpConnector>,
    /// Configuration of handshakes without a request, from the first one on. `None` inside: it cannot be made.
    handshake: OnceLock<Option<Arc<ClientConfig>>>,
    latest: tokio::sync::Mutex<Option<Loaded>>,
}

/// Result of the latest read of the credentials.
#[derive(Clone)]
struct Loaded {
    /// When the read began.
    began: Instant,
    outcome: Result<SigningClient, S3Failure>,
}

/// Connections, and the credentials that requests are signed with.
#[derive(Clone)]
pub(super) struct SigningClient {
    pub(super) connector: SharedHttpConnector,
    pub(super) credentials: Credentials,
    /// The same credentials for the signer.
    pub(super) identity: Identity,
    /// File with their secret that other users may read.
    pub(super) exposed: Option<PathBuf>,
    pub(super) renewal: Renewal,
}

impl std::fmt::Debug for SharedClient {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SharedClient").field("key", &self.key).finish_non_exhaustive()
    }
}

impl SharedClient {
    fn new(key: ClientKey) -> Result<Self, S3Failure> {
        let plain = key.endpoint.as_ref().is_some_and(|endpoint| !endpoint.is_tls());
        let context = trust::tls_context(plain, key.ca_bundle.as_deref())?;
        let http_client = trust::http_client(context.clone());
        let (connector, handshake) = (OnceLock::new(), OnceLock::new());
        Ok(Self { key, http_client, context, connector, handshake, latest: tokio::sync::Mutex::default() })
    }

    /// Returns a TLS configuration that trusts the same authorities. `None` if it cannot be made.
    pub(super) fn handshake(&self) -> Option<Arc<ClientConfig>> {
        self.handshake.get_or_init(|| tls::handshake_config(self.key.ca_bundle.as_deref()).ok().map(Arc::new)).clone()
    }

    /// Returns the client with the current credentials.
    ///
    /// # Errors
    /// [`S3Failure::NoCredentials`].
    pub(super) async fn connected(self: &Arc<Self>) -> Result<SigningClient, S3Failure> {
        let asked = Instant::now();
        let mut latest = self.latest.lock().await;
        let before = latest.as_ref();
        // Another caller began to read after this call began, so its result is current.
        if let Some(loaded) = before.filter(|loaded| loaded.began >= asked) {
            return loaded.outcome.clone();
        }
        let before = before.and_then(|loaded| loaded.outcome.as_ref().ok().cloned());
        if before.as_ref().is_some_and(|known| credentials::outlives_a_probe(&known.credentials))
            && let Some(Loaded { outcome: Ok(known), .. }) = &mut *latest
        {
            self.ask_if_due(known);
            return Ok(known.clone());
        }
        let began = Instant::now();
        let loaded = self.load().await;
        let mut outcome = loaded.map(|(credentials, exposed)| self.signing(before, credentials, exposed));
        if let Ok(connected) = &mut outcome {
            self.ask_if_due(connected);
        }
        *latest = Some(Loaded { began, outcome: outcome.clone() });
        outcome
    }

    async fn load(&self) -> Result<(Credentials, Option<PathBuf>), S3Failure> {
        let region = Region::new(self.key.region.clone());
        credentials::load(&self.key.source, &region, &self.http_client).await
    }

    /// Returns the client of credentials that were read. It is that of `before` if they are the same.
    fn signing(
        &self,
        before: Option<SigningClient>,
        credentials: Credentials,
        exposed: Option<PathBuf>,
    ) -> SigningClient {
        if let Some(known) = before.filter(|known| known.credentials == credentials) {
            // Credentials that expire are read again only when new ones are due.
            if credentials.expiry().is_some() {
                known.renewal.repeated();
            }
            return SigningClient { exposed, ..known };
        }
        let renewal = Renewal::at_first_read(credentials.expiry(), SystemTime::now());
        let identity = Identity::from(credentials.clone());
        let connector = self.connector.get_or_init(|| trust::connector(&self.context)).clone();
        SigningClient { connector, credentials, identity, exposed, renewal }
    }

    /// Asks the source for newer credentials if that is due. No probe waits for the answer, and a failure changes
    /// nothing, because the known credentials are valid.
    fn ask_if_due(self: &Arc<Self>, known: &mut SigningClient) {
        if !known.renewal.ask(known.credentials.expiry(), SystemTime::now()) {
            return;
        }
        let shared = self.clone();
        let asked = known.credentials.clone();
        tokio::spawn(async move {
            let Ok(Ok((credentials, exposed))) = tokio::time::timeout(ASK_AGAIN_TIMEOUT, shared.load()).await else {
                return;
            };
            let mut latest = shared.latest.lock().await;
            if let Some(Loaded { outcome: Ok(known), .. }) = &mut *latest
                && known.credentials == asked
            {
                *known = shared.signing(Some(known.clone()), credentials, exposed);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::S3Location;
    use crate::model::settings::S3CredentialSource;

    fn key(url: &str) -> ClientKey {
        ClientKey {
            endpoint: S3Location::parse(url).expect("a location").endpoint().cloned(),
            source: ClientSource::Configured(S3CredentialSource::DefaultChain),
            region: "us-east-1".to_owned(),
            ca_bundle: None,
            addressing: S3Addressing::Path,
        }
    }

    #[test]
    fn targets_with_equal_keys_share_a_client_while_it_is_used() {
        let pool = ClientPool::default();
        let first = pool.client(&key("http://a.example/one")).expect("a client");
        let second = pool.client(&key("http://a.example/two")).expect("a client");
        assert!(Arc::ptr_eq(&first, &second));
        let others = [
            key("http://b.example/one"),
            ClientKey { region: "eu-west-1".to_owned(), ..key("http://a.example/one") },
            ClientKey { addressing: S3Addressing::Virtual, ..key("http://a.example/one") },
            ClientKey {
                source: ClientSource::Configured(S3CredentialSource::Profile("other".to_owned())),
                ..key("http://a.example/one")
            },
        ];
        let others = others.map(|key| pool.client(&key).expect("a client"));
        assert!(others.iter().all(|other| !Arc::ptr_eq(other, &first)));
        drop((first, second, others));
        let _alone = pool.client(&key("http://c.example/one")).expect("a client");
        assert_eq!(pool.clients.lock().expect("no panic").len(), 1, "unused clients were kept");
    }
}
