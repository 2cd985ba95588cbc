//! The daemon under measurement: the binary of the bench profile, with its own configuration and registry.

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

/// The interval of probes that a daemon has which is told nothing.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);

/// An interval at which a target that times out is being probed almost always.
pub const SHORT_INTERVAL: Duration = Duration::from_secs(2);

/// After this a daemon that has not started or ended never will.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the first round of probes may take.
const FIRST_ROUND: Duration = Duration::from_secs(30);

/// How often it is asked whether that is over.
const READY_EVERY: Duration = Duration::from_millis(100);

/// What a daemon needs around it, and finds again when it is started once more.
pub struct Home {
    /// On the disk that is built on, and not in a /tmp that may be memory: the registry is durable.
    directory: TempDir,
    /// Where the daemon says that it is ready. Its path has to be short, so it is in /tmp.
    notices: UnixDatagram,
    notices_path: PathBuf,
    _notices_directory: TempDir,
    address: SocketAddr,
}

impl Home {
    /// A new one with these settings besides addresses and paths.
    pub fn new(settings: &str) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let notices_directory = tempfile::tempdir()?;
        let notices_path = notices_directory.path().join("notify");
        let notices = UnixDatagram::bind(&notices_path)?;
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
        Ok(Self { directory, notices, notices_path, _notices_directory: notices_directory, address })
    }

    /// The same, whose daemon authenticates in this way, with more of its configuration.
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
    /// Its process.
    pub pid: i32,
    /// Where it answers.
    pub address: SocketAddr,
}

impl Daemon {
    /// Starts it, and returns when it says that it is ready.
    pub async fn start(home: &Home) -> anyhow::Result<Self> {
        let child = Command::new(env!("CARGO_BIN_EXE_targetwatch"))
            .arg("serve")
            .arg("--config")
            .arg(home.directory.path().join("config.toml"))
            .env("NOTIFY_SOCKET", &home.notices_path)
            .env("TARGETWATCH_LOG", "error")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let pid = i32::try_from(child.id().context("it has ended")?)?;
        let daemon = Self { child, pid, address: home.address };
        timeout(PATIENCE, daemon.is_ready(home)).await.context("the daemon did not start")??;
        Ok(daemon)
    }

    async fn is_ready(&self, home: &Home) -> anyhow::Result<()> {
        let mut notice = [0; 1024];
        loop {
            let length = home.notices.recv(&mut notice).await?;
            if String::from_utf8_lossy(&notice[..length]).lines().any(|line| line == "READY=1") {
                return Ok(());
            }
        }
    }

    /// Creates a target, and returns how long the answer took.
    pub async fn create(&self, export: &str) -> anyhow::Result<Duration> {
        self.create_with(export, "").await
    }

    /// The same, with a header field.
    pub async fn create_with(&self, export: &str, header: &str) -> anyhow::Result<Duration> {
        let body = json!({"backup_target": {"type": "nfs", "filesystem_export": export, "btt_name": export}});
        let answer = http::post(self.address, "/backup_targets", header, body.to_string()).await?;
        Ok(answer.took)
    }

    /// All targets, with what their latest probes found.
    pub async fn details(&self) -> anyhow::Result<wire::TargetDetailList> {
        let answer = http::get(self.address, "/backup_targets/detail").await?;
        Ok(serde_json::from_slice(&answer.body)?)
    }

    /// Returns when every target has its first verdict.
    pub async fn has_probed_all(&self) -> anyhow::Result<()> {
        let all = async {
            // Nothing tells a client of it unasked.
            let mut ticks = interval(READY_EVERY);
            loop {
                ticks.tick().await;
                if self.details().await?.backup_targets.iter().all(|one| one.report.checked_at.is_some()) {
                    return anyhow::Ok(());
                }
            }
        };
        timeout(FIRST_ROUND, all).await.context("not every target had a verdict")?
    }

    /// Ends it as its service manager would.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        kill(Pid::from_raw(self.pid), Signal::SIGTERM)?;
        let status = timeout(PATIENCE, self.child.wait()).await.context("the daemon did not end")??;
        ensure!(status.success(), "the daemon ended with {status}");
        Ok(())
    }
}
