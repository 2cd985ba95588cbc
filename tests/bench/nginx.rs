//! nginx with one static file, tuned according to its manual: the reference for throughput.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use procfs::process::all_processes;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::{http, process};

/// Name of the executable.
pub const PROGRAM: &str = "nginx";

/// Time limit until it has ended.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A running nginx, stopped when dropped.
pub struct Nginx {
    child: Child,
    /// Address that it listens on.
    pub address: SocketAddr,
    _directory: TempDir,
}

impl Nginx {
    /// Serves a file of this name, as JSON.
    pub async fn start(name: &str, content: &[u8]) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let files = directory.path().join("files");
        std::fs::create_dir(&files)?;
        std::fs::write(files.join(name), content)?;
        let address = http::free_address()?;
        let path = directory.path().join("nginx.conf");
        std::fs::write(&path, configuration(directory.path(), address))?;
        let child = Command::new(PROGRAM)
            .env("PATH", crate::search_path())
            .arg("-e")
            .arg("stderr")
            .arg("-p")
            .arg(directory.path())
            .arg("-c")
            .arg(&path)
            .stdin(Stdio::null())
            .spawn()
            .context(PROGRAM)?;
        let nginx = Self { child, address, _directory: directory };
        http::wait_for_listener(address).await.context("nginx did not start")?;
        Ok(nginx)
    }

    /// Stops it, and waits until it has ended.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.terminate()?;
        let status = timeout(STOP_TIMEOUT, self.child.wait()).await.context("nginx did not end")??;
        ensure!(status.success(), "nginx ended with {status}");
        Ok(())
    }

    /// Sends SIGTERM. Workers would survive a killed master.
    fn terminate(&self) -> anyhow::Result<()> {
        let master = self.master().context("nginx has ended")?;
        Ok(kill(Pid::from_raw(master), Signal::SIGTERM)?)
    }

    fn master(&self) -> Option<i32> {
        self.child.id().and_then(|pid| i32::try_from(pid).ok())
    }

    /// User and system time of its workers so far.
    pub fn processor_time(&self) -> anyhow::Result<Duration> {
        let master = self.master().context("nginx has ended")?;
        let workers = all_processes()?.filter_map(Result::ok);
        let workers = workers.filter(|process| process.stat().is_ok_and(|stat| stat.ppid == master));
        workers.map(|worker| process::processor_time(worker.pid)).sum()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.terminate();
    }
}

fn configuration(directory: &Path, address: SocketAddr) -> String {
    // By default, workers of root's nginx run as the user nobody, which cannot read the directory.
    let user = if Uid::effective().is_root() { "user root;" } else { "" };
    let directory = directory.display();
    format!(
        r#"
        {user}
        daemon off;
        worker_processes auto;
        pid {directory}/pid;
        error_log stderr warn;
        events {{ worker_connections 1024; }}
        http {{
            access_log off;
            sendfile on;
            tcp_nopush on;
            tcp_nodelay on;
            keepalive_requests 1000000000;
            open_file_cache max=16 inactive=1h;
            open_file_cache_valid 1h;
            default_type application/json;
            client_body_temp_path {directory}/body;
            proxy_temp_path {directory}/proxy;
            fastcgi_temp_path {directory}/fastcgi;
            uwsgi_temp_path {directory}/uwsgi;
            scgi_temp_path {directory}/scgi;
            server {{ listen {address}; root {directory}/files; }}
        }}"#
    )
}
