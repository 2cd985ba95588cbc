//! Every route answers like the guide's sample, in the situation of the sample.

use axum::http::header::CONTENT_TYPE;

use super::shape::{BEYOND, assert_shape, compare, guide, sample};
use super::*;

const USER: &str = "2b1189be3add4806bcb7e0c259b03597";
const PROJECTS: [&str; 2] = ["fc439373e340459fb28202b2412e26c0", "0920f871077c4c079057ce940d8105a8"];

/// Status and content type of a sample that has no body.
fn assert_head(sample: &str, answer: &Answer) {
    let status = sample.split_whitespace().nth(1).expect("a status");
    let line = sample.lines().find(|line| line.contains("Content-Type")).expect("a content type");
    let content_type = line.split('\'').nth(3).expect("a value");
    assert_eq!((answer.status.as_str(), &answer.body), (status, &Value::Null));
    assert_eq!(answer.headers[CONTENT_TYPE], content_type);
}

#[tokio::test]
async fn targets_are_created_made_the_default_and_deleted() {
    let api = Api::start().await;
    let user = Caller { user_id: Some(USER.to_owned()), ..Caller::local() };
    let (nfs, _) = api.target("nfs_1").await;
    let fields = json!({
        "s3_endpoint_url": "http://127.0.0.1:1", "s3_bucket": "object-locked-cephs3-2", "filesystem_export": null,
        "type": "s3", "is_default": 0, "btt_name": null, "immutable": 1, "metadata": {},
    });
    let body = json!({ "backup_target": fields });
    let created = api.ask(&user, Method::POST, "/backup_targets", Some(&body)).await.ok();
    assert_shape(&sample(guide!("create_s3.json")), &created, BEYOND);
    assert_eq!(created["backup_targets"]["backup_target_types"][0]["user_id"], USER);
    let s3 = text(&created["backup_targets"]["id"]);
    let default = api.get(&format!("/backup_targets/{s3}/set_default")).await.ok();
    assert_shape(&sample(guide!("set_default_s3.json")), &default, BEYOND);
    assert_head(guide!("delete_target.http"), &api.delete(&format!("/backup_targets/{nfs}")).await);
}

#[tokio::test]
async fn types_are_listed_shown_created_and_deleted() {
    let api = Api::start().await;
    let user = Caller { user_id: Some(USER.to_owned()), ..Caller::local() };
    let (target, first) = api.target("nfs_1").await;
    let fields = json!({
        "name": "BTT-name", "description": null, "backup_targets_id": target, "is_default": 0, "is_public": 1,
        "project_list": [], "metadata": [{"key": "nfs", "value": "primary"}],
    });
    let body = json!({ "backup_target_type": fields });
    let created = api.ask(&user, Method::POST, "/backup_target_types", Some(&body)).await.ok();
    assert_shape(&sample(guide!("create_type.json")), &created, &[]);
    let id = text(&created["backup_target_types"]["id"]);
    let closed = json!({"name": "closed", "backup_targets_id": target, "project_list": PROJECTS, "is_public": 0});
    let closed = text(&api.new_type(&closed).await["id"]);
    assert_shape(&sample(guide!("list_types.json")), &api.get("/backup_target_types").await.ok(), &[]);
    assert_shape(&sample(guide!("detail_types.json")), &api.get("/backup_target_types/detail").await.ok(), &[]);
    for shown in [first, closed] {
        let shown = api.get(&format!("/backup_target_types/{shown}")).await.ok();
        assert_shape(&sample(guide!("show_type.json")), &shown, &[]);
    }
    assert_head(guide!("delete_type.http"), &api.delete(&format!("/backup_target_types/{id}")).await);
    api.get(&format!("/backup_target_types/{id}")).await.fault(404, "itemNotFound");
}

