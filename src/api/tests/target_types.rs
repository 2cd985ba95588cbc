//! Rules of target types, through the API.

use std::collections::BTreeSet;
use std::io::Read as _;

use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use flate2::read::GzDecoder;
use uuid::Uuid;

use super::*;
use crate::agent::AgentError;
use crate::api::fault::Fault;
use crate::api::wire::TargetDetailList;
use crate::api::wire::tests::list_seen_by;
use crate::registry::{Refusal, RegistryError};

const MINE: &str = "fc439373e340459fb28202b2412e26c0";
const OTHER: &str = "0920f871077c4c079057ce940d8105a8";

fn names(list: &Value) -> Vec<&str> {
    let types = list.as_array().expect("a list");
    types.iter().map(|found| found["name"].as_str().expect("a name")).collect()
}

#[tokio::test]
async fn private_type_is_listed_for_its_projects_and_admins_only() {
    let api = Api::start().await;
    let (target, _) = api.target("open").await;
    let closed = api.new_type(&json!({"name": "closed", "backup_targets_id": target, "project_list": [MINE]})).await;
    assert_eq!(
        (&closed["is_public"], &closed["backup_target_type_projects"][0]["project_id"]),
        (&json!(false), &json!(MINE))
    );
    let closed = format!("/backup_target_types/{}", text(&closed["id"]));

    let seen = &["open", "closed"][..];
    for (caller, expected) in [(Caller::local(), seen), (member(MINE), seen), (member(OTHER), &["open"][..])] {
        let get = async |path: &str| api.ask(&caller, Method::GET, path, None).await;
        for path in ["/backup_target_types", "/backup_target_types/detail"] {
            assert_eq!(names(&get(path).await.ok()["backup_target_types"]), expected, "{path} {caller:?}");
        }
        for path in ["/backup_targets", "/backup_targets/detail", "/backup_targets/verdicts"] {
            let list = get(path).await.ok();
            assert_eq!(names(&list["backup_targets"][0]["backup_target_types"]), expected, "{path} {caller:?}");
        }
        let shown = get(&format!("/backup_targets/{target}")).await.ok();
        assert_eq!(names(&shown["backup_targets"]["backup_target_types"]), expected, "{caller:?}");
        let shown = get(&closed).await;
        assert_eq!(shown.status.is_success(), expected == seen, "{caller:?}");
    }

    // For other projects it does not exist, with every method.
    let body = json!({"backup_target_type": {}});
    for (method, action) in [
        (Method::GET, ""),
        (Method::PUT, ""),
        (Method::DELETE, ""),
        (Method::POST, "/add_projects"),
        (Method::PUT, "/remove_projects"),
        (Method::POST, "/remove_projects"),
        (Method::POST, "/add_metadata"),
        (Method::PUT, "/remove_metadata"),
        (Method::POST, "/remove_metadata"),
    ] {
        let hidden = api.ask(&member(OTHER), method.clone(), &format!("{closed}{action}"), Some(&body)).await;
        let message = hidden.fault(404, "itemNotFound");
        assert!(message.contains("there is no backup target type"), "{message}");
        for id in [Uuid::new_v4().to_string(), "x".to_owned()] {
            let path = format!("/backup_target_types/{id}{action}");
            api.ask(&Caller::local(), method.clone(), &path, Some(&body)).await.fault(404, "itemNotFound");
        }
    }
}

#[tokio::test]
async fn list_is_not_modified_for_its_viewer_only() {
    let api = Api::start().await;
    let (target, _) = api.target("open").await;
    let poll = async |caller: &Caller, path: &str, known: &str| {
        let request = Request::builder().uri(path).header(IF_NONE_MATCH, known).body(Body::empty());
        api.send(caller, request.expect("a request")).await
    };
    let tag = async |caller: &Caller, path: &str| {
        let answer = api.ask(caller, Method::GET, path, None).await;
        answer.headers[ETAG].to_str().expect("text").to_owned()
    };
    // The verdict of the first probe may change the list of targets once. The test does not wait for it.
    let path = "/backup_target_types";
    let public = tag(&member(OTHER), path).await;
    assert_eq!(tag(&Caller::local(), path).await, public, "all see the same as long as all is public");
    let same = poll(&member(MINE), path, &public).await;
    assert_eq!((same.status, &same.body), (StatusCode::NOT_MODIFIED, &Value::Null));

    api.new_type(&json!({"name": "closed", "backup_targets_id": target, "project_list": [MINE]})).await;
    assert_eq!(poll(&member(OTHER), path, &public).await.status, StatusCode::NOT_MODIFIED, "nothing that they see");
    let mine = tag(&member(MINE), path).await;
    assert_ne!(mine, public);
    assert_eq!(tag(&Caller::local(), path).await, mine);
    assert_eq!(poll(&member(OTHER), path, &mine).await.status, StatusCode::OK);
}

