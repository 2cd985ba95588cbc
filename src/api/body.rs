//! Request bodies: read whole within a size and a time limit, then decoded ([`decode`]) and converted to a change.
//!
//! `null` and mostly an empty string mean "not given", because clients send every key they know. An empty string clears
//! a description, and is not a name or a value.

mod decode;
mod json;
mod target;
mod target_type;

use std::time::Duration;

use axum::body::{Bytes, HttpBody as _};
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;

use super::fault::Fault;

pub(super) use target::{modification, new_target};
pub(super) use target_type::{
    metadata_to_add, metadata_to_remove, new_type, projects_to_add, projects_to_remove, type_update,
};

/// Largest request body, in bytes.
pub const BODY_MAX_BYTES: usize = 1 << 20;

/// How long a client may take to send a body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A request body, whole and of a bounded size.
pub(super) struct Body(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Fault;

    async fn from_request(request: Request, state: &S) -> Result<Self, Fault> {
        // What is announced as too large is not waited for.
        if request.body().size_hint().lower() > BODY_MAX_BYTES as u64 {
            return Err(too_large());
        }
        match tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, state)).await {
            Ok(Ok(bytes)) => Ok(Self(bytes)),
            Ok(Err(rejection)) => Err(unread(&rejection)),
            Err(_) => Err(Fault::bad_request(format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs()))),
        }
    }
}

fn unread(rejection: &BytesRejection) -> Fault {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return too_large();
    }
    Fault::bad_request(format!("the body could not be read: {}", rejection.body_text()))
}

fn too_large() -> Fault {
    let message = format!("the body is larger than {} bytes, which is the limit", BODY_MAX_BYTES);
    Fault::new(StatusCode::PAYLOAD_TOO_LARGE, message)
}
