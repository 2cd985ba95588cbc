//! Pages of lists.

use super::*;
use crate::api::pieces::PIECE_BYTES;

/// Returns the names of the items of a page.
async fn names(api: &Api, caller: &Caller, path: &str) -> Vec<String> {
    let list = api.ask(caller, Method::GET, path, None).await.ok();
    let items = list.as_object().and_then(|list| list.values().next()?.as_array()).expect("a list");
    let name = |item: &Value| text(item.get("name").unwrap_or(&item["filesystem_export"]));
    items.iter().map(|item| name(item).trim_start_matches("127.0.0.1:/").to_owned()).collect()
}

#[tokio::test]
async fn limit_and_marker_select_a_page_of_a_list() {
    let api = Api::start().await;
    let mut ids = Vec::new();
    for name in ["a", "b", "c"] {
        ids.push(api.target(name).await);
    }
    for (list, id) in [
        ("/backup_targets", &ids[1].0),
        ("/backup_targets/detail", &ids[1].0),
        ("/backup_target_types", &ids[1].1),
        ("/backup_target_types/detail", &ids[1].1),
    ] {
        for (query, expected) in [
            ("?limit=2".to_owned(), &["a", "b"][..]),
            (format!("?limit=1&marker={id}"), &["c"]),
            (format!("?marker={id}"), &["c"]),
            ("?limit=9&unknown=1".to_owned(), &["a", "b", "c"]),
            ("?unknown=1".to_owned(), &["a", "b", "c"]),
        ] {
            assert_eq!(names(&api, &Caller::local(), &format!("{list}{query}")).await, expected, "{list}{query}");
        }
        for (query, part) in [
            ("?limit=0", "limit: \"0\""),
            ("?limit=-1", "limit: \"-1\""),
            ("?limit=x", "positive integer"),
            ("?marker=x", "marker: \"x\" is not in the list"),
            ("?marker=7a23e2a4-4a2e-4261-9d4e-7fca1d552b36", "is not in the list"),
        ] {
            let message = api.get(&format!("{list}{query}")).await.fault(400, "badRequest");
            assert!(message.contains(part), "{list}{query}: {message}");
        }
    }
}

#[tokio::test]
async fn list_and_page_of_each_length_are_complete() {
    const NOTE_BYTES: usize = 500;
    let api = Api::start().await;
    let mut expected = Vec::new();
    let mut bytes = 0;
    while bytes < 3 * PIECE_BYTES {
        let name = format!("{:03}", expected.len());
        let (id, _) = api.target(&name).await;
        let note = json!({"backup_target": {"metadata": {"note": "x".repeat(NOTE_BYTES)}}});
        bytes += api.put(&format!("/backup_targets/{id}"), &note).await.ok().to_string().len();
        expected.push(name);
        assert_eq!(names(&api, &Caller::local(), "/backup_targets").await, expected);
    }
    for length in 1..=expected.len() {
        let path = format!("/backup_targets?limit={length}");
        assert_eq!(names(&api, &Caller::local(), &path).await, expected[..length], "{path}");
    }
}

#[tokio::test]
async fn marker_that_the_caller_does_not_see_is_unknown() {
    let api = Api::start().await;
    let (target, _) = api.target("open").await;
    let project = "fc439373e340459fb28202b2412e26c0";
    let closed = json!({"name": "closed", "backup_targets_id": target, "project_list": [project]});
    let closed = text(&api.new_type(&closed).await["id"]);
    let path = format!("/backup_target_types?marker={closed}");
    assert!(names(&api, &Caller::local(), &path).await.is_empty());
    let other = Caller { user_id: None, project_id: Some("0920f871077c4c079057ce940d8105a8".into()), is_admin: false };
    api.ask(&other, Method::GET, &path, None).await.fault(400, "badRequest");
}