#[tokio::test]
async fn incremental_list_equals_a_new_one() {
    let api = Api::start().await;
    let callers = [Caller::local(), member(MINE), member(OTHER)];
    let assert_so = async |what: &str| {
        for caller in &callers {
            let (view, list, detail) = api.lists_of_one_view(caller).await;
            let parsed = |list: serde_json::Result<Value>| list.expect("JSON");
            assert_eq!(list, parsed(serde_json::to_value(list_seen_by(caller, &view))), "{what}");
            assert_eq!(detail, parsed(serde_json::to_value(TargetDetailList::seen_by(caller, &view))), "{what}");
        }
    };
    assert_so("none").await;
    let (first, _) = api.target("first").await;
    let (second, _) = api.target("second").await;
    let (third, _) = api.target("third").await;
    assert_so("three").await;
    let note = json!({"backup_target": {"metadata": {"rack": "b7"}}});
    api.put(&format!("/backup_targets/{second}"), &note).await.ok();
    assert_so("the middle one changed").await;
    api.new_type(&json!({"name": "closed", "backup_targets_id": third, "project_list": [MINE]})).await;
    assert_so("not everybody sees the same").await;
    api.get(&format!("/backup_targets/{second}/set_default")).await.ok();
    assert_eq!(api.delete(&format!("/backup_targets/{first}")).await.status, StatusCode::ACCEPTED);
    assert_so("the first one is gone").await;
}

#[tokio::test]
async fn long_list_is_compressed_on_request_with_the_same_content() {
    let api = Api::start().await;
    for name in ["one", "two", "three", "four"] {
        api.target(name).await;
    }
    for path in ["/backup_targets", "/backup_targets/detail", "/backup_target_types"] {
        let request = |encoding: &str| {
            let request = Request::builder().uri(path).header(ACCEPT_ENCODING, encoding);
            api.routes
                .clone()
                .layer(Extension(Arc::new(Caller::local())))
                .oneshot(request.body(Body::empty()).expect("a request"))
        };
        let plain = request("identity").await.expect("infallible");
        let compressed = request("br, gzip").await.expect("infallible");
        assert!(!plain.headers().contains_key(CONTENT_ENCODING), "{path}");
        assert_eq!(compressed.headers()[CONTENT_ENCODING], "gzip", "{path}");
        for header in [ETAG, CONTENT_TYPE, VARY] {
            assert_eq!(compressed.headers()[&header], plain.headers()[&header], "{path} {header}");
        }
        let plain = to_bytes(plain.into_body(), ANSWER_MAX_BYTES).await.expect("a body");
        let compressed = to_bytes(compressed.into_body(), ANSWER_MAX_BYTES).await.expect("a body");
        assert!(compressed.len() < plain.len() / 2, "{path}: {} of {}", compressed.len(), plain.len());
        let mut restored = Vec::new();
        GzDecoder::new(&compressed[..]).read_to_end(&mut restored).expect("gzip");
        assert_eq!(restored, plain, "{path}");
    }
}

