//! `GET /ui`: the targets of this node as pages for a browser. They show the same as the API, and change nothing.
//!
//! - A page comes from the agent's view, so it also answers while every mount hangs. The history of a target and the
//!   question whether the registry can be changed wait for a local disk, for a bounded time.
//! - A page has no script and needs no further request. Its content security policy forbids both ([`layout`]).
//! - Exports and messages contain text of clients and servers. `maud` escapes them as HTML. Invisible and bidirectional
//!   characters are escaped in the finished document, so no place can forget it.
//! - A page says when it was made. Its style shows a notice when it is old, also when the agent does not answer.
//! - A status is a shape, a word and a colour ([`condition`]).
//!
//! Filter and pages are query parameters ([`query`]). Few pages are made at a time ([`super::state`]).

mod banners;
pub(crate) mod condition;
mod history;
pub(crate) mod layout;
pub(crate) mod listing;
mod overview;
pub(crate) mod query;
mod target;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State as Shared};
use axum::http::Uri;
use axum::response::Response;
use jiff::Timestamp;

use super::fault::Fault;
use super::metrics::Metrics;
use super::negotiation::Headers;
use super::state::State;
use crate::agent::AgentError;
use banners::Banners;
use layout::HtmlPage;
use overview::Overview;
use query::{Parameters, Query};
use target::TargetPage;

const TAG: &str = "pages";

/// Path of the overview.
const PATH: &str = "/ui";

/// The targets of this node, the worst first, as a page for a browser.
#[utoipa::path(get, path = "/ui", tag = TAG, params(Parameters), responses(
    (status = 200, description = "The page.", body = String, content_type = "text/html"),
    (status = 400, description = "A parameter is wrong.", body = String, content_type = "text/html"),
))]
pub(super) async fn overview(
    Shared(state): Shared<State>,
    Extension(metrics): Extension<Arc<Metrics>>,
    uri: Uri,
    Headers(headers): Headers,
) -> Response {
    let _making = state.pages.acquire().await;
    let query = match Query::of(&uri, PATH) {
        Ok(query) => query,
        Err(message) => return layout::send_fault(&Fault::bad_request(message), &headers).await,
    };
    let (facts, view, now) = ((state.node_facts)(), state.agent.view(), Timestamp::now());
    let banners = Banners {
        view: &view,
        facts: &facts,
        registry_problem: state.agent.registry_problem().await,
        is_config_rejected: metrics.is_config_rejected(),
    };
    let settings = state.agent.settings();
    let nearly_full_percent = settings.probe.nearly_full_percent;
    let overview = Overview { view: &view, facts: &facts, query: &query, now, nearly_full_percent };
    let page = HtmlPage { title: overview.title(), refresh_seconds: query.refresh, now, body: overview.body(&banners) };
    page.send(&headers).await
}

/// A target of this node: its latest report, and its history of the last days.
#[utoipa::path(get, path = "/ui/targets/{id}", tag = TAG, params(("id" = Uuid, Path)), responses(
    (status = 200, description = "The page.", body = String, content_type = "text/html"),
    (status = 404, description = "No target has this id.", body = String, content_type = "text/html"),
))]
pub(super) async fn target(
    Shared(state): Shared<State>,
    id: Result<Path<String>, PathRejection>,
    Headers(headers): Headers,
) -> Response {
    let id = id.map_or_else(|_| "that is not UTF-8".to_owned(), |Path(id)| id);
    let _making = state.pages.acquire().await;
    let found = match id.parse() {
        Ok(id) => state.agent.target(state.agent.current_target_id(id)).map_err(Fault::from),
        Err(_) => Err(Fault::not_found(format!("there is no backup target {id}"))),
    };
    let found = match found {
        Ok(found) => found,
        Err(fault) => return layout::send_fault(&fault, &headers).await,
    };
    let history = match state.agent.history(found.target.id).await {
        Ok(history) => Ok(history),
        Err(error @ (AgentError::TargetNotFound(_) | AgentError::OutOfScope { .. })) => {
            return layout::send_fault(&Fault::from(error), &headers).await;
        }
        Err(error) => Err(error.to_string()),
    };
    let now = Timestamp::now();
    let body = TargetPage { view: &found, history: history.as_deref().map_err(String::as_str), now }.body();
    HtmlPage { title: found.target.spec.export(), refresh_seconds: None, now, body }.send(&headers).await
}
