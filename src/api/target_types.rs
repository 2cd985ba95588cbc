//! `/backup_target_types`: routes of target types.
//!
//! A type that a caller may not see is answered with 404 for every operation: a 403 would reveal that it
//! exists.

use std::sync::Arc;

use axum::Json;
use axum::response::Response;

use super::body::{self, Body};
use super::fault::Fault;
use super::id::Id;
use super::negotiation::Headers;
use super::page::{Page, PageParameters};
use super::state::{Context, State};
use super::targets::deleted;
use super::wire;
use crate::agent::{AgentError, NewType, TypeUpdate};
use crate::model::{Caller, TargetType};
use crate::registry::{Refusal, RegistryError};

const TAG: &str = "backup target types";

type Changed = Result<Json<wire::OneChangedType>, Fault>;

/// List backup target types.
#[utoipa::path(get, path = "/backup_target_types", tag = TAG, operation_id = "list_types", params(PageParameters), responses(
    (status = 200, description = "The types that the caller may see, oldest first. Answers If-None-Match.", body = wire::TypeList),
    (status = 400, description = "The limit or the marker is wrong.", body = wire::FaultBody),
    (status = 304, description = "Nothing has changed."),
))]
pub(super) async fn list(
    Context { state, caller }: Context,
    page: Page,
    Headers(headers): Headers,
) -> Result<Response, Fault> {
    state.types.answer(&caller, &state.agent.view(), page, &headers).await
}

/// List backup target types: the same as without `detail`, as in the guide.
#[utoipa::path(get, path = "/backup_target_types/detail", tag = TAG, operation_id = "detail_types", params(PageParameters), responses(
    (status = 200, description = "The types that the caller may see, oldest first. Answers If-None-Match.", body = wire::TypeList),
    (status = 400, description = "The limit or the marker is wrong.", body = wire::FaultBody),
    (status = 304, description = "Nothing has changed."),
))]
pub(super) async fn detail(context: Context, page: Page, headers: Headers) -> Result<Response, Fault> {
    list(context, page, headers).await
}

/// Show a backup target type.
#[utoipa::path(get, path = "/backup_target_types/{id}", tag = TAG, operation_id = "show_type", params(("id" = Uuid, Path)), responses(
    (status = 200, description = "The type.", body = wire::OneType),
    (status = 404, description = "No type with this id is visible to the caller.", body = wire::FaultBody),
))]
pub(super) async fn show(Context { state, caller }: Context, Id(id): Id) -> Result<Json<wire::OneType>, Fault> {
    let target_type = visible(&state, &caller, &id)?;
    Ok(Json(wire::OneType { backup_target_types: wire::TargetType::seen_by(&caller, &target_type) }))
}

/// Create a backup target type. A type that is the default makes its target the default too.
#[utoipa::path(post, path = "/backup_target_types", tag = TAG, operation_id = "create_type", request_body = wire::NewTypeBody, responses(
    (status = 200, description = "Created.", body = wire::OneChangedType),
    (status = 400, description = "A field is wrong, or the target does not exist.", body = wire::FaultBody),
    (status = 409, description = "The name is taken.", body = wire::FaultBody),
    (status = 413, description = "The body is too large, or there are too many types, projects or metadata entries.", body = wire::FaultBody),
))]
pub(super) async fn create(Context { state, caller }: Context, Body(bytes): Body) -> Changed {
    let new = NewType { user_id: caller.user_id.clone(), ..body::new_type(&bytes)? };
    match state.agent.create_type(new).await {
        Ok(created) => Ok(Json(wire::OneChangedType::from(&*created))),
        // The target is named by a field, so its absence is not a 404.
        Err(AgentError::Registry(error @ RegistryError::Refused(Refusal::TargetNotFound(_)))) => {
            Err(Fault::bad_request(format!("backup_targets_id: {error}")))
        }
        Err(error) => Err(error.into()),
    }
}

/// Change a backup target type. Absent fields stay. A type that becomes the default makes its target the
/// default too.
#[utoipa::path(put, path = "/backup_target_types/{id}", tag = TAG, operation_id = "update_type", params(("id" = Uuid, Path)),
    request_body = wire::TypeUpdateBody, responses(
    (status = 200, description = "The changed type.", body = wire::OneChangedType),
    (status = 400, description = "A field is wrong or cannot be changed.", body = wire::FaultBody),
    (status = 404, description = "No type with this id is visible to the caller.", body = wire::FaultBody),
    (status = 409, description = "The name is taken.", body = wire::FaultBody),
    (status = 413, description = "The body is too large, or there would be too many projects or metadata entries.", body = wire::FaultBody),
))]
pub(super) async fn update(Context { state, caller }: Context, Id(id): Id, Body(bytes): Body) -> Changed {
    change(&state, &caller, &id, |target_type| body::type_update(&bytes, target_type)).await
}