#[tokio::test]
async fn refusal_by_a_rule_says_what_to_do() {
    let api = Api::start().await;
    let (target, first) = api.target("first").await;
    let second = api.new_type(&json!({"name": "second", "backup_targets_id": target})).await;
    let second = format!("/backup_target_types/{}", text(&second["id"]));
    let first = format!("/backup_target_types/{first}");
    let (other_target, only) = api.target("other").await;

    let message = api.delete(&format!("/backup_target_types/{only}")).await.fault(409, "conflictingRequest");
    assert!(message.contains("the only type of backup target") && message.contains(&other_target), "{message}");
    let message = api.delete(&first).await.fault(409, "conflictingRequest");
    assert!(message.contains("is the default") && message.contains("is_default 1"), "{message}");
    let taken = json!({"backup_target_type": {"name": "first"}});
    let message = api.put(&second, &taken).await.fault(409, "conflictingRequest");
    assert!(message.starts_with("name \"first\""), "{message}");
    let taken = json!({"backup_target_type": {"name": "first", "backup_targets_id": target}});
    api.post("/backup_target_types", &taken).await.fault(409, "conflictingRequest");
    let lost = json!({"backup_target_type": {"name": "x", "backup_targets_id": Uuid::nil()}});
    let message = api.post("/backup_target_types", &lost).await.fault(400, "badRequest");
    assert!(message.starts_with("backup_targets_id: there is no backup target"), "{message}");
    for both in [
        api.put(&second, &json!({"backup_target_type": {"is_public": 1, "project_list": [MINE]}})).await,
        api.post(
            "/backup_target_types",
            &json!({"backup_target_type":
                {"name": "x", "backup_targets_id": target, "is_public": true, "project_list": [MINE]}}),
        )
        .await,
    ] {
        let message = both.fault(400, "badRequest");
        assert!(message.contains("is_public and project_list"), "{message}");
    }
    let message = api.put(&first, &json!({"backup_target_type": {"is_default": 0}})).await.fault(400, "badRequest");
    assert!(message.contains("is_default") && message.contains("make another one the default"), "{message}");
    let path = format!("/backup_targets/{target}");
    let message = api.put(&path, &json!({"backup_target": {"is_default": 0}})).await.fault(400, "badRequest");
    assert!(message.contains("is_default") && message.contains("make another one the default"), "{message}");
    let message = api.put(&second, &json!({"name": "x"})).await.fault(400, "badRequest");
    assert!(message.contains("backup_target_type is missing"), "{message}");
    assert_eq!(names(&api.get("/backup_target_types").await.ok()["backup_target_types"]), ["first", "second", "other"]);
}

#[tokio::test]
async fn content_of_a_type_is_limited_and_the_limit_is_named() {
    let api = Api::start().await;
    let (_, id) = api.target("first").await;
    let id = format!("/backup_target_types/{id}");
    let projects = |range: std::ops::Range<u128>| -> Vec<String> {
        range.map(|n| Uuid::from_u128(n).simple().to_string()).collect()
    };
    let full = json!({"backup_target_type": {"project_list": projects(0..1000)}});
    api.post(&format!("{id}/add_projects"), &full).await.ok();
    api.post(&format!("{id}/add_projects"), &full).await.ok();
    let more = json!({"backup_target_type": {"project_list": projects(1000..1001)}});
    let message = api.post(&format!("{id}/add_projects"), &more).await.fault(413, "overLimit");
    assert!(message.contains("1000 is the limit"), "{message}");
    let full: serde_json::Map<String, Value> = (0..64).map(|n| (n.to_string(), json!("x"))).collect();
    api.put(&id, &json!({"backup_target_type": {"metadata": full}})).await.ok();
    let more = json!({"backup_target_type": {"metadata": {"more": "x"}}});
    let message = api.post(&format!("{id}/add_metadata"), &more).await.fault(413, "overLimit");
    assert!(message.contains("64 is the limit"), "{message}");
    let long = json!({"backup_target_type": {"metadata": {"a": "x".repeat(256)}}});
    let message = api.post(&format!("{id}/add_metadata"), &long).await.fault(400, "badRequest");
    assert!(message.contains("255 is the limit"), "{message}");
    let large = json!({"backup_target_type": {"metadata": {"a": "x".repeat(super::super::BODY_MAX_BYTES)}}});
    let message = api.post(&format!("{id}/add_metadata"), &large).await.fault(413, "overLimit");
    assert!(message.contains("1048576 bytes"), "{message}");
}

#[test]
fn full_registry_is_reported_with_its_limit() {
    for (error, limit) in [
        (Refusal::TooManyTargets, "10000"),
        (Refusal::TooManyTypes, "20000"),
        (Refusal::TooManyAssignments(100_001), "100000 is the limit"),
        (Refusal::TooMuchMetadataInTotal(100_001), "100000 is the limit"),
    ] {
        let fault = Fault::from(AgentError::from(RegistryError::from(error)));
        assert_eq!(fault.status(), StatusCode::PAYLOAD_TOO_LARGE, "{fault}");
        assert!(fault.to_string().contains(limit), "{fault}");
    }
}

