//! Authentication and authorization of requests.

use axum::http::HeaderName;
use axum::http::header::AUTHORIZATION;

use super::credential::TOKEN_MAX_BYTES;
use super::*;
use crate::api::prefix;
use crate::keystone::fake::FakeKeystone;
use crate::model::settings::{KeystoneSettings, MetricsSettings};

const MEMBER: &str = "7f0c0b5a9c8f4b6d8f3f1a2b3c4d5e6f";

fn api(auth: AuthSettings, socket_needs_token: bool) -> ApiSettings {
    ApiSettings {
        listen: Vec::new(),
        socket_group: None,
        socket_needs_token,
        auth,
        tls: None,
        metrics: MetricsSettings::default(),
        has_ui: false,
    }
}

async fn keystone(settings: KeystoneSettings) -> Arc<Auth> {
    Arc::new(Auth::load(&api(AuthSettings::Keystone(Box::new(settings)), false)).await.expect("settings"))
}

/// Authenticates a request. Returns the status, and the caller if it is permitted.
async fn ask(auth: &Arc<Auth>, request: axum::http::request::Builder, peer: Peer) -> (u16, Option<Caller>) {
    let request = request.body(()).expect("a request");
    match auth.authenticate(peer, &prefix::strip(request).into_parts().0).await {
        Ok(caller) => (200, Some(Caller::clone(&caller))),
        Err(refusal) => {
            let is_unauthorized = refusal.status() == StatusCode::UNAUTHORIZED;
            let has_challenge = refusal.headers().contains_key(WWW_AUTHENTICATE);
            assert_eq!(is_unauthorized, has_challenge, "a challenge comes with each 401");
            (refusal.status().as_u16(), None)
        }
    }
}

fn request(method: &str, path: &str, token: &str) -> axum::http::request::Builder {
    axum::http::Request::builder().method(method).uri(path).header(AUTH_TOKEN, token)
}

async fn status(auth: &Arc<Auth>, method: &str, path: &str, token: &str) -> u16 {
    ask(auth, request(method, path, token), Peer::Tcp).await.0
}

