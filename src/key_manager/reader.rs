//! Requests to the key manager, with the token of the agent's own user.
//!
//! The payload is requested as `application/octet-stream`, which Barbican returns unchanged whatever the type with
//! which the secret was stored. A refused token is renewed once.
//!
//! The documentation of Barbican gives two meanings to 401: the token is invalid, or it has no permission. A user
//! without permission gets 403, so a 401 for a new token means that Barbican cannot validate tokens of this Keystone.
//! That is a fault of the service, which concerns every secret.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::header::{ACCEPT, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use secrecy::ExposeSecret;
use serde::Deserialize;
use tokio::sync::{Mutex, OnceCell};
use uuid::Uuid;

use super::error::KeyManagerError;
use super::href::{payload_path, secret_id, without_version};
use crate::http_client::{self, HttpClient};
use crate::keystone::{KEY_MANAGER, OwnToken, Session};
use crate::model::cause::innermost_cause;
use crate::model::secret_ref::SecretRef;
use crate::model::settings::KeyManagerSettings;
use crate::model::tally::{Tally, status_class};
use crate::model::{BucketSecret, PayloadError};
use crate::sys::resolve;
use crate::sys::secret_file::read_public;
use crate::tls::{observed, parse_authorities};

/// Largest payload that is read, in bytes. Barbican stores at most 20 000 bytes by default. With every secret in the
/// cache this large, they take 234 MiB.
pub const PAYLOAD_MAX_BYTES: usize = 24 << 10;

const AUTH_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");
const OCTET_STREAM: HeaderValue = HeaderValue::from_static("application/octet-stream");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Path that needs a valid token, and whose answer contains no payload.
const LIST_PATH: &str = "/v1/secrets?limit=1";

/// Client of one key manager.
#[derive(Debug)]
pub(super) struct SecretReader {
    settings: KeyManagerSettings,
    connection: Mutex<Option<Arc<Connection>>>,
    requests: Arc<Tally<&'static str>>,
    /// Whether the log has the warning about an address of the catalog without TLS.
    has_warned: AtomicBool,
}

/// Everything that depends on the content of the CA bundles.
#[derive(Debug)]
struct Connection {
    authorities: [Option<Vec<u8>>; 2],
    session: Session,
    plain: OnceCell<HttpClient>,
    encrypted: OnceCell<HttpClient>,
}

/// Result of one request.
enum Answer {
    Payload(Bytes),
    TokenRefused,
}

impl SecretReader {
    pub(super) fn new(settings: KeyManagerSettings, requests: Arc<Tally<&'static str>>) -> Self {
        Self { settings, connection: Mutex::default(), requests, has_warned: AtomicBool::new(false) }
    }

    pub(super) fn settings(&self) -> &KeyManagerSettings {
        &self.settings
    }

