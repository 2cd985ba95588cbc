//! Fake Keystone in the test process, with faults on demand.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::model::settings::{KeystoneCredential, KeystoneSettings};

/// Password of the agent.
pub const PASSWORD: &str = "the agent's password";

/// Keystone that listens on loopback until it is dropped.
pub struct FakeKeystone {
    /// Behaviour, and counters of requests.
    pub state: Arc<Fake>,
    address: SocketAddr,
    serving: JoinHandle<()>,
    directory: tempfile::TempDir,
}

/// Behaviour and counters of a fake.
pub struct Fake {
    tokens: Mutex<HashMap<String, Value>>,
    own: Mutex<String>,
    /// Catalog of issued tokens.
    catalog: Mutex<Value>,
    /// Answer to every validation, instead of the real one.
    instead: Mutex<Option<(StatusCode, Value)>>,
    /// Number of requested validations.
    pub validations: AtomicUsize,
    /// Number of requested tokens.
    pub logins: AtomicUsize,
    /// Prefix of tokens whose validation is not answered.
    held: Mutex<Option<String>>,
    /// Validations wait while this is false.
    pub open: watch::Sender<bool>,
}

impl FakeKeystone {
    /// Starts a Keystone without tokens.
    pub async fn start() -> Self {
        let state = Arc::new(Fake {
            tokens: Mutex::default(),
            own: Mutex::new("own-0".to_owned()),
            catalog: Mutex::new(json!([])),
            instead: Mutex::default(),
            validations: AtomicUsize::new(0),
            logins: AtomicUsize::new(0),
            held: Mutex::default(),
            open: watch::Sender::new(true),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("password"), PASSWORD).expect("written");
        Self { serving: tokio::spawn(serve(listener, state.clone())), state, address, directory }
    }

    /// Closes the port and every connection.
    pub async fn stop(&mut self) {
        self.serving.abort();
        let _cancelled = (&mut self.serving).await;
    }

    /// Opens the same port again.
    pub async fn start_again(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("the same port");
        self.serving = tokio::spawn(serve(listener, self.state.clone()));
    }

    /// Settings of an agent that uses it.
    pub fn settings(&self) -> KeystoneSettings {
        let password_file = self.directory.path().join("password");
        KeystoneSettings {
            url: format!("http://{}", self.address),
            credential: KeystoneCredential::Password {
                username: "targetwatch".to_owned(),
                user_domain: "Default".to_owned(),
                password_file,
                project: "service".to_owned(),
                project_domain: "Default".to_owned(),
            },
            admin_role: "admin".to_owned(),
            service_type: "workloads".to_owned(),
            ca_bundle: None,
            timeout: std::time::Duration::from_secs(10),
            cache_time: std::time::Duration::from_secs(300),
            negative_cache_time: std::time::Duration::from_secs(30),
            cache_entries: 1000,
            validations: 16,
        }
    }

    /// Replaces the agent's password in its file.
    pub fn write_password(&self, password: &str) {
        std::fs::write(self.directory.path().join("password"), password).expect("written");
    }

    /// Adds a token for a project or without one, with roles, that is valid for a number of seconds.
    pub fn add(&self, token: &str, project: Option<&str>, roles: &[&str], seconds: i64) {
        let roles: Vec<Value> = roles.iter().map(|name| json!({ "id": "r", "name": name })).collect();
        let mut facts = json!({
            "methods": ["password"],
            "user": { "id": format!("user of {token}"), "name": "u", "domain": { "id": "default", "name": "Default" } },
            "expires_at": in_seconds(seconds),
            "roles": roles,
        });
        if let Some(id) = project {
            facts["project"] = json!({ "id": id, "name": format!("name of {id}") });
        }
        self.state.tokens.lock().expect("a lock").insert(token.to_owned(), json!({ "token": facts }));
    }

    /// Adds a token for the whole system.
    pub fn add_system(&self, token: &str, roles: &[&str]) {
        self.add(token, None, roles, 3600);
        let mut tokens = self.state.tokens.lock().expect("a lock");
        tokens.get_mut(token).expect("added")["token"]["system"] = json!({ "all": true });
    }

    /// Gives a token the access rules of an application credential.
    pub fn restrict(&self, token: &str, access_rules: &Value) {
        let mut tokens = self.state.tokens.lock().expect("a lock");
        tokens.get_mut(token).expect("added")["token"]["application_credential"] =
            json!({ "id": "c", "name": "c", "restricted": true, "access_rules": access_rules });
    }

    /// Removes a token.
    pub fn revoke(&self, token: &str) {
        self.state.tokens.lock().expect("a lock").remove(token);
    }

    /// Sets the catalog of the tokens that are issued from now on.
    pub fn set_catalog(&self, catalog: Value) {
        *self.state.catalog.lock().expect("a lock") = catalog;
    }

    /// Revokes the agent's own token.
    pub fn revoke_own(&self) {
        "revoked".clone_into(&mut self.state.own.lock().expect("a lock"));
    }

    /// Sets the answer to every validation.
    pub fn answer_instead(&self, answer: Option<(StatusCode, Value)>) {
        *self.state.instead.lock().expect("a lock") = answer;
    }

    /// Sets the prefix of tokens whose validation is not answered.
    pub fn hold(&self, prefix: &str) {
        *self.state.held.lock().expect("a lock") = Some(prefix.to_owned());
    }

    /// Number of requested validations and logins.
    pub fn asked(&self) -> (usize, usize) {
        (self.state.validations.load(Ordering::SeqCst), self.state.logins.load(Ordering::SeqCst))
    }
}

impl Fake {
    /// Whether this is the agent's own token.
    pub fn is_own(&self, token: &str) -> bool {
        *self.own.lock().expect("a lock") == token
    }
}

async fn serve(listener: TcpListener, state: Arc<Fake>) {
    let router = Router::new().fallback(answer).with_state(state);
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let service = TowerToHyperService::new(router.clone());
        connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

fn in_seconds(seconds: i64) -> String {
    (Timestamp::now() + SignedDuration::from_secs(seconds)).strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

fn fault(status: StatusCode) -> Response {
    let error = json!({ "error": { "code": status.as_u16(), "title": "x", "message": "x" } });
    (status, Json(error)).into_response()
}

async fn answer(State(fake): State<Arc<Fake>>, request: Request<Body>) -> Response {
    assert_eq!(request.uri().path(), "/v3/auth/tokens");
    if request.method() == Method::POST {
        return login(&fake, request).await;
    }
    fake.validations.fetch_add(1, Ordering::SeqCst);
    fake.open.subscribe().wait_for(|open| *open).await.expect("the fake is there");
    if let Some((status, body)) = fake.instead.lock().expect("a lock").clone() {
        return (status, Json(body)).into_response();
    }
    let headers = request.headers().clone();
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_held =
        fake.held.lock().expect("a lock").as_ref().is_some_and(|held| header("x-subject-token").starts_with(held));
    if is_held {
        std::future::pending::<()>().await;
    }
    if header("x-auth-token") != *fake.own.lock().expect("a lock") {
        return fault(StatusCode::UNAUTHORIZED);
    }
    match fake.tokens.lock().expect("a lock").get(header("x-subject-token")) {
        // Like Keystone's `_validate_token_access_rules`.
        Some(facts)
            if !facts["token"]["application_credential"]["access_rules"].is_null()
                && header("openstack-identity-access-rules") != "1" =>
        {
            fault(StatusCode::NOT_FOUND)
        }
        Some(facts) => Json(facts.clone()).into_response(),
        None => fault(StatusCode::NOT_FOUND),
    }
}

async fn login(fake: &Fake, request: Request<Body>) -> Response {
    let number = fake.logins.fetch_add(1, Ordering::SeqCst) + 1;
    let body = to_bytes(request.into_body(), 4096).await.expect("a body");
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    if body["auth"]["identity"]["password"]["user"]["password"] != PASSWORD {
        return fault(StatusCode::UNAUTHORIZED);
    }
    let token = format!("own-{number}");
    token.clone_into(&mut fake.own.lock().expect("a lock"));
    let catalog = fake.catalog.lock().expect("a lock").clone();
    let facts = json!({ "token": {
        "expires_at": in_seconds(3600), "methods": ["password"], "user": { "id": "a" }, "catalog": catalog } });
    (StatusCode::CREATED, [("x-subject-token", token)], Json(facts)).into_response()
}
