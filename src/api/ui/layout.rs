//! The frame of every page: head, style, headers, and how it is sent.

use std::sync::LazyLock;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, REFRESH, VARY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest as _, Sha256};

use crate::api::fault::Fault;
use crate::api::gzip::gzip;
use crate::api::negotiation::is_compressed;
use crate::model::age::age;
use crate::model::line::escape_invisible;
use crate::model::report::LockProofState;

/// Age from which a page calls itself old, in seconds. `style.css` names it too, and a test compares both.
pub(super) const OLD_AFTER_SECONDS: u32 = 60;

/// Time between two reloads that a page offers, in seconds.
pub(super) const REFRESH_OFFER_SECONDS: u32 = 30;

/// Style of all pages, on one line: a finished page contains no control character.
pub(super) static STYLE: LazyLock<String> = LazyLock::new(|| include_str!("style.css").replace('\n', " "));

/// Forbids scripts, and every request for a part of the page.
static CONTENT_POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = BASE64_STANDARD.encode(Sha256::digest(STYLE.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

/// Headers of every page.
const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (VARY, HeaderValue::from_static("accept-encoding")),
];

pub(crate) struct HtmlPage {
    /// Text of the element `title`.
    pub(crate) title: String,
    /// Time between two reloads, in seconds. `None` if the reader did not ask for them.
    pub(crate) refresh_seconds: Option<u32>,
    /// When it was made.
    pub(crate) now: Timestamp,
    /// Content of the element `body`: the landmarks.
    pub(crate) body: Markup,
}

impl HtmlPage {
    /// The finished document.
    pub(crate) fn document(&self) -> String {
        let document = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    // Without it, browsers ask for /favicon.ico.
                    link rel="icon" href="data:,";
                    title { (self.title) " – targetwatch" }
                    style { (PreEscaped(STYLE.as_str())) }
                }
                body {
                    (self.body)
                    aside.old aria-label="Age of this page" {
                        "This page is older than " (OLD_AFTER_SECONDS) " s. It was made at " (clock(self.now))
                        " and is not current. Reload it."
                    }
                }
            }
        };
        escape_invisible(&document.into_string())
    }

    /// Sends the page.
    pub(crate) async fn send(self, headers: &HeaderMap) -> Response {
        self.answer(StatusCode::OK, headers).await
    }

    async fn answer(self, status: StatusCode, headers: &HeaderMap) -> Response {
        let document = Bytes::from(self.document());
        let compressed = if is_compressed(document.len(), headers) { gzip(&[&document]).await.ok() } else { None };
        let has_encoding = compressed.is_some();
        let mut response = match compressed {
            Some(compressed) => (status, HEADERS, compressed).into_response(),
            None => (status, HEADERS, document).into_response(),
        };
        let sent = response.headers_mut();
        sent.insert(CONTENT_SECURITY_POLICY, CONTENT_POLICY.clone());
        if has_encoding {
            sent.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if let Some(seconds) = self.refresh_seconds {
            sent.insert(REFRESH, HeaderValue::from(seconds));
        }
        response
    }
}

/// Sends a page that shows an error.
pub(crate) async fn send_fault(fault: &Fault, headers: &HeaderMap) -> Response {
    let title = fault.status().canonical_reason().unwrap_or("Error").to_owned();
    let body = html! {
        main {
            h1 { (title) }
            p { (fault) }
            p { a href="/ui" { "All backup targets" } }
        }
    };
    let page = HtmlPage { title, refresh_seconds: None, now: Timestamp::now(), body };
    page.answer(fault.status(), headers).await
}

/// A time of day with its date, in UTC.
pub(crate) fn clock(at: Timestamp) -> Markup {
    html! { time datetime=(at.strftime("%Y-%m-%dT%H:%M:%SZ")) { (at.strftime("%Y-%m-%d %H:%M:%S UTC")) } }
}

/// The time since an event. The element contains the time of the event.
pub(crate) fn ago(at: Timestamp, now: Timestamp) -> Markup {
    let utc = at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    html! { time datetime=(utc) title=(utc) { (age(at, now)) " ago" } }
}

/// A short time.
pub(super) fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// The verdict about an object lock and its age. `None` if no proof is required.
pub(super) fn lock_verdict(state: &LockProofState, now: Timestamp) -> Option<Markup> {
    let verdict = state.verdict()?.as_str().replace('_', " ");
    Some(html! { (verdict) @if let Some(proof) = state.found() { ", " (ago(proof.proved_at, now)) } })
}

/// A problem above everything else.
pub(crate) fn banner(content: Markup) -> Markup {
    html! { p.banner { span.mark.bad { span aria-hidden="true" { "■" } " problem" } " " (content) } }
}
