//! Clients that hang up: their change is completed or not begun, and readers see the result.

use std::time::Duration;

use futures::FutureExt as _;

use super::*;

/// Time limit of a change whose client hung up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends a request, and hangs up before the answer.
async fn ask_and_hang_up(api: &Api, method: Method, path: &str, body: Option<&Value>) {
    let caller = Caller::local();
    let mut asking = Box::pin(api.ask(&caller, method, path, body));
    assert!(asking.as_mut().now_or_never().is_none(), "answered at once: {path}");
}

async fn seen(api: &Api, what: &str, condition: impl Fn(&View) -> bool) {
    let mut views = api.agent.watch_view();
    let seeing = tokio::time::timeout(PATIENCE, views.wait_for(|view| condition(view))).await;
    assert!(seeing.is_ok(), "never seen: {what}");
}

fn has_target(view: &View, export: &str) -> bool {
    view.targets.iter().any(|found| found.target.spec.export() == export)
}

fn has_type(view: &View, name: &str) -> bool {
    view.target_types().iter().any(|found| found.name == name)
}

#[tokio::test]
async fn durable_change_is_visible_after_its_client_hung_up() {
    let api = Api::start().await;
    let (kept, _) = api.target("kept").await;
    let new = json!({"backup_target": {"type": "nfs", "filesystem_export": "127.0.0.1:/new", "btt_name": "new"}});
    ask_and_hang_up(&api, Method::POST, "/backup_targets", Some(&new)).await;
    seen(&api, "the new target", |view| has_target(view, "127.0.0.1:/new")).await;
    let id = text(&api.get("/backup_targets").await.ok()["backup_targets"][1]["id"]);

    let gold = json!({"backup_target_type": {"name": "gold", "backup_targets_id": kept}});
    ask_and_hang_up(&api, Method::POST, "/backup_target_types", Some(&gold)).await;
    seen(&api, "the new type", |view| has_type(view, "gold")).await;
    let gold = format!("/backup_target_types/{}", api.type_named("gold").await);
    let silver = json!({"backup_target_type": {"name": "silver"}});
    ask_and_hang_up(&api, Method::PUT, &gold, Some(&silver)).await;
    seen(&api, "the new name", |view| has_type(view, "silver")).await;
    ask_and_hang_up(&api, Method::DELETE, &gold, None).await;
    seen(&api, "that the type is gone", |view| !has_type(view, "silver")).await;

    ask_and_hang_up(&api, Method::GET, &format!("/backup_targets/{id}/set_default"), None).await;
    let defaults = |view: &View| {
        let defaults = view.targets.iter().filter(|found| found.target.is_default);
        defaults.map(|found| found.target.id.to_string()).collect::<Vec<_>>()
    };
    seen(&api, "the new default", |view| defaults(view) == [id.clone()]).await;
    ask_and_hang_up(&api, Method::DELETE, &format!("/backup_targets/{kept}"), None).await;
    seen(&api, "that the target is gone", |view| view.targets.len() == 1).await;
    // Neither exists in part: both names can be used again.
    api.target("kept").await;
}

#[tokio::test]
async fn client_that_hangs_up_while_waiting_changes_nothing() {
    let api = Api::start().await;
    let body =
        |name: &str| json!({"backup_target": {"type": "nfs", "filesystem_export": format!("127.0.0.1:/{name}")}});
    let (first, second) = (body("first"), body("second"));
    let caller = Caller::local();
    let mut asking = Box::pin(api.ask(&caller, Method::POST, "/backup_targets", Some(&first)));
    assert!(asking.as_mut().now_or_never().is_none());
    ask_and_hang_up(&api, Method::POST, "/backup_targets", Some(&second)).await;
    asking.await.ok();
    // The third change follows the time at which the second one would have happened.
    api.target("third").await;
    let view = api.agent.view();
    assert!(has_target(&view, "127.0.0.1:/first") && !has_target(&view, "127.0.0.1:/second"));
}
