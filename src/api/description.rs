//! Description of the API, OpenAPI 3.1: the table of routes, and the refusals that every route has.

use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, Content, OpenApi, Ref, ResponseBuilder};

use super::auth::{AUTH_TOKEN, Auth, OPEN};

/// Name of the token in the description.
const SCHEME: &str = "token";

/// Refusals of any request.
const ANY: &[(&str, &str)] =
    &[("414", "Path and query are too long."), ("431", "There are too many header fields, or they are too large.")];

/// Refusals of a request that needs a token.
const WITH_TOKEN: &[(&str, &str)] = &[
    ("401", "A token is needed, or the one that was sent is not valid."),
    ("403", "The token does not allow this request."),
    ("503", "Tokens cannot be validated now."),
];

/// Refusals of a request without authentication.
const WITHOUT_TOKEN: &[(&str, &str)] = &[("403", "The request may come from a web page of another site.")];

/// Refusals of a request with a body.
const WITH_BODY: &[(&str, &str)] = &[
    ("400", "The body or a field is wrong."),
    ("413", "The body is too large."),
    ("415", "The body has a content encoding, or, without authentication, a type other than JSON."),
    ("503", "The agent is reading too many large bodies."),
];

/// Failures of a change or of a requested probe.
const ON_CHANGE: &[(&str, &str)] = &[
    ("500", "The change or the probe failed. The message says whether anything has changed."),
    ("503", "The agent is stopping, or tokens cannot be validated now."),
];

/// Adds the refusals and the security scheme that every route has.
pub(crate) fn complete(openapi: &mut OpenApi, auth: &Auth) {
    if auth.needs_token() {
        let components = openapi.components.get_or_insert_with(Components::new);
        let header = ApiKeyValue::new(AUTH_TOKEN.as_str());
        components.add_security_scheme(SCHEME, SecurityScheme::ApiKey(ApiKey::Header(header)));
    }
    for (path, item) in &mut openapi.paths.paths {
        // This GET changes something.
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
            if !OPEN.contains(&path.as_str()) && auth.needs_token() {
                operation.security = Some(vec![SecurityRequirement::new(SCHEME, Vec::<String>::new())]);
                refuse(operation, WITH_TOKEN);
            } else if !OPEN.contains(&path.as_str()) {
                refuse(operation, WITHOUT_TOKEN);
            }
        }
    }
}

/// Adds faults to those of the route itself, whose descriptions are more precise.
fn refuse(operation: &mut Operation, faults: &[(&str, &str)]) {
    for (status, meaning) in faults {
        let response = ResponseBuilder::new()
            .description(*meaning)
            .content("application/json", Content::new(Some(Ref::from_schema_name("FaultBody"))))
            .build();
        operation.responses.responses.entry((*status).to_owned()).or_insert_with(|| response.into());
    }
}
