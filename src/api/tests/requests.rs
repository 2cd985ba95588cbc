//! Requests through all layers: prefixes, limits, authentication and protection against web pages.

use super::*;
use crate::api::listen::{Peer, RequestHandler as _};
use crate::api::negotiation::Headers;
use crate::api::page::Page;
use crate::api::state::Context;

/// Sends a request that has these header fields, over TCP unless `peer` says otherwise.
async fn send(api: &Api, peer: Peer, line: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let (method, path) = line.split_once(' ').expect("a method and a path");
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if !body.is_empty() {
        request = request.header("content-length", body.len());
    }
    let request = request.body(Body::from(body.to_owned())).expect("a request");
    let (head, body) = api.service.answer(peer, request).await.into_parts();
    let bytes = to_bytes(body, ANSWER_MAX_BYTES).await.expect("a body");
    let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).expect("JSON") };
    Answer { status: head.status, headers: head.headers, body }
}

const HOST: (&str, &str) = ("host", "localhost:8781");
const JSON: (&str, &str) = ("content-type", "application/json");
const NEW: &str = r#"{"backup_target": {"type": "nfs", "filesystem_export": "127.0.0.1:/new"}}"#;

/// Largest block that glibc keeps for each thread (`MAX_TCACHE_SIZE` in `malloc/malloc.c`), in bytes.
const THREAD_BLOCK_MAX_BYTES: usize = 1032;

#[tokio::test]
async fn future_of_a_list_fits_into_a_block_that_a_thread_keeps() {
    let api = Api::start().await;
    let context = Context { state: api.state(), caller: Arc::new(Caller::local()) };
    let list = crate::api::targets::list(context, Page::WHOLE, Headers(HeaderMap::new()));
    // The router stores the request and some state beside it.
    let bytes = size_of_val(&list) + size_of::<Request>() + 64;
    assert!(bytes <= THREAD_BLOCK_MAX_BYTES, "{bytes}");
}

#[tokio::test]
async fn web_page_of_another_site_changes_nothing_without_authentication() {
    let api = Api::start().await;
    let (first, _) = api.target("first").await;
    let (second, _) = api.target("second").await;
    let set_default = format!("GET /v1/any/backup_targets/{second}/set_default");
    let delete = format!("DELETE /backup_targets/{second}");
    for (line, headers, body, expected) in [
        ("POST /backup_targets", &[HOST, ("content-type", "text/plain")][..], NEW, 415),
        ("POST /backup_targets", &[HOST], NEW, 415),
        ("POST /backup_targets", &[HOST, JSON, ("origin", "https://evil.example")], NEW, 403),
        ("POST /backup_targets", &[("host", "evil.example:8781"), JSON], NEW, 403),
        (&set_default, &[HOST, ("sec-fetch-site", "cross-site")], "", 403),
        (&set_default, &[("host", "evil.example:8781"), ("sec-fetch-site", "same-origin")], "", 403),
        (&delete, &[HOST, ("origin", "null")], "", 403),
        ("GET /backup_targets", &[("host", "evil.example:8781")], "", 403),
        ("GET /backup_targets", &[HOST, HOST], "", 400),
        ("GET /backup_targets", &[], "", 400),
    ] {
        let answer = send(&api, Peer::Tcp, line, headers, body).await;
        assert_eq!(answer.status.as_u16(), expected, "{line} {headers:?} {answer:?}");
    }
    let targets = api.get("/backup_targets").await.ok();
    let targets = targets["backup_targets"].as_array().expect("a list");
    assert_eq!((targets.len(), &targets[0]["id"], &targets[0]["is_default"]), (2, &json!(first), &json!(true)));
    // A browser cannot use a Unix socket.
    assert_eq!(send(&api, Peer::Unix, "POST /backup_targets", &[HOST], NEW).await.status, StatusCode::OK);
    assert_eq!(send(&api, Peer::Tcp, &set_default, &[HOST], "").await.status, StatusCode::OK);
}

#[tokio::test]
async fn head_of_set_default_is_refused_and_changes_nothing() {
    let api = Api::start().await;
    api.target("first").await;
    let (second, _) = api.target("second").await;
    let line = format!("HEAD /backup_targets/{second}/set_default");
    let answer = send(&api, Peer::Unix, &line, &[HOST], "").await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{answer:?}");
    assert_eq!(answer.headers["allow"], "GET");
    let shown = api.get(&format!("/backup_targets/{second}")).await.ok();
    assert_eq!(shown["backup_targets"]["is_default"], json!(false));
}

#[tokio::test]
async fn versions_are_discovered_at_the_root_and_below_the_prefixes() {
    let api = Api::start().await;
    let found = json!({"versions": [{"id": "v1.0", "status": "CURRENT", "links": [{"rel": "self", "href": "/v1/"}]}]});
    for path in ["/", "/v1", "/v1/", "/v1/7f0c0b5a9c8f4b6d8f3f1a2b3c4d5e6f", "/v1/any/"] {
        assert_eq!(send(&api, Peer::Tcp, &format!("GET {path}"), &[HOST], "").await.ok(), found, "{path}");
    }
}

#[tokio::test]
async fn final_slash_of_a_path_is_ignored() {
    let api = Api::start().await;
    let (id, _) = api.target("first").await;
    for path in ["/backup_targets/", "/v1/any/backup_target_types/", &format!("/v1/backup_targets/{id}/checks/")] {
        send(&api, Peer::Tcp, &format!("GET {path}"), &[HOST], "").await.ok();
    }
}