#[tokio::test]
async fn types_are_changed() {
    let api = Api::start().await;
    let user = Caller { user_id: Some(USER.to_owned()), ..Caller::local() };
    let (target, _) = api.target("nfs_1").await;
    let body = json!({"backup_target_type": {"name": "s3_2", "backup_targets_id": target}});
    let created = api.ask(&user, Method::POST, "/backup_target_types", Some(&body)).await.ok();
    let id = text(&created["backup_target_types"]["id"]);
    let path = |action: &str| format!("/backup_target_types/{id}{action}");
    let metadata = |key: &str| json!([{"key": key, "value": "dg2"}]);

    let fields = json!({
        "name": "BTT-name", "description": null, "is_default": 0, "is_public": 1, "project_list": [],
        "purge_projects": true, "metadata": [{"key": "nfs", "value": "secondary"}], "purge_metadata": true,
    });
    let updated = api.put(&path(""), &json!({ "backup_target_type": fields })).await.ok();
    assert_shape(&sample(guide!("update_type.json")), &updated, &[]);

    let fields = json!({"backup_target_type_id": id, "metadata": metadata("dg1")});
    api.post(&path("/add_metadata"), &json!({ "backup_target_type": fields })).await.ok();
    let fields = json!({"backup_target_type_id": id, "project_list": PROJECTS});
    let added = api.post(&path("/add_projects"), &json!({ "backup_target_type": fields })).await.ok();
    assert_shape(&sample(guide!("add_projects.json")), &added, &[]);
    assert_eq!(added["backup_target_types"]["backup_target_type_projects"].as_array().map(Vec::len), Some(2));

    let fields = json!({"backup_target_type_id": id, "project_list": [PROJECTS[1]]});
    let removed = api.put(&path("/remove_projects"), &json!({ "backup_target_type": fields })).await.ok();
    assert_shape(&sample(guide!("remove_projects.json")), &removed, &[]);
    let left = &removed["backup_target_types"]["backup_target_type_projects"];
    assert_eq!((left.as_array().map(Vec::len), &left[0]["project_id"]), (Some(1), &json!(PROJECTS[0])));
    assert_eq!(left[0]["backup_target_types_id"], json!(id));

    let fields = json!({"backup_target_type_id": id, "metadata": metadata("dg3")});
    let added = api.post(&path("/add_metadata"), &json!({ "backup_target_type": fields })).await.ok();
    assert_shape(&sample(guide!("add_metadata.json")), &added, &[]);
    assert_eq!(added["backup_target_types"]["backup_target_type_metadata"].as_array().map(Vec::len), Some(3));
    let removed = api.put(&path("/remove_metadata"), &json!({ "backup_target_type": fields })).await.ok();
    assert_shape(&sample(guide!("remove_metadata.json")), &removed, &[]);
    let left = json!([{"key": "dg1", "value": "dg2"}, {"key": "nfs", "value": "secondary"}]);
    assert_eq!(removed["backup_target_types"]["backup_target_type_metadata"], left);
}

#[test]
fn different_shape_is_detected() {
    let guide = json!({"a": {"b": null, "c": [{"d": "x"}, {"d": null, "e": 1}], "at": "2025-01-30T12:32:27.000000"}});
    let is_like = |ours: &Value| compare("", &guide, ours, &["/a/more"]).is_ok();
    let with = |change: fn(&mut Value)| {
        let mut ours = guide.clone();
        change(&mut ours["a"]);
        ours
    };
    assert!(is_like(&guide));
    assert!(is_like(&with(|ours| ours["more"] = json!(1))), "where we add it");
    assert!(is_like(&with(|ours| ours["c"] = json!([{"d": null, "e": 2}, {"d": "y"}, {"d": "z"}]))));
    assert!(is_like(&with(|ours| ours["at"] = json!("2026-12-31T00:00:00.123456"))));
    for ours in [
        with(|ours| ours["b"] = json!("")),
        with(|ours| drop(ours.as_object_mut().expect("an object").remove("b"))),
        with(|ours| ours["at"] = json!("2026-12-31T00:00:00Z")),
        with(|ours| ours["c"] = json!([])),
        with(|ours| ours["c"] = json!([{"d": "x"}])),
        with(|ours| ours["c"] = json!([{"d": "x"}, {"d": null, "e": 1}, {"d": 1}])),
        with(|ours| ours["c"] = json!([{"d": "x"}, {"d": null, "e": 1}, {"d": "x", "e": 1}])),
        with(|ours| ours["c"] = json!([{"d": "x", "more": 1}, {"d": null, "e": 1}])),
        with(|ours| ours["c"][0]["more"] = json!(1)),
        json!({"a": guide["a"], "more": 1}),
    ] {
        assert!(!is_like(&ours), "{ours}");
    }
    // The items of a list that is empty in this sample are known from another sample.
    let guide = json!({"backup_target_type_metadata": [], "others": []});
    let is_like = |ours: &Value| compare("", &guide, ours, &[]).is_ok();
    assert!(is_like(&json!({"backup_target_type_metadata": [{"key": "a", "value": "b"}], "others": []})));
    assert!(!is_like(&json!({"backup_target_type_metadata": [{"key": "a"}], "others": []})));
    assert!(!is_like(&json!({"backup_target_type_metadata": [], "others": [1]})), "its items are unknown");
}
