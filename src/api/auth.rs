//! Authentication and authorization.
//!
//! Every request passes through here once, after its prefix is removed and before it is routed. Here it gets its
//! [`Caller`]. Authorization happens only here, by an allow list: a member of a project may read [`MEMBERS_READ`].
//! Everything else is for admins: every change, and whatever a later version adds. `GET …/set_default` counts as a
//! change.
//!
//! The file permissions of a Unix socket decide which processes may open it. A request over it without a token
//! has admin rights, unless the configuration requires a token there too. A token that is sent anyway is
//! validated. [`METRICS`] may also be read with a separate secret, which allows nothing else and is meant for
//! monitoring. A request with a malformed token header, or with two tokens, is refused. `/` and `/healthz` need no
//! authentication. The access rules of an application credential restrict admins too ([`crate::keystone::AccessRule`]).
//! Without authentication, requests of web pages are refused ([`browser`]).

mod browser;
mod cache;
mod credential;
mod error;
mod identity;
mod keystone;
mod token;

use std::sync::{Arc, LazyLock};

use arc_swap::{ArcSwap, ArcSwapOption};
use axum::http::header::WWW_AUTHENTICATE;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};

use super::fault::Fault;
use super::listen::Peer;
use super::prefix::{PathProject, SentPath};
use crate::model::Caller;
use crate::model::settings::{ApiSettings, AuthSettings};
use browser::AcceptedHosts;
use credential::{AUTH_PROJECT, TokenOwner, token_of};
use identity::Identity;
use token::TokenAuth;

pub(super) use browser::CHANGES_BY_GET;
pub use credential::AUTH_TOKEN;
pub use error::AuthError;

/// Paths that need no authentication: clients discover versions before they have a token.
pub(super) const OPEN: &[&str] = &["/", "/healthz"];

/// Path of the metrics, which may also be read with a separate secret.
pub(super) const METRICS: &str = "/metrics";

/// Paths that members of a project may read, including the paths below them.
const MEMBERS_READ: &[&str] = &["/backup_targets", "/backup_target_types", "/readyz", "/openapi.json"];

/// The caller of a request that needs no token.
static LOCAL: LazyLock<Arc<Caller>> = LazyLock::new(|| Arc::new(Caller::local()));

/// The caller of a request to one of [`OPEN`], or of a scrape with the separate secret: nobody in particular.
static ANONYMOUS: LazyLock<Arc<Caller>> =
    LazyLock::new(|| Arc::new(Caller { user_id: None, project_id: None, is_admin: false }));

/// Authenticates requests.
#[derive(Debug)]
pub struct Auth {
    mode: ArcSwap<Mode>,
    /// Secret that is valid only for [`METRICS`].
    metrics_token: ArcSwapOption<TokenAuth>,
    socket_needs_token: bool,
}

#[derive(Debug)]
enum Mode {
    /// Every caller is an admin, except for web pages.
    None(AcceptedHosts),
    Token(TokenAuth),
    Keystone(keystone::KeystoneAuth),
}

impl Mode {
    async fn load(settings: &ApiSettings) -> Result<Self, AuthError> {
        Ok(match &settings.auth {
            AuthSettings::None => Self::None(AcceptedHosts::of(settings)),
            AuthSettings::Token { file } => Self::Token(TokenAuth::load(file, "[api.token] file").await?),
            AuthSettings::Keystone(settings) => Self::Keystone(keystone::KeystoneAuth::load(settings).await?),
        })
    }
}

async fn load_metrics_token(settings: &ApiSettings) -> Result<Option<Arc<TokenAuth>>, AuthError> {
    let Some(file) = &settings.metrics.token_file else { return Ok(None) };
    Ok(Some(Arc::new(TokenAuth::load(file, "[metrics] token_file").await?)))
}