#[tokio::test]
async fn members_read_and_admins_do_everything() {
    let fake = FakeKeystone::start().await;
    fake.add("admin", Some("p0"), &["admin"], 3600);
    fake.add("member", Some(MEMBER), &["member"], 3600);
    fake.add("unscoped", None, &[], 3600);
    let auth = keystone(fake.settings()).await;
    for (method, path, member) in [
        ("GET", "/backup_targets", 200),
        ("HEAD", "/backup_targets", 200),
        ("GET", "/backup_targets/detail", 200),
        ("GET", "/v1/backup_targets/x/checks", 200),
        ("GET", "/backup_target_types/x", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/readyz", 200),
        ("POST", "/backup_targets", 403),
        ("PUT", "/backup_targets/x", 403),
        ("DELETE", "/backup_targets/x", 403),
        ("PATCH", "/backup_targets/x", 403),
        ("OPTIONS", "/backup_targets", 403),
        ("POST", "/backup_targets/x/check", 403),
        ("GET", "/backup_targets/x/set_default", 403),
        ("HEAD", "/v1/backup_targets/x/set_default", 403),
        ("GET", "/backup_target_types/x/set_default", 403),
        ("POST", "/backup_target_types/x/add_projects", 403),
        ("GET", "/node", 403),
        ("GET", "/metrics", 403),
        ("GET", "/ui", 403),
        ("GET", "/ui/targets/x", 403),
        ("GET", "/backup_targets_of_others", 403),
    ] {
        assert_eq!(status(&auth, method, path, "member").await, member, "{method} {path}");
        assert_eq!(status(&auth, method, path, "admin").await, 200, "{method} {path}");
        assert_eq!(status(&auth, method, path, "unscoped").await, 403, "{method} {path}");
        assert_eq!(status(&auth, method, path, "garbage").await, 401, "{method} {path}");
    }
    let (_, caller) = ask(&auth, request("GET", "/backup_targets", "member"), Peer::Tcp).await;
    let member = Caller { user_id: Some("user of member".into()), project_id: Some(MEMBER.into()), is_admin: false };
    assert_eq!(caller, Some(member));
}

#[tokio::test]
async fn claimed_project_must_be_the_project_of_the_token() {
    let fake = FakeKeystone::start().await;
    fake.add("admin", Some("p0"), &["admin"], 3600);
    fake.add("member", Some(MEMBER), &["member"], 3600);
    let auth = keystone(fake.settings()).await;
    let name = format!("name of {MEMBER}");
    for (claimed, expected) in [
        (MEMBER, 200),
        ("7F0C0B5A-9C8F-4B6D-8F3F-1A2B3C4D5E6F", 200),
        (&name, 200),
        ("7f0c0b5a9c8f4b6d8f3f1a2b3c4d5e60", 403),
        ("", 403),
    ] {
        let claim = |token: &str| request("GET", "/backup_targets", token).header(AUTH_PROJECT, claimed);
        assert_eq!(ask(&auth, claim("member"), Peer::Tcp).await.0, expected, "{claimed:?}");
        assert_eq!(ask(&auth, claim("admin"), Peer::Tcp).await.0, 200, "{claimed:?}");
        let twice = claim("member").header(AUTH_PROJECT, "another");
        assert_eq!(ask(&auth, twice, Peer::Tcp).await.0, 403, "{claimed:?} and another");
    }
    for (path, expected) in [(format!("/v1/{MEMBER}/backup_targets"), 200), ("/v1/other/backup_targets".into(), 403)] {
        assert_eq!(status(&auth, "GET", &path, "member").await, expected, "{path}");
        assert_eq!(status(&auth, "GET", &path, "admin").await, 200, "{path}");
    }
}

#[tokio::test]
async fn health_and_versions_need_no_token_and_everything_else_does() {
    let fake = FakeKeystone::start().await;
    let auth = keystone(fake.settings()).await;
    let plain = |method: &str, path: &str| axum::http::Request::builder().method(method).uri(path);
    for path in ["/healthz", "/v1/healthz", "/v1/any/healthz", "/healthz/", "/", "/v1", "/v1/any"] {
        let (status, caller) = ask(&auth, plain("GET", path), Peer::Tcp).await;
        assert!(status == 200 && caller.is_some_and(|caller| !caller.is_admin), "{path}");
        assert_eq!(ask(&auth, plain("OPTIONS", path), Peer::Tcp).await.0, 200, "{path}");
    }
    for path in ["/backup_targets", "/readyz", "/node", "/healthz//", "/healthz/x", "//healthz", "/%68ealthz"] {
        assert_eq!(ask(&auth, plain("GET", path), Peer::Tcp).await.0, 401, "{path}");
    }
    assert_eq!(fake.asked(), (0, 0), "Keystone is not asked");
}

#[tokio::test]
async fn socket_is_trusted_unless_a_token_is_sent_or_required() {
    let fake = FakeKeystone::start().await;
    fake.add("member", Some(MEMBER), &["member"], 3600);
    let settings = AuthSettings::Keystone(Box::new(fake.settings()));
    let plain = || axum::http::Request::builder().method("POST").uri("/backup_targets");
    let trusting = Arc::new(Auth::load(&api(settings.clone(), false)).await.expect("settings"));
    assert_eq!(ask(&trusting, plain(), Peer::Unix).await, (200, Some(Caller::local())));
    assert_eq!(ask(&trusting, plain(), Peer::Tcp).await.0, 401);
    let request = request("POST", "/backup_targets", "member");
    assert_eq!(ask(&trusting, request, Peer::Unix).await.0, 403, "a token that is sent is validated on the socket too");
    let header =
        |name: HeaderName, value: &[u8]| plain().header(name, HeaderValue::from_bytes(value).expect("a value"));
    for (value, expected) in [
        (&b"bearer member"[..], 403),
        (b"BEARER  member", 403),
        (b"Bearer", 401),
        (b"Bearer ", 401),
        (b"Bearermember", 401),
        (b"Basic bWVtYmVyOng=", 401),
        (b"Bearer m\xe9mber", 401),
        (b"", 401),
    ] {
        let status = ask(&trusting, header(AUTHORIZATION, value), Peer::Unix).await.0;
        assert_eq!(status, expected, "{}", value.escape_ascii());
    }
    assert_eq!(ask(&trusting, header(AUTH_TOKEN, b"m\xe9mber"), Peer::Unix).await.0, 401);
    for (first, second) in [(AUTH_TOKEN, AUTH_TOKEN), (AUTHORIZATION, AUTHORIZATION), (AUTH_TOKEN, AUTHORIZATION)] {
        let twice = header(first.clone(), b"member").header(second.clone(), "Bearer member");
        assert_eq!(ask(&trusting, twice, Peer::Unix).await.0, 401, "{first} and {second}");
        let twice = header(second, b"Bearer member").header(first, "member");
        assert_eq!(ask(&trusting, twice, Peer::Unix).await.0, 401);
    }
    let strict = Arc::new(Auth::load(&api(settings, true)).await.expect("settings"));
    assert_eq!(ask(&strict, plain(), Peer::Unix).await.0, 401);
}

#[tokio::test]
async fn secret_authenticates_an_admin_and_is_replaced_by_reload() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("token");
    std::fs::write(&file, "0123456789abcdef\n").expect("written");
    let settings = api(AuthSettings::Token { file: file.clone() }, false);
    let auth = Arc::new(Auth::load(&settings).await.expect("a secret"));
    assert_eq!(status(&auth, "DELETE", "/backup_targets/x", "0123456789abcdef").await, 200);
    let bearer = |value: &str| axum::http::Request::builder().uri("/node").header(AUTHORIZATION, value);
    assert_eq!(ask(&auth, bearer("Bearer 0123456789abcdef"), Peer::Tcp).await.0, 200);
    assert_eq!(ask(&auth, bearer("Basic 0123456789abcdef"), Peer::Tcp).await.0, 401);
    let long = "0".repeat(TOKEN_MAX_BYTES + 1);
    for wrong in ["0123456789abcde", "0123456789abcdeF", "0123456789abcdef0", "", "two words", &long] {
        assert_eq!(status(&auth, "GET", "/backup_targets", wrong).await, 401, "{wrong:?}");
    }

    std::fs::write(&file, "fedcba9876543210").expect("written");
    assert_eq!(
        status(&auth, "GET", "/node", "0123456789abcdef").await,
        200,
        "a new secret is used only after a reload"
    );
    auth.reload(&settings).await.expect("a secret");
    assert_eq!(status(&auth, "GET", "/node", "0123456789abcdef").await, 401);
    assert_eq!(status(&auth, "GET", "/node", "fedcba9876543210").await, 200);

    for bad in ["short", "", "with a blank in it all"] {
        std::fs::write(&file, bad).expect("written");
        let error = auth.reload(&settings).await.expect_err(bad).to_string();
        assert!(error.contains("[api.token] file") && (bad.is_empty() || !error.contains(bad)), "{error}");
        assert_eq!(status(&auth, "GET", "/node", "fedcba9876543210").await, 200, "the old one stays");
    }
}

