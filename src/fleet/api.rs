//! The API of the aggregator. It reads, unless the aggregator has joined the registry that all nodes share.
//!
//! | route | answer |
//! |---|---|
//! | `GET /backup_targets` | the targets, with their status in the fleet |
//! | `GET /backup_targets/{id}` | one target, by its id in the fleet or on a node |
//! | `GET /backup_targets/{id}/nodes` | its state on each node, with `state`, `limit` and `marker` |
//! | `GET /nodes` | the nodes |
//! | `GET /healthz`, `/readyz`, `/metrics`, `/openapi.json`, `/` | as on an agent |
//! | changes of targets, and all of target types | as on an agent, with a shared registry ([`crate::api::registry_routes`]) |
//! | `GET /ui/fleet`, `GET /ui/fleet/targets/{id}` | pages for a browser ([`super::ui`]) |
//!
//! The description at `/openapi.json` is generated from the table of routes. Answers come from the view. A list is
//! rendered once for each view and kind of caller.

use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher as _;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State as Shared};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use axum::{Extension, Json};
use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::{OnceCell, Semaphore};
use utoipa::{IntoParams, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::aggregator::Fleet;
use super::compute::compute;
use super::view::{FleetTarget, FleetView, NodeState, TargetOnNode};
use super::{metrics, ui, wire};
use crate::api::fault::Fault;
use crate::api::json_answer::JsonAnswer;
use crate::api::negotiation::Headers;
use crate::api::page::{Page, PageParameters, unknown_marker};
use crate::api::ui::layout::{HtmlPage, send_fault};
use crate::api::ui::query::{Parameters as PageQueryParameters, Query as PageQuery};
use crate::api::{Auth, Service, description, gated, wire as agent_wire};
use crate::model::Caller;

const TAG: &str = "fleet";

/// Largest number of pages for browsers that are made at a time. Further requests wait.
const PAGES_MAX: usize = 4;

type State = Arc<ApiState>;

struct ApiState {
    fleet: Arc<Fleet>,
    rendered: ArcSwapOption<RenderedView>,
    /// The OpenAPI document.
    description: Bytes,
    /// Permits to make a page for a browser.
    pages: Semaphore,
}

#[derive(OpenApi)]
#[openapi(info(
    title = "targetwatch aggregate",
    description = "Backup targets of many nodes, and on how many of them backups can be written. Every path is also served below /v1 and /v1/{project_id}."
))]
struct Description;

/// The list of one view, for admins and for other callers.
struct RenderedView {
    view: Arc<FleetView>,
    lists: [OnceCell<JsonAnswer>; 2],
}

/// Returns the routes as a service, behind the authentication of `auth`. `has_ui` says whether pages for browsers are
/// among them. `changes` are the routes of the registry that all nodes share.
#[must_use]
pub fn router(fleet: Arc<Fleet>, auth: Arc<Auth>, has_ui: bool, changes: Option<OpenApiRouter>) -> Service {
    let table = if has_ui { table().merge(pages()) } else { table() };
    let (router, mut openapi) = table.split_for_parts();
    let (changes, of_changes) = changes.unwrap_or_default().split_for_parts();
    openapi.merge(of_changes);
    description::complete(&mut openapi, &auth);
    let state = ApiState {
        fleet,
        rendered: ArcSwapOption::empty(),
        description: openapi.to_json().unwrap_or_default().into(),
        pages: Semaphore::new(PAGES_MAX),
    };
    let router = if has_ui { router.route("/ui", get(overview_link)) } else { router };
    let router = router.with_state(Arc::new(state)).merge(changes);
    gated(router.fallback(no_such_route).method_not_allowed_fallback(no_such_method), auth)
}

fn table() -> OpenApiRouter<State> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(nodes_of_target))
        .routes(routes!(nodes))
        .routes(routes!(versions))
        .routes(routes!(healthz))
        .routes(routes!(readyz))
        .routes(routes!(exposition))
        .routes(routes!(openapi))
}

/// Pages for browsers.
fn pages() -> OpenApiRouter<State> {
    OpenApiRouter::new().routes(routes!(overview_page)).routes(routes!(target_page))
}

