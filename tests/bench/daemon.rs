//! The measured daemon: the binary of the bench profile, with its own configuration and registry.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use targetwatch::api::wire;
use tempfile::TempDir;
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};
use tokio::time::{interval, timeout};

use crate::http;

/// Default probe interval of the daemon.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);

/// A probe interval at which a target that times out is probed almost without a pause.
pub const SHORT_INTERVAL: Duration = Duration::from_secs(2);

/// Time limit of the daemon's start and stop.
const START_STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Time limit of the first round of probes.
const FIRST_ROUND_TIMEOUT: Duration = Duration::from_secs(30);

/// Polling interval until that round is complete.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Configuration and registry of a daemon, which outlive it.
pub struct Workspace {
    /// On the disk of the build. /tmp may be memory, and the cost of a durable registry is part of the measurement.
    directory: TempDir,
    /// Receives the daemon's notification that it is ready. Its path must be short, so it is in /tmp.
    notifications: UnixDatagram,
    notification_socket: PathBuf,
    _notification_directory: TempDir,
    address: SocketAddr,
}

impl Workspace {
    /// Creates a workspace with these settings in addition to addresses and paths.
    pub fn new(settings: &str) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let notification_directory = tempfile::tempdir()?;
        let notification_socket = notification_directory.path().join("notify");
        let notifications = UnixDatagram::bind(&notification_socket)?;
        let address = http::free_address()?;
        let configuration = format!(
            r#"
            [api]
            listen = ["{address}"]
            [registry]
            url = "sqlite://{directory}/registry.db"
            [mounts]
            root = "{directory}/mounts"
            mode = "none"
            {settings}"#,
            directory = directory.path().display(),
        );
        std::fs::write(directory.path().join("config.toml"), configuration)?;
        Ok(Self {
            directory,
            notifications,
            notification_socket,
            _notification_directory: notification_directory,
            address,
        })
    }

    /// Sets the authentication mode, and adds more settings.
    pub fn with_auth(self, mode: &str, more: &str) -> anyhow::Result<Self> {
        let path = self.directory.path().join("config.toml");
        let text = std::fs::read_to_string(&path)?.replacen("[api]", &format!("[api]\nauth = {mode:?}"), 1);
        std::fs::write(path, format!("{text}\n{more}"))?;
        Ok(self)
    }
}

/// A running daemon, killed when it is dropped.
pub struct Daemon {
    child: Child,
    /// Process id.
    pub pid: i32,
    /// Address of the API.
    pub address: SocketAddr,
}

impl Daemon {
    /// Starts the daemon, and waits until it is ready.
    pub async fn start(workspace: &Workspace) -> anyhow::Result<Self> {
        Self::start_role("serve", workspace).await
    }

    /// Starts the daemon in a role, which is a subcommand, and waits until it is ready.
    pub async fn start_role(role: &str, workspace: &Workspace) -> anyhow::Result<Self> {
        let child = Command::new(env!("CARGO_BIN_EXE_targetwatch"))
            .arg(role)
            .arg("--config")
            .arg(workspace.directory.path().join("config.toml"))
            .env("NOTIFY_SOCKET", &workspace.notification_socket)
            .env("TARGETWATCH_LOG", "error")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let pid = i32::try_from(child.id().context("the daemon has ended")?)?;
        let daemon = Self { child, pid, address: workspace.address };
        timeout(START_STOP_TIMEOUT, daemon.wait_until_ready(workspace)).await.context("the daemon did not start")??;
        Ok(daemon)
    }

    async fn wait_until_ready(&self, workspace: &Workspace) -> anyhow::Result<()> {
        let mut notification = [0; 1024];
        loop {
            let length = workspace.notifications.recv(&mut notification).await?;
            if String::from_utf8_lossy(&notification[..length]).lines().any(|line| line == "READY=1") {
                return Ok(());
            }
        }
    }

    /// Creates a target, and returns how long the answer took.
    pub async fn create(&self, export: &str) -> anyhow::Result<Duration> {
        self.create_with(export, "").await
    }

    /// The same with a header field.
    pub async fn create_with(&self, export: &str, header: &str) -> anyhow::Result<Duration> {
        let body = json!({"backup_target": {"type": "nfs", "filesystem_export": export, "btt_name": export}});
        let answer = http::post(self.address, "/backup_targets", header, body.to_string()).await?;
        Ok(answer.took)
    }

    /// All targets, with their latest reports.
    pub async fn details(&self) -> anyhow::Result<wire::TargetDetailList> {
        let answer = http::get(self.address, "/backup_targets/detail").await?;
        Ok(serde_json::from_slice(&answer.body)?)
    }

    /// Waits until every target has its first verdict.
    pub async fn wait_until_all_probed(&self) -> anyhow::Result<()> {
        let all = async {
            let mut ticks = interval(POLL_INTERVAL);
            loop {
                ticks.tick().await;
                if self.details().await?.backup_targets.iter().all(|one| one.report.checked_at.is_some()) {
                    return anyhow::Ok(());
                }
            }
        };
        timeout(FIRST_ROUND_TIMEOUT, all).await.context("not every target has a verdict")?
    }

    /// Stops the daemon as systemd would.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        kill(Pid::from_raw(self.pid), Signal::SIGTERM)?;
        let status = timeout(START_STOP_TIMEOUT, self.child.wait()).await.context("the daemon did not end")??;
        ensure!(status.success(), "the daemon ended with {status}");
        Ok(())
    }
}
