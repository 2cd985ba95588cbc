//! Answers of Keystone, and the login of the agent.

use std::time::Duration;

use axum::http::StatusCode;
use secrecy::SecretString;
use serde_json::json;

use super::fake::FakeKeystone;
use super::*;
use crate::model::settings::KeystoneCredential;

fn secret(text: &str) -> SecretString {
    SecretString::from(text)
}

#[tokio::test]
async fn login_is_shared_and_revoked_own_token_is_replaced_once() {
    let keystone = FakeKeystone::start().await;
    keystone.add("t", Some("p1"), &["member", "reader"], 3600);
    let validator = Validator::new(&keystone.settings()).await.expect("settings");
    assert_eq!(keystone.asked(), (0, 0), "contacted before it was needed");

    let facts = validator.validate(&secret("t")).await.expect("an answer").expect("a good token");
    assert_eq!(facts.user_id, "user of t");
    assert_eq!(facts.project, Some(Project { id: "p1".into(), name: "name of p1".into() }));
    assert_eq!(facts.roles, ["member", "reader"]);
    assert!(validator.validate(&secret("other")).await.expect("an answer").is_none());
    assert_eq!(keystone.asked(), (2, 1));

    keystone.revoke_own();
    assert!(validator.validate(&secret("t")).await.expect("an answer").is_some());
    assert_eq!(keystone.asked(), (4, 2));

    keystone.answer_instead(Some((StatusCode::UNAUTHORIZED, json!({}))));
    let error = validator.validate(&secret("t")).await.expect_err("refused");
    assert!(matches!(error, KeystoneError::OwnTokenRefused { .. }), "{error}");
    assert_eq!(keystone.asked(), (6, 3), "asked twice, logged in once more");
}

#[tokio::test]
async fn refused_login_is_reported_and_not_retried_at_once() {
    let keystone = FakeKeystone::start().await;
    keystone.write_password("another");
    let validator = Validator::new(&keystone.settings()).await.expect("settings");
    for _ in 0..10 {
        let error = validator.validate(&secret("t")).await.expect_err("refused");
        assert!(matches!(error, KeystoneError::LoginRefused { .. }), "{error}");
        assert!(!error.to_string().contains("another"), "{error}");
    }
    assert_eq!(keystone.asked(), (0, 1));
}

/// Validates a token each second for a number of seconds. Returns the seconds in which the agent logged in.
async fn logins_in(keystone: &FakeKeystone, validator: &Validator, seconds: u64) -> Vec<u64> {
    let mut at = Vec::new();
    for second in 0..seconds {
        let before = keystone.asked().1;
        validator.validate(&secret("t")).await.expect_err("it cannot");
        if keystone.asked().1 > before {
            at.push(second);
        }
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(1)).await;
        tokio::time::resume();
    }
    at
}

#[tokio::test]
async fn login_backoff_grows_and_new_password_is_tried_at_once() {
    let keystone = FakeKeystone::start().await;
    keystone.write_password("wrong");
    let validator = Validator::new(&keystone.settings()).await.expect("settings");
    let at = logins_in(&keystone, &validator, 1000).await;
    assert_eq!(at, [0, 5, 15, 35, 75, 155, 315, 615, 915]);
    keystone.write_password("as wrong");
    assert_eq!(logins_in(&keystone, &validator, 20).await, [0, 5, 15]);
    keystone.write_password(super::fake::PASSWORD);
    assert!(validator.validate(&secret("t")).await.expect("an answer").is_none());
}

#[tokio::test]
async fn refused_new_token_counts_as_failed_login() {
    let keystone = FakeKeystone::start().await;
    let validator = Validator::new(&keystone.settings()).await.expect("settings");
    keystone.answer_instead(Some((StatusCode::UNAUTHORIZED, json!({}))));
    // The first login has no earlier token that could be the cause.
    assert_eq!(logins_in(&keystone, &validator, 40).await, [0, 5, 15, 35]);
    keystone.answer_instead(None);
    let validator = Validator::new(&keystone.settings()).await.expect("settings");
    assert!(validator.validate(&secret("t")).await.expect("a new start needs no wait").is_none());
}

