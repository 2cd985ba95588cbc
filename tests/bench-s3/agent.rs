//! The measured agent: the binary of the bench profile, with a target for each bucket.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use procfs::process::Process;
use serde_json::json;
use targetwatch::api::wire;
use tempfile::TempDir;

use crate::daemon::{Daemon, Workspace};
use crate::http::{self as client, Connection};
use crate::peers::{Cost, Gateway};
use crate::process::exact_processor_time;

/// Number of concurrent checks.
const CONCURRENT_CHECKS: usize = 16;

/// A running agent, killed when dropped.
pub struct Agent {
    daemon: Daemon,
    _workspace: Workspace,
    _credentials: TempDir,
    targets: Vec<String>,
    /// Persistent connections, because a probe that the agent makes at its interval needs none.
    connections: Vec<Connection>,
}

impl Agent {
    /// Starts an agent that probes only on request after the first verdict of each bucket.
    pub async fn start(gateway: &Gateway, buckets: &[String]) -> anyhow::Result<Self> {
        let credentials = tempfile::tempdir()?;
        let (id, secret) = (credentials.path().join("id"), credentials.path().join("secret"));
        std::fs::write(&id, &gateway.access_key_id)?;
        std::fs::write(&secret, &gateway.secret_access_key)?;
        std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        let workspace = Workspace::new(&format!(
            r#"
            [probe]
            s3_interval = "24h"
            deadline = "30s"
            slow_after = "60s"
            [[s3.credentials]]
            location = "*"
            access_key_id_file = {id:?}
            secret_access_key_file = {secret:?}
            read_only = true
            "#
        ))?;
        let daemon = Daemon::start(&workspace).await?;
        let mut connections = Vec::new();
        for _ in 0..CONCURRENT_CHECKS {
            connections.push(Connection::open(daemon.address).await?);
        }
        let mut agent =
            Self { daemon, _workspace: workspace, _credentials: credentials, targets: Vec::new(), connections };
        for bucket in buckets {
            let target = json!({"type": "s3", "s3_endpoint_url": gateway.endpoint, "s3_bucket": bucket});
            let body = json!({ "backup_target": target }).to_string();
            let answer = client::post(agent.daemon.address, "/backup_targets", "", body).await?;
            let created: wire::OneTarget = serde_json::from_slice(&answer.body)?;
            agent.targets.push(created.backup_targets.id);
        }
        agent.sweep().await?;
        Ok(agent)
    }

    /// Checks every bucket once.
    pub async fn sweep(&mut self) -> anyhow::Result<Cost> {
        // A sweep is too short for the clock ticks of `processor_time`.
        let (began, busy) = (Instant::now(), exact_processor_time(self.daemon.pid)?);
        let share = self.targets.len().div_ceil(CONCURRENT_CHECKS);
        let shares = self.connections.iter_mut().zip(self.targets.chunks(share));
        let shares = shares.map(|(connection, targets)| check_each(connection, targets));
        let reports: Vec<wire::Report> = futures::future::try_join_all(shares).await?.into_iter().flatten().collect();
        let seconds = began.elapsed().as_secs_f64();
        let busy = exact_processor_time(self.daemon.pid)?.saturating_sub(busy).as_secs_f64();
        ensure!(
            reports.iter().all(|report| report.status == targetwatch::model::Status::Available),
            "a bucket is offline: {reports:?}"
        );
        let requests = reports.iter().filter_map(|report| report.probe_requests).sum();
        let peak_kib = Process::new(self.daemon.pid)?.status()?.vmhwm.context("the kernel reports no VmHWM")?;
        Ok(Cost { seconds, cpu_sweep: busy, cpu_all: busy, peak_kib, requests })
    }
}

/// Checks these targets, one after the other.
async fn check_each(connection: &mut Connection, targets: &[String]) -> anyhow::Result<Vec<wire::Report>> {
    let mut reports = Vec::new();
    for id in targets {
        let request = Request::post(format!("/backup_targets/{id}/check")).header(http::header::HOST, "localhost");
        let answer = connection.send(request.body(Full::new(Bytes::new()))?).await?;
        reports.push(serde_json::from_slice(&answer.body)?);
    }
    Ok(reports)
}
