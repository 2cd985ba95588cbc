//! Histories of targets, through the API.

use super::*;

#[tokio::test]
async fn first_verdict_is_in_the_history_without_a_former_status() {
    let api = Api::start().await;
    let (id, _) = api.target("nfs_1").await;
    let path = format!("/backup_targets/{id}/history");
    api.post(&format!("/backup_targets/{id}/check"), &Value::Null).await.ok();
    api.post(&format!("/backup_targets/{id}/check"), &Value::Null).await.ok();
    let history = api.get(&path).await.ok();
    let report = api.get(&format!("/backup_targets/{id}/checks")).await.ok();
    let transitions = history["transitions"].as_array().expect("a list");
    assert_eq!((&history["backup_target_id"], transitions.len()), (&json!(id), 1), "the second one changed nothing");
    let at = &transitions[0]["at"];
    assert!(text(at) >= text(&report["since"]) && text(at) <= text(&report["checked_at"]), "{at}");
    assert_eq!(
        transitions[0],
        json!({"at": at, "from": null, "to": "offline",
            "reason": "connection_refused", "message": report["message"]})
    );
}

#[tokio::test]
async fn history_of_an_unknown_target_is_not_found() {
    let api = Api::start().await;
    let (id, _) = api.target("nfs_1").await;
    assert_eq!(api.delete(&format!("/backup_targets/{id}")).await.status, StatusCode::ACCEPTED);
    for id in [id.as_str(), "x"] {
        api.get(&format!("/backup_targets/{id}/history")).await.fault(404, "itemNotFound");
    }
}
