//! `targetwatch check`: probes now and prints every check.
//!
//! `check nfs` and `check s3` need no daemon. They use the same driver and configuration as the daemon, probe one
//! target, and unmount what the probe mounted, also after SIGINT or SIGTERM. `check all` asks the daemon to probe every
//! target, and prints the reports.

use std::sync::Arc;

use anyhow::Context as _;
use clap::Subcommand;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::client::{Answer, Client, ConnectionOptions};
use super::exit::ExitState;
use super::kind::{CheckArguments, CheckOptions};
use super::terminal::{OutputStyle, escape_invisible, print, print_json};
use super::{render, running_agent, runtime, signals, target};
use crate::agent::{TargetStatus, TargetView};
use crate::api::wire;
use crate::config;
use crate::driver::{self, Depth, ProcessRole};
use crate::model::MountMode;
use crate::model::{MountName, OwnMountId, RegistryUrl, Target, TargetSpec, UsageHistory};
use crate::registry;
use crate::sys::ChildCensus;

/// Largest number of targets that `check all` probes concurrently.
const CHECKS_AT_ONCE: usize = 16;

/// Largest number of additional probes that finish what the first one started, such as a lock proof.
const PROBES_MAX: usize = 4;

/// Target of the probe.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Target that needs no daemon.
    #[command(flatten)]
    One(CheckArguments),
    /// Probe every target of the running agent
    All {
        /// Print the answers of the API as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Probes and prints the reports.
///
/// # Errors
/// When the target or the configuration is invalid, or when the agent does not answer.
pub fn run(access: ConnectionOptions, command: Command) -> anyhow::Result<ExitState> {
    match command {
        Command::One(arguments) => {
            let (spec, options) = arguments.into_spec()?;
            check_one(spec, &options)
        }
        Command::All { json } => runtime::block_on(all(&Client::new(access), json))?,
    }
}

fn check_one(spec: TargetSpec, options: &CheckOptions) -> anyhow::Result<ExitState> {
    let config::Settings { agent: mut settings, registry_url, declared, .. } = config::load(options.config.as_deref())?;
    let declared = declared.into_iter().map(|declared| declared.spec);
    if options.no_mount {
        settings.mounts.mode = MountMode::None;
    } else if let Some(mode) = mode_of_target(&registry_url, &spec, declared) {
        settings.mounts.mode = mode;
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
        scope: None,
    };
    let own_mount = own_mount_of_daemon(&registry_url, &target);
    runtime::block_on(async {
        let host = Arc::new(running_agent::host(ChildCensus::new(), ProcessRole::OneShot).await?);
        host.own_mounts.restore(own_mount.map(|mount| (target.id, mount)).into_iter().collect());
        let mut driver = driver::for_spec(&target, &host);
        let was_attached = driver.is_attached(&settings);
        // A single probe has no history, so no forecast.
        let usage = &mut UsageHistory::default();
        let mut signals = signals::Signals::install()?;
        let mut report = None;
        let probing = async {
            let mut latest = driver::probe_once(&mut driver, &target, &host, &settings, Depth::Full, usage).await;
            // A daemon would finish this work with its next probes.
            for _ in 0..PROBES_MAX {
                let Some(wait) = driver.next_due() else { break };
                tokio::time::sleep(wait).await;
                latest = driver::probe_once(&mut driver, &target, &host, &settings, Depth::Routine, usage).await;
            }
            report = Some(latest);
        };
        let is_complete = signals.completes(probing).await;
        // A mount that existed before belongs to another process, most likely to the daemon. An interrupted `mount.nfs`
        // may have mounted without a notification yet.
        if !was_attached && (driver.is_attached(&settings) || !is_complete) {
            match driver.detach(&settings).await {
                Ok(None) => {}
                Ok(Some(warning)) => eprintln!("targetwatch: {}", escape_invisible(&warning)),
                Err(error) => {
                    eprintln!("targetwatch: cannot unmount the target: {}", escape_invisible(&error.to_string()))
                }
            }
        }
        host.workers.shut_down();
        let report = report.context("interrupted: the target was not checked to the end")?;
        // There is no earlier probe, so one timeout makes the target offline.
        let status = TargetStatus::not_checked(now).after(&report, 1);
        let mount_path = target.mount_name.below(&settings.mounts.root);
        let view = TargetView {
            target: target.into(),
            types: [].into(),
            mount_path,
            status,
            report: Some(Arc::new(report)),
            record: Arc::default(),
            current_until: None,
        };
        let reports = [wire::Report::from(&view)];
        if options.json {
            print_json(&reports)?;
        } else {
            print_reports(&reports);
        }
        Ok(state(&reports))
    })?
}

/// Returns the mode of the daemon's target with the same storage, if it has its own. Otherwise this command would mount
/// where another program does.
fn mode_of_target(
    registry_url: &RegistryUrl,
    spec: &TargetSpec,
    declared: impl Iterator<Item = TargetSpec>,
) -> Option<MountMode> {
    let registered = registry::file(registry_url).and_then(|file| registry::inspect(file).ok());
    let registered = registered.map(|found| found.targets).unwrap_or_default();
    registered.into_iter().chain(declared).find(|known| known.is_same_storage(spec))?.mount_mode()
}

/// Returns the mount that the daemon made for the same export. Without a readable registry, a mount is recognized by
/// its source only.
fn own_mount_of_daemon(registry_url: &RegistryUrl, target: &Target) -> Option<OwnMountId> {
    let file = registry::file(registry_url)?;
    registry::own_mount(file, &target.mount_name, &target.spec.export()).ok().flatten()
}

async fn all(client: &Client, json: bool) -> anyhow::Result<ExitState> {
    let list: wire::TargetList = client.get("/backup_targets").await?;
    let answers: Vec<Answer> = stream::iter(&list.backup_targets)
        .map(|target| target::check(client, &target.id))
        .buffered(CHECKS_AT_ONCE)
        .try_collect()
        .await?;
    let reports = answers.iter().map(Answer::decode).collect::<Result<Vec<wire::Report>, _>>()?;
    if json {
        print_json(&answers.iter().map(Answer::decode).collect::<Result<Vec<Value>, _>>()?)?;
    } else {
        print_reports(&reports);
    }
    Ok(state(&reports))
}

fn print_reports(reports: &[wire::Report]) {
    if reports.is_empty() {
        return print(render::NO_TARGETS);
    }
    let style = OutputStyle::of_stdout();
    let texts: Vec<String> = reports.iter().map(|report| render::report(report, style)).collect();
    print(&texts.join("\n"));
}

fn state(reports: &[wire::Report]) -> ExitState {
    ExitState::worst(reports.iter().map(ExitState::from))
}
