//! Client of the JSON gateway that every member of etcd 3.4 and later serves on its client port.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::error::EtcdError;
use super::gateway;
use super::guard::{AnswerKind, StaleGuard};
use super::key_value::{AnswerHeader, LeaseId, RangeAnswer, RangeRequest};
use super::store::{GrantedLease, KeyValueStore};
use super::transaction::{Txn, TxnAnswer, TxnOperation};
use crate::http_client::{self, HttpClient};
use crate::model::cause::innermost_cause;
use crate::model::random_fraction;
use crate::sys::resolve;
use crate::tls::TlsError;

/// Deadline of a call with all its attempts.
const CALL_TIMEOUT: Duration = Duration::from_secs(12);

/// Deadline of one attempt. A member without a quorum would answer after 7 s.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);

/// Largest request, in bytes of keys and values: the default limit of etcd.
const REQUEST_MAX_BYTES: usize = 3 << 19;

/// Largest answer, in bytes of JSON. Decoding it takes some milliseconds.
const ANSWER_MAX_BYTES: usize = 4 << 20;

/// First and longest time without requests to an endpoint that failed.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// Where etcd is, and as whom to use it.
#[derive(Debug, Clone)]
pub struct EtcdSettings {
    /// URLs of the members or of a proxy, such as `https://host:2379`. At least one.
    pub endpoints: Vec<String>,
    /// Authorities that are trusted in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// User and password, if etcd needs them.
    pub login: Option<(String, SecretString)>,
}

/// Client of one etcd cluster.
#[derive(Debug)]
pub struct EtcdClient {
    http: HttpClient,
    settings: EtcdSettings,
    state: Mutex<ClientState>,
    /// Held during a login, so that many requests with an old token cause one login.
    login: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct ClientState {
    endpoints: Vec<EndpointState>,
    /// The endpoint that answered last.
    preferred: usize,
    guard: StaleGuard,
    token: Option<Arc<HeaderValue>>,
    /// Latest refused login, and until when no other one is tried.
    refused_login: Option<(EtcdError, Instant)>,
}

#[derive(Debug, Clone)]
struct EndpointState {
    failures: u32,
    /// Latest failure, and until when the endpoint is not used.
    backoff: Option<(EtcdError, Instant)>,
}

/// When a request may be sent again, to another endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// After every failure: it changes nothing, or twice the same.
    Always,
    /// Only if it was certainly not made.
    IfNotMade,
}

