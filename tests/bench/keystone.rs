//! Authentication: the cost of a token that Keystone has validated, compared with the same daemon without
//! authentication.
//!
//! The Keystone is a real one (`tests/peers/keystone`). It validates the token once, for the first request.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;

use crate::daemon::{DEFAULT_INTERVAL, Daemon};
use crate::http;
use crate::storage::{self, Kind, Storage};
use crate::table::Table;
use crate::throughput::{ROUNDS, Side};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/keystone");

/// Goal: at least this ratio of the requests per second to those without authentication.
const RATIO_MIN: f64 = 0.9;

/// Measures a daemon with Keystone and `without`, a daemon that has no authentication and as many targets.
pub async fn measure(without: &Daemon, storage: &Storage, targets: usize, table: &mut Table) -> anyhow::Result<()> {
    let keystone = Keystone::start().await.context("Keystone")?;
    let workspace = storage.workspace(DEFAULT_INTERVAL)?.with_auth("keystone", &keystone.configuration()?)?;
    let daemon = Daemon::start(&workspace).await?;
    let token = format!("x-auth-token: {}", keystone.token().await.context("a token")?);
    for number in 0..targets {
        daemon.create_with(&storage::export(Kind::Healthy, number), &token).await?;
    }
    let (mut ours, mut theirs) = (Side::default(), Side::default());
    for _ in 0..ROUNDS {
        ours.add_round(&daemon, "/backup_targets", std::slice::from_ref(&token)).await?;
        theirs.add_round(without, "/backup_targets", &[]).await?;
    }
    daemon.stop().await?;
    let ratio = ours.ratio_to(&theirs)?;
    table.add("GET /backup_targets with a validated token: requests per second", format!("{:.0}", ours.per_second()?));
    table.add_with_goal(
        "  ratio to no authentication, median of rounds",
        format!("{ratio:.2}"),
        "0.90 or more",
        ratio >= RATIO_MIN,
    );
    let (cost, without) = (ours.microseconds_per_request(), theirs.microseconds_per_request());
    table.add("  processor time per request, with token / without", format!("{cost:.1} / {without:.1} µs"));
    Ok(())
}

/// A Keystone that runs until it is dropped.
struct Keystone {
    directory: TempDir,
    facts: String,
}

impl Keystone {
    async fn start() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("twks").tempdir()?;
        let mut keystone = Self { directory, facts: String::new() };
        let status = Command::new(SCRIPT).arg("start").arg(keystone.path()).stdin(Stdio::null()).status().await?;
        ensure!(status.success(), "{SCRIPT} start: {status}");
        keystone.facts = std::fs::read_to_string(keystone.path().join("env"))?;
        let password = keystone.fact("SERVICE_PASSWORD")?;
        std::fs::write(keystone.password(), password)?;
        std::fs::set_permissions(keystone.password(), std::fs::Permissions::from_mode(0o600))?;
        Ok(keystone)
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("k")
    }

    fn password(&self) -> PathBuf {
        self.directory.path().join("password")
    }

    /// A value of its `env` file.
    fn fact(&self, name: &str) -> anyhow::Result<&str> {
        let lines = self.facts.lines().filter_map(|line| line.split_once('='));
        let mut values = lines.filter(|(key, _)| *key == name).map(|(_, value)| value);
        values.next().with_context(|| format!("{SCRIPT} wrote no {name}"))
    }

    /// The agent's configuration for this Keystone.
    fn configuration(&self) -> anyhow::Result<String> {
        Ok(format!(
            "[api.keystone]\nurl = {:?}\nusername = {:?}\nproject = {:?}\npassword_file = {:?}\n",
            self.fact("URL")?,
            self.fact("SERVICE_USER")?,
            self.fact("SERVICE_PROJECT")?,
            self.password(),
        ))
    }

    /// A token of the admin.
    async fn token(&self) -> anyhow::Result<String> {
        let domain = json!({"id": "default"});
        let user =
            json!({"name": self.fact("ADMIN_USER")?, "domain": domain, "password": self.fact("ADMIN_PASSWORD")?});
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"name": self.fact("ADMIN_PROJECT")?, "domain": domain}},
        }});
        let address = self.fact("URL")?.strip_prefix("http://").context("the URL of Keystone")?.parse()?;
        let answer = http::post(address, "/v3/auth/tokens", "", body.to_string()).await?;
        let token = answer.headers.get("x-subject-token").context("no token in the answer")?;
        Ok(token.to_str()?.to_owned())
    }
}

impl Drop for Keystone {
    fn drop(&mut self) {
        // If this fails, the process stays behind unused.
        let _ = std::process::Command::new(SCRIPT).arg("stop").arg(self.path()).stdin(Stdio::null()).status();
    }
}
