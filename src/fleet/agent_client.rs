//! Requests to the agents of other nodes, with a bound on everything that an agent can occupy.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Incoming};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

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

/// Largest answer outside of this limit, in bytes. Large answers must not delay it, and the number of polls bounds the
/// memory of small answers.
const SMALL_MAX_BYTES: usize = 256 << 10;

/// Time between two logins because of refused tokens. Otherwise every agent that refuses would cause one for each poll.
const LOGIN_INTERVAL: Duration = Duration::from_secs(60);

/// Deadline of getting a token.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Smallest answer that is decoded on a thread for blocking calls, in bytes. Decoding it takes about a
/// millisecond.
const BLOCKING_MIN_BYTES: usize = 64 << 10;

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
    #[error("no token for the agents: Keystone did not answer within {} s", TOKEN_TIMEOUT.as_secs())]
    TokenTimedOut,
    #[error("no token for the agents: {0}")]
    Token(#[from] KeystoneError),
}

impl PollError {
    /// Whether nothing answered.
    pub(super) fn is_silence(&self) -> bool {
        matches!(self, Self::TimedOut | Self::Unreachable(_))
    }

    /// Whether the agent does not have what it was asked for.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Status(StatusCode::NOT_FOUND))
    }
}

/// A list of an agent that can be polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AgentList {
    /// It stays the same while nothing happens, so most polls are answered with 304.
    Verdicts,
    /// Agents of earlier releases have only this one. It changes at each probe.
    Details,
}

impl AgentList {
    fn path(self) -> &'static str {
        match self {
            Self::Verdicts => "/backup_targets/verdicts",
            Self::Details => "/backup_targets/detail",
        }
    }
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
    /// When the token was last renewed because an agent refused it.
    renewed_at: Mutex<Option<Instant>>,
    budget: Arc<Semaphore>,
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
        Ok(Self {
            http,
            credential,
            renewed_at: Mutex::default(),
            budget: Arc::new(Semaphore::new(ANSWERS_MAX_KIB as usize)),
        })
    }

    /// Asks an agent for a list of its targets. `known` is the tag of its latest answer.
    pub(super) async fn poll(
        &self,
        node: &NodeAddress,
        list: AgentList,
        known: Option<HeaderValue>,
        texts: &Arc<SharedTexts>,
    ) -> Result<Polled, PollError> {
        if !matches!(self.credential, Credential::None) && node.is_plain_text_elsewhere() {
            return Err(PollError::TokenWithheld);
        }
        let mut token = self.token(None).await?;
        let mut polled = self.ask(node, list, known.clone(), &token, texts).await;
        if let (Err(PollError::TokenRefused), Token::Own(refused)) = (&polled, &token)
            && self.may_renew()
        {
            token = self.token(Some(refused)).await?;
            polled = self.ask(node, list, known, &token, texts).await;
        }
        if let (Ok(_), Token::Own(token), Credential::Keystone(session)) = (&polled, &token, &self.credential) {
            session.token_accepted(token).await;
        }
        polled
    }

    async fn ask(
        &self,
        node: &NodeAddress,
        list: AgentList,
        known: Option<HeaderValue>,
        token: &Token,
        texts: &Arc<SharedTexts>,
    ) -> Result<Polled, PollError> {
        let polled = tokio::time::timeout(POLL_TIMEOUT, self.exchange(node, list, known, token, texts)).await;
        polled.unwrap_or(Err(PollError::TimedOut))
    }

    /// Whether a refused token may be renewed now.
    fn may_renew(&self) -> bool {
        let mut renewed_at = self.renewed_at.lock().unwrap_or_else(PoisonError::into_inner);
        let may = renewed_at.is_none_or(|at| at.elapsed() >= LOGIN_INTERVAL);
        if may {
            *renewed_at = Some(Instant::now());
        }
        may
    }

    async fn exchange(
        &self,
        node: &NodeAddress,
        list: AgentList,
        known: Option<HeaderValue>,
        token: &Token,
        texts: &Arc<SharedTexts>,
    ) -> Result<Polled, PollError> {
        let is_conditional = known.is_some();
        let answer = self.send(node, list, known, token).await?;
        match (answer.status(), token) {
            (StatusCode::OK, _) => {}
            (StatusCode::NOT_MODIFIED, _) if is_conditional => return Ok(Polled::Unchanged),
            (StatusCode::UNAUTHORIZED, Token::None) => return Err(PollError::TokenNeeded),
            (StatusCode::UNAUTHORIZED, _) => return Err(PollError::TokenRefused),
            (StatusCode::FORBIDDEN, _) => return Err(PollError::Forbidden),
            (status, _) => return Err(PollError::Status(status)),
        }
        let tag = answer.headers().get(ETAG).cloned();
        let body = answer.into_body();
        let expected = body.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
        let expected = expected.unwrap_or(ANSWER_MAX_BYTES).min(ANSWER_MAX_BYTES);
        let reserved = if expected <= SMALL_MAX_BYTES {
            None
        } else {
            let kib = u32::try_from(expected.div_ceil(1 << 10)).unwrap_or(ANSWERS_MAX_KIB);
            // The semaphore is never closed.
            self.budget.clone().acquire_many_owned(kib).await.ok()
        };
        let body = Limited::new(body, ANSWER_MAX_BYTES).collect().await.map_err(|_| PollError::Unreadable)?;
        let answer = decode(body.to_bytes(), texts, reserved).await?;
        Ok(Polled::Changed(answer, tag))
    }

    async fn send(
        &self,
        node: &NodeAddress,
        list: AgentList,
        known: Option<HeaderValue>,
        token: &Token,
    ) -> Result<http::Response<Incoming>, PollError> {
        let unreachable = |detail: &str| PollError::Unreachable(detail.to_owned());
        let mut request = Request::builder()
            .uri(format!("{node}{}", list.path()))
            .body(Full::new(Bytes::new()))
            .map_err(|_| unreachable("its address is not a URL"))?;
        let headers = request.headers_mut();
        headers.extend(known.map(|tag| (IF_NONE_MATCH, tag)));
        // The next poll is later than the agent keeps an unused connection.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
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

    async fn token(&self, refused: Option<&Arc<OwnToken>>) -> Result<Token, PollError> {
        Ok(match &self.credential {
            Credential::None => Token::None,
            Credential::Token(_) => Token::Fixed,
            Credential::Keystone(session) => {
                let token = tokio::time::timeout(TOKEN_TIMEOUT, session.token(refused)).await;
                Token::Own(token.map_err(|_| PollError::TokenTimedOut)??)
            }
        })
    }
}

/// Decodes an answer. Its memory is `reserved` until then.
async fn decode(
    body: Bytes,
    texts: &Arc<SharedTexts>,
    reserved: Option<OwnedSemaphorePermit>,
) -> Result<AgentAnswer, AnswerError> {
    if body.len() < BLOCKING_MIN_BYTES {
        return AgentAnswer::decode(&body, texts);
    }
    let texts = texts.clone();
    let decoding = move || {
        let _reserved = reserved;
        AgentAnswer::decode(&body, &texts)
    };
    compute(decoding).await.unwrap_or(Err(AnswerError::Aborted))
}
