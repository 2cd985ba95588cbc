//! The gateway, and the Python programs that send the same requests as the agent.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use tempfile::TempDir;

/// The script that starts and stops the gateway.
const GATEWAY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/ceph-rgw");

/// The program that sends the requests.
const SWEEP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench-s3/sweep.py");

/// Packages of PyPI that it needs.
const PACKAGES: &[&str] = &["boto3", "awscli"];

/// A running gateway, stopped when dropped.
pub struct Gateway {
    directory: TempDir,
    pub endpoint: String,
    pub access_key_id: String,
    pub secret_access_key: String,
}

impl Gateway {
    /// Starts a gateway.
    pub fn start() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("twb").tempdir_in("/tmp")?;
        let started = Command::new(GATEWAY).arg("start").arg(directory.path()).status().context(GATEWAY)?;
        ensure!(started.success(), "{GATEWAY} start: {started}");
        let text = std::fs::read_to_string(directory.path().join("env"))?;
        let value = |name: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            found.map(str::to_owned).with_context(|| format!("the gateway's env file has no {name}"))
        };
        let (endpoint, access_key_id) = (value("ENDPOINT")?, value("ACCESS_KEY_ID")?);
        let secret_access_key = value("SECRET_ACCESS_KEY")?;
        Ok(Self { directory, endpoint, access_key_id, secret_access_key })
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // If this fails, the gateway stays behind unused.
        let _ = Command::new(GATEWAY).arg("stop").arg(self.directory.path()).status();
    }
}

/// Cost of a sweep.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Cost {
    /// Wall time of the sweep, in seconds.
    pub seconds: f64,
    /// Processor time of the sweep, in seconds.
    pub cpu_sweep: f64,
    /// The same with the start of the program.
    pub cpu_all: f64,
    pub peak_kib: u64,
    pub requests: u64,
}

/// The interpreter of a virtual environment with these packages.
pub struct Python(PathBuf);

impl Python {
    /// Creates the virtual environment, unless it exists.
    pub fn prepare() -> anyhow::Result<Self> {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-s3-venv");
        let python = directory.join("bin/python");
        if !directory.join("bin/aws").is_file() {
            let created = Command::new("python3").args(["-m", "venv"]).arg(&directory).status().context("python3")?;
            ensure!(
                created.success(),
                "python3 -m venv: {created}: apt-get install --no-install-recommends python3-venv"
            );
            let installed = Command::new(&python).args(["-m", "pip", "--quiet", "install"]).args(PACKAGES).status()?;
            ensure!(installed.success(), "pip install {}: {installed}", PACKAGES.join(" "));
        }
        Ok(Self(python))
    }

    /// Creates buckets.
    pub fn create(&self, gateway: &Gateway, buckets: &[String]) -> anyhow::Result<()> {
        self.run("create", gateway, buckets).map(drop)
    }

    /// Runs a sweep with this program.
    pub fn sweep(&self, program: &str, gateway: &Gateway, buckets: &[String]) -> anyhow::Result<Cost> {
        Ok(serde_json::from_slice(&self.run(program, gateway, buckets)?)?)
    }

    fn run(&self, command: &str, gateway: &Gateway, buckets: &[String]) -> anyhow::Result<Vec<u8>> {
        let output = Command::new(&self.0)
            .args([SWEEP, command, &gateway.endpoint])
            .args(buckets)
            .env("AWS_ACCESS_KEY_ID", &gateway.access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", &gateway.secret_access_key)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()?;
        ensure!(output.status.success(), "sweep.py {command}: {}", output.status);
        Ok(output.stdout)
    }
}
