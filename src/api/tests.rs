//! Routes in the test process, with the real agent and registry. The storage refuses connections.

mod guide;
mod hang_ups;
mod history;
mod pages;
mod requests;
#[path = "../../tests/support/shape.rs"]
pub(in crate::api) mod shape;
mod target_types;

use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::{Extension, Router};
use jiff::Timestamp;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::Service;
use crate::agent::{Agent, Host, ProcessRole, View};
use crate::model::Caller;
use crate::model::settings::{AgentSettings, MetricsDetail};
use crate::registry::{MemoryStore, Registry};
use crate::sys::worker::{WorkerPool, WorkerPoolSettings};
use crate::sys::{ChildCensus, MountTableWatch, NodeFacts};

/// Largest answer of a test, in bytes.
const ANSWER_MAX_BYTES: usize = 16 << 20;

/// Routes, agent and registry.
struct Api {
    agent: Agent,
    routes: Router,
    /// The same behind all checks. Authentication permits everything.
    service: Service,
}

/// An answer.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Answer {
    /// Returns the body of a successful answer.
    fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{self:?}");
        self.body
    }

    /// Returns the message of a fault with this status and name.
    fn fault(self, status: u16, name: &str) -> String {
        assert_eq!((self.status.as_u16(), &self.body[name]["code"]), (status, &json!(status)), "{self:?}");
        self.body[name]["message"].as_str().expect("a message").to_owned()
    }
}

impl Api {
    async fn start() -> Self {
        let registry = Registry::new(Arc::new(MemoryStore::default()));
        let census = ChildCensus::new();
        let workers = WorkerPool::new(WorkerPoolSettings::new("/nonexistent".into()), census.clone());
        let mounts = MountTableWatch::start().expect("/proc");
        let host = Host::new(workers, mounts, "test".to_owned(), ProcessRole::Daemon);
        let agent = Agent::start(registry, Arc::new(host), AgentSettings::quiet(), tokio::sync::mpsc::channel(1).0);
        let facts = Arc::new(move || NodeFacts::read(Timestamp::UNIX_EPOCH, &census));
        let auth = Arc::new(super::Auth::none());
        let routes = super::RouteTable::new(true).answered_by(agent.clone(), facts.clone(), auth.clone());
        let config = super::ConfigState {
            fingerprint: "0123456789ab".to_owned(),
            is_last_reload_successful: true,
            loaded_at: Timestamp::UNIX_EPOCH,
        };
        let notifier = Arc::new(crate::notify::Notifier::new(ChildCensus::new()));
        let metrics =
            super::Metrics::new(agent.clone(), facts.clone(), auth.clone(), notifier, MetricsDetail::Full, config);
        let service = super::RouteTable::new(true).serve(agent.clone(), facts, auth, &Arc::new(metrics));
        Self { agent, routes, service }
    }

    /// State of the routes, with empty caches.
    fn state(&self) -> super::state::State {
        let facts = Arc::new(|| NodeFacts::read(Timestamp::UNIX_EPOCH, &ChildCensus::new()));
        Arc::new(super::state::ApiState::new(self.agent.clone(), facts, Box::new(Bytes::new)))
    }

    async fn ask(&self, caller: &Caller, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let request = Request::builder().method(method).uri(path).body(body).expect("a request");
        self.send(caller, request).await
    }

    async fn send(&self, caller: &Caller, request: Request) -> Answer {
        let service = self.routes.clone().layer(Extension(Arc::new(caller.clone())));
        let (head, body) = service.oneshot(request).await.expect("infallible").into_parts();
        let bytes = to_bytes(body, ANSWER_MAX_BYTES).await.expect("a body");
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).expect("JSON") };
        Answer { status: head.status, headers: head.headers, body }
    }

    /// Returns a view and both lists of its targets. Retries when a probe changes the view meanwhile.
    async fn lists_of_one_view(&self, caller: &Caller) -> (Arc<View>, Value, Value) {
        loop {
            let view = self.agent.view();
            let list = self.ask(caller, Method::GET, "/backup_targets", None).await.ok();
            let detail = self.ask(caller, Method::GET, "/backup_targets/detail", None).await.ok();
            if self.agent.view().generation == view.generation {
                return (view, list, detail);
            }
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(&Caller::local(), Method::GET, path, None).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask(&Caller::local(), Method::POST, path, Some(body)).await
    }

    async fn put(&self, path: &str, body: &Value) -> Answer {
        self.ask(&Caller::local(), Method::PUT, path, Some(body)).await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.ask(&Caller::local(), Method::DELETE, path, None).await
    }

    /// Creates an NFS target whose first type has this name. Returns both ids.
    async fn target(&self, name: &str) -> (String, String) {
        let fields = json!({"type": "nfs", "filesystem_export": format!("127.0.0.1:/{name}"), "btt_name": name});
        let body = self.post("/backup_targets", &json!({ "backup_target": fields })).await.ok();
        let id = text(&body["backup_targets"]["id"]);
        (id, self.type_named(name).await)
    }

    /// Creates a type.
    async fn new_type(&self, fields: &Value) -> Value {
        let mut body = self.post("/backup_target_types", &json!({ "backup_target_type": fields })).await.ok();
        body["backup_target_types"].take()
    }

    async fn type_named(&self, name: &str) -> String {
        let list = self.get("/backup_target_types").await.ok();
        let types = list["backup_target_types"].as_array().expect("a list");
        text(&types.iter().find(|found| found["name"] == name).expect(name)["id"])
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a string")).to_owned()
}

/// Caller without the admin role.
fn member(project: &str) -> Caller {
    Caller { user_id: Some("somebody".to_owned()), project_id: Some(project.to_owned()), is_admin: false }
}

/// View with one target, whose only type is private.
pub(in crate::api) fn view_with_a_restricted_type() -> View {
    let restricted = super::wire::tests::restricted_target();
    View { generation: 1, types_generation: 1, has_restricted_types: true, targets: vec![Arc::new(restricted)] }
}
