//! Content negotiation: `If-None-Match` and `Accept-Encoding`.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::header::{ACCEPT_ENCODING, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::gzip::GZIP_MIN_BYTES;

/// The headers of a request. They are moved and not copied, so it must be the last argument of a handler.
pub(crate) struct Headers(pub(crate) HeaderMap);

impl<S: Sync> FromRequestParts<S> for Headers {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(std::mem::take(&mut parts.headers)))
    }
}

/// Whether the client has the list with this tag. The comparison is weak (RFC 9110 §13.1.2).
pub(super) fn is_known(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let Ok(etag) = etag.to_str().map(opaque) else { return false };
    elements(headers, IF_NONE_MATCH).any(|known| known == "*" || opaque(known) == etag)
}

/// The part of a tag that a weak comparison compares.
fn opaque(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

/// Whether an answer of this length, in bytes, is compressed for a client that sent these headers.
pub(super) fn is_compressed(length: usize, headers: &HeaderMap) -> bool {
    length >= GZIP_MIN_BYTES && accepts_gzip(headers)
}

/// Whether the client accepts gzip (RFC 9110 §12.5.3): it names gzip, or everything, with a weight above 0.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let mut accepted = None;
    for coding in elements(headers, ACCEPT_ENCODING) {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let name = name.trim();
        let is_named = name.eq_ignore_ascii_case("gzip");
        if is_named || name == "*" && accepted.is_none() {
            let weight = weight.trim().strip_prefix("q=").map(str::parse::<f32>);
            accepted = Some(!weight.is_some_and(|weight| weight.is_ok_and(|weight| weight <= 0.0)));
            if is_named {
                break;
            }
        }
    }
    accepted.unwrap_or(false)
}

/// The elements of a header whose value is a list.
fn elements(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_used_when_the_client_accepts_it() {
        for (accepted, expected) in [
            ("", false),
            ("gzip", true),
            ("deflate, GZIP;q=0.5, br", true),
            ("gzip;q=0", false),
            ("gzip; q=0.0, *", false),
            ("*", true),
            ("*;q=0, gzip", true),
            ("*;q=0", false),
            ("identity", false),
            ("x-gzip-like", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, accepted.parse().expect("a value"));
            assert_eq!(accepts_gzip(&headers), expected, "{accepted}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }

    #[test]
    fn list_is_known_when_its_tag_is_among_those_sent() {
        let etag = HeaderValue::from_static("W/\"abc\"");
        for (sent, expected) in [
            ("W/\"abc\"", true),
            ("\"abc\"", true),
            ("\"x\", W/\"abc\"", true),
            ("*", true),
            ("\"x\"", false),
            ("abc", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(IF_NONE_MATCH, sent.parse().expect("a value"));
            assert_eq!(is_known(&headers, &etag), expected, "{sent}");
        }
        assert!(!is_known(&HeaderMap::new(), &etag));
    }
}
