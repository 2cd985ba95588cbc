//! The description of the API, OpenAPI 3.1: what the table of routes says, and what holds for every
//! route, which none of them repeats.

use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, Content, OpenApi, Ref, ResponseBuilder};

use super::auth::{AUTH_TOKEN, Auth, OPEN};

/// What the description calls a token.
const SCHEME: &str = "token";

/// How any request can be refused.
const ANY: &[(&str, &str)] =
    &[("414", "Path and query are too long."), ("431", "There are too many header fields, or they are too large.")];

/// How a request that needs a token can be refused.
const WITH_TOKEN: &[(&str, &str)] = &[
    ("401", "A token is needed, or the one that was sent is not valid."),
    ("403", "The token is not for this."),
    ("503", "Tokens cannot be validated now."),
];

/// How a request with a body can be refused.
const WITH_BODY: &[(&str, &str)] = &[("400", "The body or a field is wrong."), ("413", "The body is too large.")];

/// How a change, or a probe that is asked for, can fail.
const ON_CHANGE: &[(&str, &str)] = &[
    ("500", "It could not be done; the message says whether anything has changed."),
    ("503", "The agent is stopping, or tokens cannot be validated now."),
];

/// Adds what holds for every route.
pub(super) fn complete(openapi: &mut OpenApi, auth: &Auth) {
    if auth.needs_token() {
        let components = openapi.components.get_or_insert_with(Components::new);
        let header = ApiKeyValue::new(AUTH_TOKEN.as_str());
        components.add_security_scheme(SCHEME, SecurityScheme::ApiKey(ApiKey::Header(header)));
    }
    for (path, item) in &mut openapi.paths.paths {
        // A GET, but one that changes something.
        if let Some(operation) = item.get.as_mut().filter(|_| path.ends_with(super::auth::CHANGES_BY_GET)) {
            refuse(operation, ON_CHANGE);
        }
        for operation in [&mut item.put, &mut item.post, &mut item.delete].into_iter().flatten() {
            refuse(operation, ON_CHANGE);
        }
        for operation in [&mut item.get, &mut item.put, &mut item.post, &mut item.delete].into_iter().flatten() {
            refuse(operation, ANY);
            if operation.request_body.is_some() {
                refuse(operation, WITH_BODY);
            }
            if path != OPEN && auth.needs_token() {
                operation.security = Some(vec![SecurityRequirement::new(SCHEME, Vec::<String>::new())]);
                refuse(operation, WITH_TOKEN);
            }
        }
    }
}

/// Adds faults to those that the route itself has, which know better what they mean.
fn refuse(operation: &mut Operation, faults: &[(&str, &str)]) {
    for (status, meaning) in faults {
        let response = ResponseBuilder::new()
            .description(*meaning)
            .content("application/json", Content::new(Some(Ref::from_schema_name("FaultBody"))))
            .build();
        operation.responses.responses.entry((*status).to_owned()).or_insert_with(|| response.into());
    }
}