#[tokio::test]
async fn access_rules_of_an_application_credential_restrict_members_and_admins() {
    use serde_json::json;

    let fake = FakeKeystone::start().await;
    let rule = |service: &str, method: &str, path: &str| json!({ "id": "r", "service": service, "method": method, "path": path });
    for (token, role, rules) in [
        ("admin", "admin", json!([rule("workloads", "GET", "/v1/*/backup_targets"), rule("workloads", "PUT", "/**")])),
        (
            "member",
            "member",
            json!([rule("workloads", "GET", "/v1/{project_id}/**"), rule("workloads", "POST", "/**")]),
        ),
        ("other", "admin", json!([rule("compute", "GET", "/**")])),
        ("none", "admin", json!([])),
    ] {
        fake.add(token, Some(MEMBER), &[role], 3600);
        fake.restrict(token, &rules);
    }
    let auth = keystone(fake.settings()).await;
    let (targets, one) = (format!("/v1/{MEMBER}/backup_targets"), format!("/v1/{MEMBER}/backup_targets/x"));
    for (method, path, expected) in [
        ("GET", targets.as_str(), [200, 200, 403, 403]),
        ("HEAD", &targets, [403, 403, 403, 403]),
        ("GET", &one, [403, 200, 403, 403]),
        ("PUT", &one, [200, 403, 403, 403]),
        ("POST", &targets, [403, 403, 403, 403]),
        ("GET", "/v1/backup_targets", [403, 403, 403, 403]),
        ("GET", "/backup_targets", [403, 403, 403, 403]),
        ("GET", &format!("{targets}/"), [403, 200, 403, 403]),
        ("GET", "/healthz", [200, 200, 200, 200]),
    ] {
        for (token, expected) in ["admin", "member", "other", "none"].into_iter().zip(expected) {
            assert_eq!(status(&auth, method, path, token).await, expected, "{token} {method} {path}");
        }
    }
    let compute = KeystoneSettings { service_type: "compute".to_owned(), ..fake.settings() };
    assert_eq!(status(&keystone(compute).await, "GET", "/backup_targets", "other").await, 200);
}