/// List the targets, with their status in the fleet.
#[utoipa::path(get, path = "/backup_targets", tag = TAG, params(PageParameters), responses(
    (status = 200, description = "All targets, oldest first. Answers If-None-Match.", body = wire::FleetTargetList),
    (status = 304, description = "Nothing has changed, except as_of."),
    (status = 400, description = "The limit or the marker is wrong.", body = agent_wire::FaultBody),
    (status = 503, description = "The nodes have not been polled yet, or none has answered.", body = agent_wire::FaultBody),
))]
async fn list(
    Shared(state): Shared<State>,
    Extension(caller): Extension<Arc<Caller>>,
    page: Page,
    Headers(headers): Headers,
) -> Result<Response, Fault> {
    let view = state.view()?;
    if page != Page::WHOLE {
        let targets = part(&view.targets, page, |target| target.id)?;
        return Ok(Json(wire::FleetTargetList::seen_by(&caller, &view, targets)).into_response());
    }
    state.answer(&caller, view, &headers).await
}

/// Show a target, by its id in the fleet or on a node.
#[utoipa::path(get, path = "/backup_targets/{id}", tag = TAG, params(("id" = Uuid, Path)), responses(
    (status = 200, description = "The target.", body = wire::OneFleetTarget),
    (status = 404, description = "No target has this id.", body = agent_wire::FaultBody),
    (status = 503, description = "The nodes have not been polled yet, or none has answered.", body = agent_wire::FaultBody),
))]
async fn show(
    Shared(state): Shared<State>,
    Extension(caller): Extension<Arc<Caller>>,
    Path(id): Path<String>,
) -> Result<Json<wire::OneFleetTarget>, Fault> {
    let view = state.view()?;
    let target = target(&view, &id)?;
    Ok(Json(wire::OneFleetTarget::seen_by(&caller, &view, target)))
}

/// Query parameters of the nodes of a target. Unknown ones are ignored.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct NodesParameters {
    /// Only nodes in this state: offline, missing, unknown, warning or available.
    #[param(value_type = Option<String>)]
    state: Option<String>,
    /// Largest number of nodes.
    #[param(value_type = Option<usize>, minimum = 1)]
    limit: Option<String>,
    /// Name of the last node of the page before.
    #[param(value_type = Option<String>)]
    marker: Option<String>,
}

/// List the nodes of a target, each with its state there.
#[utoipa::path(get, path = "/backup_targets/{id}/nodes", tag = TAG, params(("id" = Uuid, Path), NodesParameters), responses(
    (status = 200, description = "The nodes, ordered by name.", body = wire::TargetNodes),
    (status = 400, description = "A parameter is wrong.", body = agent_wire::FaultBody),
    (status = 403, description = "The names of nodes need the admin role.", body = agent_wire::FaultBody),
    (status = 404, description = "No target has this id.", body = agent_wire::FaultBody),
    (status = 503, description = "The nodes have not been polled yet, or none has answered.", body = agent_wire::FaultBody),
))]
async fn nodes_of_target(
    Shared(state): Shared<State>,
    Extension(caller): Extension<Arc<Caller>>,
    Path(id): Path<String>,
    parameters: Result<Query<NodesParameters>, QueryRejection>,
) -> Result<Json<wire::TargetNodes>, Fault> {
    let Query(parameters) = parameters.map_err(|rejection| Fault::bad_request(rejection.body_text()))?;
    if !caller.is_admin {
        return Err(Fault::new(StatusCode::FORBIDDEN, "the names of nodes need the admin role"));
    }
    let view = state.view()?;
    let target = target(&view, &id)?;
    select(view.on_nodes(target), &parameters).map(Json)
}

/// List the nodes: whether they answer, when they last did, and what to do.
#[utoipa::path(get, path = "/nodes", tag = TAG, responses(
    (status = 200, description = "The nodes, ordered by name.", body = wire::NodeList),
))]
async fn nodes(Shared(state): Shared<State>) -> Json<wire::NodeList> {
    Json(wire::NodeList { nodes: state.fleet.nodes().iter().map(wire::Node::from).collect() })
}

/// Versions of the API, for clients that discover it. Needs no token.
#[utoipa::path(get, path = "/", tag = TAG, responses(
    (status = 200, description = "The versions.", body = agent_wire::Versions),
))]
async fn versions() -> Json<agent_wire::Versions> {
    Json(agent_wire::Versions::default())
}

