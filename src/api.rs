//! The HTTP API: the Backup Targets API guide, and what this agent adds.
//!
//! Every answer comes from memory: from the agent's view, or from a cached rendering of it. No request
//! waits for storage, except `POST …/check` and `DELETE`, which are
//! bounded by the probe's deadlines. A change and `…/history` wait for the registry, on a local disk.
//!
//! [`router`] is the table of routes, and the description at `/openapi.json` is made from the same
//! table. Every route is served at `/…`, `/v1/…` and `/v1/{project_id}/…` ([`prefix`]); every answer
//! carries a request id; every error is a fault body ([`fault`]). A request is authenticated before it is
//! routed ([`auth`]). Bodies are decoded into the types from which the description is made, and an error
//! names the field, its value and what was expected ([`body`]).

pub mod auth;
pub mod body;
mod cache;
mod description;
pub mod fault;
mod host;
mod id;
pub mod limits;
pub mod listen;
pub mod prefix;
mod request_id;
mod target_types;
mod targets;
#[cfg(test)]
mod tests;
pub mod wire;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Request, Response, StatusCode, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::IntoResponse as _;
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::agent::Agent;
use crate::sys::NodeFacts;

use cache::{Kind, ListCache, Writer};

pub use auth::{Auth, AuthError};
pub use listen::{ListenError, Listeners};

/// The largest request body, in bytes.
pub const BODY_MAX_BYTES: usize = 1 << 20;

/// Reads the facts about host and agent, as [`NodeFacts::read`].
pub type ReadNodeFacts = Arc<dyn Fn() -> NodeFacts + Send + Sync>;

/// What serves requests.
pub type Service = BoxCloneSyncService<Request<axum::body::Body>, Response<axum::body::Body>, std::convert::Infallible>;

/// What handlers work with.
#[derive(Clone)]
struct State {
    agent: Agent,
    node_facts: ReadNodeFacts,
    targets: Arc<ListCache>,
    details: Arc<ListCache>,
    types: Arc<ListCache>,
    description: axum::body::Bytes,
}

#[derive(OpenApi)]
#[openapi(info(
    title = "targetwatch",
    description = "Backup targets of this node: what they are, and whether they can be written to. Every path is also served below /v1 and /v1/{project_id}."
))]
struct Description;

/// Returns the routes as a service, behind the authentication of `auth`.
#[must_use]
pub fn router(agent: Agent, node_facts: ReadNodeFacts, auth: Arc<Auth>) -> Service {
    let router = routes(agent, node_facts, &auth)
        .layer(from_fn_with_state(auth, auth::authenticate))
        .layer(from_fn(limits::limit));
    BoxCloneSyncService::new(router.map_request(prefix::strip).map_future(request_id::with_request_id))
}

/// The routes without their prefixes, for requests that have a [`Caller`](crate::model::Caller).
fn routes(agent: Agent, node_facts: ReadNodeFacts, auth: &Auth) -> Router {
    let (router, mut openapi) = table().split_for_parts();
    description::complete(&mut openapi, auth);
    let state = State {
        agent,
        node_facts,
        targets: Arc::new(ListCache::new(Kind {
            generation: |view| view.generation,
            writer: Writer::Each {
                key: "backup_targets",
                write: |caller, target| serde_json::to_vec(&wire::Target::seen_by(caller, target)),
            },
        })),
        details: Arc::new(ListCache::new(Kind {
            generation: |view| view.generation,
            writer: Writer::Each {
                key: "backup_targets",
                write: |caller, target| serde_json::to_vec(&wire::TargetDetail::seen_by(caller, target)),
            },
        })),
        types: Arc::new(ListCache::new(Kind {
            generation: |view| view.types_generation,
            writer: Writer::Whole(|caller, view| serde_json::to_vec(&wire::TypeList::seen_by(caller, view))),
        })),
        description: openapi.to_json().unwrap_or_default().into(),
    };
    router
        .fallback(fault::no_such_route)
        .method_not_allowed_fallback(fault::no_such_method)
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .with_state(state)
}

fn table() -> OpenApiRouter<State> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(targets::list, targets::create))
        .routes(routes!(targets::detail))
        .routes(routes!(targets::show, targets::modify, targets::delete))
        .routes(routes!(targets::set_default))
        .routes(routes!(targets::checks))
        .routes(routes!(targets::check))
        .routes(routes!(targets::history))
        .routes(routes!(target_types::list, target_types::create))
        .routes(routes!(target_types::detail))
        .routes(routes!(target_types::show, target_types::update, target_types::delete))
        .routes(routes!(target_types::add_projects))
        .routes(routes!(target_types::remove_projects, target_types::remove_projects_by_post))
        .routes(routes!(target_types::add_metadata))
        .routes(routes!(target_types::remove_metadata, target_types::remove_metadata_by_post))
        .routes(routes!(host::node))
        .routes(routes!(host::healthz))
        .routes(routes!(host::readyz))
        .routes(routes!(host::openapi))
}

/// What the guide answers to a DELETE: accepted, and an empty page.
fn deleted() -> axum::response::Response {
    const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=UTF-8");
    (StatusCode::ACCEPTED, [(CONTENT_TYPE, HTML)], "").into_response()
}

/// The last segments of paths that are not below a version: what a version prefix is told from.
const ROOTS: &[&str] = &["backup_targets", "backup_target_types", "node", "healthz", "readyz", "openapi.json"];

fn is_root(segment: &str) -> bool {
    ROOTS.contains(&segment)
}

/// A path, with the query of another one.
fn with_path(uri: &Uri, path: &str) -> Option<Uri> {
    let text = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    text.parse().ok()
}
