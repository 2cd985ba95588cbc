//! The API of the aggregator. It reads: changes are sent to the agents.
//!
//! | route | answer |
//! |---|---|
//! | `GET /backup_targets` | the targets, with their status in the fleet |
//! | `GET /backup_targets/{id}` | one target, by its id in the fleet or on a node |
//! | `GET /backup_targets/{id}/nodes` | its state on each node, with `state`, `limit` and `marker` |
//! | `GET /nodes` | the nodes |
//! | `GET /healthz`, `/readyz`, `/metrics`, `/` | as on an agent |
//!
//! Answers come from the view. A list is rendered once for each view and kind of caller.

use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher as _;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use axum::extract::{Path, Query, State as Shared};
use axum::http::header::{CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::aggregator::Fleet;
use super::compute::compute;
use super::view::{FleetTarget, FleetView, NodeState, TargetOnNode};
use super::{metrics, wire};
use crate::api::fault::Fault;
use crate::api::page::{Page, unknown_marker};
use crate::api::{Auth, Service, gated, is_known, wire as agent_wire};
use crate::model::Caller;

type State = Arc<ApiState>;

struct ApiState {
    fleet: Arc<Fleet>,
    rendered: ArcSwapOption<RenderedView>,
}

/// The list of one view, for admins and for other callers.
struct RenderedView {
    view: Arc<FleetView>,
    lists: [OnceCell<RenderedList>; 2],
}

#[derive(Clone)]
struct RenderedList {
    body: Bytes,
    tag: HeaderValue,
}

/// Returns the routes as a service, behind the authentication of `auth`.
#[must_use]
pub fn router(fleet: Arc<Fleet>, auth: Arc<Auth>) -> Service {
    let router = Router::new()
        .route("/backup_targets", get(list))
        .route("/backup_targets/{id}", get(show))
        .route("/backup_targets/{id}/nodes", get(nodes_of_target))
        .route("/nodes", get(nodes))
        .route("/", get(versions))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(exposition))
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .with_state(Arc::new(ApiState { fleet, rendered: ArcSwapOption::empty() }));
    gated(router, auth)
}

async fn list(
    Shared(state): Shared<State>,
    Extension(caller): Extension<Caller>,
    page: Page,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let view = state.view()?;
    if page != Page::WHOLE {
        let targets = part(&view.targets, page, |target| target.id)?;
        return Ok(Json(wire::FleetTargetList::seen_by(&caller, &view, targets)).into_response());
    }
    let RenderedList { body, tag } = state.rendered(&caller, view).await?;
    if is_known(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, tag)]).into_response());
    }
    let described = [(CONTENT_TYPE, HeaderValue::from_static("application/json")), (ETAG, tag)];
    Ok((described, body).into_response())
}

async fn show(
    Shared(state): Shared<State>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<wire::OneFleetTarget>, Fault> {
    let view = state.view()?;
    let target = target(&view, &id)?;
    Ok(Json(wire::OneFleetTarget::seen_by(&caller, &view, target)))
}

/// Query parameters of the nodes of a target. Unknown ones are ignored.
#[derive(Deserialize)]
struct NodesParameters {
    state: Option<String>,
    limit: Option<String>,
    marker: Option<String>,
}

async fn nodes_of_target(
    Shared(state): Shared<State>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Query(parameters): Query<NodesParameters>,
) -> Result<Json<wire::TargetNodes>, Fault> {
    if !caller.is_admin {
        return Err(Fault::new(StatusCode::FORBIDDEN, "the names of nodes need the admin role"));
    }
    let view = state.view()?;
    let target = target(&view, &id)?;
    select(view.on_nodes(target), &parameters).map(Json)
}

async fn nodes(Shared(state): Shared<State>) -> Json<wire::NodeList> {
    Json(wire::NodeList { nodes: state.fleet.view().nodes.iter().map(wire::Node::from).collect() })
}

async fn versions() -> Json<agent_wire::Versions> {
    Json(agent_wire::Versions::default())
}

async fn healthz() -> Json<agent_wire::Health> {
    Json(agent_wire::Health { status: "ok".to_owned() })
}

async fn readyz(Shared(state): Shared<State>) -> Response {
    let view = state.fleet.view();
    let answering = view.nodes.iter().filter(|node| node.is_answering).count();
    let ready = state.fleet.problem().is_none();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(wire::Readiness { ready, nodes: view.nodes.len(), answering })).into_response()
}

async fn exposition(Shared(state): Shared<State>, headers: HeaderMap) -> Result<Response, Response> {
    metrics::answer(state.fleet.view(), state.fleet.problem().is_none(), &headers).await
}

async fn no_such_route(uri: Uri) -> Fault {
    Fault::not_found(format!(
        "there is no route {} on an aggregator, which answers GET /backup_targets, /nodes, /healthz, /readyz and /metrics",
        uri.path()
    ))
}

