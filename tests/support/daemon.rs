//! The agent as a child process: started, queried over its API, and killed when dropped.

use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStderr};
use tokio::sync::watch;

use crate::http::{self, Answer};
use crate::workspace::Workspace;

/// Time limit of every wait. A passing test needs much less.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// Polling interval, where no event announces a change.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Capacity of an unread standard error in bytes: the smallest pipe that Linux provides (pipe(7)).
const UNREAD_PIPE_BYTES: i32 = 4096;

/// The command that runs an agent.
const SERVE: &str = "serve";

/// The command that runs an aggregator.
const AGGREGATE: &str = "aggregate";

/// A running agent.
pub struct Daemon {
    child: Child,
    pid: u32,
    /// Its TCP address, which it logs. An agent whose log is not read is queried over its socket.
    address: Option<SocketAddr>,
    socket: PathBuf,
    log: watch::Receiver<String>,
    is_log_read: watch::Sender<bool>,
    _directory: Arc<TempDir>,
}

impl Daemon {
    /// Starts the agent of a workspace, and waits until it is ready.
    pub async fn start(workspace: &Workspace) -> Self {
        Self::start_logging(workspace, "info").await
    }

    /// The same with another log filter, which must let the ready line pass.
    pub async fn start_logging(workspace: &Workspace, filter: &str) -> Self {
        Self::start_as(SERVE, workspace, filter).await
    }

    /// Starts an aggregator with the configuration of a workspace, and waits until it is ready.
    pub async fn start_aggregator(workspace: &Workspace) -> Self {
        Self::start_as(AGGREGATE, workspace, "info").await
    }

    async fn start_as(command: &str, workspace: &Workspace, filter: &str) -> Self {
        let mut daemon = Self::spawn(command, workspace, filter, true);
        let waiting = daemon.log.wait_for(|log| ready_line(log).is_some());
        let is_ready = with_timeout("the ready line", waiting).await.is_ok();
        let text = daemon.log();
        assert!(is_ready, "the agent ended before it was ready:\n{text}");
        let (_, address) = ready_line(&text).and_then(|line| line.split_once("127.0.0.1:")).expect("its address");
        let port: String = address.chars().take_while(char::is_ascii_digit).collect();
        let port = port.parse().ok().filter(|port| *port != 0);
        let port: u16 = port.unwrap_or_else(|| panic!("no port in the ready line: {text}"));
        daemon.address = Some(SocketAddr::from(([127, 0, 0, 1], port)));
        daemon
    }

    /// Starts an agent whose standard error is a small pipe that nothing reads until [`Daemon::read_log`], and
    /// waits for its socket.
    pub async fn start_unread(workspace: &Workspace) -> Self {
        let daemon = Self::spawn(SERVE, workspace, "info", false);
        eventually("its socket", async || UnixStream::connect(&daemon.socket).await.ok()).await;
        daemon
    }

    /// Starts an agent and creates a target, whose id is returned.
    pub async fn with_target(workspace: &Workspace, target: Value) -> (Self, String) {
        let daemon = Self::start(workspace).await;
        let id = daemon.create(target).await;
        (daemon, id)
    }

    fn spawn(command: &str, workspace: &Workspace, filter: &str, is_log_read: bool) -> Self {
        let mut child = spawn(command, workspace, filter);
        let pid = child.id().expect("a process id");
        let stderr = child.stderr.take().expect("piped");
        if !is_log_read {
            fcntl(stderr.as_fd(), FcntlArg::F_SETPIPE_SZ(UNREAD_PIPE_BYTES)).expect("its capacity");
        }
        let (is_log_read, reading) = watch::channel(is_log_read);
        let log = follow(stderr, reading);
        let (socket, _directory) = (workspace.path("api.sock"), workspace.directory());
        Self { child, pid, address: None, socket, log, is_log_read, _directory }
    }

    /// Begins to read the log of an agent that was started unread.
    pub fn read_log(&self) {
        self.is_log_read.send_replace(true);
    }

    /// Starts an agent that must refuse to start, and returns what it printed to standard error.
    pub async fn fails_to_start(workspace: &Workspace) -> String {
        Self::fails_to_start_as(SERVE, workspace).await
    }

    /// The same with an aggregator.
    pub async fn aggregator_fails_to_start(workspace: &Workspace) -> String {
        Self::fails_to_start_as(AGGREGATE, workspace).await
    }

