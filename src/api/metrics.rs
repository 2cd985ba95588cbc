//! `GET /metrics`: the state of the agent and its targets for Prometheus.
//!
//! A scrape encodes the published view and counters in memory. It waits for nothing, so it answers even while every
//! mount hangs. The rules of the exposition:
//!
//! - What was not measured is absent. It is never 0 and never NaN.
//! - A target is identified by the label `export`, which is the same on every node. No label contains a message. Labels
//!   of the agent's own metrics take their values from fixed sets, so that the number of series is bounded.
//! - Totals are counters, so that Prometheus can calculate rates and averages over any period.
//!
//! [`targets`] and [`agent`] list the families. A test compares this list with `docs/metrics.md`. The `Accept` header
//! selects the format ([`mod@format`]).
//!
//! An exposition can be several megabytes, so at most [`ENCODINGS_MAX`] are encoded and compressed at a time.

mod agent;
mod config_state;
mod family;
mod format;
mod http;
mod targets;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Extension;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;

use super::auth::Auth;
use super::fault::Fault;
use super::gzip::gzip;
use super::negotiation::{Headers, is_compressed};
use super::pieces::{Pieces, PiecesBuilder};
use super::state::ReadNodeFacts;
use crate::agent::{Agent, View};
use crate::model::settings::MetricsDetail;
use crate::notify::Notifier;
use crate::sys::node::NodeFacts;
use crate::tls::{ServerTls, observed};
use agent::AgentSample;
use format::Format;

pub use config_state::ConfigState;
pub(crate) use family::{Exposition, Family, flag, number, seconds_of};
pub(super) use http::RequestStart;

/// Most expositions that are encoded at a time. Further scrapes wait for one of them.
const ENCODINGS_MAX: usize = 8;

/// Sources of the metrics.
pub struct Metrics {
    agent: Agent,
    node_facts: ReadNodeFacts,
    auth: Arc<Auth>,
    notifier: Arc<Notifier>,
    detail: MetricsDetail,
    config: ArcSwap<ConfigState>,
    http: http::HttpStatistics,
    tls: Option<Arc<ServerTls>>,
    encodings: Semaphore,
}

impl Metrics {
    /// Metrics of an agent.
    #[must_use]
    pub fn new(
        agent: Agent,
        node_facts: ReadNodeFacts,
        auth: Arc<Auth>,
        notifier: Arc<Notifier>,
        detail: MetricsDetail,
        config: ConfigState,
    ) -> Self {
        Self {
            agent,
            node_facts,
            auth,
            notifier,
            detail,
            config: ArcSwap::from_pointee(config),
            http: http::HttpStatistics::default(),
            tls: None,
            encodings: Semaphore::new(ENCODINGS_MAX),
        }
    }

    /// Adds the certificate of the API.
    #[must_use]
    pub fn with_tls(self, tls: Option<Arc<ServerTls>>) -> Self {
        Self { tls, ..self }
    }

    /// Counts a request, when the head of its answer is known.
    pub(super) fn count(&self, request: &RequestStart, status: StatusCode) {
        let (route, duration) = request.end();
        self.http.observe(route, status, duration);
    }

    /// Records that this configuration is in force.
    pub fn config_loaded(&self, fingerprint: String) {
        let loaded_at = Timestamp::now();
        self.config.store(Arc::new(ConfigState { fingerprint, is_last_reload_successful: true, loaded_at }));
    }

    /// Records that the configuration could not be loaded.
    pub fn config_rejected(&self) {
        let state = ConfigState { is_last_reload_successful: false, ..ConfigState::clone(&self.config.load()) };
        self.config.store(Arc::new(state));
    }

    /// Whether the configuration file could not be loaded at the latest reload.
    pub(super) fn is_config_rejected(&self) -> bool {
        !self.config.load().is_last_reload_successful
    }

