//! A member of etcd with a directory of its own, and what it counts.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Sub;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use tempfile::TempDir;

use crate::{http, process};

/// Number of loopback addresses at which it is reached. Each has its own range of local ports, as each node would have.
const ADDRESSES: usize = 64;

/// A member of etcd, which ends when it is dropped.
pub struct Member {
    process: Child,
    port: u16,
    peer_port: u16,
    data: TempDir,
}

/// What etcd has done since its start, as its metrics say.
#[derive(Debug, Clone, Copy, Default)]
pub struct Work {
    /// Renewals of leases, which write nothing.
    pub renewals: u64,
    /// Requests for keys.
    pub reads: u64,
    /// Transactions. Most of them only read.
    pub transactions: u64,
    /// Leases granted.
    pub grants: u64,
    /// Entries of the log: everything that is written to the disk.
    pub writes: u64,
    /// Processor time.
    pub processor: Duration,
}

impl Sub for Work {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            renewals: self.renewals - earlier.renewals,
            reads: self.reads - earlier.reads,
            transactions: self.transactions - earlier.transactions,
            grants: self.grants - earlier.grants,
            writes: self.writes - earlier.writes,
            processor: self.processor.saturating_sub(earlier.processor),
        }
    }
}

impl Member {
    /// Starts a member that is a cluster of its own.
    pub async fn start() -> anyhow::Result<Self> {
        let (port, peer_port) = (http::free_address()?.port(), http::free_address()?.port());
        let data = tempfile::tempdir()?;
        let process = spawn(port, peer_port, &data)?;
        let member = Self { process, port, peer_port, data };
        http::wait_for_listener(member.address()).await?;
        Ok(member)
    }

    /// URL of the member for a node.
    pub fn url(&self, node: usize) -> String {
        format!("http://127.1.0.{}:{}", 1 + node % ADDRESSES, self.port)
    }

    /// Kills it. Its directory stays.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Starts it again with its directory.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.process = spawn(self.port, self.peer_port, &self.data)?;
        Ok(())
    }

    /// Returns its work since its start.
    pub async fn work(&self) -> anyhow::Result<Work> {
        let answer = http::get(self.address(), "/metrics").await?;
        let text = String::from_utf8_lossy(&answer.body);
        let sum = |name: &str| -> u64 {
            let values = text.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit(' ').next());
            values.filter_map(|value| value.parse::<f64>().ok()).sum::<f64>() as u64
        };
        let started = |method: &str| sum(&format!("grpc_server_started_total{{grpc_method=\"{method}\""));
        Ok(Work {
            renewals: sum("etcd_debugging_lease_renewed_total "),
            reads: started("Range"),
            transactions: started("Txn"),
            grants: started("LeaseGrant"),
            writes: sum("etcd_server_proposals_applied_total "),
            processor: self.processor_time()?,
        })
    }

    /// Processor time so far.
    pub fn processor_time(&self) -> anyhow::Result<Duration> {
        process::processor_time(self.pid()?)
    }

    /// Resident memory, in bytes.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        process::resident_bytes(self.pid()?)
    }

    fn pid(&self) -> anyhow::Result<i32> {
        Ok(i32::try_from(self.process.id())?)
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(port: u16, peer_port: u16, data: &TempDir) -> anyhow::Result<Child> {
    let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer_port}"));
    Command::new("etcd")
        .args(["--name", "m0", "--auto-compaction-mode", "periodic", "--auto-compaction-retention", "1h"])
        .args(["--listen-client-urls", &format!("http://0.0.0.0:{port}"), "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("m0={peer}")])
        .arg("--data-dir")
        .arg(data.path().join("data"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("etcd (Debian package etcd-server)")
}
