//! Protection against requests that web pages cause, for an API without tokens.
//!
//! With `auth = "none"`, any web page that a browser on this host opens could make the browser send a request that
//! changes something. Four rules prevent that:
//!
//! - `Host` must be one of [`AcceptedHosts`], usually a loopback address. If an attacker resolves the name of a page to
//!   this host (DNS rebinding), the browser still sends the name of the page.
//! - `Origin`, if sent, must be this API, and `Sec-Fetch-Site` (W3C Fetch Metadata) must not name another site.
//! - A `GET` that changes something must not have the headers that browsers add by themselves ([`browser_sign`]). For
//!   an image, old browsers send neither `Origin` nor `Sec-Fetch-Site`. Current browsers omit them too on plain HTTP,
//!   unless the host is `localhost`.
//! - The content type of a body must be JSON. A page of another site may send other types without asking the API first
//!   (Fetch standard, "CORS-safelisted request-header").
//!
//! Requests over a Unix socket are exempt, because browsers cannot use one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use axum::http::header::{
    ACCEPT, ACCEPT_LANGUAGE, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, ORIGIN, REFERER, TRANSFER_ENCODING,
    UPGRADE_INSECURE_REQUESTS, USER_AGENT,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode};

use super::credential::{AUTH_PROJECT, AUTH_TOKEN};
use crate::api::fault::Fault;
use crate::model::settings::{ApiSettings, Listen};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Last segment of the paths on which a GET changes something.
pub(in crate::api) const CHANGES_BY_GET: &str = "/set_default";

/// Headers that browsers add by themselves, and that `curl` and HTTP client libraries do not add.
const BROWSER_HEADERS: [HeaderName; 4] = [ACCEPT_LANGUAGE, COOKIE, REFERER, UPGRADE_INSECURE_REQUESTS];

/// Prefixes of the `User-Agent` of all browsers. The second one is that of Opera before version 15.
const BROWSER_AGENTS: [&str; 2] = ["Mozilla/", "Opera/"];

/// Media types that only browsers request (`Accept`).
const BROWSER_MEDIA: [&str; 4] = ["image/", "text/html", "text/css", "video/"];

/// Headers of the API guide that no browser adds. A page of another site would have to ask the API first (Fetch
/// standard, "CORS-preflight fetch"), which it answers with 405.
const CLIENT_HEADERS: [HeaderName; 2] = [AUTH_TOKEN, AUTH_PROJECT];

/// Values of `Host` that are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AcceptedHosts {
    /// `localhost` and loopback addresses.
    Loopback,
    /// `localhost` and IP addresses, if other hosts can connect. DNS rebinding needs a name, so addresses are safe.
    Addresses,
    /// Every value, if TLS is on. An attacker does not have a certificate for another name.
    All,
}

impl AcceptedHosts {
    /// Returns the values to accept with these listeners.
    pub(super) fn of(settings: &ApiSettings) -> Self {
        if settings.tls.is_some() {
            Self::All
        } else if settings.listen.iter().chain(&settings.metrics.listen).any(Listen::is_remote) {
            Self::Addresses
        } else {
            Self::Loopback
        }
    }

