//! `/backup_targets`: routes of targets and their reports.

use axum::Json;
use axum::extract::State as Shared;
use axum::http::header::{ALLOW, CONTENT_TYPE};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};

use super::body::{self, Body};
use super::fault::{Fault, no_such_method};
use super::id::Id;
use super::negotiation::Headers;
use super::page::{Page, PageParameters};
use super::state::{Context, State};
use super::wire;
use crate::agent::NewTarget;
use crate::model::TargetId;

const TAG: &str = "backup targets";

type OneTarget = Result<Json<wire::OneTarget>, Fault>;

/// List backup targets.
#[utoipa::path(get, path = "/backup_targets", tag = TAG, params(PageParameters), responses(
    (status = 200, description = "All targets, oldest first. Answers If-None-Match.", body = wire::TargetList),
    (status = 400, description = "The limit or the marker is wrong.", body = wire::FaultBody),
    (status = 304, description = "Nothing has changed."),
))]
pub(super) async fn list(
    Context { state, caller }: Context,
    page: Page,
    Headers(headers): Headers,
) -> Result<Response, Fault> {
    state.targets.answer(&caller, &state.agent.view(), page, &headers).await
}

/// List backup targets, each with its latest report.
#[utoipa::path(get, path = "/backup_targets/detail", tag = TAG, params(PageParameters), responses(
    (status = 200, description = "All targets, oldest first. Answers If-None-Match.", body = wire::TargetDetailList),
    (status = 400, description = "The limit or the marker is wrong.", body = wire::FaultBody),
    (status = 304, description = "Nothing has changed."),
))]
pub(super) async fn detail(
    Context { state, caller }: Context,
    page: Page,
    Headers(headers): Headers,
) -> Result<Response, Fault> {
    state.details.answer(&caller, &state.agent.view(), page, &headers).await
}

/// List backup targets, each with its verdict. For programs that poll: it has no times of probes, and rounded sizes.
#[utoipa::path(get, path = "/backup_targets/verdicts", tag = TAG, params(PageParameters), responses(
    (status = 200, description = "All targets, oldest first. Answers If-None-Match.", body = wire::TargetVerdictList),
    (status = 400, description = "The limit or the marker is wrong.", body = wire::FaultBody),
    (status = 304, description = "Nothing has changed."),
))]
pub(super) async fn verdicts(
    Context { state, caller }: Context,
    page: Page,
    Headers(headers): Headers,
) -> Result<Response, Fault> {
    state.verdicts.answer(&caller, &state.agent.view(), page, &headers).await
}

/// Create a backup target, with its first type. Does not wait for storage.
#[utoipa::path(post, path = "/backup_targets", tag = TAG, request_body = wire::NewTargetBody, responses(
    (status = 200, description = "Created. It is offline until its first probe has ended.", body = wire::OneTarget),
    (status = 409, description = "Another target has its mount path, its type name or the default.", body = wire::FaultBody),
    (status = 413, description = "The body is too large, or there are too many targets or types.", body = wire::FaultBody),
))]
pub(super) async fn create(Context { state, caller }: Context, Body(bytes): Body) -> OneTarget {
    let new = NewTarget { user_id: caller.user_id.clone(), ..body::new_target(&bytes)? };
    let view = state.agent.create_target(new).await?;
    Ok(Json(wire::OneTarget::seen_by(&caller, &view)))
}

/// Show a backup target.
#[utoipa::path(get, path = "/backup_targets/{id}", tag = TAG, params(("id" = Uuid, Path)), responses(
    (status = 200, description = "The target.", body = wire::OneTarget),
    (status = 404, description = "No target has this id, or this node is not in its scope.", body = wire::FaultBody),
))]
pub(super) async fn show(Context { state, caller }: Context, Id(id): Id) -> OneTarget {
    let target = state.agent.target(target_id(&state, &id)?)?;
    Ok(Json(wire::OneTarget::seen_by(&caller, &target)))
}

/// Change a backup target: immutability, metadata, scheme of the endpoint, scope, and whether it is the default.
#[utoipa::path(put, path = "/backup_targets/{id}", tag = TAG, params(("id" = Uuid, Path)),
    request_body = wire::TargetUpdateBody, responses(
    (status = 200, description = "The changed target.", body = wire::OneTarget),
    (status = 400, description = "A field is wrong or cannot be changed.", body = wire::FaultBody),
    (status = 404, description = "No target has this id.", body = wire::FaultBody),
))]
pub(super) async fn modify(Context { state, caller }: Context, Id(id): Id, Body(bytes): Body) -> OneTarget {
    let view = state.agent.modify_target(target_id(&state, &id)?, body::modification(&bytes)?).await?;
    Ok(Json(wire::OneTarget::seen_by(&caller, &view)))
}