#[tokio::test]
async fn keystone_is_used_soon_after_it_returns() {
    let mut keystone = FakeKeystone::start().await;
    let validator = Validator::new(&keystone.settings()).await.expect("settings");
    keystone.stop().await;
    for _ in 0..100 {
        validator.validate(&secret("t")).await.expect_err("away");
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(3)).await;
        tokio::time::resume();
    }
    keystone.start_again().await;
    tokio::time::pause();
    tokio::time::advance(super::login_backoff::BACKOFF_MIN).await;
    tokio::time::resume();
    assert!(validator.validate(&secret("t")).await.expect("an answer").is_none());
}

#[tokio::test]
async fn unexpected_answer_maps_to_error() {
    let keystone = FakeKeystone::start().await;
    keystone.add("t", Some("p1"), &[], 3600);
    let validator = Validator::new(&keystone.settings()).await.expect("settings");
    let token = |user: usize, project: usize| {
        json!({
            "expires_at": "2100-01-01T00:00:00.000000Z", "user": { "id": "u".repeat(user) },
            "project": { "id": "p", "name": "n".repeat(project) },
        })
    };
    let (with_user, with_project) = (|length| token(length, 1), |length| token(1, length));
    for (status, body, expected) in [
        (StatusCode::FORBIDDEN, json!({}), "role"),
        (StatusCode::SERVICE_UNAVAILABLE, json!({}), "503"),
        (StatusCode::TOO_MANY_REQUESTS, json!({}), "429"),
        (StatusCode::IM_A_TEAPOT, json!({}), "418"),
        // A 404 of a different web server says nothing about the token.
        (StatusCode::NOT_FOUND, json!({ "message": "no page" }), "is it the address of Keystone"),
        (StatusCode::OK, json!({ "token": { "secret": "s3cret" } }), "is it the address of Keystone"),
        (StatusCode::OK, json!({ "token": with_user(256) }), "is it the address of Keystone"),
        (StatusCode::OK, json!({ "token": with_project(256) }), "is it the address of Keystone"),
    ] {
        keystone.answer_instead(Some((status, body)));
        let error = validator.validate(&secret("t")).await.expect_err(expected).to_string();
        assert!(error.contains(expected) && !error.contains("s3cret"), "{error}");
    }
    keystone.answer_instead(Some((StatusCode::OK, json!({ "token": token(255, 255) }))));
    assert!(validator.validate(&secret("t")).await.expect("ids of the longest length").is_some());
    keystone.answer_instead(None);
    assert!(validator.validate(&secret("t")).await.expect("an answer").is_some());
}

#[tokio::test]
async fn unusable_settings_are_reported_before_any_request() {
    let keystone = FakeKeystone::start().await;
    let mut settings = keystone.settings();
    settings.credential = KeystoneCredential::Application { id: "a".into(), secret_file: "/nonexistent/s".into() };
    let error = Validator::new(&settings).await.expect_err("no secret").to_string();
    assert!(error.contains("/nonexistent/s"), "{error}");
    let mut settings = keystone.settings();
    settings.url = "https://localhost:1".into();
    settings.ca_bundle = Some("/nonexistent/ca.pem".into());
    let error = Validator::new(&settings).await.expect_err("no bundle").to_string();
    assert!(error.contains("/nonexistent/ca.pem"), "{error}");
}

#[test]
fn login_bodies_have_the_format_of_the_identity_api() {
    let user = Identifier::Name("u".into(), Domain::Name("D".into()));
    let password = Login {
        method: Method::Password { user: user.clone(), password: secret("p") },
        scope: LoginScope::Project(Identifier::Name("service".into(), Domain::Id("default".into()))),
    };
    assert_eq!(
        password.body(),
        json!({ "auth": {
            "identity": { "methods": ["password"], "password": { "user": {
                "name": "u", "domain": { "name": "D" }, "password": "p" } } },
            "scope": { "project": { "name": "service", "domain": { "id": "default" } } },
        } })
    );
    assert!(!format!("{password:?}").contains("\"p\""), "shown by Debug");
    let named = Login {
        method: Method::ApplicationCredential { id: Err(("a".into(), user)), secret: secret("s") },
        scope: LoginScope::Default,
    };
    assert_eq!(
        named.body(),
        json!({ "auth": { "identity": { "methods": ["application_credential"], "application_credential": {
            "name": "a", "user": { "name": "u", "domain": { "name": "D" } }, "secret": "s" } } } })
    );
}
