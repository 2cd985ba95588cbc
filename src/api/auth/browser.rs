//! Protection against web pages, where no token protects the API.
//!
//! With `auth = "none"`, any page that a browser on this host opens could make the browser send a change. Three rules
//! prevent that:
//!
//! - The `Host` is one of [`AcceptedHosts`], usually a loopback address. A page whose name an attacker resolves to
//!   this host (DNS rebinding) sends its own name.
//! - An `Origin` is this API's, and `Sec-Fetch-Site` (W3C Fetch Metadata) does not name another site.
//! - A body is JSON by its content type. A page of another site may send other types without asking the API first
//!   (Fetch standard, "CORS-safelisted request-header").
//!
//! Requests over a Unix socket are exempt, because browsers cannot use one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, ORIGIN, TRANSFER_ENCODING};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode};

use crate::api::fault::Fault;
use crate::model::settings::{ApiSettings, Listen};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Values of `Host` that are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AcceptedHosts {
    /// `localhost` and loopback addresses.
    Loopback,
    /// `localhost` and IP addresses. The agent listens for other hosts, and DNS rebinding needs a name.
    Addresses,
    /// Everything. TLS is on, and an attacker has no certificate for another name.
    All,
}

impl AcceptedHosts {
    /// The values that fit the listeners.
    pub(super) fn of(settings: &ApiSettings) -> Self {
        if settings.tls.is_some() {
            Self::All
        } else if settings.listen.iter().any(Listen::is_remote) {
            Self::Addresses
        } else {
            Self::Loopback
        }
    }

    /// The accepted values, in a message.
    fn expected(self) -> &'static str {
        match self {
            Self::Loopback => "localhost or a loopback address",
            Self::Addresses => "localhost or an IP address of this host",
            Self::All => "a host name or an address",
        }
    }

    /// Whether a value of `Host` is accepted, with or without a port.
    fn accepts(self, host: &str) -> bool {
        let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let name = host.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(host, |(name, _)| name);
        let in_brackets = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let address: Option<IpAddr> = match in_brackets {
            Some(name) => name.parse::<Ipv6Addr>().ok().map(IpAddr::from),
            None => name.parse::<Ipv4Addr>().ok().map(IpAddr::from),
        };
        match self {
            Self::All => true,
            _ if name.eq_ignore_ascii_case("localhost") => true,
            Self::Addresses => address.is_some_and(|address| !address.is_unspecified()),
            Self::Loopback => address.is_some_and(|address| address.to_canonical().is_loopback()),
        }
    }
}

