//! Faults: errors in the form that OpenStack clients parse, `{"itemNotFound": {"code": 404,
//! "message": "…"}}`.

use axum::Json;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::agent::AgentError;
use crate::model::Reason;
use crate::registry::{Refusal, RegistryError, StorageError};

/// Largest length of a message, in characters. The middle of a longer message is left out.
pub const MESSAGE_MAX_CHARS: usize = 600;

/// A fault: its name and status, and a sentence for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    status: StatusCode,
    message: String,
}

impl Fault {
    /// A fault of this status. The message may quote what the client sent, so it is reduced to one line of at most
    /// [`MESSAGE_MAX_CHARS`].
    pub fn new(status: StatusCode, message: impl AsRef<str>) -> Self {
        Self { status, message: one_line(message.as_ref()) }
    }

    /// A request that is wrong. The message names the field and what was expected.
    pub fn bad_request(message: impl AsRef<str>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// A thing that does not exist.
    pub fn not_found(message: impl AsRef<str>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Name in the body, as in OpenStack's services.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.status {
            StatusCode::BAD_REQUEST => "badRequest",
            StatusCode::UNAUTHORIZED => "unauthorized",
            StatusCode::FORBIDDEN => "forbidden",
            StatusCode::NOT_FOUND => "itemNotFound",
            StatusCode::METHOD_NOT_ALLOWED => "badMethod",
            StatusCode::CONFLICT => "conflictingRequest",
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::URI_TOO_LONG | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                "overLimit"
            }
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "badMediaType",
            StatusCode::SERVICE_UNAVAILABLE => "serviceUnavailable",
            _ => "computeFault",
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        // The cause of a 503 is logged elsewhere, and clients must not be able to fill the log.
        if self.status.is_server_error() && self.status != StatusCode::SERVICE_UNAVAILABLE {
            tracing::warn!(status = self.status.as_u16(), "{}", self.message);
        }
        let body = json!({ self.name(): { "code": self.status.as_u16(), "message": self.message } });
        (self.status, Json(body)).into_response()
    }
}

