//! Prometheus node_exporter with its filesystem collector alone: what a host is watched with otherwise.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::http;

/// Its executable, as Debian names it.
pub const PROGRAM: &str = "prometheus-node-exporter";

/// What its collector says that it took, in seconds.
const TOOK: &str = r#"node_scrape_collector_duration_seconds{collector="filesystem"} "#;

/// What it says of each mount.
const SIZE: &str = "node_filesystem_size_bytes{";

/// A running exporter, killed when it is dropped.
pub struct Exporter {
    child: Child,
    address: SocketAddr,
    _processes: TempDir,
}

/// One scrape.
pub struct Scrape {
    /// From connecting to the last byte.
    pub took: Duration,
    /// What the collector itself took.
    pub collected: Duration,
    /// How many mounts it told of.
    pub mounts: usize,
}

impl Exporter {
    /// Starts it.
    pub async fn start() -> anyhow::Result<Self> {
        let address = http::free_address()?;
        // It reads the mounts of process 1, which is in another namespace.
        let processes = tempfile::tempdir()?;
        std::os::unix::fs::symlink("/proc/self", processes.path().join("1"))?;
        let child = Command::new(PROGRAM)
            .args(["--collector.disable-defaults", "--collector.filesystem", "--web.disable-exporter-metrics"])
            .arg(format!("--web.listen-address={address}"))
            .arg(format!("--path.procfs={}", processes.path().display()))
            .arg("--log.level=error")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context(PROGRAM)?;
        http::wait_for_listener(address).await.context(PROGRAM)?;
        Ok(Self { child, address, _processes: processes })
    }

    /// Its process.
    pub fn pid(&self) -> anyhow::Result<i32> {
        Ok(i32::try_from(self.child.id().context("it has ended")?)?)
    }

    /// Scrapes it once.
    pub async fn scrape(&self) -> anyhow::Result<Scrape> {
        let answer = http::get(self.address, "/metrics").await?;
        let text = std::str::from_utf8(&answer.body)?;
        let seconds = text.lines().find_map(|line| line.strip_prefix(TOOK)).context("it tells no duration")?;
        let mounts = text.lines().filter(|line| line.starts_with(SIZE)).count();
        Ok(Scrape { took: answer.took, collected: Duration::from_secs_f64(seconds.parse()?), mounts })
    }
}