#[tokio::test]
async fn timestamp_is_the_time_of_the_change_and_not_of_the_request() {
    let api = Api::start().await;
    let (target, id) = api.target("first").await;
    let fields = json!({"type": "nfs", "filesystem_export": "127.0.0.1:/later", "btt_name": "later"});
    for (method, path, body) in [
        (Method::POST, "/backup_targets".to_owned(), json!({ "backup_target": fields })),
        (
            Method::POST,
            "/backup_target_types".to_owned(),
            json!({"backup_target_type": {"name": "new", "backup_targets_id": target}}),
        ),
        (
            Method::POST,
            format!("/backup_target_types/{id}/add_projects"),
            json!({"backup_target_type": {"project_list": [MINE]}}),
        ),
    ] {
        let held = api.agent.hold_changes().await.expect("running");
        let release = async {
            tokio::task::yield_now().await;
            let released = Timestamp::now();
            drop(held);
            released
        };
        let caller = Caller::local();
        let (answer, released) = tokio::join!(api.ask(&caller, method, &path, Some(&body)), release);
        answer.ok();
        let view = api.agent.view();
        let stamps = match path.as_str() {
            "/backup_targets" => {
                let later = view.targets.last().expect("a target");
                vec![later.target.created_at, later.types[0].created_at]
            }
            "/backup_target_types" => vec![view.target_types().last().expect("a type").created_at],
            _ => {
                let changed = view.target_type(id.parse().expect("an id")).expect("the type");
                vec![changed.updated_at.expect("changed"), changed.projects[0].created_at]
            }
        };
        assert!(stamps.iter().all(|stamp| *stamp >= released), "{path}: {stamps:?} before {released}");
    }
}

#[tokio::test]
async fn change_is_applied_completely_or_refused_completely() {
    let api = Api::start().await;
    let (first, _) = api.target("first").await;
    let (second, id) = api.target("second").await;
    let path = format!("/backup_target_types/{id}");
    let body = json!({"backup_target_type": {"description": "x", "project_list": [MINE]}});
    let given = api.put(&path, &body).await.ok();

    let beside = json!({"backup_target_type": {"description": "y"}, "purge_projects": true});
    let message = api.put(&path, &beside).await.fault(400, "badRequest");
    assert!(message.contains("\"purge_projects\""), "{message}");
    assert_eq!(api.put(&path, &json!({"backup_target_type": {}})).await.ok(), given, "as it was");
    let cleared = api.put(&path, &json!({"backup_target_type": {"description": ""}})).await.ok();
    assert_eq!(cleared["backup_target_types"]["description"], Value::Null);
    api.put(&path, &json!({"backup_target_type": {"name": ""}})).await.fault(400, "badRequest");

    let path = format!("/backup_targets/{second}");
    let refused = json!({"backup_target": {"is_default": 1, "immutable": 1}});
    api.put(&path, &refused).await.fault(400, "badRequest");
    let default = async |id: &str| {
        let shown = api.get(&format!("/backup_targets/{id}")).await.ok();
        let target = &shown["backup_targets"];
        (target["is_default"].clone(), target["backup_target_types"][0]["is_default"].clone())
    };
    assert_eq!(default(&first).await, (json!(true), json!(true)));
    let changed = api.put(&path, &json!({"backup_target": {"is_default": 1, "metadata": {"a": "b"}}})).await.ok();
    let notes = &changed["backup_targets"]["backup_target_metadata"];
    assert_eq!((&changed["backup_targets"]["is_default"], notes), (&json!(true), &json!([{"key": "a", "value": "b"}])));
    assert_eq!(default(&second).await, (json!(true), json!(true)));
    assert_eq!(default(&first).await, (json!(false), json!(false)));
}

