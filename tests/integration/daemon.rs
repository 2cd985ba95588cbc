//! The agent as a child process: started, listened to, asked, and killed when dropped.

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStderr};
use tokio::sync::watch;

use crate::http::{self, Answer};
use crate::place::Place;

/// How long anything may take before a test fails. Nothing that works takes near as long.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How soon to look again where only looking tells.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A running agent.
pub struct Daemon {
    child: Child,
    pid: u32,
    address: SocketAddr,
    log: watch::Receiver<String>,
    _directory: Arc<TempDir>,
}

impl Daemon {
    /// Starts the agent of a place and waits until it answers.
    pub async fn start(place: &Place) -> Self {
        Self::start_logging(place, "info").await
    }

    /// The same with another log filter.
    pub async fn start_logging(place: &Place, filter: &str) -> Self {
        let mut child = spawn(place, filter);
        let pid = child.id().expect("a process id");
        let mut log = follow(child.stderr.take().expect("piped"));
        let said_ready = in_time("its ready line", log.wait_for(|log| ready_line(log).is_some())).await.is_ok();
        let text = log.borrow().clone();
        assert!(said_ready, "the agent ended instead of getting ready:\n{text}");
        let (_, address) = ready_line(&text).and_then(|line| line.split_once("127.0.0.1:")).expect("its address");
        let port: String = address.chars().take_while(char::is_ascii_digit).collect();
        let port = port.parse().ok().filter(|port| *port != 0);
        let port: u16 = port.unwrap_or_else(|| panic!("the ready line names no port: {text}"));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Self { child, pid, address, log, _directory: place.directory() }
    }

    /// Starts an agent that must refuse to start, and gives what it says about why.
    pub async fn refuses_to_start(place: &Place) -> String {
        let output = in_time("its end", spawn(place, "info").wait_with_output()).await.expect("run");
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(!said.contains("ready"), "{said}");
        assert!(!said.contains("panicked"), "{said}");
        said
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Where it answers over TCP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        self.log.borrow().clone()
    }

    /// Waits until a line with this text was logged, and gives the line.
    pub async fn logged(&self, text: &str) -> String {
        let mut log = self.log.clone();
        let log = in_time(text, log.wait_for(|log| log.contains(text))).await.expect("the agent has ended").clone();
        log.lines().find(|line| line.contains(text)).expect("a whole line").to_owned()
    }

    /// Asks over TCP.
    pub async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.send(method, path, body.map(Value::to_string).unwrap_or_default().into()).await
    }

    /// Asks with any bytes for a body.
    pub async fn send(&self, method: &str, path: &str, body: Vec<u8>) -> Answer {
        in_time(path, http::over_tcp(self.address, http::request(method, path, body))).await
    }

    /// What is at a path, which must be there.
    pub async fn get(&self, path: &str) -> Value {
        let answer = self.ask("GET", path, None).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    /// All targets.
    pub async fn targets(&self) -> Vec<Value> {
        self.get("/backup_targets").await["backup_targets"].as_array().expect("a list").clone()
    }

    /// Asks for a target.
    pub async fn try_create(&self, target: Value) -> Answer {
        self.ask("POST", "/backup_targets", Some(&json!({ "backup_target": target }))).await
    }

    /// Creates a target and gives its id.
    pub async fn create(&self, target: Value) -> String {
        let answer = self.try_create(target).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["backup_targets"]["id"].as_str().expect("an id").to_owned()
    }

    /// One target.
    pub async fn show(&self, id: &str) -> Value {
        self.get(&format!("/backup_targets/{id}")).await["backup_targets"].clone()
    }

    /// The report of a probe that begins now.
    pub async fn check(&self, id: &str) -> Value {
        let answer = self.ask("POST", &format!("/backup_targets/{id}/check"), None).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// The report about an immutable target, once its lock was proved or found to be unprovable.
    pub async fn proved(&self, id: &str) -> Value {
        let path = format!("/backup_targets/{id}/checks");
        eventually("a verdict on the lock", async || {
            let report = self.get(&path).await;
            (!report["verdict"].is_null() && report["object_lock_proof"]["verdict"] != "pending").then_some(report)
        })
        .await
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.pid).expect("a process id")), signal).expect("signalled");
    }

    /// Sends a signal that is to end it, and waits for the end. Gives how, and how long it took.
    pub async fn end(&mut self, signal: Signal) -> (ExitStatus, Duration) {
        let since = Instant::now();
        self.signal(signal);
        let status = in_time("its end", self.child.wait()).await.expect("waited for");
        (status, since.elapsed())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the agent's log:\n{}", self.log());
        }
        // Until it has let go of its registry, which the next agent of its place needs.
        if self.child.start_kill().is_ok() && self.child.id().is_some() {
            let pid = Pid::from_raw(i32::try_from(self.pid).expect("a process id"));
            // Whom the runtime has for that reaps it.
            let _ = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        }
    }
}

/// Waits for something that must happen.
pub async fn in_time<T>(what: &str, event: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(PATIENCE, event).await;
    outcome.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

/// Looks until something is so.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    in_time(what, looking).await
}

fn spawn(place: &Place, filter: &str) -> Child {
    let config = place.config();
    place
        .command(&["serve", "--config", config.to_str().expect("text")])
        .env("TARGETWATCH_LOG", filter)
        .stdout(Stdio::null())
        .spawn()
        .expect("the agent starts")
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

fn ready_line(log: &str) -> Option<&str> {
    log.lines().find(|line| line.contains("INFO ready "))
}