#[tokio::test]
async fn reload_applies_settings_but_not_another_authentication_method() {
    let fake = FakeKeystone::start().await;
    fake.add("t", Some("p"), &["operator"], 3600);
    let keystone = |admin_role: &str| {
        let settings = KeystoneSettings { admin_role: admin_role.to_owned(), ..fake.settings() };
        api(AuthSettings::Keystone(Box::new(settings)), false)
    };
    let auth = Arc::new(Auth::load(&keystone("admin")).await.expect("settings"));
    assert_eq!(status(&auth, "GET", "/node", "t").await, 403);
    auth.reload(&api(AuthSettings::None, false)).await.expect("ignored");
    assert_eq!(status(&auth, "GET", "/node", "t").await, 403);
    auth.reload(&keystone("operator")).await.expect("settings");
    assert_eq!(status(&auth, "GET", "/node", "t").await, 200, "no identity of the old role is cached");

    let directory = tempfile::tempdir().expect("a directory");
    let token = |name: &str| {
        let file = directory.path().join(name);
        std::fs::write(&file, format!("{name}-0123456789abcdef")).expect("written");
        api(AuthSettings::Token { file }, false)
    };
    let auth = Arc::new(Auth::load(&token("old")).await.expect("a secret"));
    auth.reload(&token("new")).await.expect("another file");
    assert_eq!(status(&auth, "GET", "/node", "old-0123456789abcdef").await, 401);
    assert_eq!(status(&auth, "GET", "/node", "new-0123456789abcdef").await, 200);
}

#[tokio::test]
async fn metrics_token_stays_when_a_reload_removes_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("metrics");
    std::fs::write(&file, "0123456789abcdef").expect("written");
    let mut settings = api(AuthSettings::None, false);
    settings.metrics.token_file = Some(file);
    let auth = Arc::new(Auth::load(&settings).await.expect("a secret"));
    auth.reload(&api(AuthSettings::None, false)).await.expect("no file");
    assert_eq!(status(&auth, "GET", "/metrics", "fedcba9876543210").await, 401);
    assert_ne!(status(&auth, "GET", "/metrics", "0123456789abcdef").await, 401);
}

#[tokio::test]
async fn without_authentication_tokens_and_projects_are_ignored() {
    let auth = Arc::new(Auth::none());
    let odd = request("DELETE", "/v1/any/backup_targets/x", "two words")
        .header(AUTH_PROJECT, "other")
        .header("host", "localhost");
    assert_eq!(ask(&auth, odd, Peer::Tcp).await, (200, Some(Caller::local())));
}
