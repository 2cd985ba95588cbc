//! Fake Barbican in the test process, beside a fake Keystone, with faults on demand.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::keystone::fake::{Fake, FakeKeystone};
use crate::model::secret_ref::SecretRef;
use crate::model::settings::KeyManagerSettings;

/// Barbican that listens on loopback until it is dropped.
pub struct FakeBarbican {
    /// The Keystone that it trusts.
    pub keystone: FakeKeystone,
    /// Behaviour, and counters of requests.
    pub state: Arc<FakeSecrets>,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

/// Behaviour and counters of a fake.
pub struct FakeSecrets {
    keystone: Arc<Fake>,
    secrets: Mutex<HashMap<Uuid, String>>,
    instead: Mutex<Option<(StatusCode, String)>>,
    requests: AtomicUsize,
    /// Requests wait while this is false.
    pub open: watch::Sender<bool>,
    /// Requests for this secret wait.
    pub held: watch::Sender<Option<Uuid>>,
}

/// A payload with these credentials.
pub fn payload(access_key: &str, secret_key: &str) -> Value {
    json!({ "access_key": access_key, "secret_key": secret_key, "vault_s3_region_name": "eu-1" })
}

impl FakeBarbican {
    /// Starts a Barbican without secrets.
    pub async fn start() -> Self {
        let keystone = FakeKeystone::start().await;
        let state = Arc::new(FakeSecrets {
            keystone: keystone.state.clone(),
            secrets: Mutex::default(),
            instead: Mutex::default(),
            requests: AtomicUsize::new(0),
            open: watch::Sender::new(true),
            held: watch::Sender::new(None),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        Self { serving: tokio::spawn(serve(listener, state.clone())), keystone, state, address }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Settings of an agent that uses it.
    pub fn settings(&self) -> KeyManagerSettings {
        KeyManagerSettings {
            keystone: self.keystone.settings(),
            endpoint: Some(self.url()),
            interface: "public".to_owned(),
            region: None,
            refresh_interval: Duration::from_secs(600),
            timeout: Duration::from_secs(10),
            accept_other_endpoints: false,
            ca_bundle: None,
        }
    }

    /// Stores a payload, or replaces it.
    pub fn store(&self, id: Uuid, payload: impl ToString) {
        self.state.secrets.lock().expect("a lock").insert(id, payload.to_string());
    }

    /// Deletes a secret.
    pub fn delete(&self, id: Uuid) {
        self.state.secrets.lock().expect("a lock").remove(&id);
    }

    /// The URL of a secret.
    pub fn reference(&self, id: Uuid) -> SecretRef {
        SecretRef::parse(&format!("{}/v1/secrets/{id}", self.url())).expect("a reference")
    }

    /// Sets the answer to every request.
    pub fn answer_instead(&self, answer: Option<(StatusCode, &str)>) {
        *self.state.instead.lock().expect("a lock") = answer.map(|(status, body)| (status, body.to_owned()));
    }

    /// Number of requests so far.
    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Closes the port and every connection.
    pub async fn stop(&mut self) {
        self.serving.abort();
        let _cancelled = (&mut self.serving).await;
    }
}

async fn serve(listener: TcpListener, state: Arc<FakeSecrets>) {
    let router = Router::new().fallback(answer).with_state(state);
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let service = TowerToHyperService::new(router.clone());
        connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

fn fault(status: StatusCode) -> Response {
    (status, Json(json!({ "code": status.as_u16(), "title": "x", "description": "x" }))).into_response()
}

async fn answer(State(fake): State<Arc<FakeSecrets>>, request: Request) -> Response {
    fake.requests.fetch_add(1, Ordering::SeqCst);
    fake.open.subscribe().wait_for(|open| *open).await.expect("the fake is there");
    let id = request.uri().path().strip_prefix("/v1/secrets/").and_then(|rest| rest.strip_suffix("/payload"));
    let id = id.and_then(|id| Uuid::try_parse(id).ok());
    fake.held.subscribe().wait_for(|held| held.is_none() || *held != id).await.expect("the fake is there");
    if let Some((status, body)) = fake.instead.lock().expect("a lock").clone() {
        if status.is_redirection() {
            return (status, [(LOCATION, body)]).into_response();
        }
        return if body == "fault" { fault(status) } else { (status, body).into_response() };
    }
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert_eq!(header("accept"), "application/octet-stream");
    if !fake.keystone.is_own(header("x-auth-token")) {
        return fault(StatusCode::UNAUTHORIZED);
    }
    let id = id.expect("the path of a payload");
    match fake.secrets.lock().expect("a lock").get(&id) {
        Some(payload) => payload.clone().into_response(),
        None => fault(StatusCode::NOT_FOUND),
    }
}