#[tokio::test]
async fn other_clients_of_this_api_are_understood() {
    let api = Api::start().await;
    let (_, id) = api.target("first").await;
    let path = |action: &str| format!("/backup_target_types/{id}/{action}");
    let projects = |body: &Value| -> Vec<Value> {
        let assigned = body["backup_target_types"]["backup_target_type_projects"].as_array().expect("a list");
        assigned.iter().map(|assigned| assigned["project_id"].clone()).collect()
    };
    let added = api.post(&path("add_projects"), &json!({"add_projects": [MINE, OTHER, MINE]})).await.ok();
    assert_eq!(projects(&added).len(), 2);
    let removed = api.post(&path("remove_projects"), &json!({"remove_projects": [OTHER, Uuid::new_v4()]})).await.ok();
    assert_eq!(projects(&removed), [MINE]);
    let pairs = json!({"backup_target_type": {"backup_target_type_metadata": [{"a": "1"}, {"b": "2"}]}});
    api.post(&path("add_metadata"), &pairs).await.ok();
    let removed =
        api.post(&path("remove_metadata"), &json!({"backup_target_type": {"metadata": {"a": "1"}}})).await.ok();
    let left = json!([{"key": "b", "value": "2"}]);
    assert_eq!(removed["backup_target_types"]["backup_target_type_metadata"], left);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_always_see_exactly_one_default() {
    let api = Api::start().await;
    let (_, first) = api.target("first").await;
    let (second, _) = api.target("second").await;
    let watching = tokio::spawn({
        let mut views_of = api.agent.watch_view();
        async move {
            let mut views = 0;
            loop {
                let view = views_of.borrow_and_update().clone();
                views += 1;
                let targets: Vec<_> = view.targets.iter().filter(|found| found.target.is_default).collect();
                let types: Vec<_> = view.target_types().into_iter().filter(|found| found.is_default).collect();
                assert_eq!((targets.len(), types.len()), (1, 1), "view {}", view.generation);
                assert_eq!(targets[0].target.id, types[0].target_id);
                if view.targets.len() == 1 {
                    return views;
                }
                views_of.changed().await.expect("an agent");
            }
        }
    });
    for _ in 0..20 {
        api.get(&format!("/backup_targets/{second}/set_default")).await.ok();
        let default = json!({"backup_target_type": {"is_default": 1}});
        let changed = api.put(&format!("/backup_target_types/{first}"), &default).await.ok();
        assert_eq!(changed["backup_target_types"]["is_default"], json!(true));
    }
    assert_eq!(api.delete(&format!("/backup_targets/{second}")).await.status, StatusCode::ACCEPTED);
    assert!(watching.await.expect("no assertion failed") > 1);
}

#[tokio::test]
async fn openapi_document_has_every_route_once() {
    let api = Api::start().await;
    let description = api.get("/openapi.json").await.ok();
    let mut ids = BTreeSet::new();
    let mut routes = BTreeSet::new();
    for (path, methods) in description["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            assert!(ids.insert(operation["operationId"].as_str().expect("an id")), "{method} {path} is not unique");
            routes.insert(format!("{method} {path}"));
        }
    }
    let base = "/backup_target_types";
    for expected in [
        format!("get {base}"),
        format!("post {base}"),
        format!("get {base}/detail"),
        format!("get {base}/{{id}}"),
        format!("put {base}/{{id}}"),
        format!("delete {base}/{{id}}"),
        format!("post {base}/{{id}}/add_projects"),
        format!("put {base}/{{id}}/remove_projects"),
        format!("post {base}/{{id}}/remove_projects"),
        format!("post {base}/{{id}}/add_metadata"),
        format!("put {base}/{{id}}/remove_metadata"),
        format!("post {base}/{{id}}/remove_metadata"),
    ] {
        assert!(routes.contains(&expected), "{expected} is not described");
    }
}

#[tokio::test]
async fn openapi_document_contains_every_referenced_schema() {
    let api = Api::start().await;
    let description = api.get("/openapi.json").await.ok();
    let text = description.to_string();
    let referred: BTreeSet<&str> =
        text.split("\"#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let schemas = description["components"]["schemas"].as_object().expect("schemas");
    let missing: Vec<&&str> = referred.iter().filter(|name| !schemas.contains_key(**name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    for name in ["Flag", "TargetMetadata", "TypeMetadata", "ProjectIds", "Line", "Status", "Reason"] {
        assert!(referred.contains(name), "{name} is not used: {referred:?}");
    }
}