impl Auth {
    /// Loads the configured authentication. Sends nothing over the network.
    ///
    /// # Errors
    /// [`AuthError`] when a file that it names cannot be used.
    pub async fn load(settings: &ApiSettings) -> Result<Self, AuthError> {
        let mode = ArcSwap::from_pointee(Mode::load(settings).await?);
        let metrics_token = load_metrics_token(settings).await?.into();
        Ok(Self { mode, metrics_token, socket_needs_token: settings.socket_needs_token })
    }

    /// No authentication: every caller is an admin.
    #[must_use]
    pub fn none() -> Self {
        let mode = ArcSwap::from_pointee(Mode::None(AcceptedHosts::Loopback));
        Self { mode, metrics_token: ArcSwapOption::empty(), socket_needs_token: false }
    }

    /// Applies the settings of `[api.token]`, `[api.keystone]` and `[metrics] token_file`, and reads their files again.
    /// Unchanged Keystone settings keep the token cache. A change of `[api] auth` needs a restart and is ignored. The
    /// removal of `[metrics] token_file` is ignored too, because the old listeners may be open to other hosts.
    ///
    /// # Errors
    /// [`AuthError`] when a file cannot be used. The former settings and content then stay in force.
    pub async fn reload(&self, settings: &ApiSettings) -> Result<(), AuthError> {
        let metrics_token = load_metrics_token(settings).await?;
        match (&*self.mode.load_full(), &settings.auth) {
            (Mode::Keystone(auth), AuthSettings::Keystone(new)) if auth.settings() == &**new => auth.reload().await?,
            (Mode::Keystone(_), AuthSettings::Keystone(_)) | (Mode::Token(_), AuthSettings::Token { .. }) => {
                self.mode.store(Arc::new(Mode::load(settings).await?));
            }
            _ => {}
        }
        if metrics_token.is_some() {
            self.metrics_token.store(metrics_token);
        }
        Ok(())
    }

    /// Requests to Keystone by result. Empty without Keystone.
    pub(super) fn keystone_requests(&self) -> Vec<(&'static str, u64)> {
        match &**self.mode.load() {
            Mode::Keystone(auth) => auth.requests(),
            Mode::None(_) | Mode::Token(_) => Vec::new(),
        }
    }

    /// Whether requests over TCP need a token.
    pub(super) fn needs_token(&self) -> bool {
        !matches!(**self.mode.load(), Mode::None(_))
    }

    /// Authenticates and authorizes a request that arrived over the transport `peer`.
    ///
    /// # Errors
    /// The answer that refuses it.
    pub(super) async fn authenticate(&self, peer: Peer, parts: &Parts) -> Result<Arc<Caller>, Response> {
        self.caller(peer, parts).await.map_err(|fault| {
            let is_unauthorized = fault.status() == StatusCode::UNAUTHORIZED;
            let mut response = fault.into_response();
            if let Some(challenge) = self.challenge().filter(|_| is_unauthorized) {
                response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            }
            response
        })
    }

    async fn caller(&self, peer: Peer, parts: &Parts) -> Result<Arc<Caller>, Fault> {
        let owner = match self.identify(peer, parts)? {
            Identity::NoToken(caller) => return Ok(caller),
            Identity::Owner(owner) => owner,
            Identity::Pending(validation) => keystone::validated(validation).await?,
        };
        permitted(&owner, parts)?;
        Ok(owner.caller.clone())
    }

