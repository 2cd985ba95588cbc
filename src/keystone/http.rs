//! Calls to Keystone: HTTP/1.1, with or without TLS, over connections that are reused.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::KeystoneError;
use super::login::Login;
use super::token::{IssuedToken, IssuedTokenBody, TokenBody, TokenFacts, ValidTokenBody};
use crate::http_client::{self, HttpClient};
use crate::model::cause::innermost_cause;
use crate::model::tally::{Tally, status_class};
use crate::sys::resolve::KEYSTONE;
use crate::tls::observed;

/// Largest answer that is read, in bytes. A validated token without its catalog has a few thousand bytes. An issued
/// token comes with the catalog of a whole cloud.
const ANSWER_MAX_BYTES: usize = 1 << 20;

const AUTH_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");
const SUBJECT_TOKEN: HeaderName = HeaderName::from_static("x-subject-token");

/// Header that announces that access rules are enforced, with the version of the rules. Without it, Keystone answers
/// that a token with access rules does not exist.
const ACCESS_RULES: HeaderName = HeaderName::from_static("openstack-identity-access-rules");
const ACCESS_RULES_VERSION: HeaderValue = HeaderValue::from_static("1");

/// Client of one Keystone.
#[derive(Debug, Clone)]
pub struct Keystone {
    url: String,
    client: HttpClient,
    requests: Arc<Tally<&'static str>>,
}

impl Keystone {
    /// Creates a client of the Keystone at `url`. Sends nothing yet. `ca_bundle` is trusted in addition to the
    /// system's authorities.
    ///
    /// # Errors
    /// [`KeystoneError::Tls`] when the bundle cannot be used.
    pub async fn new(url: &str, ca_bundle: Option<&Path>) -> Result<Self, KeystoneError> {
        let client = http_client::client(url, ca_bundle, KEYSTONE.clone(), Some(&observed::KEYSTONE)).await?;
        Ok(Self { url: url.to_owned(), client, requests: Arc::default() })
    }

    /// Address of Keystone.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the number of requests by result: the class of the status, such as `2xx`, or `none` without an answer.
    #[must_use]
    pub fn requests(&self) -> Vec<(&'static str, u64)> {
        self.requests.all()
    }

    /// Asks for the version of the API, which needs no token.
    ///
    /// # Errors
    /// [`KeystoneError`] when Keystone does not answer, or something else answers at its address.
    pub async fn discover(&self) -> Result<(), KeystoneError> {
        let (head, _) = self.exchange(self.request(Method::GET, "/v3", Bytes::new())?).await?;
        if head.status == StatusCode::OK { Ok(()) } else { Err(self.unexpected_status(head.status)) }
    }

    /// Gets a token.
    ///
    /// # Errors
    /// [`KeystoneError::LoginRefused`] when the login is wrong, and others when Keystone issues no token.
    pub async fn issue(&self, login: &Login) -> Result<IssuedToken, KeystoneError> {
        let body = Bytes::from(login.body().to_string());
        let (head, answer) = self.exchange(self.request(Method::POST, "/v3/auth/tokens", body)?).await?;
        match head.status {
            StatusCode::CREATED | StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => return Err(KeystoneError::LoginRefused { url: self.url.clone() }),
            status => return Err(self.unexpected_status(status)),
        }
        let issued: TokenBody<IssuedTokenBody> = self.parsed(&answer)?;
        let token = head.headers.get(SUBJECT_TOKEN).and_then(|value| value.to_str().ok());
        let token = token.ok_or_else(|| self.unexpected_answer("an issued token is not in X-Subject-Token"))?;
        let expires_at = issued.token.expires_at;
        Ok(IssuedToken { token: SecretString::from(token), expires_at, catalog: issued.token.catalog() })
    }

    /// Validates a token with the token `own`. `None` when it is unknown, expired or revoked.
    ///
    /// # Errors
    /// [`KeystoneError::OwnTokenRefused`] when `own` is invalid, and others when Keystone does not decide.
    pub async fn validate(
        &self,
        own: &SecretString,
        subject: &SecretString,
    ) -> Result<Option<TokenFacts>, KeystoneError> {
        let send = || async {
            let mut request = self.request(Method::GET, "/v3/auth/tokens?nocatalog", Bytes::new())?;
            request.headers_mut().insert(ACCESS_RULES, ACCESS_RULES_VERSION);
            for (name, token) in [(AUTH_TOKEN, own), (SUBJECT_TOKEN, subject)] {
                let mut value = HeaderValue::from_str(token.expose_secret())
                    .map_err(|_| self.unexpected_answer("a token is not a valid header value"))?;
                value.set_sensitive(true);
                request.headers_mut().insert(name, value);
            }
            self.exchange(request).await
        };
        // Keystone may close an unused connection just when it is reused.
        let (head, answer) = match send().await {
            Err(KeystoneError::Unreachable { .. }) => send().await?,
            outcome => outcome?,
        };
        match head.status {
            StatusCode::OK => self.parsed::<TokenBody<ValidTokenBody>>(&answer).map(|answer| Some(answer.token.into())),
            StatusCode::NOT_FOUND => {
                let fault: KeystoneFault = self.parsed(&answer)?;
                if fault.error.code == StatusCode::NOT_FOUND.as_u16() {
                    Ok(None)
                } else {
                    Err(self.unexpected_answer("status and body contradict each other"))
                }
            }
            StatusCode::UNAUTHORIZED => Err(KeystoneError::OwnTokenRefused { url: self.url.clone() }),
            StatusCode::FORBIDDEN => Err(KeystoneError::MayNotValidate { url: self.url.clone() }),
            status => Err(self.unexpected_status(status)),
        }
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, KeystoneError> {
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.unexpected_answer(&error.to_string()))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(http::response::Parts, Bytes), KeystoneError> {
        let unreachable = |detail: String| KeystoneError::Unreachable { url: self.url.clone(), detail };
        let answer = self.client.request(request).await;
        self.requests.count(answer.as_ref().map_or("none", |answer| status_class(answer.status().as_u16())));
        let answer: Response<_> = answer.map_err(|error| unreachable(innermost_cause(&error)))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_MAX_BYTES).collect().await;
        let body = body.map_err(|error| unreachable(format!("its answer could not be read: {error}")))?;
        Ok((head, body.to_bytes()))
    }

    fn parsed<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, KeystoneError> {
        // The message of serde may quote the answer, which may contain secrets.
        serde_json::from_slice(body).map_err(|error| {
            self.unexpected_answer(&format!("an answer has unexpected content at column {}", error.column()))
        })
    }

    fn unexpected_status(&self, status: StatusCode) -> KeystoneError {
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return KeystoneError::Failing { url: self.url.clone(), status: status.as_u16() };
        }
        self.unexpected_answer(&format!("HTTP status {status}"))
    }

    fn unexpected_answer(&self, detail: &str) -> KeystoneError {
        KeystoneError::UnexpectedAnswer { url: self.url.clone(), detail: detail.to_owned() }
    }
}

/// Fault body of Keystone.
#[derive(Deserialize)]
struct KeystoneFault {
    error: KeystoneFaultDetail,
}

#[derive(Deserialize)]
struct KeystoneFaultDetail {
    code: u16,
}