    async fn fails_to_start_as(command: &str, workspace: &Workspace) -> String {
        let output = with_timeout("its exit", spawn(command, workspace, "info").wait_with_output()).await.expect("run");
        let stderr = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(!stderr.contains("ready"), "{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        stderr
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The TCP address of its API.
    pub fn address(&self) -> SocketAddr {
        self.address.expect("its log was read")
    }

    /// The log so far.
    pub fn log(&self) -> String {
        self.log.borrow().clone()
    }

    /// Waits for a log line that contains a text, and returns the line.
    pub async fn wait_for_log(&self, text: &str) -> String {
        let mut log = self.log.clone();
        let log = with_timeout(text, log.wait_for(|log| log.contains(text))).await.expect("the agent ended").clone();
        log.lines().find(|line| line.contains(text)).expect("a whole line").to_owned()
    }

    /// Sends a request over TCP, or over the socket if the address is not known.
    pub async fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.request_with_bytes(method, path, body.map(Value::to_string).unwrap_or_default().into()).await
    }

    /// The same with any bytes as the body.
    pub async fn request_with_bytes(&self, method: &str, path: &str, body: Vec<u8>) -> Answer {
        let request = http::request(method, path, body);
        let exchange = async {
            match self.address {
                Some(address) => http::over_tcp(address, request).await,
                None => http::over_unix(&self.socket, request).await,
            }
        };
        with_timeout(path, exchange).await
    }

    /// Gets a path, which must exist.
    pub async fn get(&self, path: &str) -> Value {
        let answer = self.request("GET", path, None).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    /// Lists all targets.
    pub async fn targets(&self) -> Vec<Value> {
        self.get("/backup_targets").await["backup_targets"].as_array().expect("a list").clone()
    }

    /// Requests the creation of a target.
    pub async fn try_create(&self, target: Value) -> Answer {
        self.request("POST", "/backup_targets", Some(&json!({ "backup_target": target }))).await
    }

    /// Creates a target, and returns its id.
    pub async fn create(&self, target: Value) -> String {
        created(&self.try_create(target).await)
    }

    /// Changes fields of a target, and returns the target.
    pub async fn modify(&self, id: &str, changes: Value) -> Value {
        let body = json!({ "backup_target": changes });
        let answer = self.request("PUT", &format!("/backup_targets/{id}"), Some(&body)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["backup_targets"].clone()
    }

    /// Makes a target the default, and returns the answer.
    pub async fn set_default(&self, id: &str) -> Value {
        self.get(&format!("/backup_targets/{id}/set_default")).await
    }

    /// Deletes a target.
    pub async fn delete(&self, id: &str) {
        let answer = self.request("DELETE", &format!("/backup_targets/{id}"), None).await;
        assert_eq!(answer.status, 202, "{answer:?}");
    }

    /// Shows a target.
    pub async fn show(&self, id: &str) -> Value {
        self.get(&format!("/backup_targets/{id}")).await["backup_targets"].clone()
    }

    /// The latest report of a target.
    pub async fn report(&self, id: &str) -> Value {
        self.get(&format!("/backup_targets/{id}/checks")).await
    }

    /// Probes a target now, and returns the report.
    pub async fn check(&self, id: &str) -> Value {
        let answer = self.request("POST", &format!("/backup_targets/{id}/check"), None).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Waits for a report that meets a condition, without requesting a probe.
    pub async fn wait_for_report(&self, id: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let mut latest = Value::Null;
        let polling = async {
            loop {
                latest = self.report(id).await;
                if condition(&latest) {
                    break;
                }
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        };
        let found = tokio::time::timeout(TIMEOUT, polling).await;
        assert!(found.is_ok(), "not within {TIMEOUT:?}: {what}; the latest report is {latest:#}");
        latest
    }

    /// Waits until the lock proof of an immutable target is no longer pending, and returns the report.
    pub async fn wait_for_lock_proof(&self, id: &str) -> Value {
        let is_complete =
            |report: &Value| !report["verdict"].is_null() && report["object_lock_proof"]["verdict"] != "pending";
        self.wait_for_report(id, "the lock proof", is_complete).await
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.pid).expect("a process id")), signal).expect("signalled");
    }

    /// Sends it a signal that ends it. Returns its exit status, and how long it took to end.
    pub async fn end(&mut self, signal: Signal) -> (ExitStatus, Duration) {
        let began = Instant::now();
        self.signal(signal);
        let status = with_timeout("its exit", self.child.wait()).await.expect("waited for");
        (status, began.elapsed())
    }

    /// Stops it as a service manager does (SIGTERM). It must end with success. Returns how long it took.
    pub async fn stop(&mut self) -> Duration {
        let (status, took) = self.end(Signal::SIGTERM).await;
        assert!(status.success(), "{status}");
        took
    }

    /// Kills it (SIGKILL).
    pub async fn kill(&mut self) {
        self.end(Signal::SIGKILL).await;
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the agent's log:\n{}", self.log());
        }
        // Waits until its lock on the registry is released, which the next agent of the workspace needs.
        if self.child.start_kill().is_ok() && self.child.id().is_some() {
            let pid = Pid::from_raw(i32::try_from(self.pid).expect("a process id"));
            // The tokio runtime reaps the child.
            let _ = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        }
    }
}

/// The id of a created target, which must be offline and without figures before its first probe.
pub fn created(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    let target = &answer.json()["backup_targets"];
    assert_eq!(target["status"], "offline", "before its first probe: {target:#}");
    assert!(target["capacity"].is_null() && target["used"].is_null(), "{target:#}");
    target["id"].as_str().expect("an id").to_owned()
}

/// Waits for an event that must happen.
pub async fn with_timeout<T>(what: &str, event: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(TIMEOUT, event).await;
    outcome.unwrap_or_else(|_| panic!("not within {TIMEOUT:?}: {what}"))
}

/// Polls until there is a result.
pub async fn eventually<T>(what: &str, mut poll: impl AsyncFnMut() -> Option<T>) -> T {
    let polling = async {
        loop {
            if let Some(found) = poll().await {
                return found;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    with_timeout(what, polling).await
}

fn spawn(command: &str, workspace: &Workspace, filter: &str) -> Child {
    let config = workspace.config();
    workspace
        .command(&[command, "--config", config.to_str().expect("text")])
        .env("TARGETWATCH_LOG", filter)
        .stdout(Stdio::null())
        .spawn()
        .expect("the agent starts")
}

/// Collects the log once it may be read. The channel closes when the agent ends, so that a wait for more fails at once.
fn follow(stderr: ChildStderr, mut is_log_read: watch::Receiver<bool>) -> watch::Receiver<String> {
    let (sender, log) = watch::channel(String::new());
    tokio::spawn(async move {
        // An error means that the test ended.
        let Ok(_) = is_log_read.wait_for(|is_read| *is_read).await else { return };
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

fn ready_line(log: &str) -> Option<&str> {
    log.lines().find(|line| line.contains("INFO ready "))
}
