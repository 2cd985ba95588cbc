//! Permissions and expiry of tokens.

use serde_json::json;

use crate::daemon::{Daemon, eventually};
use crate::http::over_unix;
use crate::peer::{Keystone, request, status};

#[tokio::test]
async fn token_permissions_follow_role_and_project() {
    let keystone = Keystone::start().await;
    let alpha = keystone.member_of("alpha").await;
    let beta = keystone.member_of("beta").await;
    let workspace = keystone.workspace("cache_time = \"1s\"");
    let daemon = Daemon::start(&workspace).await;
    let admin = keystone.admin_token().await;
    let member = keystone.token("alpha", "alpha", Some("alpha")).await;
    let other = keystone.token("beta", "beta", Some("beta")).await;
    let unscoped = keystone.token("beta", "beta", None).await;

    let created = request(&daemon, "POST", "/backup_targets", &admin, &[]).await;
    assert_eq!(created.status, 200, "{created:?}");
    let id = created.json()["backup_targets"]["id"].as_str().expect("an id").to_owned();
    let of_alpha = format!("/v1/{alpha}/backup_targets");
    let set_default = format!("/backup_targets/{id}/set_default");
    let gold = json!({ "backup_target_type": {
        "name": "gold", "backup_targets_id": id, "project_list": [alpha] } });
    let gold = crate::http::request("POST", "/backup_target_types", gold.to_string().into());
    // Every client on the socket is an admin.
    let gold = over_unix(&workspace.path("api.sock"), gold).await.json()["backup_target_types"]["id"].clone();
    let gold = format!("/backup_target_types/{}", gold.as_str().expect("an id"));
    for (token, expected) in [(&admin, 2), (&member, 2), (&other, 1)] {
        let list = request(&daemon, "GET", "/backup_target_types", token, &[]).await.json();
        assert_eq!(list["backup_target_types"].as_array().expect("a list").len(), expected, "{list}");
        let list = request(&daemon, "GET", "/backup_targets", token, &[]).await.json();
        let types = &list["backup_targets"][0]["backup_target_types"];
        assert_eq!(types.as_array().expect("a list").len(), expected, "{list}");
    }
    let (check, change) = (format!("/backup_targets/{id}/check"), format!("{gold}/add_projects"));
    for (method, path, expected) in [
        ("GET", gold.as_str(), [200, 200, 404, 403, 401, 401]),
        ("PUT", gold.as_str(), [400, 403, 403, 403, 401, 401]),
        ("POST", change.as_str(), [400, 403, 403, 403, 401, 401]),
        ("POST", "/backup_target_types", [400, 403, 403, 403, 401, 401]),
        ("POST", check.as_str(), [200, 403, 403, 403, 401, 401]),
        ("DELETE", gold.as_str(), [202, 403, 403, 403, 401, 401]),
        ("GET", "/backup_targets", [200, 200, 200, 403, 401, 401]),
        ("GET", of_alpha.as_str(), [200, 200, 403, 403, 401, 401]),
        ("GET", set_default.as_str(), [200, 403, 403, 403, 401, 401]),
        ("GET", "/node", [200, 403, 403, 403, 401, 401]),
        ("GET", "/healthz", [200; 6]),
        ("GET", "/nothing", [404, 403, 403, 403, 401, 401]),
        ("POST", "/backup_targets", [409, 403, 403, 403, 401, 401]),
    ] {
        for (token, expected) in [&admin, &member, &other, &unscoped, "garbage", ""].into_iter().zip(expected) {
            let answer = request(&daemon, method, path, token, &[]).await;
            assert_eq!(answer.status, expected, "{method} {path}: {answer:?}");
        }
    }
    for (claimed, expected) in [(alpha.as_str(), 200), ("alpha", 200), (beta.as_str(), 403)] {
        let claim = [("x-auth-project-id", claimed)];
        assert_eq!(request(&daemon, "GET", "/backup_targets", &member, &claim).await.status, expected, "{claimed}");
        assert_eq!(request(&daemon, "GET", "/backup_targets", &admin, &claim).await.status, 200, "{claimed}");
    }

    // The agent has not seen the first token before its revocation. It has cached the second one.
    let revoked = keystone.token("alpha", "alpha", Some("alpha")).await;
    keystone.revoke(&revoked).await;
    assert_eq!(status(&daemon, &revoked).await, 401);
    keystone.revoke(&member).await;
    eventually("the end of a cached token", async || (status(&daemon, &member).await == 401).then_some(())).await;
    assert_eq!(status(&daemon, &other).await, 200);

    let log = daemon.log();
    for secret in [&admin, &member, &other, keystone.fact("SERVICE_PASSWORD")] {
        assert!(!log.contains(secret), "a secret is in the log");
    }
}

#[tokio::test]
async fn tokens_expire_and_the_agents_token_is_renewed() {
    const TOKEN_SECONDS: u32 = 4;
    let keystone = Keystone::start().await;
    keystone.member_of("alpha").await;
    keystone.restart_with_token_lifetime(TOKEN_SECONDS);
    let daemon = Daemon::start(&keystone.workspace("cache_time = \"1h\"")).await;
    let member = keystone.token("alpha", "alpha", Some("alpha")).await;
    assert_eq!(status(&daemon, &member).await, 200);
    eventually("the token's expiry", async || (status(&daemon, &member).await == 401).then_some(())).await;
    // Keystone rejects the agent's own token, which has expired too.
    let member = keystone.token("alpha", "alpha", Some("alpha")).await;
    assert_eq!(status(&daemon, &member).await, 200);
}

#[tokio::test]
async fn access_rules_of_an_application_credential_are_enforced() {
    let keystone = Keystone::start().await;
    let alpha = keystone.member_of("alpha").await;
    let daemon = Daemon::start(&keystone.workspace("")).await;
    let member = keystone.token("alpha", "alpha", Some("alpha")).await;
    let rules = json!([
        { "service": "workloads", "method": "GET", "path": "/v1/{project_id}/backup_targets" },
        { "service": "compute", "method": "GET", "path": "/**" },
    ]);
    let restricted = keystone.restricted_token(&member, &rules).await;
    for (path, expected) in [
        (format!("/v1/{alpha}/backup_targets"), 200),
        (format!("/v1/{alpha}/backup_targets/detail"), 403),
        (format!("/v1/{alpha}/backup_target_types"), 403),
        ("/backup_targets".to_owned(), 403),
    ] {
        assert_eq!(request(&daemon, "GET", &path, &restricted, &[]).await.status, expected, "{path}");
        assert_eq!(request(&daemon, "GET", &path, &member, &[]).await.status, 200, "{path}");
    }
}
