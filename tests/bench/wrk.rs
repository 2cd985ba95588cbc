//! Load by wrk, in a process of its own.

use std::net::SocketAddr;
use std::process::Stdio;

use anyhow::{Context as _, bail, ensure};
use tokio::process::Command;

/// Name of the executable.
pub const PROGRAM: &str = "wrk";

/// Number of persistent connections.
const CONNECTIONS: &str = "16";

/// Number of threads.
const THREADS: &str = "2";

/// Length of a round.
const DURATION: &str = "3s";

/// The result of a round.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub requests: f64,
    pub per_second: f64,
}

/// Requests a path as fast as possible, with these header fields. An unsuccessful answer is an error.
pub async fn run(address: SocketAddr, path: &str, headers: &[String]) -> anyhow::Result<Load> {
    let output = Command::new(PROGRAM)
        .args(["--connections", CONNECTIONS, "--threads", THREADS, "--duration", DURATION])
        .args(headers.iter().flat_map(|header| ["--header", header]))
        .arg(format!("http://{address}{path}"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context(PROGRAM)?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{PROGRAM} ended with {}: {text}", output.status);
    parse(&text).with_context(|| format!("unexpected output of {PROGRAM}: {text}"))
}

fn parse(text: &str) -> anyhow::Result<Load> {
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        bail!("not every request was answered successfully");
    }
    let per_second = text.lines().find_map(|line| line.strip_prefix("Requests/sec:")).context("no rate")?;
    let requests = text.lines().find_map(|line| line.split_once(" requests in ")).context("no count")?.0;
    Ok(Load { requests: requests.trim().parse()?, per_second: per_second.trim().parse()? })
}
