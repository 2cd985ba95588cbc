//! Request ids: each request gets a new id, which is in a header of its answer and in each of its log lines.

use axum::http::{HeaderName, HeaderValue, Response};
use tracing::Instrument as _;
use uuid::Uuid;

/// Header of the request id, which OpenStack clients log.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-compute-request-id");

/// Answers a request within a span that has its id, and adds the id to the answer.
pub(super) fn with_request_id<B, E>(
    answer: impl Future<Output = Result<Response<B>, E>>,
) -> impl Future<Output = Result<Response<B>, E>> {
    let id = format!("req-{}", Uuid::new_v4());
    // At this level, every filter that accepts any log line of the request also accepts its span.
    let span = tracing::error_span!(parent: None, "request", request_id = %id);
    let answer = async move {
        let mut answer = answer.await?;
        let id = HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("req-"));
        answer.headers_mut().insert(REQUEST_ID, id);
        Ok(answer)
    };
    answer.instrument(span)
}

#[cfg(test)]
mod tests {
    use super::super::fault::Fault;
    use super::*;
    use axum::http::StatusCode;
    use axum::response::IntoResponse as _;
    use std::convert::Infallible;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

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
        let failing =
            async { Ok::<_, Infallible>(Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "broken").into_response()) };
        let answer = with_request_id(failing).await.expect("infallible");
        let id = answer.headers()[REQUEST_ID].to_str().expect("text").to_owned();
        let log = String::from_utf8(captured.0.lock().expect("no panic").clone()).expect("text");
        assert!(log.contains("broken") && log.contains(&format!("request{{request_id={id}}}: ")), "{id}: {log}");
    }
}
