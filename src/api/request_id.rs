//! Request ids: each request gets a new id, which is in a header of its answer and in each of its log lines.

use axum::http::{HeaderName, HeaderValue, Response};
use tracing::Span;
use uuid::Uuid;

/// Header of the request id, which OpenStack clients log.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-compute-request-id");

/// The id of a request.
pub(super) struct RequestId(String);

impl RequestId {
    /// A new id.
    pub(super) fn new() -> Self {
        let mut uuid = Uuid::encode_buffer();
        let uuid = Uuid::new_v4().hyphenated().encode_lower(&mut uuid);
        Self(["req-", uuid].concat())
    }

    /// A span with the id, for all log lines of the request.
    pub(super) fn span(&self) -> Span {
        // At this level, every filter that accepts any log line of the request also accepts its span.
        tracing::error_span!(parent: None, "request", request_id = %self.0)
    }

    /// Adds the id to the answer.
    pub(super) fn add_to<B>(self, answer: &mut Response<B>) {
        let id = HeaderValue::try_from(self.0).unwrap_or(HeaderValue::from_static("req-"));
        answer.headers_mut().insert(REQUEST_ID, id);
    }
}

#[cfg(test)]
mod tests {
    use super::super::fault::Fault;
    use super::*;
    use axum::http::StatusCode;
    use axum::response::IntoResponse as _;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};
    use tracing::Instrument as _;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn fault_is_logged_with_the_request_id_of_its_answer() {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let failing = async { Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "broken").into_response() };
        let request_id = RequestId::new();
        let mut answer = failing.instrument(request_id.span()).await;
        request_id.add_to(&mut answer);
        let id = answer.headers()[REQUEST_ID].to_str().expect("text").to_owned();
        let log = String::from_utf8(captured.0.lock().expect("no panic").clone()).expect("text");
        assert!(log.contains("broken") && log.contains(&format!("request{{request_id={id}}}: ")), "{id}: {log}");
    }
}
