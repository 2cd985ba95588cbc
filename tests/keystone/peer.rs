//! A running Keystone, its projects and users, and an agent that authenticates with it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ::http::Request;
use bytes::Bytes;
use http_body_util::Full;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::daemon::{Daemon, with_timeout};
use crate::http::{Answer, over_tcp};
use crate::workspace::Workspace;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/keystone");

/// A Keystone that runs until it is dropped.
pub struct Keystone {
    directory: TempDir,
    facts: HashMap<String, String>,
    address: SocketAddr,
    admin: String,
}

impl Keystone {
    /// Starts one.
    pub async fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("twks").tempdir().expect("a directory");
        run("start", &directory.path().join("k"));
        let text = std::fs::read_to_string(directory.path().join("k/env")).expect("a Keystone that serves");
        let facts: HashMap<String, String> = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let address = facts["URL"].strip_prefix("http://").expect("a URL").parse().expect("an address");
        let mut keystone = Self { directory, facts, address, admin: String::new() };
        keystone.admin = keystone.token("admin", &keystone.facts["ADMIN_PASSWORD"], Some("admin")).await;
        keystone
    }

    /// A value of its `env` file.
    pub fn fact(&self, name: &str) -> &str {
        &self.facts[name]
    }

    /// Runs a command of the script: halt, restart, pause, or resume.
    pub fn control(&self, command: &str) {
        run(command, &self.path());
    }

    /// Restarts it with this lifetime of tokens.
    pub fn restart_with_token_lifetime(&self, seconds: u32) {
        self.control("halt");
        let path = self.path().join("keystone.conf");
        let text = std::fs::read_to_string(&path).expect("a configuration");
        let shorter = text.replace("expiration = 3600", &format!("expiration = {seconds}"));
        assert_ne!(shorter, text);
        std::fs::write(&path, shorter).expect("written");
        self.control("restart");
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Number of requests so far whose method and path begin with this text.
    pub fn count_requests(&self, beginning: &str) -> usize {
        let log = std::fs::read_to_string(self.path().join("requests.log")).expect("its log");
        log.lines().filter(|line| line.starts_with(beginning)).count()
    }

    /// The directory of the script.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("k")
    }

    async fn call(&self, method: &str, path: &str, token: &str, subject: Option<&str>, body: &Value) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("/v3{path}")).header("host", "localhost");
        request = request.header("content-type", "application/json").header("connection", "close");
        if !token.is_empty() {
            request = request.header("x-auth-token", token);
        }
        if let Some(subject) = subject {
            request = request.header("x-subject-token", subject);
        }
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request: Request<Full<Bytes>> = request.body(Full::from(body)).expect("a request");
        with_timeout(path, over_tcp(self.address, request)).await
    }

    /// Sends a request as the admin.
    pub async fn as_admin(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.call(method, path, &self.admin, None, body).await
    }

    /// Id of the user of a token.
    pub async fn user_of(&self, token: &str) -> String {
        let facts = self.call("GET", "/auth/tokens", &self.admin, Some(token), &Value::Null).await.json();
        facts["token"]["user"]["id"].as_str().expect("an id").to_owned()
    }

    /// A new token of the admin, for its own project.
    pub async fn admin_token(&self) -> String {
        self.token("admin", self.fact("ADMIN_PASSWORD"), Some("admin")).await
    }

    /// A token of a user for a project, or for none.
    pub async fn token(&self, user: &str, password: &str, project: Option<&str>) -> String {
        let domain = json!({ "id": "default" });
        let mut auth = json!({ "identity": { "methods": ["password"], "password": { "user": {
            "name": user, "domain": domain, "password": password } } } });
        if let Some(project) = project {
            auth["scope"] = json!({ "project": { "name": project, "domain": domain } });
        }
        let answer = self.call("POST", "/auth/tokens", "", None, &json!({ "auth": auth })).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.header("x-subject-token").to_owned()
    }

    /// Id of the admin's project.
    pub async fn admin_project(&self) -> String {
        let facts = self.call("GET", "/auth/tokens", &self.admin, Some(&self.admin), &Value::Null).await.json();
        facts["token"]["project"]["id"].as_str().expect("an id").to_owned()
    }

    /// Creates a project and a member with the same name and password. Returns the id of the project.
    pub async fn member_of(&self, project: &str) -> String {
        let create = async |path: &str, body: Value| {
            let answer = self.call("POST", path, &self.admin, None, &body).await;
            assert_eq!(answer.status, 201, "{answer:?}");
            answer.json().as_object().expect("an object").values().next().expect("one")["id"]
                .as_str()
                .expect("an id")
                .to_owned()
        };
        let id = create("/projects", json!({ "project": { "name": project, "domain_id": "default" } })).await;
        let user = json!({ "user": { "name": project, "domain_id": "default", "password": project } });
        let user = create("/users", user).await;
        let roles = self.call("GET", "/roles?name=member", &self.admin, None, &Value::Null).await.json();
        let role = roles["roles"][0]["id"].as_str().expect("the role member").to_owned();
        let path = format!("/projects/{id}/users/{user}/roles/{role}");
        assert_eq!(self.call("PUT", &path, &self.admin, None, &Value::Null).await.status, 204);
        id
    }

    /// Creates a role, and assigns it to a user in the project of the same name.
    pub async fn give_role(&self, role: &str, user: &str) {
        let created = self.call("POST", "/roles", &self.admin, None, &json!({ "role": { "name": role } })).await;
        assert_eq!(created.status, 201, "{created:?}");
        let role = created.json()["role"]["id"].as_str().expect("an id").to_owned();
        let token = self.token(user, user, Some(user)).await;
        let facts = self.call("GET", "/auth/tokens", &self.admin, Some(&token), &Value::Null).await.json();
        let id = |of: &str| facts["token"][of]["id"].as_str().expect("an id").to_owned();
        let path = format!("/projects/{}/users/{}/roles/{role}", id("project"), id("user"));
        assert_eq!(self.call("PUT", &path, &self.admin, None, &Value::Null).await.status, 204);
    }

    /// A new application credential of the agent's user: its id and secret.
    pub async fn application_credential(&self) -> (String, String) {
        let (user, password) = (self.fact("SERVICE_USER"), self.fact("SERVICE_PASSWORD"));
        let token = self.token(user, password, Some(self.fact("SERVICE_PROJECT"))).await;
        self.new_application_credential(&token, &Value::Null).await
    }

    /// A token of a new application credential with these access rules, of the owner of a token.
    pub async fn restricted_token(&self, owner: &str, access_rules: &Value) -> String {
        let (id, secret) = self.new_application_credential(owner, access_rules).await;
        let auth = json!({ "identity": { "methods": ["application_credential"],
            "application_credential": { "id": id, "secret": secret } } });
        let answer = self.call("POST", "/auth/tokens", "", None, &json!({ "auth": auth })).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.header("x-subject-token").to_owned()
    }

    async fn new_application_credential(&self, token: &str, access_rules: &Value) -> (String, String) {
        let facts = self.call("GET", "/auth/tokens", &self.admin, Some(token), &Value::Null).await.json();
        let path = format!("/users/{}/application_credentials", facts["token"]["user"]["id"].as_str().expect("an id"));
        let mut body = json!({ "application_credential": { "name": "agent" } });
        if !access_rules.is_null() {
            body["application_credential"]["access_rules"] = access_rules.clone();
        }
        let answer = self.call("POST", &path, token, None, &body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let credential = answer.json()["application_credential"].clone();
        let text = |name: &str| credential[name].as_str().expect("a text").to_owned();
        (text("id"), text("secret"))
    }

    /// Whether Keystone rejects a token.
    pub async fn rejects(&self, token: &str) -> bool {
        self.call("GET", "/auth/projects", token, None, &Value::Null).await.status == 401
    }

    /// Revokes a token.
    pub async fn revoke(&self, token: &str) {
        let answer = self.call("DELETE", "/auth/tokens", &self.admin, Some(token), &Value::Null).await;
        assert_eq!(answer.status, 204, "{answer:?}");
    }

    /// A workspace whose agent uses this Keystone, with more keys of `[api.keystone]`.
    pub fn workspace(&self, more: &str) -> Workspace {
        self.workspace_with(|workspace| {
            workspace.write("password", self.fact("SERVICE_PASSWORD"));
            format!(
                "username = {:?}\nproject = {:?}\npassword_file = {:?}\n{more}",
                self.fact("SERVICE_USER"),
                self.fact("SERVICE_PROJECT"),
                workspace.path("password"),
            )
        })
    }

    /// A workspace whose agent uses this Keystone, with its login in these keys of `[api.keystone]`.
    pub fn workspace_with(&self, keys: impl Fn(&Workspace) -> String) -> Workspace {
        let workspace = Workspace::new();
        let (url, keys) = (self.fact("URL"), keys(&workspace));
        workspace.configure(&format!("[api]\nauth = \"keystone\"\n[api.keystone]\nurl = {url:?}\n{keys}"));
        workspace
    }
}

impl Drop for Keystone {
    fn drop(&mut self) {
        run("stop", &self.path());
    }
}

fn run(command: &str, directory: &Path) {
    let status = Command::new(SCRIPT)
        .arg(command)
        .arg(directory)
        .stdin(Stdio::null())
        .status()
        .expect("tests/peers/keystone runs");
    assert!(status.success(), "tests/peers/keystone {command}: {status}");
}

/// Sends a request to an agent, with a token unless it is empty, and with other headers.
pub async fn request(daemon: &Daemon, method: &str, path: &str, token: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
    if !token.is_empty() {
        request = request.header("x-auth-token", token);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = json!({ "backup_target": { "type": "nfs", "filesystem_export": "127.0.0.1:/x" } });
    let body = if method == "POST" { body.to_string() } else { String::new() };
    with_timeout(path, over_tcp(daemon.address(), request.body(Full::from(body)).expect("a request"))).await
}

/// The status of the answer to a GET of the targets.
pub async fn status(daemon: &Daemon, token: &str) -> u16 {
    request(daemon, "GET", "/backup_targets", token, &[]).await.status
}
