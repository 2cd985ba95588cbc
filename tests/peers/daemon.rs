//! The agent as a child process: started, listened to, asked, and killed when dropped.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStderr};
use tokio::sync::watch;

use crate::place::Place;

/// How long anything may take before a test fails. Nothing that works takes near as long.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How soon to look again where only looking tells.
pub const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A running agent.
pub struct Daemon {
    child: Child,
    socket: PathBuf,
    log: watch::Receiver<String>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
    pub took: Duration,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("JSON was expected ({error}): {self:?}"))
    }
}

impl Daemon {
    /// Starts the agent of a place and waits until it answers.
    pub async fn start(place: &Place) -> Self {
        Self::start_logging(place, "info").await
    }

    /// The same with another log filter.
    pub async fn start_logging(place: &Place, filter: &str) -> Self {
        let config = place.path("config.toml");
        let mut child = place
            .command(&["serve", "--config", config.to_str().expect("text")])
            .env("TARGETWATCH_LOG", filter)
            .stdout(Stdio::null())
            .spawn()
            .expect("the agent starts");
        let mut log = follow(child.stderr.take().expect("piped"));
        let said_ready = in_time("its ready line", log.wait_for(|log| log.contains("INFO ready "))).await.is_ok();
        assert!(said_ready, "the agent ended instead of getting ready:\n{}", *log.borrow());
        Self { child, socket: place.socket(), log }
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Tells it to stop, and gives how long that took.
    pub async fn terminate(&mut self) -> Duration {
        let began = Instant::now();
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("a process id"));
        kill(pid, Signal::SIGTERM).expect("signalled");
        let status = in_time("its end", self.child.wait()).await.expect("waited for");
        assert!(status.success(), "{status}");
        began.elapsed()
    }

    /// Kills it as it is (SIGKILL).
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("killed");
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        self.log.borrow().clone()
    }

    /// Asks.
    pub async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let began = Instant::now();
        let asking = async {
            let stream = UnixStream::connect(&self.socket).await.expect("connected");
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
            tokio::spawn(connection);
            let request = Request::builder().method(method).uri(path).header("host", "localhost");
            let body = Full::<bytes::Bytes>::from(body.map(Value::to_string).unwrap_or_default());
            let answer = sender.send_request(request.body(body).expect("a request")).await.expect("an answer");
            let (head, body) = answer.into_parts();
            (head.status.as_u16(), body.collect().await.expect("a whole body").to_bytes())
        };
        let (status, body) = in_time(path, asking).await;
        Answer { status, body: String::from_utf8(body.into()).expect("text"), took: began.elapsed() }
    }

    /// What is at a path, which must be there.
    pub async fn get(&self, path: &str) -> Value {
        let answer = self.ask("GET", path, None).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    /// Asks for a target.
    pub async fn try_create(&self, target: Value) -> Answer {
        self.ask("POST", "/backup_targets", Some(&json!({ "backup_target": target }))).await
    }

    /// Creates a target, about which nothing may be claimed yet, and gives its id.
    pub async fn create(&self, target: Value) -> String {
        created(&self.try_create(target).await)
    }

    /// Changes fields of a target, and gives what it is then.
    pub async fn modify(&self, id: &str, changes: Value) -> Value {
        let body = json!({ "backup_target": changes });
        let answer = self.ask("PUT", &format!("/backup_targets/{id}"), Some(&body)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["backup_targets"].clone()
    }

    /// Deletes a target.
    pub async fn delete(&self, id: &str) {
        let answer = self.ask("DELETE", &format!("/backup_targets/{id}"), None).await;
        assert_eq!(answer.status, 202, "{answer:?}");
    }

    /// One target.
    pub async fn show(&self, id: &str) -> Value {
        self.get(&format!("/backup_targets/{id}")).await["backup_targets"].clone()
    }

    /// Its latest report.
    pub async fn checks(&self, id: &str) -> Value {
        self.get(&format!("/backup_targets/{id}/checks")).await
    }

    /// The report of a probe that begins now.
    pub async fn check(&self, id: &str) -> Value {
        let answer = self.ask("POST", &format!("/backup_targets/{id}/check"), None).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// The report about an immutable target, once its lock was proved or found to be unprovable.
    pub async fn proved(&self, id: &str) -> Value {
        let is_over =
            |report: &Value| !report["verdict"].is_null() && report["object_lock_proof"]["verdict"] != "pending";
        self.finds(id, "a verdict on the lock", is_over).await
    }

    /// Waits until the agent itself has found something of a target, and gives the report.
    pub async fn finds(&self, id: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let mut latest = Value::Null;
        let looking = async {
            loop {
                latest = self.checks(id).await;
                if is_so(&latest) {
                    break;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, looking).await;
        assert!(found.is_ok(), "not within {PATIENCE:?}: {what}; the latest report is {latest:#}");
        latest
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the agent's log:\n{}", self.log());
        }
    }
}

/// The id of the target that was created.
pub fn created(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    let target = &answer.json()["backup_targets"];
    assert_eq!(target["status"], "offline", "before its first probe: {target:#}");
    assert!(target["capacity"].is_null() && target["used"].is_null(), "{target:#}");
    target["id"].as_str().expect("an id").to_owned()
}

/// Asserts that a report is of an available target without any reservation.
pub fn assert_healthy(report: &Value) {
    let found = (&report["status"], &report["verdict"], &report["reason"]);
    assert_eq!(found, (&json!("available"), &json!("available"), &Value::Null), "{report:#}");
}

/// Asserts that a report is of a target that is available with this warning.
pub fn assert_warning(report: &Value, reason: &str) {
    let found = (&report["status"], &report["verdict"], &report["reason"]);
    assert_eq!(found, (&json!("available"), &json!("available"), &json!(reason)), "{report:#}");
}

/// Asserts that a report is of a target that is offline for a definite reason, and gives the
/// sentence that says what to do.
pub fn assert_offline(report: &Value, reason: &str) -> String {
    let found = (&report["status"], &report["verdict"], &report["reason"]);
    assert_eq!(found, (&json!("offline"), &json!("failed"), &json!(reason)), "{report:#}");
    report["message"].as_str().expect("a sentence").to_owned()
}

/// A value that the agent or its owner noted about a target.
pub fn metadata<'a>(target: &'a Value, key: &str) -> Option<&'a str> {
    let entries = target["backup_target_metadata"].as_array().expect("a list");
    entries.iter().find(|entry| entry["key"] == key).and_then(|entry| entry["value"].as_str())
}

/// One check of a report.
pub fn check_named<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().expect("a list");
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name}: {report:#}"))
}

/// Waits for something that must happen.
pub async fn in_time<T>(what: &str, event: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(PATIENCE, event).await;
    outcome.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

/// Reads the log until the agent ends; then no more is to come, and waiting for it fails.
fn follow(stderr: ChildStderr) -> watch::Receiver<String> {
    let (sender, log) = watch::channel(String::new());
    tokio::spawn(async move {
        let mut lines = BufReader::new(stderr).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            sender.send_modify(|log| {
                log.push_str(&line);
                log.push('\n');
            });
        }
    });
    log
}