impl EtcdClient {
    /// Creates a client. Sends nothing yet.
    ///
    /// # Errors
    /// [`TlsError`] when the authorities cannot be used.
    pub async fn new(settings: EtcdSettings) -> Result<Self, TlsError> {
        let url = settings.endpoints.iter().find(|url| url.starts_with("https:")).map_or("http:", String::as_str);
        let http = http_client::client(url, settings.ca_file.as_deref(), resolve::ETCD.clone(), None).await?;
        let endpoints = vec![EndpointState { failures: 0, backoff: None }; settings.endpoints.len()];
        // Each agent begins with another member.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let preferred = (random_fraction() * endpoints.len() as f64) as usize % endpoints.len().max(1);
        let state =
            ClientState { endpoints, preferred, guard: StaleGuard::default(), token: None, refused_login: None };
        Ok(Self { http, settings, state: Mutex::new(state), login: tokio::sync::Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, ClientState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The endpoints in the order in which to use them. Those that failed come last for some time. Calls about leases,
    /// which every node repeats all the time, leave them out.
    fn candidates(&self, kind: AnswerKind) -> Result<Vec<usize>, EtcdError> {
        let (state, now) = (self.state(), Instant::now());
        let count = state.endpoints.len();
        let order = (0..count).map(|offset| (state.preferred + offset) % count);
        let is_waiting = |at: &usize| state.endpoints[*at].backoff.as_ref().is_some_and(|(_, until)| *until > now);
        let (waiting, mut usable): (Vec<usize>, Vec<usize>) = order.partition(is_waiting);
        if kind != AnswerKind::Forwarded {
            usable.extend(waiting);
        } else if usable.is_empty() {
            let next = waiting.iter().filter_map(|at| state.endpoints[*at].backoff.as_ref()).min_by_key(|one| one.1);
            let detail = next.map_or_else(|| "no endpoint".to_owned(), |(error, _)| error.to_string());
            return Err(EtcdError::Unreachable(format!("{detail} (waiting before the next attempt)")));
        }
        Ok(usable)
    }

    fn failed(&self, at: usize, error: &EtcdError) {
        let mut state = self.state();
        let endpoint = &mut state.endpoints[at];
        let longest = BACKOFF_MIN.saturating_mul(1 << endpoint.failures.min(6)).min(BACKOFF_MAX);
        endpoint.failures += 1;
        endpoint.backoff = Some((error.clone(), Instant::now() + longest.mul_f64(random_fraction())));
    }

    fn answered(&self, at: usize) {
        let mut state = self.state();
        state.preferred = at;
        state.endpoints[at] = EndpointState { failures: 0, backoff: None };
    }

    /// Sends a request until one endpoint answers, and parses the answer.
    async fn call<T>(
        &self,
        path: &str,
        body: Value,
        repeat: Repeat,
        kind: AnswerKind,
        parse: impl Fn(&[u8]) -> Result<(AnswerHeader, T), EtcdError>,
    ) -> Result<T, EtcdError> {
        let deadline = Instant::now() + CALL_TIMEOUT;
        let body = Bytes::from(body.to_string());
        let mut latest = EtcdError::Unreachable("no endpoint".to_owned());
        let (mut has_renewed_token, mut has_reconnected) = (false, false);
        let candidates = self.candidates(kind)?;
        let mut next = candidates.iter().copied().peekable();
        while let Some(at) = next.peek().copied() {
            let (sent, until) = (self.state().guard, deadline.min(Instant::now() + ATTEMPT_TIMEOUT));
            let token = match self.token(at, until).await {
                Ok(token) => token,
                // Another endpoint would check the same password.
                Err(error @ (EtcdError::Unauthenticated(_) | EtcdError::PermissionDenied)) => return Err(error),
                Err(error) => {
                    self.failed(at, &error);
                    // The request itself was not sent.
                    latest = EtcdError::Unreachable(error.to_string());
                    next.next();
                    continue;
                }
            };
            let outcome = self.exchange(at, path, &body, token.as_deref(), until).await;
            let outcome = outcome.and_then(|(status, body)| {
                if status != StatusCode::OK || body.starts_with(b"{\"error\"") {
                    return Err(gateway::error(status, &body));
                }
                let checked = parse(&body).and_then(|(header, answer)| {
                    self.state().guard.check(&sent, &header, kind)?;
                    Ok(answer)
                });
                checked.map_err(|error| (error, false))
            });
            let (error, is_token) = match outcome {
                Ok(answer) => {
                    self.answered(at);
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            if is_token && self.settings.login.is_some() && !has_renewed_token {
                has_renewed_token = true;
                self.forget_token(token.as_ref());
                continue;
            }
            let is_of_endpoint =
                error.is_uncertain() || matches!(error, EtcdError::Unreachable(_) | EtcdError::Overloaded(_));
            if !is_of_endpoint {
                // etcd decided: every endpoint would answer the same.
                self.answered(at);
                return Err(error);
            }
            // A proxy may have closed an idle connection just when the request was sent.
            if repeat == Repeat::Always && matches!(error, EtcdError::NoAnswer(_)) && !has_reconnected {
                has_reconnected = true;
                continue;
            }
            self.failed(at, &error);
            if repeat == Repeat::IfNotMade && error.is_uncertain() || Instant::now() >= deadline {
                return Err(error);
            }
            latest = error;
            next.next();
        }
        Err(latest)
    }

    /// Sends one request. The error says whether another token may help.
    async fn exchange(
        &self,
        at: usize,
        path: &str,
        body: &Bytes,
        token: Option<&HeaderValue>,
        deadline: Instant,
    ) -> Result<(StatusCode, Bytes), (EtcdError, bool)> {
        let url = &self.settings.endpoints[at];
        let request = Request::post(format!("{url}{path}")).header(CONTENT_TYPE, "application/json");
        let request = token.into_iter().fold(request, |request, token| request.header(AUTHORIZATION, token));
        let request = request
            .body(Full::new(body.clone()))
            .map_err(|_| (EtcdError::Unreachable(format!("{url} is not a URL")), false))?;
        self.send(at, request, deadline).await.map_err(|error| (error, false))
    }

    /// Sends a request to an endpoint, and returns the whole answer.
    pub(super) async fn send(
        &self,
        at: usize,
        request: Request<Full<Bytes>>,
        deadline: Instant,
    ) -> Result<(StatusCode, Bytes), EtcdError> {
        let url = &self.settings.endpoints[at];
        let exchange = async {
            let answer = self.http.request(request).await.map_err(|error| {
                let detail = format!("{url}: {}", innermost_cause(&error));
                if error.is_connect() { EtcdError::Unreachable(detail) } else { EtcdError::NoAnswer(detail) }
            })?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_MAX_BYTES).collect().await.map_err(|error| {
                if error.is::<http_body_util::LengthLimitError>() {
                    EtcdError::TooLarge(format!("an answer has more than {ANSWER_MAX_BYTES} bytes"))
                } else {
                    EtcdError::NoAnswer(format!("{url}: its answer ended early"))
                }
            })?;
            Ok((head.status, body.to_bytes()))
        };
        let outcome = timeout_at(deadline, exchange).await;
        outcome.unwrap_or_else(|_| Err(EtcdError::TimedOut(url.clone())))
    }

    /// URLs of the endpoints.
    pub(super) fn urls(&self) -> &[String] {
        &self.settings.endpoints
    }

    /// Returns the token, after a login if there is none. `None`: no user is configured, or etcd needs none.
    pub(super) async fn token(&self, at: usize, deadline: Instant) -> Result<Option<Arc<HeaderValue>>, EtcdError> {
        let Some((user, password)) = &self.settings.login else {
            return Ok(None);
        };
        let _login = timeout_at(deadline, self.login.lock())
            .await
            .map_err(|_| EtcdError::TimedOut("a login in progress".to_owned()))?;
        {
            let state = self.state();
            if let Some(token) = &state.token {
                return Ok((!token.is_empty()).then(|| token.clone()));
            }
            // etcd hashes each password with bcrypt, so refused logins are not repeated at once.
            if let Some((error, until)) = &state.refused_login
                && *until > Instant::now()
            {
                return Err(error.clone());
            }
        }
        let body = json!({"name": user, "password": password.expose_secret()}).to_string();
        let (status, body) = self
            .exchange(at, "/v3/auth/authenticate", &body.into(), None, deadline)
            .await
            .map_err(|(error, _)| error)?;
        let token = if status == StatusCode::OK {
            let token = gateway::token(&body)?;
            let mut token = HeaderValue::from_str(&token)
                .map_err(|_| EtcdError::Unexpected("a token is not a valid header value".to_owned()))?;
            token.set_sensitive(true);
            token
        } else {
            let (error, _) = gateway::error(status, &body);
            if !gateway::is_auth_disabled(&error) {
                if matches!(error, EtcdError::Unauthenticated(_)) {
                    let until = Instant::now() + BACKOFF_MIN + BACKOFF_MAX.mul_f64(random_fraction());
                    self.state().refused_login = Some((error.clone(), until));
                }
                return Err(error);
            }
            HeaderValue::from_static("")
        };
        let token = Arc::new(token);
        let mut state = self.state();
        (state.token, state.refused_login) = (Some(token.clone()), None);
        Ok((!token.is_empty()).then_some(token))
    }

    /// Forgets the token that was refused, unless another request has renewed it.
    fn forget_token(&self, refused: Option<&Arc<HeaderValue>>) {
        let mut state = self.state();
        let is_same = match (&state.token, refused) {
            (Some(token), Some(refused)) => Arc::ptr_eq(token, refused),
            (Some(token), None) => token.is_empty(),
            (None, _) => false,
        };
        if is_same {
            state.token = None;
        }
    }
}

/// Size of a transaction, in bytes of keys and values.
fn size(txn: &Txn) -> usize {
    let operations = txn.success.iter().chain(&txn.failure);
    let written = operations.map(|operation| match operation {
        TxnOperation::Put { key, value, .. } => key.len() + value.len(),
        TxnOperation::Delete(_) | TxnOperation::Range(_) => 0,
    });
    written.sum()
}

#[async_trait]
impl KeyValueStore for EtcdClient {
    async fn range(&self, request: &RangeRequest) -> Result<RangeAnswer, EtcdError> {
        let kind = if request.is_serializable { AnswerKind::Local } else { AnswerKind::Quorum };
        let parse = |body: &[u8]| gateway::range_answer(body).map(|answer| (answer.header, answer));
        self.call("/v3/kv/range", gateway::range(request), Repeat::Always, kind, parse).await
    }

    async fn commit(&self, txn: &Txn) -> Result<TxnAnswer, EtcdError> {
        let bytes = size(txn);
        if bytes > REQUEST_MAX_BYTES {
            return Err(EtcdError::TooLarge(format!("{bytes} bytes, {REQUEST_MAX_BYTES} is the limit")));
        }
        let is_read = txn.success.iter().chain(&txn.failure).all(|one| matches!(one, TxnOperation::Range(_)));
        let kind = if txn.is_serializable() { AnswerKind::Local } else { AnswerKind::Quorum };
        let repeat = if is_read { Repeat::Always } else { Repeat::IfNotMade };
        let parse = |body: &[u8]| gateway::txn_answer(body, txn).map(|answer| (answer.header, answer));
        self.call("/v3/kv/txn", gateway::txn(txn), repeat, kind, parse).await
    }

    async fn grant(&self, ttl: Duration) -> Result<GrantedLease, EtcdError> {
        let parse = |body: &[u8]| {
            let (header, answer) = gateway::grant_answer(body)?;
            let ttl = Duration::from_secs(u64::try_from(answer.ttl).unwrap_or(0));
            Ok((header, GrantedLease { id: LeaseId(answer.id), ttl, header }))
        };
        let body = json!({"TTL": ttl.as_secs().to_string()});
        // A second lease without keys ends by itself.
        self.call("/v3/lease/grant", body, Repeat::Always, AnswerKind::Forwarded, parse).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Option<Duration>, EtcdError> {
        let parse = |body: &[u8]| {
            let (header, ttl) = gateway::renewal_answer(body)?;
            Ok((header, u64::try_from(ttl).ok().filter(|ttl| *ttl > 0).map(Duration::from_secs)))
        };
        let body = json!({"ID": lease.0.to_string()});
        self.call("/v3/lease/keepalive", body, Repeat::Always, AnswerKind::Forwarded, parse).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), EtcdError> {
        let parse = |body: &[u8]| gateway::range_answer(body).map(|answer| (answer.header, ()));
        let body = json!({"ID": lease.0.to_string()});
        match self.call("/v3/lease/revoke", body, Repeat::Always, AnswerKind::Forwarded, parse).await {
            Err(EtcdError::LeaseNotFound) => Ok(()),
            outcome => outcome,
        }
    }
}