/// Delete a backup target and unmount it. Refused while a process uses the mount on a live server.
#[utoipa::path(delete, path = "/backup_targets/{id}", tag = TAG, params(("id" = Uuid, Path)), responses(
    (status = 202, description = "Deleted."),
    (status = 404, description = "No target has this id.", body = wire::FaultBody),
    (status = 409, description = "It is in use, or the default while others exist.", body = wire::FaultBody),
))]
pub(super) async fn delete(Shared(state): Shared<State>, Id(id): Id) -> Result<Response, Fault> {
    state.agent.delete_target(target_id(&state, &id)?).await?;
    Ok(deleted())
}

/// Make a backup target the default, and one of its types: the type that is the default already, or else its
/// first public one.
#[utoipa::path(get, path = "/backup_targets/{id}/set_default", tag = TAG, params(("id" = Uuid, Path)), responses(
    (status = 200, description = "The new default.", body = wire::OneTarget),
    (status = 404, description = "No target has this id.", body = wire::FaultBody),
))]
pub(super) async fn set_default(
    Context { state, caller }: Context,
    method: Method,
    uri: Uri,
    Id(id): Id,
) -> Result<Response, Fault> {
    // The router gives HEAD to the handler of GET, and HEAD must change nothing (RFC 9110 §9.2.1).
    if method == Method::HEAD {
        return Ok(([(ALLOW, "GET")], no_such_method(method, uri).await).into_response());
    }
    let view = state.agent.set_default_target(target_id(&state, &id)?).await?;
    Ok(Json(wire::OneTarget::seen_by(&caller, &view)).into_response())
}

/// Show the latest report of a backup target.
#[utoipa::path(get, path = "/backup_targets/{id}/checks", tag = TAG, params(("id" = Uuid, Path)), responses(
    (status = 200, description = "The report of its latest probe on this node.", body = wire::Report),
    (status = 404, description = "No target has this id.", body = wire::FaultBody),
))]
pub(super) async fn checks(Shared(state): Shared<State>, Id(id): Id) -> Result<Json<wire::Report>, Fault> {
    let target = state.agent.target(target_id(&state, &id)?)?;
    Ok(Json(wire::Report::from(&*target)))
}

/// Probe a backup target now and answer with the report.
#[utoipa::path(post, path = "/backup_targets/{id}/check", tag = TAG, params(("id" = Uuid, Path)), responses(
    (status = 200, description = "The report of a probe that began after the request.", body = wire::Report),
    (status = 404, description = "No target has this id.", body = wire::FaultBody),
))]
pub(super) async fn check(Shared(state): Shared<State>, Id(id): Id) -> Result<Json<wire::Report>, Fault> {
    let view = state.agent.check_now(target_id(&state, &id)?).await?;
    Ok(Json(wire::Report::from(&*view)))
}

/// Show when a backup target became available or offline on this node, and why.
#[utoipa::path(get, path = "/backup_targets/{id}/history", tag = TAG, params(("id" = Uuid, Path)), responses(
    (status = 200, description = "Its latest transitions, newest first. 500 are kept.", body = wire::History),
    (status = 404, description = "No target has this id.", body = wire::FaultBody),
    (status = 503, description = "The registry cannot be read now.", body = wire::FaultBody),
))]
pub(super) async fn history(Shared(state): Shared<State>, Id(id): Id) -> Result<Json<wire::History>, Fault> {
    let id = target_id(&state, &id)?;
    let history = state.agent.history(id).await?;
    Ok(Json(wire::History::new(id, &history)))
}

/// Returns the id of a target from the text of a path, which may be a former id.
fn target_id(state: &State, text: &str) -> Result<TargetId, Fault> {
    text.parse().map(|id| state.agent.current_target_id(id)).map_err(|_| unknown(text))
}

fn unknown(id: &str) -> Fault {
    Fault::not_found(format!("there is no backup target {id}"))
}

/// The answer of the guide to a DELETE: 202 and an empty page.
pub(super) fn deleted() -> Response {
    (StatusCode::ACCEPTED, [(CONTENT_TYPE, "text/html; charset=UTF-8")], "").into_response()
}
