//! Limits on the head of a request. A refusal states the limit.
//!
//! They are lower than the limits of hyper (100 fields, and the size in [`super::listen`]), whose refusals do not
//! explain the cause. A request must have exactly one `Host` (RFC 9112 §3.2), because two readers may use different
//! ones.

use axum::http::header::HOST;
use axum::http::{Request, StatusCode};

use super::fault::Fault;

/// Longest path and query, in bytes.
pub const TARGET_MAX_BYTES: usize = 8 << 10;

/// Largest number of header fields.
pub const HEADERS_MAX: usize = 64;

/// Largest size of all header fields, names and values together, in bytes.
pub const HEADERS_MAX_BYTES: usize = 16 << 10;

/// Refuses a head that exceeds a limit, or that does not have exactly one `Host` field.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), Fault> {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target > TARGET_MAX_BYTES {
        let message = format!("path and query have {target} bytes. The limit is {TARGET_MAX_BYTES}");
        return Err(Fault::new(StatusCode::URI_TOO_LONG, message));
    }
    let headers = request.headers();
    let hosts = headers.get_all(HOST).iter().count();
    if hosts != 1 {
        return Err(Fault::bad_request(format!("the request has {hosts} Host fields, expected one")));
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    let message = if headers.len() > HEADERS_MAX {
        format!("the request has {} header fields. The limit is {HEADERS_MAX}", headers.len())
    } else if bytes > HEADERS_MAX_BYTES {
        format!("the header fields have {bytes} bytes. The limit is {HEADERS_MAX_BYTES}")
    } else {
        return Ok(());
    };
    Err(Fault::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &str, headers: usize, value: &str) -> Option<(StatusCode, String)> {
        let mut request = Request::builder().uri(path).header(HOST, "");
        for number in 0..headers {
            request = request.header(format!("x-{number:02}"), value);
        }
        let fault = check(&request.body(()).expect("a request")).err()?;
        Some((fault.status(), fault.to_string()))
    }

    #[test]
    fn head_beyond_a_limit_is_refused_with_the_limit() {
        let longest = format!("/{}", "a".repeat(TARGET_MAX_BYTES - 1));
        assert_eq!(refused(&longest, 0, ""), None);
        assert_eq!(refused("/", HEADERS_MAX - 1, ""), None);
        let widest = "v".repeat(HEADERS_MAX_BYTES / 4 - 5);
        assert_eq!(refused("/", 4, &widest), None);

        let (status, message) = refused(&format!("{longest}a"), 0, "").expect("too long");
        assert!(status == StatusCode::URI_TOO_LONG && message.contains("8192"), "{message}");
        let (status, message) = refused("/", HEADERS_MAX, "").expect("too many");
        assert!(status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE && message.contains("64"), "{message}");
        let (status, message) = refused("/", 4, &format!("{widest}v")).expect("too large");
        assert!(status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE && message.contains("16384"), "{message}");
    }

    #[test]
    fn request_with_two_host_fields_or_none_is_refused() {
        for (hosts, expected) in [(&[][..], false), (&["a"], true), (&["a", "a"], false), (&["a", "b"], false)] {
            let mut request = Request::builder().uri("/");
            for host in hosts {
                request = request.header(HOST, *host);
            }
            let outcome = check(&request.body(()).expect("a request"));
            assert_eq!(outcome.is_ok(), expected, "{hosts:?}");
            assert!(outcome.err().is_none_or(|fault| fault.status() == StatusCode::BAD_REQUEST));
        }
    }
}
