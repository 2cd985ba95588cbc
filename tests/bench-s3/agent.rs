//! The agent under measurement: the true release binary, with a target for each bucket.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use procfs::process::Process;
use serde_json::json;
use targetwatch::api::wire;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::interval;

use crate::http;
use crate::peers::{Cost, Gateway};

/// How many checks are asked for at the same time.
const CHECKS_AT_ONCE: usize = 16;

/// After this an agent that has not started never will.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is tried whether it answers.
const TRY_EVERY: Duration = Duration::from_millis(10);

/// A running agent, killed when it is dropped.
pub struct Agent {
    _child: Child,
    _directory: TempDir,
    pid: i32,
    address: SocketAddr,
    targets: Vec<String>,
}

impl Agent {
    /// Starts one that probes nothing by itself any more once each bucket has its first verdict.
    pub async fn start(gateway: &Gateway, buckets: &[String]) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("id"), &gateway.access_key_id)?;
        std::fs::write(path("secret"), &gateway.secret_access_key)?;
        std::fs::set_permissions(path("secret"), std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        let configuration = format!(
            r#"
            [api]
            listen = ["{address}"]
            [registry]
            url = "sqlite://{directory}/registry.db"
            [probe]
            s3_interval = "24h"
            deadline = "30s"
            slow_after = "60s"
            [mounts]
            root = "{directory}/mounts"
            mode = "none"
            [[s3.credentials]]
            location = "*"
            access_key_id_file = "{directory}/id"
            secret_access_key_file = "{directory}/secret"
            read_only = true
            "#,
            directory = directory.path().display(),
        );
        std::fs::write(path("config.toml"), configuration)?;
        let child = Command::new(env!("CARGO_BIN_EXE_targetwatch"))
            .arg("serve")
            .arg("--config")
            .arg(path("config.toml"))
            .env("TARGETWATCH_LOG", "error")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let pid = i32::try_from(child.id().context("it has ended")?)?;
        tokio::time::timeout(PATIENCE, answers(address)).await.context("the agent did not start")?;
        let mut agent = Self { _child: child, _directory: directory, pid, address, targets: Vec::new() };
        for bucket in buckets {
            let target = json!({"type": "s3", "s3_endpoint_url": gateway.endpoint, "s3_bucket": bucket});
            let body = json!({ "backup_target": target }).to_string();
            let answer = http::post(address, "/backup_targets", "", body).await?;
            let created: wire::OneTarget = serde_json::from_slice(&answer.body)?;
            agent.targets.push(created.backup_targets.id);
        }
        agent.sweep().await?;
        Ok(agent)
    }

    /// Has it check every bucket.
    pub async fn sweep(&self) -> anyhow::Result<Cost> {
        let (began, busy) = (Instant::now(), self.processor_seconds()?);
        let reports: Vec<wire::Report> = stream::iter(&self.targets)
            .map(|id| async move {
                let answer = http::post(self.address, &format!("/backup_targets/{id}/check"), "", "").await?;
                anyhow::Ok(serde_json::from_slice(&answer.body)?)
            })
            .buffer_unordered(CHECKS_AT_ONCE)
            .try_collect()
            .await?;
        let seconds = began.elapsed().as_secs_f64();
        let busy = self.processor_seconds()? - busy;
        ensure!(
            reports.iter().all(|report| report.status == targetwatch::model::Status::Available),
            "a bucket is offline: {reports:?}"
        );
        let requests = reports.iter().filter_map(|report| report.probe_requests).sum();
        let peak_kib = Process::new(self.pid)?.status()?.vmhwm.context("the kernel does not tell VmHWM")?;
        Ok(Cost { seconds, cpu_sweep: busy, cpu_all: busy, peak_kib, requests })
    }

    fn processor_seconds(&self) -> anyhow::Result<f64> {
        // By the scheduler, in nanoseconds: a sweep is too short for the ticks of stat.
        let tasks = Process::new(self.pid)?.tasks()?.filter_map(Result::ok);
        let nanoseconds: u64 = tasks.filter_map(|task| task.schedstat().ok()).map(|task| task.sum_exec_runtime).sum();
        Ok(Duration::from_nanos(nanoseconds).as_secs_f64())
    }
}

async fn answers(address: SocketAddr) {
    // It is not waited for as its service manager would: this is no measurement of its start.
    let mut ticks = interval(TRY_EVERY);
    while http::get(address, "/healthz").await.is_err() {
        ticks.tick().await;
    }
}