/// Whether the process is alive.
#[utoipa::path(get, path = "/healthz", tag = TAG, responses(
    (status = 200, description = "The process is alive.", body = agent_wire::Health),
))]
async fn healthz() -> Json<agent_wire::Health> {
    Json(agent_wire::Health { status: "ok".to_owned() })
}

/// Whether the list of targets is answered.
#[utoipa::path(get, path = "/readyz", tag = TAG, responses(
    (status = 200, description = "It is.", body = wire::Readiness),
    (status = 503, description = "The nodes have not been polled yet, or none has answered.", body = wire::Readiness),
))]
async fn readyz(Shared(state): Shared<State>) -> Response {
    let view = state.fleet.view();
    let answering = view.nodes.iter().filter(|node| node.is_answering).count();
    let ready = state.fleet.problem().is_none();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(wire::Readiness { ready, nodes: view.nodes.len(), answering })).into_response()
}

/// Metrics of the fleet, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = TAG, responses(
    (status = 200, description = "All metrics, as OpenMetrics 1.0.0 or as Prometheus text 0.0.4, by the Accept header.",
        content((String = "text/plain"), (String = "application/openmetrics-text"))),
))]
async fn exposition(Shared(state): Shared<State>, Headers(headers): Headers) -> Result<Response, Response> {
    metrics::answer(state.fleet.view(), state.fleet.problem().is_none(), &headers).await
}

/// The description of this API.
#[utoipa::path(get, path = "/openapi.json", tag = TAG, responses(
    (status = 200, description = "An OpenAPI 3.1 document."),
))]
async fn openapi(Shared(state): Shared<State>) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], state.description.clone()).into_response()
}

/// The targets of the fleet, the worst first, as a page for a browser.
#[utoipa::path(get, path = ui::PATH, tag = TAG, params(PageQueryParameters), responses(
    (status = 200, description = "The page.", body = String, content_type = "text/html"),
    (status = 400, description = "A parameter is wrong.", body = String, content_type = "text/html"),
    (status = 503, description = "The nodes have not been polled yet, or none has answered.", body = String, content_type = "text/html"),
))]
async fn overview_page(Shared(state): Shared<State>, uri: Uri, Headers(headers): Headers) -> Response {
    let query = match PageQuery::of(&uri, ui::PATH) {
        Ok(query) => query,
        Err(message) => return send_fault(&Fault::bad_request(message), &headers).await,
    };
    let make = move |view: &FleetView, now| {
        let overview = ui::FleetOverview { view, query: &query, now };
        Ok(HtmlPage { title: overview.title(), refresh_seconds: query.refresh, now, body: overview.body() })
    };
    state.page(&headers, make).await
}

/// A target of the fleet: its state on each node, as a page for a browser.
#[utoipa::path(get, path = "/ui/fleet/targets/{id}", tag = TAG, params(("id" = Uuid, Path)), responses(
    (status = 200, description = "The page.", body = String, content_type = "text/html"),
    (status = 404, description = "No target has this id.", body = String, content_type = "text/html"),
    (status = 503, description = "The nodes have not been polled yet, or none has answered.", body = String, content_type = "text/html"),
))]
async fn target_page(
    Shared(state): Shared<State>,
    id: Result<Path<String>, PathRejection>,
    Headers(headers): Headers,
) -> Response {
    let id = id.map_or_else(|_| "that is not UTF-8".to_owned(), |Path(id)| id);
    let make = move |view: &FleetView, now| {
        let target = target(view, &id)?;
        let title = target.described.filesystem_export.clone();
        Ok(HtmlPage { title, refresh_seconds: None, now, body: ui::FleetTargetPage { view, target, now }.body() })
    };
    state.page(&headers, make).await
}

/// The pages of an agent begin at `/ui`.
async fn overview_link() -> Redirect {
    Redirect::to(ui::PATH)
}

async fn no_such_route(uri: Uri) -> Fault {
    Fault::not_found(format!(
        "there is no route {} on an aggregator, which answers GET /backup_targets, /nodes, /healthz, /readyz, /metrics and /openapi.json",
        uri.path()
    ))
}

