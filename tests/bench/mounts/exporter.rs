//! Prometheus node_exporter with only its filesystem collector, the usual way to monitor mounts.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::http;

/// Name of the executable in Debian.
pub const PROGRAM: &str = "prometheus-node-exporter";

/// Metric of the collector's own duration, in seconds.
const DURATION: &str = r#"node_scrape_collector_duration_seconds{collector="filesystem"} "#;

/// Metric of each mount.
const SIZE: &str = "node_filesystem_size_bytes{";

/// A running exporter, killed when dropped.
pub struct Exporter {
    child: Child,
    address: SocketAddr,
    _processes: TempDir,
}

/// One scrape.
pub struct Scrape {
    /// Time from connecting to the last byte.
    pub took: Duration,
    /// Duration that the collector reports.
    pub collected: Duration,
    /// Number of mounts in the answer.
    pub mounts: usize,
}

impl Exporter {
    /// Starts the exporter, and waits until it listens.
    pub async fn start() -> anyhow::Result<Self> {
        let address = http::free_address()?;
        // It reads the mounts of process 1, which is in another mount namespace.
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

    /// Process id.
    pub fn pid(&self) -> anyhow::Result<i32> {
        Ok(i32::try_from(self.child.id().context("node_exporter has ended")?)?)
    }

    /// Address of its metrics.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Scrapes it once.
    pub async fn scrape(&self) -> anyhow::Result<Scrape> {
        let answer = http::get(self.address, "/metrics").await?;
        let text = std::str::from_utf8(&answer.body)?;
        let seconds =
            text.lines().find_map(|line| line.strip_prefix(DURATION)).context("the answer has no duration")?;
        let mounts = text.lines().filter(|line| line.starts_with(SIZE)).count();
        Ok(Scrape { took: answer.took, collected: Duration::from_secs_f64(seconds.parse()?), mounts })
    }
}