    /// Encodes all metrics.
    ///
    /// # Errors
    /// None is known: memory accepts everything.
    fn exposition(&self, format: Format) -> Result<Pieces, std::fmt::Error> {
        let mut registry = Registry::default();
        // One view, so that all families describe the same moment.
        let view = self.agent.view();
        registry.register_collector(Box::new(targets::Targets { view: view.clone() }));
        registry.register_collector(Box::new(self.agent_sample(view)));
        encoded(format, &registry)
    }

    fn agent_sample(&self, view: Arc<View>) -> AgentSample {
        let NodeFacts { agent: facts, fleet, .. } = (self.node_facts)();
        AgentSample {
            facts,
            fleet,
            view,
            config: self.config.load_full(),
            requests: self.http.requests(),
            request_durations: self.http.durations(),
            certificate_expires_at: self.tls.as_ref().and_then(|tls| tls.certificate_expires_at()),
            keystone_certificate_expires_at: observed::KEYSTONE.expires_at(),
            key_manager_certificate_expires_at: observed::KEY_MANAGER.expires_at(),
            keystone: self.auth.keystone_requests(),
            notifications: self.notifier.counts(),
            detail: self.detail,
            shared_registry: self.agent.shared_registry(),
            agent: self.agent.clone(),
        }
    }
}

/// Metrics of this node, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "node", responses(
    (status = 200, description = "All metrics, as OpenMetrics 1.0.0 or as Prometheus text 0.0.4, by the Accept header.",
        content((String = "text/plain"), (String = "application/openmetrics-text"))),
))]
pub(super) async fn metrics(
    Extension(metrics): Extension<Arc<Metrics>>,
    Headers(headers): Headers,
) -> Result<Response, Response> {
    let _encoding = metrics.encodings.acquire().await;
    let format = Format::accepted(&headers);
    answer(&headers, format, metrics.exposition(format)).await
}

/// Answers a scrape with the families that `write` writes.
///
/// # Errors
/// A fault when they cannot be encoded.
pub(crate) async fn answer_with(
    headers: &HeaderMap,
    write: impl Fn(&mut Exposition<'_>) -> std::fmt::Result + Send + Sync + 'static,
) -> Result<Response, Response> {
    let format = Format::accepted(headers);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(WithFunction(write)));
    answer(headers, format, encoded(format, &registry)).await
}

/// Collector that calls a function.
struct WithFunction<F>(F);

impl<F> std::fmt::Debug for WithFunction<F> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("WithFunction")
    }
}

impl<F> Collector for WithFunction<F>
where
    F: Fn(&mut Exposition<'_>) -> std::fmt::Result + Send + Sync + 'static,
{
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        (self.0)(&mut Exposition(encoder))
    }
}

/// Encodes into pieces. One large text would be copied while it grows, and once more into pieces.
fn encoded(format: Format, registry: &Registry) -> Result<Pieces, std::fmt::Error> {
    let mut pieces = PiecesBuilder::default();
    format.encode(registry, &mut pieces)?;
    Ok(pieces.finish())
}

async fn answer(
    headers: &HeaderMap,
    format: Format,
    encoded: Result<Pieces, std::fmt::Error>,
) -> Result<Response, Response> {
    let failed = |error: &dyn std::error::Error| {
        let message = format!("the metrics cannot be encoded: {error}");
        Fault::new(StatusCode::INTERNAL_SERVER_ERROR, message).into_response()
    };
    let body = encoded.map_err(|error| failed(&error))?;
    let described = [
        (CONTENT_TYPE, HeaderValue::from_static(format.content_type())),
        (VARY, HeaderValue::from_static("accept, accept-encoding")),
    ];
    if !is_compressed(body.len(), headers) {
        return Ok((described, body).into_response());
    }
    let compressed = gzip(body.pieces()).await.map_err(|error| failed(&error))?;
    let encoding = [(CONTENT_ENCODING, HeaderValue::from_static("gzip"))];
    Ok((described, encoding, compressed).into_response())
}
