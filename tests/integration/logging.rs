//! Logging: an unread standard error, and the ids that log lines carry.

use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::net::unix::pipe::Receiver;
use tokio::process::Child;

use crate::daemon::{Daemon, eventually, with_timeout};
use crate::http::{self, Answer, over_unix};
use crate::storage::{nfs, nfs_target};
use crate::workspace::Workspace;

/// Upper bound of the time from SIGTERM to the exit.
const ENDED: Duration = Duration::from_secs(2);

/// Capacity of the pipe, in bytes: the smallest that Linux gives (pipe(7)).
const PIPE_BYTES: i32 = 4096;

/// A daemon whose standard error is a pipe that is read only when the test does.
struct UnreadDaemon<'a> {
    workspace: &'a Workspace,
    child: Child,
    stderr: OwnedFd,
}

impl<'a> UnreadDaemon<'a> {
    async fn start(workspace: &'a Workspace) -> Self {
        let (reader, writer) = pipe().expect("a pipe");
        fcntl(writer.as_fd(), FcntlArg::F_SETPIPE_SZ(PIPE_BYTES)).expect("its capacity");
        let config = workspace.config();
        let mut command = workspace.command(&["serve", "--config", config.to_str().expect("text")]);
        let child = command.stdout(Stdio::null()).stderr(writer).spawn().expect("the agent starts");
        // The command holds the writing end until it is dropped.
        drop(command);
        let daemon = Self { workspace, child, stderr: reader };
        let socket = workspace.path("api.sock");
        eventually("its socket", async || tokio::net::UnixStream::connect(&socket).await.ok()).await;
        daemon
    }

    async fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = http::request(method, path, body.into());
        with_timeout(path, over_unix(&self.workspace.path("api.sock"), request)).await
    }

    async fn create(&self, path: &str) -> String {
        let answer = self.request("POST", "/backup_targets", Some(&json!({ "backup_target": nfs_target(path) }))).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["backup_targets"]["id"].as_str().expect("an id").to_owned()
    }

    async fn lines_dropped(&self) -> u64 {
        let node = self.request("GET", "/node", None).await.json();
        node["agent"]["log_lines_dropped"].as_u64().expect("a count")
    }

    /// Begins to read what it logs.
    fn read_stderr(&self) -> Log {
        let stderr = self.stderr.try_clone().expect("a descriptor");
        BufReader::new(Receiver::from_owned_fd(stderr).expect("a pipe")).lines()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().expect("running").try_into().expect("a process id"));
        kill(pid, signal).expect("sent");
    }

    async fn stop(&mut self) {
        let since = Instant::now();
        self.signal(Signal::SIGTERM);
        let status = with_timeout("its end", self.child.wait()).await.expect("waited for");
        assert!(status.success(), "{status}");
        assert!(since.elapsed() < ENDED, "{:?}", since.elapsed());
    }
}

#[tokio::test]
async fn daemon_answers_probes_and_stops_when_stderr_is_not_read() {
    let (_server, workspace) = nfs().await;
    let mut daemon = UnreadDaemon::start(&workspace).await;
    for number in 0..300 {
        daemon.create(&format!("/none/{number}")).await;
    }
    let id = daemon.create("/backups").await;
    let report = daemon.request("POST", &format!("/backup_targets/{id}/check"), None).await;
    assert_eq!(report.json()["status"], "available", "{report:?}");
    assert_eq!(daemon.lines_dropped().await, 0, "the queue holds that many");
    daemon.stop().await;
}

#[tokio::test]
async fn dropped_log_lines_are_counted_and_reported_when_stderr_is_read_again() {
    let (_server, workspace) = nfs().await;
    // All but one of these are refused at each reload, since they give their types the same name.
    let declare =
        |number| format!("[[target]]\ntype = \"nfs\"\nfilesystem_export = \"h:/{number}\"\nbtt_name = \"same\"\n");
    let declared = (0..500).map(declare);
    workspace.configure(&declared.collect::<String>());
    let mut daemon = UnreadDaemon::start(&workspace).await;
    let dropped = eventually("dropped lines", async || {
        daemon.signal(Signal::SIGHUP);
        Some(daemon.lines_dropped().await).filter(|dropped| *dropped > 0)
    })
    .await;
    assert!(dropped > 0);
    let mut lines = daemon.read_stderr();
    let report = "log lines were dropped because standard error was not read";
    let line = with_timeout("a report", next_line_with(&mut lines, report)).await;
    assert!(line.contains("WARN"), "{line}");
    let (_, line) = tokio::join!(daemon.stop(), with_timeout("a later line", next_line_with(&mut lines, "stopping")));
    assert!(line.contains("INFO"), "{line}");
}

#[tokio::test]
async fn log_lines_carry_the_ids_of_their_request_and_target() {
    let (_server, workspace) = nfs().await;
    let daemon = Daemon::start(&workspace).await;
    let id = daemon.create(nfs_target("/backups")).await;
    daemon.check(&id).await;
    let line = daemon.wait_for_log(": available reason=").await;
    assert!(line.contains(&format!(r#"target{{target_id={id} export="127.0.0.1:/backups"}}: "#)), "{line}");
    assert!(!line.contains("request_id"), "a target outlives its request: {line}");
    let new_type = json!({ "backup_target_type": { "name": "gold", "backup_targets_id": id } });
    let answer = daemon.request("POST", "/backup_target_types", Some(&new_type)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let line = daemon.wait_for_log("created a type").await;
    let request_id = answer.header("x-compute-request-id");
    assert!(line.contains(&format!("request{{request_id={request_id}}}: ")), "{line}");
}

type Log = Lines<BufReader<Receiver>>;

async fn next_line_with(log: &mut Log, text: &str) -> String {
    loop {
        let line = log.next_line().await.expect("read").expect("not the end");
        if line.contains(text) {
            return line;
        }
    }
}
