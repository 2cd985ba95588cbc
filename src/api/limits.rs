//! Limits on the head of a request, each answered with what it is.
//!
//! They lie below those at which hyper gives up without a word (100 fields, and the size in
//! [`super::listen`]), so that a client that is only a little over learns why.

use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::fault::Fault;

/// The longest path and query, in bytes.
pub const TARGET_MAX_BYTES: usize = 8 << 10;

/// The most header fields.
pub const HEADERS_MAX: usize = 64;

/// The largest header fields, names and values together, in bytes.
pub const HEADERS_MAX_BYTES: usize = 16 << 10;

/// Refuses a head that is beyond a limit.
pub(super) async fn limit(request: Request, next: Next) -> Response {
    match within_limits(&request) {
        Ok(()) => next.run(request).await,
        Err(fault) => fault.into_response(),
    }
}

fn within_limits<B>(request: &axum::http::Request<B>) -> Result<(), Fault> {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target > TARGET_MAX_BYTES {
        let message = format!("path and query have {target} bytes; the limit is {TARGET_MAX_BYTES}");
        return Err(Fault::new(StatusCode::URI_TOO_LONG, message));
    }
    let headers = request.headers();
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    let message = if headers.len() > HEADERS_MAX {
        format!("the request has {} header fields; the limit is {HEADERS_MAX}", headers.len())
    } else if bytes > HEADERS_MAX_BYTES {
        format!("the header fields have {bytes} bytes; the limit is {HEADERS_MAX_BYTES}")
    } else {
        return Ok(());
    };
    Err(Fault::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &str, headers: usize, value: &str) -> Option<(StatusCode, String)> {
        let mut request = axum::http::Request::builder().uri(path);
        for number in 0..headers {
            request = request.header(format!("x-{number:02}"), value);
        }
        let fault = within_limits(&request.body(()).expect("a request")).err()?;
        Some((fault.status(), fault.to_string()))
    }

    #[test]
    fn a_head_at_its_limits_passes_and_one_beyond_is_told_the_limit() {
        let longest = format!("/{}", "a".repeat(TARGET_MAX_BYTES - 1));
        assert_eq!(refused(&longest, 0, ""), None);
        assert_eq!(refused("/", HEADERS_MAX, ""), None);
        let widest = "v".repeat(HEADERS_MAX_BYTES / 4 - 4);
        assert_eq!(refused("/", 4, &widest), None);

        let (status, message) = refused(&format!("{longest}a"), 0, "").expect("too long");
        assert!(status == StatusCode::URI_TOO_LONG && message.contains("8192"), "{message}");
        let (status, message) = refused("/", HEADERS_MAX + 1, "").expect("too many");
        assert!(status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE && message.contains("64"), "{message}");
        let (status, message) = refused("/", 4, &format!("{widest}v")).expect("too large");
        assert!(status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE && message.contains("16384"), "{message}");
    }
}