    fn identify(&self, peer: Peer, parts: &Parts) -> Result<Identity, Fault> {
        let path = parts.uri.path();
        if OPEN.contains(&path) {
            return Ok(Identity::NoToken(ANONYMOUS.clone()));
        }
        let is_trusted = peer == Peer::Unix && !self.socket_needs_token;
        let mode = self.mode.load();
        let metrics_token = if path == METRICS { self.metrics_token.load_full() } else { None };
        let needs_no_token = matches!(**mode, Mode::None(_)) && metrics_token.is_none();
        let token = if needs_no_token { None } else { token_of(&parts.headers)? };
        let is_scraper = |token| metrics_token.as_ref().is_some_and(|secret| secret.is_secret(token));
        if token.is_some_and(is_scraper) {
            return Ok(Identity::NoToken(ANONYMOUS.clone()));
        }
        match (&**mode, token) {
            (Mode::None(_), _) if metrics_token.is_some() && !is_trusted => {
                let message = "the metrics need the token of [metrics] token_file: send it as Authorization: Bearer";
                Err(Fault::new(StatusCode::UNAUTHORIZED, message))
            }
            (Mode::None(hosts), _) => {
                if peer == Peer::Tcp {
                    browser::refuse_foreign(parts, *hosts)?;
                }
                Ok(Identity::NoToken(LOCAL.clone()))
            }
            (_, None) if is_trusted => Ok(Identity::NoToken(LOCAL.clone())),
            (_, None) => {
                let message = "a token is needed: send it in the header X-Auth-Token";
                Err(Fault::new(StatusCode::UNAUTHORIZED, message))
            }
            (Mode::Token(auth), Some(token)) => auth.identify(token).map(Identity::Owner),
            (Mode::Keystone(auth), Some(token)) => auth.identify(token),
        }
    }

    /// `WWW-Authenticate` header of a 401 answer.
    fn challenge(&self) -> Option<HeaderValue> {
        match &**self.mode.load() {
            Mode::None(_) => self.metrics_token.load().as_ref().map(|_| HeaderValue::from_static("Bearer")),
            Mode::Token(_) => Some(HeaderValue::from_static("Bearer")),
            Mode::Keystone(auth) => HeaderValue::try_from(format!("Keystone uri=\"{}\"", auth.url())).ok(),
        }
    }
}

fn permitted(owner: &TokenOwner, parts: &Parts) -> Result<(), Fault> {
    let caller = &owner.caller;
    let forbidden = |message: &str| Err(Fault::new(StatusCode::FORBIDDEN, message));
    if let Some(rules) = &owner.access_rules {
        let path = parts.extensions.get().map_or(parts.uri.path(), |SentPath(sent)| sent);
        if !rules.iter().any(|rule| rule.allows(parts.method.as_str(), path)) {
            return forbidden(&format!(
                "no access rule of the token's application credential allows {} {path}: add a rule for this path and for the service type of [api.keystone] service_type",
                parts.method
            ));
        }
    }
    if caller.is_admin {
        return Ok(());
    }
    let Some(project) = &caller.project_id else {
        return forbidden(
            "the token has no project, and its user does not have the admin role: get a token for a project",
        );
    };
    let is_own = |claimed: &str| same_id(claimed, project) || claimed == owner.project_name;
    let mut in_headers = parts.headers.get_all(AUTH_PROJECT).iter();
    if !in_headers.all(|claimed| claimed.to_str().is_ok_and(is_own)) {
        return forbidden("X-Auth-Project-Id is not the project of the token");
    }
    if parts.extensions.get::<PathProject>().is_some_and(|PathProject(claimed)| !is_own(claimed)) {
        return forbidden("the project in the path is not the project of the token");
    }
    if needs_admin(&parts.method, parts.uri.path()) {
        return forbidden("this needs the admin role");
    }
    Ok(())
}

/// Whether two texts are the same id, whether written with or without dashes.
fn same_id(one: &str, other: &str) -> bool {
    let digits = |text: &str| text.bytes().filter(|byte| *byte != b'-').map(|byte| byte.to_ascii_lowercase()).collect();
    let (one, other): (Vec<u8>, Vec<u8>) = (digits(one), digits(other));
    one == other
}

fn needs_admin(method: &Method, path: &str) -> bool {
    let is_below = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let reads = *method == Method::GET || *method == Method::HEAD;
    !(reads && MEMBERS_READ.iter().any(|root| is_below(root)) && !path.ends_with(CHANGES_BY_GET))
}

#[cfg(test)]
mod tests;
