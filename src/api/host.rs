//! This host and this agent: versions of the API, node facts, health, readiness, and the description of the API.

use axum::Json;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::state::State;
use super::wire;

const TAG: &str = "node";

/// Versions of the API, for clients that discover it. Needs no token.
#[utoipa::path(get, path = "/", tag = TAG, responses(
    (status = 200, description = "The versions.", body = wire::Versions),
))]
pub(super) async fn versions() -> Json<wire::Versions> {
    Json(wire::Versions::default())
}

/// This host and this agent.
#[utoipa::path(get, path = "/node", tag = TAG, responses(
    (status = 200, description = "The current facts.", body = wire::Node),
))]
pub(super) async fn node(Shared(state): Shared<State>) -> Json<wire::Node> {
    let registry_problem = state.agent.registry_problem().await;
    Json(wire::Node::new(&(state.node_facts)(), registry_problem, state.agent.shared_registry()))
}

/// Whether the process is alive.
#[utoipa::path(get, path = "/healthz", tag = TAG, responses(
    (status = 200, description = "The process is alive.", body = wire::Health),
))]
pub(super) async fn healthz() -> Json<wire::Health> {
    Json(wire::Health { status: "ok".to_owned() })
}

/// Whether every target has had its first verdict.
#[utoipa::path(get, path = "/readyz", tag = TAG, responses(
    (status = 200, description = "Every target has its first verdict.", body = wire::Readiness),
    (status = 503, description = "Some targets have no verdict yet.", body = wire::Readiness),
))]
pub(super) async fn readyz(Shared(state): Shared<State>) -> Response {
    let readiness = wire::Readiness::from(&*state.agent.view());
    let status = if readiness.not_checked == 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

/// The description of this API.
#[utoipa::path(get, path = "/openapi.json", tag = TAG, responses(
    (status = 200, description = "An OpenAPI 3.1 document."),
))]
pub(super) async fn openapi(Shared(state): Shared<State>) -> Response {
    ([(CONTENT_TYPE, "application/json")], state.description.clone()).into_response()
}