async fn no_such_method(method: Method, uri: Uri) -> Fault {
    let message = format!("{method} is not a method of {} on an aggregator: send changes to the agents", uri.path());
    Fault::new(StatusCode::METHOD_NOT_ALLOWED, message)
}

impl ApiState {
    /// Returns the view. A 503 if it cannot be trusted: a target that is missing from it would look deleted.
    fn view(&self) -> Result<Arc<FleetView>, Fault> {
        match self.fleet.problem() {
            None => Ok(self.fleet.view()),
            Some(problem) => Err(Fault::new(StatusCode::SERVICE_UNAVAILABLE, problem)),
        }
    }

    /// Returns the rendered list of a view.
    async fn rendered(&self, caller: &Caller, view: Arc<FleetView>) -> Result<RenderedList, Fault> {
        let rendered = match self.rendered.load_full().filter(|rendered| Arc::ptr_eq(&rendered.view, &view)) {
            Some(rendered) => rendered,
            None => {
                let new = Arc::new(RenderedView { view, lists: Default::default() });
                self.rendered.store(Some(new.clone()));
                new
            }
        };
        let failed = |error: &str| {
            Fault::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the list cannot be rendered: {error}"))
        };
        let list = rendered.lists[usize::from(caller.is_admin)].get_or_try_init(|| async {
            let (view, caller) = (rendered.view.clone(), caller.clone());
            // It takes some milliseconds with thousands of targets.
            let rendered = compute(move || render(&caller, &view)).await;
            rendered
                .ok_or_else(|| failed("its rendering ended early, which the log explains"))?
                .map_err(|error| failed(&error.to_string()))
        });
        list.await.cloned()
    }
}

/// Renders a list. Its tag does not depend on `as_of`, so that a client which polls gets a 304 while nothing changes.
fn render(caller: &Caller, view: &FleetView) -> serde_json::Result<RenderedList> {
    let list = wire::FleetTargetList::seen_by(caller, view, &view.targets);
    let timeless = wire::AnswerBasis { as_of: None, ..list.basis.clone() };
    let mut hasher = DefaultHasher::new();
    hasher.write(&serde_json::to_vec(&list.backup_targets)?);
    hasher.write(&serde_json::to_vec(&timeless)?);
    let tag = HeaderValue::try_from(format!("W/\"{:016x}\"", hasher.finish()));
    let tag = tag.unwrap_or(HeaderValue::from_static("W/\"\""));
    Ok(RenderedList { body: serde_json::to_vec(&list)?.into(), tag })
}

fn target<'a>(view: &'a FleetView, id: &str) -> Result<&'a FleetTarget, Fault> {
    let found = id.parse().ok().and_then(|id: Uuid| view.target(id));
    found.ok_or_else(|| Fault::not_found(format!("{id:?} is not the id of a target: GET /backup_targets lists them")))
}

/// Returns the part of a list that a page selects.
fn part<T>(items: &[T], page: Page, id: fn(&T) -> Uuid) -> Result<&[T], Fault> {
    let from = match page.marker {
        None => 0,
        Some(marker) => {
            let at = items.iter().position(|item| id(item) == marker);
            at.ok_or_else(|| unknown_marker(&marker.to_string()))? + 1
        }
    };
    let rest = &items[from..];
    Ok(&rest[..page.limit.map_or(rest.len(), |limit| limit.get().min(rest.len()))])
}

/// Selects nodes of a target: those in a state, after a marker, up to a limit.
fn select<'a>(
    mut nodes: impl Iterator<Item = TargetOnNode<'a>>,
    parameters: &NodesParameters,
) -> Result<wire::TargetNodes, Fault> {
    let NodesParameters { state, limit, marker } = parameters;
    let limit = limit.as_ref().map(|limit| {
        limit.parse().ok().filter(|count| *count > 0).ok_or_else(|| {
            Fault::bad_request(format!("limit: {limit:?} is not a positive integer, expected the number of nodes"))
        })
    });
    let limit = limit.transpose()?.unwrap_or(usize::MAX);
    let state = state.as_ref().map(|text| {
        NodeState::ALL.iter().find(|state| state.as_str() == text).ok_or_else(|| {
            let known: Vec<&str> = NodeState::ALL.iter().map(|state| state.as_str()).collect();
            Fault::bad_request(format!("state: unknown value {text:?}, expected one of {}", known.join(", ")))
        })
    });
    let state = state.transpose()?;
    if let Some(marker) = marker
        && !nodes.any(|on_node| *on_node.node.name == **marker)
    {
        return Err(Fault::bad_request(format!(
            "marker: {marker:?} is not in the list, expected the name of the last node of a page"
        )));
    }
    let selected = nodes.filter(|on_node| state.is_none_or(|state| *state == on_node.state)).take(limit);
    Ok(wire::TargetNodes { nodes: selected.map(wire::ProbedTargetNode::from).collect() })
}