async fn no_such_method(method: Method, uri: Uri) -> Fault {
    let message = format!(
        "{method} is not a method of {} on this aggregator. Without a shared registry, send changes to the agents",
        uri.path()
    );
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

    /// Answers with a page about the view.
    async fn page(
        &self,
        headers: &HeaderMap,
        make: impl FnOnce(&FleetView, Timestamp) -> Result<HtmlPage, Fault> + Send + 'static,
    ) -> Response {
        let _making = self.pages.acquire().await;
        let made = match self.view() {
            // It takes some milliseconds with thousands of nodes.
            Ok(view) => compute(move || make(&view, Timestamp::now())).await,
            Err(fault) => Some(Err(fault)),
        };
        match made {
            Some(Ok(page)) => page.send(headers).await,
            Some(Err(fault)) => send_fault(&fault, headers).await,
            None => {
                let message = "the page could not be made: the log of the aggregator says why";
                send_fault(&Fault::new(StatusCode::INTERNAL_SERVER_ERROR, message), headers).await
            }
        }
    }

    /// Answers with the list of a view, which is rendered once.
    async fn answer(&self, caller: &Caller, view: Arc<FleetView>, headers: &HeaderMap) -> Result<Response, Fault> {
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
                .ok_or_else(|| failed("its rendering ended early: the log of the aggregator says why"))?
                .map_err(|error| failed(&error.to_string()))
        });
        list.await?.answer(headers).await.map_err(|error| failed(&error.to_string()))
    }
}

/// Renders a list. Its tag does not depend on `as_of`, so that a client which polls gets a 304 while nothing changes.
fn render(caller: &Caller, view: &FleetView) -> serde_json::Result<JsonAnswer> {
    let list = wire::FleetTargetList::seen_by(caller, view, &view.targets);
    let timeless = wire::AnswerBasis { as_of: None, ..list.basis.clone() };
    let mut hasher = DefaultHasher::new();
    hasher.write(&serde_json::to_vec(&list.backup_targets)?);
    hasher.write(&serde_json::to_vec(&timeless)?);
    JsonAnswer::of(&list, hasher.finish())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::answer::NodeTargetState;
    use crate::fleet::view::tests::{ALL, node, target, view, with};

    /// Returns the names of the nodes on each page, until a page is empty.
    fn pages(view: &FleetView, state: Option<&str>, limit: usize) -> Vec<Vec<String>> {
        let (mut pages, mut marker) = (Vec::new(), None);
        loop {
            let parameters =
                NodesParameters { state: state.map(str::to_owned), limit: Some(limit.to_string()), marker };
            let page = select(view.on_nodes(&view.targets[0]), &parameters).expect("a page");
            let names: Vec<String> = page.nodes.into_iter().map(|on_node| on_node.node.node).collect();
            let Some(last) = names.last() else { return pages };
            marker = Some(last.clone());
            pages.push(names);
            assert!(pages.len() <= 100, "the marker is ignored");
        }
    }

    #[test]
    fn pages_have_each_node_of_a_state_once() {
        let names = |numbers: &[usize]| numbers.iter().map(|number| format!("compute-{number:02}")).collect::<Vec<_>>();
        let all: Vec<usize> = (0..90).collect();
        let (available, offline): (Vec<usize>, Vec<usize>) = all.iter().partition(|number| *number % 3 == 1);
        let nodes = names(&all).into_iter().enumerate().map(|(number, name)| {
            let is_available = available.contains(&number);
            let state = if is_available { NodeTargetState::Available } else { NodeTargetState::Offline };
            with(node(&name, Some(10), false), &[target("nas:/b", state)])
        });
        let view = view(nodes.collect(), ALL);

        let admin = Caller::local();
        let shown = wire::OneFleetTarget::seen_by(&admin, &view, &view.targets[0]).backup_targets;
        let first = shown.not_available.into_iter().map(|on_node| on_node.node);
        assert_eq!(first.collect::<Vec<_>>(), names(&offline[..wire::NOT_AVAILABLE_MAX]));
        for limit in [1, 7, 30, 60, 100] {
            for (state, expected) in [(None, &all), (Some("available"), &available), (Some("offline"), &offline)] {
                let pages = pages(&view, state, limit);
                let (last, full) = pages.split_last().expect("a page");
                assert!(full.iter().all(|page| page.len() == limit) && last.len() <= limit, "{pages:?}");
                assert_eq!(pages.concat(), names(expected), "{state:?}, {limit}");
            }
        }
    }
}
