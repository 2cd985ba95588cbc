//! `targetwatch check`: one probe now, printed check by check.
//!
//! `check nfs` and `check s3` need no daemon: they make the driver that the daemon would, with the
//! same configuration, probe once, and take down what the probe put up. `check all` asks the daemon
//! to probe everything, and shows what it found.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use uuid::Uuid;

use super::client::{Access, Client};
use super::exit::State;
use super::serve::THIS_PROGRAM;
use super::terminal::{Look, plain, print};
use super::{render, runtime, target};
use crate::agent::{TargetStatus, TargetView};
use crate::api::wire;
use crate::config;
use crate::driver::{self, Depth, Host, ProcessRole};
use crate::model::report::{MountMode, Verdict};
use crate::model::{MountName, NfsExport, NfsTarget, Report, S3Location, S3Target, Target, TargetSpec};
use crate::sys::{ChildCensus, MountTableWatch, WorkerPool, WorkerPoolSettings, node};

/// How many targets `check all` has probed at the same time.
const CHECKS_AT_ONCE: usize = 16;

/// How many further probes a command makes, at most, for what its first one began.
const PROBES_MAX: usize = 4;

/// What is to be probed.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Probe an NFS export, without a daemon
    Nfs {
        /// host:/path
        export: String,
        /// Verify it over the wire, without mounting it
        #[arg(long)]
        no_mount: bool,
        /// What both kinds need.
        #[command(flatten)]
        common: Common,
    },
    /// Probe an S3 bucket, without a daemon
    S3 {
        /// URL/BUCKET, or a bucket of AWS
        location: String,
        /// Require object lock
        #[arg(long)]
        immutable: bool,
        /// What both kinds need.
        #[command(flatten)]
        common: Common,
    },
    /// Have the agent probe every target
    All {
        /// Print the agent's own answers
        #[arg(long)]
        json: bool,
    },
}

/// What both kinds need.
#[derive(Debug, Args)]
pub struct Common {
    /// The configuration file [default: /etc/targetwatch/config.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Probes and prints.
///
/// # Errors
/// When what is to be probed makes no sense, or the agent does not answer.
pub fn run(access: Access, command: Command) -> anyhow::Result<State> {
    match command {
        Command::Nfs { export, no_mount, common } => {
            one(TargetSpec::Nfs(NfsTarget { export: NfsExport::parse(&export)? }), no_mount, &common)
        }
        Command::S3 { location, immutable, common } => {
            let location = S3Location::parse(&location)?;
            one(TargetSpec::S3(S3Target { location, immutable }), false, &common)
        }
        Command::All { json } => runtime::block_on(all(&Client::new(access), json))?,
    }
}

fn one(spec: TargetSpec, no_mount: bool, common: &Common) -> anyhow::Result<State> {
    let mut settings = config::load(common.config.as_deref())?.agent;
    if no_mount {
        settings.mounts.mode = MountMode::None;
    }
    let now = Timestamp::now();
    let mount_name = MountName::derive(&spec, settings.mounts.path_key)?;
    let target = Target {
        id: Uuid::new_v4(),
        spec,
        mount_name,
        is_default: false,
        created_at: now,
        updated_at: now,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        metadata: std::collections::BTreeMap::new(),
    };
    runtime::block_on(async {
        let workers = WorkerPool::new(WorkerPoolSettings::new(THIS_PROGRAM.into()), ChildCensus::new());
        let mounts = MountTableWatch::start().context("the mount table cannot be watched: is /proc mounted?")?;
        let host = Arc::new(Host::new(workers, mounts, node::hostname(), ProcessRole::OneShot));
        let mut driver = driver::for_spec(&target, &host);
        let was_mounted = driver.mount_id(&settings).is_some();
        let mut probe = driver.probe(&settings, Depth::Full).await;
        // What it began it ends: nobody comes after it who would.
        for _ in 0..PROBES_MAX {
            let Some(wait) = driver.next_due() else { break };
            tokio::time::sleep(wait).await;
            probe = driver.probe(&settings, Depth::Routine).await;
        }
        // What was mounted before belongs to somebody else, most likely to the daemon.
        if !was_mounted && driver.mount_id(&settings).is_some() {
            match driver.detach(&settings).await {
                Ok(None) => {}
                Ok(Some(remark)) => eprintln!("targetwatch: {}", plain(&remark)),
                Err(error) => eprintln!("targetwatch: it stays mounted: {}", plain(&error.to_string())),
            }
        }
        host.workers.shut_down();
        let report = Report {
            target_id: target.id,
            checked_at: Timestamp::now(),
            duration: probe.checks.iter().map(|check| check.duration).sum(),
            mode: probe.mode,
            verdict: Verdict::of(&probe.checks),
            capacity: probe.capacity,
            mount: probe.mount,
            bucket: probe.bucket,
            checks: probe.checks,
        };
        // One probe is all there is: no earlier one to be lenient with.
        let status = TargetStatus::not_checked(now).after(&report, 1);
        let mount_path = target.mount_name.below(&settings.mounts.root);
        let view =
            TargetView { target: target.into(), types: [].into(), mount_path, status, report: Some(Arc::new(report)) };
        show(&[wire::Report::from(&view)], common.json)
    })?
}

async fn all(client: &Client, json: bool) -> anyhow::Result<State> {
    let list: wire::TargetList = client.get("/backup_targets").await?;
    let reports: Vec<wire::Report> = stream::iter(&list.backup_targets)
        .map(|found| target::check(client, &found.id))
        .buffered(CHECKS_AT_ONCE)
        .try_collect()
        .await?;
    show(&reports, json)
}

fn show(reports: &[wire::Report], json: bool) -> anyhow::Result<State> {
    if json {
        print(&format!("{}\n", serde_json::to_string_pretty(reports)?));
    } else if reports.is_empty() {
        print("there are no backup targets: create one with `targetwatch target create`\n");
    } else {
        let look = Look::of_stdout();
        let texts: Vec<String> = reports.iter().map(|report| render::report(report, look)).collect();
        print(&texts.join("\n"));
    }
    Ok(State::worst(reports.iter().map(State::from)))
}