    /// Refuses a reference that is not to the configured key manager. With an address from the catalog, only
    /// [`Self::read`] can decide.
    pub(super) fn check_reference(&self, reference: &SecretRef) -> Result<(), KeyManagerError> {
        match &self.settings.endpoint {
            Some(endpoint) => self.secret_of(reference, &[endpoint]).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Reads a secret. The caller bounds the wait.
    pub(super) async fn read(&self, reference: &SecretRef) -> Result<BucketSecret, KeyManagerError> {
        self.check_reference(reference)?;
        let connection = self.connection().await?;
        let session = &connection.session;
        let token = session.token(None).await?;
        let mut answer = self.request(&connection, &token, reference).await?;
        let mut accepted = token;
        if let Answer::TokenRefused = answer {
            accepted = session.token(Some(&accepted)).await?;
            answer = self.request(&connection, &accepted, reference).await?;
        }
        match answer {
            Answer::Payload(payload) => {
                session.token_accepted(&accepted).await;
                Ok(parse(&payload)?)
            }
            // Keystone has just issued the token, so its login is not at fault and must not back off.
            Answer::TokenRefused => Err(KeyManagerError::TokenRefused(self.addresses(&accepted)?[0].to_owned())),
        }
    }

    /// Logs in, and asks the key manager whether it accepts the token. Returns its address. The caller bounds the wait.
    pub(super) async fn verify(&self) -> Result<String, KeyManagerError> {
        let connection = self.connection().await?;
        let token = connection.session.token(None).await?;
        let url = self.addresses(&token)?[0];
        let client = self.client(&connection, url).await?;
        let (status, _) = self.get(client, url, LIST_PATH, JSON, &token).await?;
        match status {
            // A user without a role in its project may still be in the ACL of a secret.
            StatusCode::OK | StatusCode::FORBIDDEN => Ok(url.to_owned()),
            StatusCode::UNAUTHORIZED => Err(KeyManagerError::TokenRefused(url.to_owned())),
            status => Err(unserved(url, status)),
        }
    }

    /// Returns the connection, or a new one if a CA bundle has changed.
    async fn connection(&self) -> Result<Arc<Connection>, KeyManagerError> {
        let mut connection = self.connection.lock().await;
        let keystone = &self.settings.keystone;
        // A bundle that cannot be read is reported when it is loaded.
        let content = async |path: &Option<_>| match path {
            Some(path) => read_public(Path::new(path)).await.ok(),
            None => None,
        };
        let authorities = [content(&keystone.ca_bundle).await, content(&self.settings.ca_bundle).await];
        if let Some(kept) = connection.as_ref().filter(|kept| kept.authorities == authorities) {
            return Ok(kept.clone());
        }
        let session = Session::new(keystone).await?;
        let (plain, encrypted) = (OnceCell::new(), OnceCell::new());
        let new = Arc::new(Connection { authorities, session, plain, encrypted });
        Ok(connection.insert(new).clone())
    }

    /// Addresses of the key manager: the first one is used, and references may have any of them.
    fn addresses<'a>(&'a self, token: &'a OwnToken) -> Result<Vec<&'a str>, KeyManagerError> {
        if let Some(endpoint) = &self.settings.endpoint {
            return Ok(vec![without_version(endpoint)]);
        }
        let KeyManagerSettings { interface, region, .. } = &self.settings;
        let is_usable = |url: &str| url.starts_with("http://") || url.starts_with("https://");
        let endpoints = token.catalog().iter().filter(|endpoint| {
            let is_in_region = region.as_ref().is_none_or(|region| *region == endpoint.region);
            endpoint.service_type == KEY_MANAGER && is_in_region && is_usable(&endpoint.url)
        });
        let mut endpoints: Vec<_> = endpoints.collect();
        let used = endpoints.iter().position(|endpoint| endpoint.interface == *interface);
        endpoints.swap(0, used.ok_or_else(|| KeyManagerError::NoEndpoint(interface.clone()))?);
        let region = endpoints[0].region.clone();
        let of_region = endpoints.into_iter().filter(|endpoint| endpoint.region == region);
        Ok(of_region.map(|endpoint| without_version(&endpoint.url)).collect())
    }

    /// The id of a secret of one of these addresses.
    fn secret_of(&self, reference: &SecretRef, addresses: &[impl AsRef<str>]) -> Result<Uuid, KeyManagerError> {
        let id = addresses.iter().find_map(|address| secret_id(reference, address.as_ref()));
        let names = || addresses.iter().map(|address| address.as_ref()).collect::<Vec<_>>().join(" or ");
        id.ok_or_else(|| KeyManagerError::OtherKeyManager(names()))
    }

    async fn request(
        &self,
        connection: &Connection,
        token: &OwnToken,
        reference: &SecretRef,
    ) -> Result<Answer, KeyManagerError> {
        let addresses = self.addresses(token)?;
        let (id, url) = (self.secret_of(reference, &addresses)?, addresses[0]);
        if let Some(warning) = self.settings.catalog_warning(url)
            && !self.has_warned.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("{warning}");
        }
        let client = self.client(connection, url).await?;
        // The key manager may close an unused connection just when it is reused.
        match self.exchange(client, url, id, token).await {
            Err(KeyManagerError::Unreachable { .. }) => self.exchange(client, url, id, token).await,
            outcome => outcome,
        }
    }

    async fn client<'a>(&self, connection: &'a Connection, url: &str) -> Result<&'a HttpClient, KeyManagerError> {
        let cell = if url.starts_with("https:") { &connection.encrypted } else { &connection.plain };
        let ca_bundle = self.settings.ca_bundle.as_deref();
        let (resolver, observed) = (resolve::KEY_MANAGER.clone(), Some(&*observed::KEY_MANAGER));
        Ok(cell.get_or_try_init(|| http_client::client(url, ca_bundle, resolver, observed)).await?)
    }

    async fn exchange(
        &self,
        client: &HttpClient,
        url: &str,
        id: Uuid,
        token: &OwnToken,
    ) -> Result<Answer, KeyManagerError> {
        let (status, body) = self.get(client, url, &payload_path(id), OCTET_STREAM, token).await?;
        match status {
            StatusCode::OK => body.map(Answer::Payload),
            StatusCode::UNAUTHORIZED => Ok(Answer::TokenRefused),
            StatusCode::FORBIDDEN => Err(KeyManagerError::Forbidden(url.to_owned())),
            // Another web server at this address says nothing about the secret.
            StatusCode::NOT_FOUND if is_fault(&body?) => Err(KeyManagerError::NotFound(url.to_owned())),
            StatusCode::NOT_ACCEPTABLE => Err(KeyManagerError::WrongType(url.to_owned())),
            status => Err(unserved(url, status)),
        }
    }

    /// Sends a request with the token. Returns the status, and the body or why it could not be read.
    async fn get(
        &self,
        client: &HttpClient,
        url: &str,
        path: &str,
        accept: HeaderValue,
        token: &OwnToken,
    ) -> Result<(StatusCode, Result<Bytes, KeyManagerError>), KeyManagerError> {
        let unreachable = |detail: String| KeyManagerError::Unreachable { url: url.to_owned(), detail };
        let mut request = Request::builder()
            .method(Method::GET)
            .uri(format!("{url}{path}"))
            .header(ACCEPT, accept)
            .body(Full::new(Bytes::new()))
            .map_err(|_| unreachable("its address is not a URL".to_owned()))?;
        let mut value = HeaderValue::from_str(token.secret().expose_secret())
            .map_err(|_| unexpected(url, "no request, because the agent's token is not a valid header".to_owned()))?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTH_TOKEN, value);
        let answer = client.request(request).await;
        self.requests.count(answer.as_ref().map_or("none", |answer| status_class(answer.status().as_u16())));
        let (head, body) = answer.map_err(|error| unreachable(innermost_cause(&error)))?.into_parts();
        let body = Limited::new(body, PAYLOAD_MAX_BYTES).collect().await;
        let body = body.map(http_body_util::Collected::to_bytes).map_err(|error| {
            if error.is::<LengthLimitError>() && head.status == StatusCode::OK {
                return KeyManagerError::TooLarge(PAYLOAD_MAX_BYTES);
            }
            unreachable("its answer could not be read".to_owned())
        });
        Ok((head.status, body))
    }
}

fn unexpected(url: &str, detail: String) -> KeyManagerError {
    KeyManagerError::UnexpectedAnswer { url: url.to_owned(), detail }
}

/// The error of a status that does not answer the request.
fn unserved(url: &str, status: StatusCode) -> KeyManagerError {
    if status.is_redirection() {
        return unexpected(url, format!("HTTP status {status}, and redirects are not followed"));
    }
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return KeyManagerError::Failing { url: url.to_owned(), status };
    }
    unexpected(url, format!("HTTP status {status}"))
}

/// Parses a payload and verifies its certificates.
fn parse(payload: &[u8]) -> Result<BucketSecret, PayloadError> {
    let secret = BucketSecret::parse(payload)?;
    match secret.certificate().map(parse_authorities) {
        Some(Err(_)) => Err(PayloadError::Certificate),
        _ => Ok(secret),
    }
}

/// Whether this is the body with which Barbican answers 404.
fn is_fault(body: &[u8]) -> bool {
    serde_json::from_slice::<BarbicanFault>(body).is_ok_and(|fault| fault.code == StatusCode::NOT_FOUND.as_u16())
}

#[derive(Deserialize)]
struct BarbicanFault {
    code: u16,
}