    /// Returns the accepted values, in words for a message.
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
    if parts.method == Method::GET
        && parts.uri.path().ends_with(CHANGES_BY_GET)
        && let Some(sign) = browser_sign(headers)
    {
        return forbidden(format!(
            "{sign}: this GET changes something, so browsers may not use it: add the header {AUTH_PROJECT} with any value, or send PUT with is_default 1"
        ));
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

/// Returns a header that shows that a browser sent the request, if there is one. A request with one of
/// [`CLIENT_HEADERS`] counts as sent by a client.
fn browser_sign(headers: &HeaderMap) -> Option<HeaderName> {
    if CLIENT_HEADERS.iter().any(|name| headers.contains_key(name)) {
        return None;
    }
    let is_agent = |value: &str| BROWSER_AGENTS.iter().any(|agent| value.starts_with(agent));
    let is_media = |value: &str| BROWSER_MEDIA.iter().any(|media| value.contains(media));
    let is_fetch_metadata = |name: &&HeaderName| name.as_str().starts_with("sec-");
    let named = BROWSER_HEADERS.iter().find(|name| headers.contains_key(*name));
    let found = named.or_else(|| headers.keys().find(is_fetch_metadata)).cloned();
    let found = found.or_else(|| values(headers, USER_AGENT).any(is_agent).then_some(USER_AGENT));
    found.or_else(|| values(headers, ACCEPT).any(is_media).then_some(ACCEPT))
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Returns the values of a header. A value that is not text is returned as empty, which equals no expected value.
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
    fn get_that_changes_something_is_refused_to_browsers_only() {
        const CHROME: &str =
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";
        const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0";
        const INTERNET_EXPLORER: &str = "Mozilla/5.0 (Windows NT 10.0; WOW64; Trident/7.0; rv:11.0) like Gecko";
        const OPERA: &str = "Opera/9.80 (X11; Linux i686) Presto/2.12.388 Version/12.16";
        let browsers = [
            // An image, over plain HTTP to another name than localhost: no Fetch Metadata.
            &[
                ("user-agent", CHROME),
                ("accept", "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"),
                ("referer", "http://evil.example/"),
                ("accept-encoding", "gzip, deflate"),
                ("accept-language", "en-US,en;q=0.9"),
            ][..],
            &[("user-agent", FIREFOX), ("accept", "image/avif,image/webp,*/*"), ("accept-language", "en-US,en;q=0.5")],
            &[("user-agent", INTERNET_EXPLORER), ("accept", "image/png, image/svg+xml, image/*;q=0.8, */*;q=0.5")],
            &[
                ("user-agent", OPERA),
                ("accept", "image/png, image/jpeg, image/*, */*;q=0.1"),
                ("accept-language", "en"),
            ],
            // A script, a fetch without CORS and without a referrer, and one whose page chose Accept.
            &[("user-agent", CHROME), ("accept", "*/*"), ("accept-language", "en-US")],
            &[("user-agent", FIREFOX), ("accept", "application/json"), ("accept-language", "*")],
            // A link, an address that a user typed, and a text browser.
            &[
                ("user-agent", CHROME),
                ("accept", "text/html,application/xhtml+xml"),
                ("upgrade-insecure-requests", "1"),
            ],
            &[("user-agent", FIREFOX), ("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate"), ("cookie", "a=b")],
            &[("user-agent", "Lynx/2.9.0"), ("accept", "text/html, text/plain, text/css"), ("accept-language", "en")],
            // A privacy extension, which hides the agent.
            &[("user-agent", "private"), ("accept", "image/*"), ("referer", "http://evil.example/")],
            &[("sec-ch-ua", "\"Chromium\";v=\"142\""), ("accept", "*/*")],
            // Some apps that embed a browser add their name as X-Requested-With, so this header does not prove a
            // client.
            &[("user-agent", CHROME), ("accept", "*/*"), ("x-requested-with", "com.example.app")],
        ];
        let clients = [
            &[][..],
            &[("user-agent", "curl/8.14.1"), ("accept", "*/*")],
            &[("user-agent", "curl/8.14.1"), ("accept", "*/*"), ("accept-encoding", "deflate, gzip, br, zstd")],
            &[
                ("user-agent", "Wget/1.25.0"),
                ("accept", "*/*"),
                ("accept-encoding", "identity"),
                ("connection", "Keep-Alive"),
            ],
            &[
                ("user-agent", "python-workloadmgrclient"),
                ("accept", "application/json"),
                ("x-auth-project-id", "fc439373e340459fb28202b2412e26c0"),
                ("x-auth-token", "gAAAAA"),
            ],
            &[
                ("user-agent", "openstacksdk/4.7.1 keystoneauth1/5.12.0 python-requests/2.32.5 CPython/3.12.3"),
                ("accept", "application/json"),
            ],
            &[
                ("user-agent", "python-requests/2.32.5"),
                ("accept", "*/*"),
                ("accept-encoding", "gzip, deflate"),
                ("connection", "keep-alive"),
            ],
            &[("user-agent", "HTTPie/3.2.4"), ("accept", "application/json, */*;q=0.5")],
            &[("user-agent", "Go-http-client/1.1"), ("accept-encoding", "gzip")],
            &[("user-agent", "ansible-httpget"), ("accept-encoding", "identity")],
            &[("user-agent", "Java-http-client/21.0.8")],
            // Windows PowerShell calls itself Mozilla.
            &[
                ("user-agent", "Mozilla/5.0 (Windows NT; en-US) WindowsPowerShell/5.1.26100.1"),
                ("x-auth-project-id", "any"),
            ],
        ];
        let get = |path: &str, headers: &[(&str, &str)]| {
            let mut request = axum::http::Request::builder().uri(path).header("host", "192.0.2.7:8781");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let (parts, ()) = request.body(()).expect("a request").into_parts();
            refuse_foreign(&parts, AcceptedHosts::Addresses).map_or_else(|fault| fault.status().as_u16(), |()| 200)
        };
        for headers in browsers {
            assert_eq!(get("/backup_targets/id/set_default", headers), 403, "{headers:?}");
            assert_eq!(get("/backup_targets", headers), 200, "it changes nothing: {headers:?}");
        }
        for headers in clients {
            assert_eq!(get("/backup_targets/id/set_default", headers), 200, "{headers:?}");
        }
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
