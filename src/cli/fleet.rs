//! `targetwatch fleet`: the registry that all nodes share.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Subcommand;

use super::exit::ExitState;
use super::runtime;
use super::terminal::{escape_invisible, print};
use crate::config;
use crate::etcd::{EtcdClient, EtcdSettings};
use crate::model::settings::SharedRegistrySettings;
use crate::registry::{EtcdRegistry, FormerRegistry, JoinAction, JoinPlan, SharedRegistry, join};
use crate::sys::secret_file::read_secret;

/// Subcommands of `fleet`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Move the targets of this node into the registry of the fleet; the agent must be stopped
    Join {
        /// Show what would happen, and change nothing; the agent may run
        #[arg(long)]
        dry_run: bool,
        /// Leave the registry that this node has joined before, if it is another one; its targets stay there
        #[arg(long)]
        leave: bool,
        /// Add all targets of the registry that this node leaves to the new one, which replaces a lost one
        #[arg(long, requires = "leave")]
        take_targets: bool,
        /// Configuration file of the agent [default: /etc/targetwatch/config.toml if it exists]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

/// Runs a subcommand. Exits with 2 if a dry run finds a target that cannot be moved.
///
/// # Errors
/// When the configuration or one of the registries cannot be used.
pub fn run(command: &Command) -> anyhow::Result<ExitState> {
    let Command::Join { dry_run, leave, take_targets, config } = command;
    let former = match (leave, take_targets) {
        (false, _) => FormerRegistry::Stay,
        (true, false) => FormerRegistry::Leave,
        (true, true) => FormerRegistry::LeaveWithTargets,
    };
    let url = config::load(config.as_deref())?.registry_url;
    let settings = url
        .shared()
        .with_context(|| format!("[registry] url: {url} is the registry of a single node, expected an etcd URL"))?;
    let plan = runtime::block_on(async {
        let shared = connect(settings).await?;
        let joined = if *dry_run {
            join::plan(url.file(), &*shared, former).await
        } else {
            join::apply(url.file(), &*shared, former).await
        };
        anyhow::Ok(joined?)
    })??;
    print(&text(&plan, &url.to_string(), *dry_run));
    let is_conflict = plan.targets.iter().any(|planned| matches!(planned.action, JoinAction::Conflict(_)));
    Ok(if is_conflict { ExitState::Offline } else { ExitState::Available })
}

/// Returns the connection to the registry of the fleet, as [`connect_client`].
///
/// # Errors
/// When a file of `[registry]` cannot be used.
pub(super) async fn connect(settings: &SharedRegistrySettings) -> anyhow::Result<Arc<dyn SharedRegistry>> {
    Ok(Arc::new(EtcdRegistry::new(connect_client(settings).await?, &settings.prefix)))
}

/// Returns the client of etcd. Sends nothing yet.
///
/// # Errors
/// When a file of `[registry]` cannot be used.
pub(super) async fn connect_client(settings: &SharedRegistrySettings) -> anyhow::Result<Arc<EtcdClient>> {
    let login = match &settings.login {
        Some((user, file)) => Some((user.clone(), read_secret(file).await.context("[registry] password_file")?)),
        None => None,
    };
    let (endpoints, ca_file) = (settings.endpoints.clone(), settings.ca_file.clone());
    Ok(Arc::new(EtcdClient::new(EtcdSettings { endpoints, ca_file, login }).await.context("[registry] ca_file")?))
}

fn text(plan: &JoinPlan, url: &str, is_dry_run: bool) -> String {
    let mut lines = vec![format!("registry {} at {url}", plan.cloud_id)];
    if plan.is_joined_already {
        lines.push("this node has joined already: nothing was changed\n".to_owned());
        return lines.join("\n");
    }
    for planned in &plan.targets {
        let action = match &planned.action {
            JoinAction::None => "is there already".to_owned(),
            JoinAction::Added => "moves there".to_owned(),
            JoinAction::Renamed(id) => format!("gets the id {id}, and the API still answers to {}", planned.id),
            JoinAction::Left => "stays in the registry that this node leaves, and is removed from this node".to_owned(),
            JoinAction::Conflict(problem) => format!("cannot be moved: {problem}"),
        };
        lines.push(format!("{} {}: {action}", planned.id, escape_invisible(&planned.export)));
    }
    lines.push(format!("this node receives {} other targets", plan.received));
    lines.push(if is_dry_run { "nothing was changed" } else { "joined: start the agent" }.to_owned());
    lines.join("\n") + "\n"
}