impl From<AgentError> for Fault {
    fn from(error: AgentError) -> Self {
        let status = match &error {
            AgentError::TargetNotFound(_) | AgentError::OutOfScope { .. } => StatusCode::NOT_FOUND,
            AgentError::MountName(_) => StatusCode::BAD_REQUEST,
            AgentError::Registry(error) => of_registry(error),
            AgentError::Busy { .. } => StatusCode::CONFLICT,
            AgentError::Detach { finding, .. } => status_of_unmount(finding.reason),
            AgentError::CheckTimedOut { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            AgentError::NoHistory { .. } | AgentError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}

fn status_of_unmount(reason: Reason) -> StatusCode {
    match reason {
        // The operator must correct something on this host first.
        Reason::MountConflict | Reason::MountNotPermitted | Reason::MountPointUnusable | Reason::MountStacked => {
            StatusCode::CONFLICT
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn of_registry(error: &RegistryError) -> StatusCode {
    match error {
        RegistryError::Refused(refusal) => of_refusal(refusal),
        RegistryError::NoFleet(_) => StatusCode::BAD_REQUEST,
        RegistryError::Storage(StorageError::Failed(_)) => StatusCode::INTERNAL_SERVER_ERROR,
        RegistryError::Storage(StorageError::ReadOnly(_) | StorageError::Uncertain(_))
        | RegistryError::Fleet(_)
        | RegistryError::Contended => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn of_refusal(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::TargetNotFound(_) | Refusal::TypeNotFound(_) => StatusCode::NOT_FOUND,
        Refusal::InvalidFields(_)
        | Refusal::InvalidScope(_)
        | Refusal::DefaultStays(_)
        | Refusal::DefaultTypeStays { .. }
        | Refusal::PublicWithProjects => StatusCode::BAD_REQUEST,
        Refusal::MountPathTaken { .. }
        | Refusal::StorageTaken { .. }
        | Refusal::TypeNameTaken { .. }
        | Refusal::DefaultInUse(_)
        | Refusal::LastType { .. }
        | Refusal::DefaultTypeInUse { .. } => StatusCode::CONFLICT,
        Refusal::TooManyTargets
        | Refusal::TooManyTypes
        | Refusal::TooManyProjects(_)
        | Refusal::TooManyTargetEntries(_)
        | Refusal::TargetMetadataTooLarge(_)
        | Refusal::TargetMetadataTooLargeInTotal(_)
        | Refusal::TooMuchMetadata(_)
        | Refusal::TooManyAssignments(_)
        | Refusal::TooMuchMetadataInTotal(_) => StatusCode::PAYLOAD_TOO_LARGE,
    }
}

/// A message without control characters, of at most [`MESSAGE_MAX_CHARS`]. The work does not depend on the length.
fn one_line(message: &str) -> String {
    if message.chars().nth(MESSAGE_MAX_CHARS).is_none() {
        let whole = escaped(message);
        if whole.chars().count() <= MESSAGE_MAX_CHARS {
            return whole;
        }
    }
    let half = MESSAGE_MAX_CHARS / 2;
    let end = message.char_indices().rev().nth(half - 1).map_or(0, |(at, _)| at);
    let (head, tail) = (escaped(&message.chars().take(half).collect::<String>()), escaped(&message[end..]));
    // The end is kept too, because it says what was expected.
    let tail_from = tail.chars().count().saturating_sub(half);
    head.chars().take(half).chain(['…']).chain(tail.chars().skip(tail_from)).collect()
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            escaped.extend(letter.escape_default());
        } else {
            escaped.push(letter);
        }
    }
    escaped
}

pub(super) async fn no_such_route(uri: Uri) -> Fault {
    Fault::not_found(format!("there is no route {}: GET /openapi.json lists the routes", uri.path()))
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> Fault {
    let message = format!("{method} is not a method of {}: GET /openapi.json lists the methods", uri.path());
    Fault::new(StatusCode::METHOD_NOT_ALLOWED, message)
}

/// [`no_such_route`] of an address that serves the metrics alone.
pub(super) async fn no_such_metrics_route(uri: Uri) -> Fault {
    let path = uri.path();
    Fault::not_found(format!(
        "there is no route {path} on this address of [metrics] listen: GET /metrics is its only one"
    ))
}

/// [`no_such_method`] of an address that serves the metrics alone.
pub(super) async fn no_such_metrics_method(method: Method, uri: Uri) -> Fault {
    let message = format!("{method} is not a method of {}: send GET", uri.path());
    Fault::new(StatusCode::METHOD_NOT_ALLOWED, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::report::Finding;

    #[test]
    fn deletion_that_needs_the_operator_is_a_conflict() {
        for (reason, code) in [
            (Reason::MountConflict, 409),
            (Reason::MountNotPermitted, 409),
            (Reason::MountPointUnusable, 409),
            (Reason::MountStacked, 409),
            (Reason::StorageTimedOut, 500),
            (Reason::AgentError, 500),
        ] {
            let error =
                AgentError::Detach { id: uuid::Uuid::nil(), finding: Finding::new(reason, "why, and what to do") };
            let fault = Fault::from(error);
            assert_eq!(fault.status.as_u16(), code, "{reason:?}");
            assert!(fault.message.ends_with("why, and what to do"), "{fault}");
        }
    }

    #[test]
    fn message_is_one_bounded_line_whatever_it_quotes() {
        for (message, expected) in [
            ("plain, expected 1".to_owned(), "plain, expected 1".to_owned()),
            ("a\nb\u{1b}".to_owned(), "a\\nb\\u{1b}".to_owned()),
            ("ü".repeat(MESSAGE_MAX_CHARS), "ü".repeat(MESSAGE_MAX_CHARS)),
        ] {
            assert_eq!(Fault::bad_request(message).to_string(), expected);
        }
        for quoted in ["x".repeat(1 << 20), "\u{0}".repeat(1 << 20), "\n".repeat(500), "ü".repeat(601)] {
            let message = Fault::bad_request(format!("name: {quoted}, expected 1 to 255")).to_string();
            assert_eq!(message.chars().count(), MESSAGE_MAX_CHARS + 1, "{message}");
            assert!(message.starts_with("name: ") && message.ends_with(", expected 1 to 255"), "{message}");
            assert!(!message.contains(char::is_control), "{message}");
        }
    }
}
