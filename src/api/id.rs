//! The id in a path.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use super::fault::Fault;

/// The `{id}` of a path. A text that is not an id matches no target or type, so the route answers with 404.
pub(super) struct Id(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let text = Path::<String>::from_request_parts(parts, state).await;
        text.map(|Path(text)| Self(text))
            .map_err(|_| Fault::not_found("the id in the path is not UTF-8: expected a UUID"))
    }
}
