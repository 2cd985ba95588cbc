//! Requests to the agents of other nodes, with a bound on everything that an agent can occupy.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ETAG, HeaderName, HeaderValue, IF_NONE_MATCH};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Incoming};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Semaphore;

use super::answer::{AgentAnswer, AnswerError, SharedTexts};
use super::compute::compute;
use crate::http_client::{self, HttpClient};
use crate::keystone::{KeystoneError, OwnToken, Session};
use crate::model::cause::innermost_cause;
use crate::model::settings::{AggregateSettings, ApiSettings, AuthSettings, NodeAddress};
use crate::sys::resolve;
use crate::sys::secret_file::{FileError, read_secret};
use crate::tls::TlsError;

/// Deadline of one poll.
pub const POLL_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest answer of one agent, in bytes. 2,000 targets with their reports fit into it.
const ANSWER_MAX_BYTES: usize = 8 << 20;

/// Largest size of all answers that are being read, in KiB. An answer that does not fit waits.
const ANSWERS_MAX_KIB: u32 = 256 << 10;

/// Smallest answer that is decoded on a thread for blocking calls, in bytes. Decoding it takes more than a few
/// milliseconds.
const BLOCKING_MIN_BYTES: usize = 256 << 10;

const AUTH_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");

/// Why the agents cannot be polled at all.
#[derive(Debug, thiserror::Error)]
pub enum AgentClientError {
    /// The bundle of authorities cannot be used.
    #[error("[aggregate] ca_bundle: {0}")]
    Authorities(#[from] TlsError),
    /// The token cannot be read.
    #[error("[aggregate] token_file: {0}")]
    TokenFile(#[from] FileError),
    /// The user of `[api.keystone]` cannot be used.
    #[error("[api.keystone]: {0}")]
    Keystone(#[from] KeystoneError),
}

/// Why a poll failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum PollError {
    #[error("the agent did not answer within {} s. Check the node, and that its agent runs", POLL_TIMEOUT.as_secs())]
    TimedOut,
    #[error(
        "the agent cannot be reached ({0}). Check that it runs, and that [api] listen has an address for other hosts"
    )]
    Unreachable(String),
    #[error(
        "the token is not sent to another host without TLS. Set [api.tls] on the node, and list its address with https://"
    )]
    TokenWithheld,
    #[error("the agent needs a token. Set [aggregate] token_file, or [api] auth = \"keystone\", as on the node")]
    TokenNeeded,
    #[error(
        "the agent refuses the token. Compare [aggregate] token_file or the user of [api.keystone] with [api] of the node"
    )]
    TokenRefused,
    #[error("the user of the token may not read the targets of the agent")]
    Forbidden,
    #[error("the agent answers with HTTP status {0}, expected 200. Check that the address is that of an agent")]
    Status(StatusCode),
    #[error("the answer of the agent could not be read, or is larger than {ANSWER_MAX_BYTES} bytes")]
    Unreadable,
    #[error("{0}. Check that the address is that of an agent")]
    Answer(#[from] AnswerError),
    #[error("no token for the agents: {0}")]
    Token(#[from] KeystoneError),
}

/// Result of a poll.
#[derive(Debug)]
pub(super) enum Polled {
    /// Nothing has changed since the answer with the tag that was sent.
    Unchanged,
    /// A new answer, with its tag.
    Changed(AgentAnswer, Option<HeaderValue>),
}

/// What authenticates the aggregator to the agents.
#[derive(Debug)]
enum Credential {
    None,
    Token(SecretString),
    Keystone(Box<Session>),
}

/// A token of one request.
enum Token {
    None,
    Fixed,
    Own(Arc<OwnToken>),
}

/// Client of all agents.
#[derive(Debug)]
pub(super) struct AgentClient {
    http: HttpClient,
    credential: Credential,
    budget: Semaphore,
}

impl AgentClient {
    /// Creates a client. Sends nothing yet.
    pub(super) async fn new(settings: &AggregateSettings, api: &ApiSettings) -> Result<Self, AgentClientError> {
        let http = http_client::client("https:", settings.ca_bundle.as_deref(), resolve::NODES.clone(), None).await?;
        let credential = match (&settings.token_file, &api.auth) {
            (Some(file), _) => Credential::Token(read_secret(file).await?),
            (None, AuthSettings::Keystone(keystone)) => Credential::Keystone(Box::new(Session::new(keystone).await?)),
            (None, AuthSettings::None | AuthSettings::Token { .. }) => Credential::None,
        };
        Ok(Self { http, credential, budget: Semaphore::new(ANSWERS_MAX_KIB as usize) })
    }

    /// Asks an agent for its targets. `known` is the tag of its latest answer.
    pub(super) async fn poll(
        &self,
        node: &NodeAddress,
        known: Option<HeaderValue>,
        texts: &Arc<SharedTexts>,
    ) -> Result<Polled, PollError> {
        let polled = tokio::time::timeout(POLL_TIMEOUT, self.ask(node, known, texts)).await;
        polled.unwrap_or(Err(PollError::TimedOut))
    }

    async fn ask(
        &self,
        node: &NodeAddress,
        known: Option<HeaderValue>,
        texts: &Arc<SharedTexts>,
    ) -> Result<Polled, PollError> {
        if !matches!(self.credential, Credential::None) && node.is_plain_text_elsewhere() {
            return Err(PollError::TokenWithheld);
        }
        let mut token = self.token(None).await?;
        let mut answer = self.send(node, known.clone(), &token).await?;
        if let (StatusCode::UNAUTHORIZED, Token::Own(refused)) = (answer.status(), &token) {
            token = self.token(Some(refused)).await?;
            answer = self.send(node, known, &token).await?;
        }
        match (answer.status(), &token) {
            (StatusCode::OK, _) => {}
            (StatusCode::NOT_MODIFIED, _) => return Ok(Polled::Unchanged),
            (StatusCode::UNAUTHORIZED, Token::None) => return Err(PollError::TokenNeeded),
            (StatusCode::UNAUTHORIZED, _) => return Err(PollError::TokenRefused),
            (StatusCode::FORBIDDEN, _) => return Err(PollError::Forbidden),
            (status, _) => return Err(PollError::Status(status)),
        }
        let tag = answer.headers().get(ETAG).cloned();
        let body = answer.into_body();
        let expected = body.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
        let reserved = expected.unwrap_or(ANSWER_MAX_BYTES).min(ANSWER_MAX_BYTES);
        let reserved = u32::try_from(reserved.div_ceil(1 << 10)).unwrap_or(ANSWERS_MAX_KIB);
        // The semaphore is never closed.
        let _reserved = self.budget.acquire_many(reserved).await;
        let body = Limited::new(body, ANSWER_MAX_BYTES).collect().await.map_err(|_| PollError::Unreadable)?;
        let answer = decode(body.to_bytes(), texts).await?;
        Ok(Polled::Changed(answer, tag))
    }

    async fn send(
        &self,
        node: &NodeAddress,
        known: Option<HeaderValue>,
        token: &Token,
    ) -> Result<http::Response<Incoming>, PollError> {
        let unreachable = |detail: &str| PollError::Unreachable(detail.to_owned());
        let mut request = Request::builder()
            .uri(format!("{node}/backup_targets/detail"))
            .body(Full::new(Bytes::new()))
            .map_err(|_| unreachable("its address is not a URL"))?;
        let headers = request.headers_mut();
        headers.extend(known.map(|tag| (IF_NONE_MATCH, tag)));
        let secret = match (token, &self.credential) {
            (Token::Own(token), _) => Some(token.secret()),
            (Token::Fixed, Credential::Token(secret)) => Some(secret),
            _ => None,
        };
        if let Some(secret) = secret {
            let mut value = HeaderValue::from_str(secret.expose_secret())
                .map_err(|_| unreachable("the token has characters that an HTTP header does not allow"))?;
            value.set_sensitive(true);
            headers.insert(AUTH_TOKEN, value);
        }
        self.http.request(request).await.map_err(|error| unreachable(&innermost_cause(&error)))
    }

    async fn token(&self, refused: Option<&Arc<OwnToken>>) -> Result<Token, KeystoneError> {
        Ok(match &self.credential {
            Credential::None => Token::None,
            Credential::Token(_) => Token::Fixed,
            Credential::Keystone(session) => Token::Own(session.token(refused).await?),
        })
    }
}

async fn decode(body: Bytes, texts: &Arc<SharedTexts>) -> Result<AgentAnswer, AnswerError> {
    if body.len() < BLOCKING_MIN_BYTES {
        return AgentAnswer::decode(&body, texts);
    }
    let texts = texts.clone();
    compute(move || AgentAnswer::decode(&body, &texts)).await.unwrap_or(Err(AnswerError::Aborted))
}