/// Refuses a request that a page of another site may have caused.
pub(super) fn refuse_foreign(parts: &Parts, hosts: AcceptedHosts) -> Result<(), Fault> {
    let headers = &parts.headers;
    let forbidden = |message: String| Err(Fault::new(StatusCode::FORBIDDEN, message));
    let host = text(headers, HOST).unwrap_or_default();
    if !hosts.accepts(host) {
        return forbidden(format!(
            "Host: {host:?} is not an address of this agent, expected {}, or set [api] auth to \"token\"",
            hosts.expected()
        ));
    }
    let is_own = |origin: &str| {
        let origin = origin.strip_prefix("http://").or(origin.strip_prefix("https://"));
        origin.is_some_and(|origin| origin.eq_ignore_ascii_case(host))
    };
    if let Some(origin) = values(headers, ORIGIN).find(|origin| !is_own(origin)) {
        return forbidden(format!("Origin: {origin:?} is a page of another site, which may not use this API"));
    }
    let is_own_site = |site: &str| matches!(site, "same-origin" | "none");
    if let Some(site) = values(headers, SEC_FETCH_SITE).find(|site| !is_own_site(site)) {
        return forbidden(format!("Sec-Fetch-Site: {site:?} is a page of another site, which may not use this API"));
    }
    let has_body =
        headers.contains_key(TRANSFER_ENCODING) || values(headers, CONTENT_LENGTH).any(|length| length != "0");
    let content_type = text(headers, CONTENT_TYPE).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if has_body && !media_type.eq_ignore_ascii_case("application/json") {
        let message = format!("Content-Type: {content_type:?} is not application/json, send the body as JSON");
        return Err(Fault::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    Ok(())
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// The values of a header. One that is not text is not equal to any expected value.
fn values(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers.get_all(name).into_iter().map(|value| value.to_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(hosts: AcceptedHosts, headers: &[(&str, &str)]) -> u16 {
        let mut request = axum::http::Request::builder().method("POST").uri("/backup_targets");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        refuse_foreign(&parts, hosts).map_or_else(|fault| fault.status().as_u16(), |()| 200)
    }

    #[test]
    fn host_that_is_not_an_address_of_the_agent_is_refused() {
        use AcceptedHosts::{Addresses, All, Loopback};
        for (host, loopback, addresses) in [
            ("localhost", 200, 200),
            ("LOCALHOST:8781", 200, 200),
            ("127.0.0.1:8781", 200, 200),
            ("127.9.9.9", 200, 200),
            ("[::1]:8781", 200, 200),
            ("[::ffff:127.0.0.1]", 200, 200),
            ("192.0.2.7:8781", 403, 200),
            ("[2001:db8::1]:8781", 403, 200),
            ("0.0.0.0:8781", 403, 403),
            ("[::]:8781", 403, 403),
            ("rebound.example:8781", 403, 403),
            ("localhost.evil.example", 403, 403),
            ("evil@localhost", 403, 403),
            ("127.0.0.1.evil.example", 403, 403),
            ("127.0.0.1:x", 403, 403),
            ("127.0.0.1:8781:8781", 403, 403),
            ("[127.0.0.1]", 403, 403),
            ("::1", 403, 403),
            ("", 403, 403),
        ] {
            assert_eq!(status(Loopback, &[("host", host)]), loopback, "{host:?}");
            assert_eq!(status(Addresses, &[("host", host)]), addresses, "{host:?}");
        }
        assert_eq!(status(All, &[("host", "node1.example:8781")]), 200);
        assert_eq!(status(Loopback, &[]), 403);
    }

    #[test]
    fn request_of_a_page_of_another_site_is_refused() {
        let json = ("content-type", "application/json");
        for (headers, expected) in [
            (&[][..], 200),
            (&[("origin", "http://localhost:8781")], 200),
            (&[("origin", "http://LOCALHOST:8781"), ("sec-fetch-site", "same-origin")], 200),
            (&[("sec-fetch-site", "none")], 200),
            (&[("origin", "http://localhost:3000")], 403),
            (&[("origin", "http://localhost")], 403),
            (&[("origin", "https://evil.example")], 403),
            (&[("origin", "http://localhost:8781"), ("origin", "https://evil.example")], 403),
            (&[("origin", "null")], 403),
            (&[("origin", "")], 403),
            (&[("sec-fetch-site", "cross-site")], 403),
            (&[("sec-fetch-site", "same-site")], 403),
            (&[("content-length", "2"), json], 200),
            (&[("content-length", "2"), ("content-type", "Application/JSON; charset=utf-8")], 200),
            (&[("transfer-encoding", "chunked"), json], 200),
            (&[("content-length", "0")], 200),
            (&[("content-length", "2")], 415),
            (&[("transfer-encoding", "chunked")], 415),
            (&[("content-length", "2"), ("content-type", "text/plain")], 415),
            (&[("content-length", "2"), ("content-type", "text/plain; application/json")], 415),
            (&[("content-length", "2"), ("content-type", "application/x-www-form-urlencoded")], 415),
        ] {
            let all = [&[("host", "localhost:8781")], headers].concat();
            assert_eq!(status(AcceptedHosts::Loopback, &all), expected, "{headers:?}");
        }
    }
}
