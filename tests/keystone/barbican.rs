//! A running Barbican beside a Keystone, and an agent that reads its secrets.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use ::http::Request;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::daemon::with_timeout;
use crate::http::{Answer, over_tcp};
use crate::peer::Keystone;
use crate::workspace::Workspace;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/barbican");

/// User of the agent and its project. The password is the name.
const AGENT: &str = "agent";

/// A Barbican that runs until it is dropped, in Keystone's catalog.
pub struct Barbican {
    directory: TempDir,
    address: SocketAddr,
    admin: String,
    /// Id of the agent's user.
    agent: String,
}

impl Barbican {
    /// Starts one, and creates the agent's user, a member of a project of its own.
    pub async fn start(keystone: &Keystone) -> Self {
        let directory = tempfile::Builder::new().prefix("twbb").tempdir().expect("a directory");
        let path = directory.path().join("b");
        run(&["start".as_ref(), path.as_os_str(), keystone.path().as_os_str()]);
        let text = std::fs::read_to_string(path.join("env")).expect("a Barbican that serves");
        let url = text.trim().strip_prefix("URL=").expect("a URL").to_owned();
        let address = url.strip_prefix("http://").expect("a URL").parse().expect("an address");
        let service = json!({ "service": { "type": "key-manager", "name": "barbican" } });
        let service = keystone.as_admin("POST", "/services", &service).await.json()["service"]["id"].clone();
        let endpoint = json!({ "endpoint": {
            "service_id": service, "interface": "public", "region_id": "one", "url": url } });
        let answer = keystone.as_admin("POST", "/endpoints", &endpoint).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        keystone.member_of(AGENT).await;
        let agent = keystone.user_of(&Self::agent_token(keystone).await).await;
        Self { directory, address, admin: keystone.admin_token().await, agent }
    }

    /// Runs a command of the script: halt, restart, pause, or resume.
    pub fn control(&self, command: &str) {
        run(&[command.as_ref(), self.path().as_os_str()]);
    }

    /// Exchanges the payloads of two secrets.
    pub fn swap(&self, one: &str, other: &str) {
        let id = |reference: &str| reference.rsplit('/').next().expect("an id").to_owned();
        run(&["swap".as_ref(), self.path().as_os_str(), id(one).as_ref(), id(other).as_ref()]);
    }

    /// The URL of a secret that does not exist.
    pub fn unknown_reference(&self) -> String {
        format!("http://{}/v1/secrets/5f8c2c9e-52f3-4a0b-9f6b-0f5f1f6c9a11", self.address)
    }

    /// Number of requests so far.
    pub fn requests(&self) -> usize {
        std::fs::read_to_string(self.path().join("requests.log")).expect("its log").lines().count()
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("b")
    }

    async fn call(&self, method: &str, path: &str, token: &str, body: &Value) -> Answer {
        let request = Request::builder().method(method).uri(path).header("host", self.address.to_string());
        let request = request.header("content-type", "application/json").header("connection", "close");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request: Request<Full<Bytes>> =
            request.header("x-auth-token", token).body(Full::from(body)).expect("a request");
        with_timeout(path, over_tcp(self.address, request)).await
    }

    async fn create(&self, token: &str, body: Value) -> String {
        let answer = self.call("POST", "/v1/secrets", token, &body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["secret_ref"].as_str().expect("a reference").to_owned()
    }

    /// Stores text as the admin, and lets the agent read it. Returns the reference.
    pub async fn store(&self, payload: &str) -> String {
        let body = json!({ "payload": payload, "payload_content_type": "text/plain" });
        let reference = self.create(&self.admin, body).await;
        self.set_readers(&reference, &[&self.agent]).await;
        reference
    }

    /// Stores bytes in the project of the agent, whose members may read them.
    pub async fn store_in_project_of_agent(&self, keystone: &Keystone, payload: &str) -> String {
        let body = json!({ "payload": STANDARD.encode(payload), "payload_content_type": "application/octet-stream",
            "payload_content_encoding": "base64" });
        self.create(&Self::agent_token(keystone).await, body).await
    }

    /// Creates a secret without a payload.
    pub async fn store_nothing(&self) -> String {
        let reference = self.create(&self.admin, json!({ "name": "nothing" })).await;
        self.set_readers(&reference, &[&self.agent]).await;
        reference
    }

    /// Sets whether the agent may read a secret of the admin.
    pub async fn permit(&self, reference: &str, is_permitted: bool) {
        let readers = [self.agent.as_str()];
        self.set_readers(reference, if is_permitted { &readers } else { &[] }).await;
    }

    async fn set_readers(&self, reference: &str, users: &[&str]) {
        let path = format!("{}/acl", path_of(reference));
        let answer = self.call("PUT", &path, &self.admin, &json!({ "read": { "users": users } })).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// Deletes a secret of the admin.
    pub async fn delete(&self, reference: &str) {
        let answer = self.call("DELETE", path_of(reference), &self.admin, &Value::Null).await;
        assert_eq!(answer.status, 204, "{answer:?}");
    }

    async fn agent_token(keystone: &Keystone) -> String {
        keystone.token(AGENT, AGENT, Some(AGENT)).await
    }

    /// Changes the password of the agent, which revokes its tokens.
    pub async fn change_agent_password(&self, keystone: &Keystone, password: &str) {
        let body = json!({ "user": { "password": password } });
        let answer = keystone.as_admin("PATCH", &format!("/users/{}", self.agent), &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// A workspace whose agent has no other credentials, with more keys of `[key_manager]`.
    pub fn workspace(&self, keystone: &Keystone, more: &str) -> Workspace {
        let workspace = Workspace::new();
        let text = workspace.config_text();
        let kept: Vec<&str> = text.lines().filter(|line| !line.contains("_file = ")).collect();
        workspace.write_config(&kept.join("\n"));
        let (url, password) = (keystone.fact("URL"), workspace.write("password", AGENT));
        workspace.configure(&format!(
            "[api.keystone]\nurl = {url:?}\nusername = {AGENT:?}\nproject = {AGENT:?}\npassword_file = {password:?}\n\
             [key_manager]\nenabled = true\n{more}"
        ));
        workspace
    }
}

impl Drop for Barbican {
    fn drop(&mut self) {
        run(&["stop".as_ref(), self.path().as_os_str()]);
    }
}

/// The path of a secret.
fn path_of(reference: &str) -> &str {
    &reference[reference.find("/v1/").expect("a reference")..]
}

fn run(arguments: &[&std::ffi::OsStr]) {
    let status = Command::new(SCRIPT).args(arguments).stdin(Stdio::null()).status().expect("tests/peers/barbican runs");
    assert!(status.success(), "tests/peers/barbican {arguments:?}: {status}");
}
