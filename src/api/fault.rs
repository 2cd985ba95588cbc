//! Faults: errors in the shape that OpenStack clients parse, `{"itemNotFound": {"code": 404,
//! "message": "…"}}`.

use axum::Json;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::agent::AgentError;
use crate::registry::{Refusal, RegistryError};

/// A fault: its name and status, and a sentence for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    status: StatusCode,
    message: String,
}

impl Fault {
    /// A fault of this status.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// Something is wrong with the request: the message names the field and what was expected.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// Its HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Its name in the body, as OpenStack's services have them.
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
            StatusCode::SERVICE_UNAVAILABLE => "serviceUnavailable",
            _ => "computeFault",
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        // Why a service is not there has a line of its own, and clients are not to fill the log with more.
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
            AgentError::TargetNotFound(_) => StatusCode::NOT_FOUND,
            AgentError::MountName(_) => StatusCode::BAD_REQUEST,
            AgentError::Registry(error) => of_registry(error),
            AgentError::Busy { .. } => StatusCode::CONFLICT,
            AgentError::Detach { .. } | AgentError::CheckTimedOut { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            AgentError::NoHistory { .. } | AgentError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}

fn of_registry(error: &RegistryError) -> StatusCode {
    match error {
        RegistryError::Refused(refusal) => of_refusal(refusal),
        RegistryError::Storage(_) => StatusCode::INTERNAL_SERVER_ERROR,
        RegistryError::Contended => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn of_refusal(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::TargetNotFound(_) | Refusal::TypeNotFound(_) => StatusCode::NOT_FOUND,
        Refusal::NotS3 { .. }
        | Refusal::ExportFixed { .. }
        | Refusal::DefaultStays(_)
        | Refusal::DefaultTypeStays { .. }
        | Refusal::PublicWithProjects => StatusCode::BAD_REQUEST,
        Refusal::MountPathTaken { .. }
        | Refusal::TypeNameTaken { .. }
        | Refusal::DefaultTaken { .. }
        | Refusal::DefaultInUse(_)
        | Refusal::LastType { .. }
        | Refusal::DefaultTypeInUse { .. } => StatusCode::CONFLICT,
        Refusal::TooManyTargets
        | Refusal::TooManyTypes
        | Refusal::TooManyProjects(_)
        | Refusal::TooMuchMetadata(_)
        | Refusal::TooManyAssignments(_)
        | Refusal::TooMuchMetadataInTotal(_) => StatusCode::PAYLOAD_TOO_LARGE,
    }
}

pub(super) async fn no_such_route(uri: Uri) -> Fault {
    Fault::not_found(format!("there is nothing at {}: GET /openapi.json lists what there is", uri.path()))
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> Fault {
    let message = format!("{method} is not for {}: GET /openapi.json lists what is", uri.path());
    Fault::new(StatusCode::METHOD_NOT_ALLOWED, message)
}