/// Add projects to a backup target type. A public type is then visible to these projects only.
#[utoipa::path(post, path = "/backup_target_types/{id}/add_projects", tag = TAG, operation_id = "add_projects", params(("id" = Uuid, Path)),
    request_body = wire::ProjectsBody, responses(
    (status = 200, description = "The changed type.", body = wire::OneChangedType),
    (status = 404, description = "No type with this id is visible to the caller.", body = wire::FaultBody),
    (status = 413, description = "The body is too large, or there would be too many projects.", body = wire::FaultBody),
))]
pub(super) async fn add_projects(Context { state, caller }: Context, Id(id): Id, Body(bytes): Body) -> Changed {
    change(&state, &caller, &id, |target_type| body::projects_to_add(&bytes, target_type)).await
}

/// Remove projects from a backup target type. This alone does not make it public.
#[utoipa::path(put, path = "/backup_target_types/{id}/remove_projects", tag = TAG, operation_id = "remove_projects",
    params(("id" = Uuid, Path)), request_body = wire::ProjectsBody, responses(
    (status = 200, description = "The changed type.", body = wire::OneChangedType),
    (status = 404, description = "No type with this id is visible to the caller.", body = wire::FaultBody),
))]
pub(super) async fn remove_projects(Context { state, caller }: Context, Id(id): Id, Body(bytes): Body) -> Changed {
    change(&state, &caller, &id, |target_type| body::projects_to_remove(&bytes, target_type)).await
}

/// Remove projects from a backup target type, for clients that use POST.
#[utoipa::path(post, path = "/backup_target_types/{id}/remove_projects", tag = TAG,
    operation_id = "remove_projects_by_post", params(("id" = Uuid, Path)), request_body = wire::ProjectsBody, responses(
    (status = 200, description = "The changed type.", body = wire::OneChangedType),
    (status = 404, description = "No type with this id is visible to the caller.", body = wire::FaultBody),
))]
pub(super) async fn remove_projects_by_post(context: Context, id: Id, body: Body) -> Changed {
    remove_projects(context, id, body).await
}

/// Add metadata to a backup target type, or change the value of a key.
#[utoipa::path(post, path = "/backup_target_types/{id}/add_metadata", tag = TAG, operation_id = "add_metadata", params(("id" = Uuid, Path)),
    request_body = wire::MetadataBody, responses(
    (status = 200, description = "The changed type.", body = wire::OneChangedType),
    (status = 404, description = "No type with this id is visible to the caller.", body = wire::FaultBody),
    (status = 413, description = "The body is too large, or there would be too many metadata entries.", body = wire::FaultBody),
))]
pub(super) async fn add_metadata(Context { state, caller }: Context, Id(id): Id, Body(bytes): Body) -> Changed {
    change(&state, &caller, &id, |target_type| body::metadata_to_add(&bytes, target_type)).await
}

/// Remove metadata from a backup target type. A pair is removed only with the given value, and a key alone
/// with any value.
#[utoipa::path(put, path = "/backup_target_types/{id}/remove_metadata", tag = TAG, operation_id = "remove_metadata",
    params(("id" = Uuid, Path)), request_body = wire::MetadataRemovalBody, responses(
    (status = 200, description = "The changed type.", body = wire::OneChangedType),
    (status = 404, description = "No type with this id is visible to the caller.", body = wire::FaultBody),
))]
pub(super) async fn remove_metadata(Context { state, caller }: Context, Id(id): Id, Body(bytes): Body) -> Changed {
    change(&state, &caller, &id, |target_type| body::metadata_to_remove(&bytes, target_type)).await
}

/// Remove metadata from a backup target type, for clients that use POST.
#[utoipa::path(post, path = "/backup_target_types/{id}/remove_metadata", tag = TAG,
    operation_id = "remove_metadata_by_post", params(("id" = Uuid, Path)), request_body = wire::MetadataRemovalBody, responses(
    (status = 200, description = "The changed type.", body = wire::OneChangedType),
    (status = 404, description = "No type with this id is visible to the caller.", body = wire::FaultBody),
))]
pub(super) async fn remove_metadata_by_post(context: Context, id: Id, body: Body) -> Changed {
    remove_metadata(context, id, body).await
}

/// Delete a backup target type.
#[utoipa::path(delete, path = "/backup_target_types/{id}", tag = TAG, operation_id = "delete_type", params(("id" = Uuid, Path)), responses(
    (status = 202, description = "Deleted."),
    (status = 404, description = "No type with this id is visible to the caller.", body = wire::FaultBody),
    (status = 409, description = "It is the default, or the only type of its target.", body = wire::FaultBody),
))]
pub(super) async fn delete(Context { state, caller }: Context, Id(id): Id) -> Result<Response, Fault> {
    state.agent.delete_type(visible(&state, &caller, &id)?.id).await?;
    Ok(deleted())
}

async fn change(
    state: &State,
    caller: &Caller,
    id: &str,
    decode: impl FnOnce(&TargetType) -> Result<TypeUpdate, Fault>,
) -> Changed {
    let target_type = visible(state, caller, id)?;
    let changed = state.agent.modify_type(target_type.id, decode(&target_type)?).await?;
    Ok(Json(wire::OneChangedType::from(&*changed)))
}

fn visible(state: &State, caller: &Caller, id: &str) -> Result<Arc<TargetType>, Fault> {
    let found = id.parse().ok().and_then(|id| state.agent.target_type(id)).filter(|found| caller.may_see(found));
    found.ok_or_else(|| Fault::not_found(format!("there is no backup target type {id}")))
}
