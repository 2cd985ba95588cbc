//! The HTTP API: the Backup Targets API guide, and what this agent adds.
//!
//! Answers come from memory: from the agent's view, or from a cached rendering of it. No request
//! waits for storage, except `POST …/check` and `DELETE`, which are bounded by the probe's deadlines. A
//! change and `…/history` wait for the registry, which is on a local disk.
//!
//! [`described`] is the table of routes. The description at `/openapi.json` is generated from the same
//! table. Every route is served at `/…`, `/v1/…` and `/v1/{project_id}/…` ([`prefix`]). Every answer
//! has a request id, and every error is a fault body ([`fault`]). A request is authenticated before it is
//! routed ([`auth`]). Bodies are decoded into the types from which the description is generated. An error
//! names the field, its value and what was expected ([`body`]). [`ui`] has pages for browsers, which are on by default
//! where only this host can reach them. The memory of large answers is bounded ([`answer_memory`]).

mod answer_memory;
pub mod auth;
pub mod body;
mod cache;
pub(crate) mod description;
pub mod fault;
mod gzip;
mod host;
mod id;
pub(crate) mod json_answer;
pub mod limits;
pub mod listen;
pub(crate) mod metrics;
pub(crate) mod negotiation;
pub(crate) mod page;
mod pieces;
pub mod prefix;
mod service;
mod state;
mod target_types;
mod targets;
#[cfg(test)]
mod tests;
pub(crate) mod ui;
pub mod wire;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::agent::Agent;

use state::{ApiState, State};

pub use answer_memory::ANSWERS_MAX_BYTES;
pub use auth::{Auth, AuthError};
pub use body::BODY_MAX_BYTES;
pub use listen::{CONNECTIONS_MAX, ListenError, Listeners, METRICS_CONNECTIONS_MAX};
pub use metrics::{ConfigState, Metrics};
pub use service::Service;
pub use state::ReadNodeFacts;

#[derive(OpenApi)]
#[openapi(info(
    title = "targetwatch",
    description = "Backup targets of this node, and whether backups can be written to them. Every path is also served below /v1 and /v1/{project_id}."
))]
struct Description;

/// The routes, which need an agent to answer. It takes a millisecond to make them.
pub struct RouteTable {
    routes: Router<State>,
    has_ui: bool,
}

impl RouteTable {
    /// All routes, with the pages for browsers if `has_ui`.
    #[must_use]
    pub fn new(has_ui: bool) -> Self {
        Self { routes: described(has_ui).into(), has_ui }
    }

    /// Returns the routes of an agent as a service, behind the authentication of `auth`.
    #[must_use]
    pub fn serve(self, agent: Agent, node_facts: ReadNodeFacts, auth: Arc<Auth>, metrics: &Arc<Metrics>) -> Service {
        Service::new(self.answered_by(agent, node_facts, auth.clone()), auth, Some(metrics.clone()))
    }

    /// Returns the routes without their prefixes, for requests that have a [`Caller`](crate::model::Caller).
    fn answered_by(self, agent: Agent, node_facts: ReadNodeFacts, auth: Arc<Auth>) -> Router {
        let describe = move || {
            let mut openapi = described(self.has_ui).into_openapi();
            description::complete(&mut openapi, &auth);
            openapi.to_json().unwrap_or_default().into()
        };
        self.routes
            .fallback(fault::no_such_route)
            .method_not_allowed_fallback(fault::no_such_method)
            .with_state(Arc::new(ApiState::new(agent, node_facts, Box::new(describe))))
    }
}

/// Returns the metrics alone as a service, behind the same authentication.
#[must_use]
pub fn metrics_router(auth: Arc<Auth>, metrics: &Arc<Metrics>) -> Service {
    let router = Router::new().route(auth::METRICS, axum::routing::get(metrics::metrics));
    let router =
        router.fallback(fault::no_such_metrics_route).method_not_allowed_fallback(fault::no_such_metrics_method);
    Service::new(router, auth, Some(metrics.clone()))
}

/// Returns routes of another role of this program as a service, behind the same checks and authentication.
#[must_use]
pub fn gated(router: Router, auth: Arc<Auth>) -> Service {
    Service::new(router, auth, None)
}

/// Returns the routes that change the registry and those that show target types, for another role of this program. They
/// need an agent that shares the registry.
#[must_use]
pub fn registry_routes(agent: Agent, node_facts: ReadNodeFacts) -> OpenApiRouter {
    let changes = OpenApiRouter::new()
        .routes(routes!(targets::create))
        .routes(routes!(targets::modify, targets::delete))
        .routes(routes!(targets::set_default));
    changes.merge(type_routes()).with_state(Arc::new(ApiState::new(agent, node_facts, Box::new(Bytes::new))))
}

fn type_routes() -> OpenApiRouter<State> {
    OpenApiRouter::new()
        .routes(routes!(target_types::list, target_types::create))
        .routes(routes!(target_types::detail))
        .routes(routes!(target_types::show, target_types::update, target_types::delete))
        .routes(routes!(target_types::add_projects))
        .routes(routes!(target_types::remove_projects, target_types::remove_projects_by_post))
        .routes(routes!(target_types::add_metadata))
        .routes(routes!(target_types::remove_metadata, target_types::remove_metadata_by_post))
}

/// Returns all routes with their descriptions.
fn described(has_ui: bool) -> OpenApiRouter<State> {
    let routes = OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(targets::list, targets::create))
        .routes(routes!(targets::detail))
        .routes(routes!(targets::verdicts))
        .routes(routes!(targets::show, targets::modify, targets::delete))
        .routes(routes!(targets::set_default))
        .routes(routes!(targets::checks))
        .routes(routes!(targets::check))
        .routes(routes!(targets::history))
        .merge(type_routes())
        .routes(routes!(host::versions))
        .routes(routes!(host::node))
        .routes(routes!(host::healthz))
        .routes(routes!(host::readyz))
        .routes(routes!(metrics::metrics))
        .routes(routes!(host::openapi));
    if has_ui { routes.merge(pages()) } else { routes }
}

/// Pages for browsers.
fn pages() -> OpenApiRouter<State> {
    OpenApiRouter::new().routes(routes!(ui::overview)).routes(routes!(ui::target))
}
