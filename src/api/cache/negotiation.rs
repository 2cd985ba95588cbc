//! Content negotiation: `If-None-Match` and `Accept-Encoding`.

use axum::http::header::ACCEPT_ENCODING;
use axum::http::{HeaderMap, HeaderValue};
use headers::{HeaderMapExt as _, IfNoneMatch};

/// Whether the client has the list of this tag already.
pub(super) fn is_known(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let tag = tag.to_str().ok().and_then(|tag| tag.parse().ok());
    let condition = headers.typed_get::<IfNoneMatch>();
    condition.zip(tag).is_some_and(|(condition, tag)| !condition.precondition_passes(&tag))
}

/// Whether the client takes gzip (RFC 9110 §12.5.3): it names it, or everything, and not with a
/// weight of nothing.
pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut taken = None;
    for coding in codings.flat_map(|value| value.split(',')) {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let name = name.trim();
        let is_named = name.eq_ignore_ascii_case("gzip");
        if is_named || name == "*" && taken.is_none() {
            let weight = weight.trim().strip_prefix("q=").map(str::parse::<f32>);
            taken = Some(!weight.is_some_and(|weight| weight.is_ok_and(|weight| weight <= 0.0)));
            if is_named {
                break;
            }
        }
    }
    taken.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_for_who_names_it() {
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
            assert_eq!(takes_gzip(&headers), expected, "{accepted}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }

    #[test]
    fn a_list_is_known_by_its_tag_however_it_is_compared() {
        let tag = HeaderValue::from_static("W/\"abc\"");
        for (sent, expected) in [
            ("W/\"abc\"", true),
            ("\"abc\"", true),
            ("\"x\", W/\"abc\"", true),
            ("*", true),
            ("\"x\"", false),
            ("abc", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(axum::http::header::IF_NONE_MATCH, sent.parse().expect("a value"));
            assert_eq!(is_known(&headers, &tag), expected, "{sent}");
        }
        assert!(!is_known(&HeaderMap::new(), &tag));
    }
}
