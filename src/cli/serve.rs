//! `targetwatch serve`: runs the daemon.
//!
//! Only this module and [`super::running_agent`] know all parts of the daemon. Start-up opens the configuration, the
//! registry and the listeners, in this order, and stops at the first error. Meanwhile, it tries the program of the
//! workers. It does not access storage. When the API answers, the daemon notifies the service manager. `SIGHUP` reloads
//! the configuration. An invalid one is logged, and the old settings stay in force. `SIGTERM` and `SIGINT` stop the
//! daemon in less than two seconds, even if all storage is dead. Running requests get a second, child processes are
//! killed, and mounts stay in place.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::fleet_member::FleetStore;
use super::plain_text::{key_manager_warning, warn_about_plain_text};
use super::running_agent::{RunningAgent, start_workers};
use super::runtime;
use super::signals::{SignalAction, Signals};
use crate::api::Listeners;
use crate::config::{self, Settings};
use crate::model::settings::SharedRegistrySettings;
use crate::registry::{self, EtcdRegistry, Registry};
use crate::sys::{WorkerPool, heap, systemd};

/// How long the daemon waits for the registry to be closed when it stops. Acknowledged changes are already stored.
pub(super) const REGISTRY_CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// How long the process waits for log lines to be written when it stops.
const LOG_FLUSH_TIMEOUT: Duration = Duration::from_millis(200);

/// Number of malloc arenas of an agent: one for its tasks, and one for the API.
const ARENAS: u8 = 2;

/// Runs the daemon until a signal stops it. `config` is the path of the configuration file.
#[must_use]
pub fn run(config: Option<&Path>) -> ExitCode {
    heap::configure(ARENAS);
    with_log(|| runtime::block_on_agent(|api| start(config, api))?)
}

/// Starts the log, and runs a daemon. Logs the error with which it ends, and waits until the log is written.
pub(super) fn with_log(daemon: impl FnOnce() -> anyhow::Result<()>) -> ExitCode {
    let log = match super::log::start() {
        Ok(log) => log,
        Err(error) => {
            eprintln!("targetwatch: logging cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = match daemon() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", super::terminal::error_chain(&error));
            ExitCode::FAILURE
        }
    };
    log.flush(LOG_FLUSH_TIMEOUT);
    code
}

async fn start(config: Option<&Path>, api: Handle) -> anyhow::Result<()> {
    let settings = config::load(config)?;
    // It takes as long as the registry.
    let workers = start_workers();
    let (registry, fleet) = open(&settings).await?;
    serve(settings, registry, fleet, workers, config, &api).await
}

/// Opens the registry, and the connection to the fleet if it is shared. Blocks while it reads the disk.
async fn open(settings: &Settings) -> anyhow::Result<(Registry, Option<FleetStore>)> {
    let Some(shared) = settings.registry_url.shared() else {
        return Ok((registry::open(&settings.registry_url)?, None));
    };
    let store = super::fleet::connect_client(shared).await?;
    let in_etcd = EtcdRegistry::new(store.clone(), &shared.prefix);
    let fleet = FleetStore::new(store, shared, in_etcd.observed_generation());
    Ok((registry::open_copy(shared, Arc::new(in_etcd), fleet.size.clone())?, Some(fleet)))
}

async fn serve(
    settings: Settings,
    registry: Registry,
    fleet: Option<FleetStore>,
    workers: JoinHandle<WorkerPool>,
    config: Option<&Path>,
    api: &Handle,
) -> anyhow::Result<()> {
    let mut signals = Signals::install()?;
    heap::start_trimming().context("cannot start the thread that returns memory")?;
    let listeners = Listeners::bind(&settings.api.listen, settings.api.socket_group.as_deref()).await?;
    warn_about_plain_text(&settings.api);
    if let Some(warning) = key_manager_warning(&settings.agent) {
        tracing::warn!("{warning}");
    }
    if let Some(endpoint) = settings.registry_url.shared().and_then(SharedRegistrySettings::plain_text_elsewhere) {
        tracing::warn!(
            "etcd at {endpoint} is used without TLS, so others on the network can read and change the registry. Set an etcd+https:// URL in [registry] url"
        );
    }
    let addresses: Vec<String> = listeners.addresses().iter().map(ToString::to_string).collect();

    let running = RunningAgent::start(&settings, registry.clone(), listeners, fleet, workers, api).await?;
    let agent = running.agent.clone();
    let following = tokio::spawn({
        let registry = registry.clone();
        async move { registry.follow().await }
    });
    let watchdog = tokio::spawn(feed_watchdog(api.clone()));
    let targets = agent.view().targets.len();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), listen = addresses.join(", "), targets, "ready");
    systemd::ready(&format!("answering on {}", addresses.join(", ")));

    let declaring = tokio::spawn({
        let (agent, declared) = (agent.clone(), settings.declared.clone());
        async move { agent.declare_targets(&declared).await }
    });
    let mut settings = settings;
    while signals.next().await == SignalAction::Reload {
        if !signals.completes(running.reload(&mut settings, config)).await {
            break;
        }
    }

    systemd::stopping();
    tracing::info!("stopping, and mounts stay in place");
    watchdog.abort();
    declaring.abort();
    following.abort();
    let stopped = running.stop().await;
    if tokio::time::timeout(REGISTRY_CLOSE_TIMEOUT, registry.close()).await.is_err() {
        tracing::warn!(
            "the registry was not closed within {} ms: its disk is slow",
            REGISTRY_CLOSE_TIMEOUT.as_millis()
        );
    }
    stopped
}

/// Sends keep-alive messages to the service manager, each after a task was run by the runtime of the API. This task
/// shares a runtime with all others. So systemd restarts the daemon when one of the runtimes is stuck.
pub(super) async fn feed_watchdog(api: Handle) {
    let Some(interval) = systemd::watchdog_interval() else {
        return;
    };
    let mut ticks = tokio::time::interval(interval);
    loop {
        ticks.tick().await;
        // It fails only while the runtime ends.
        if api.spawn(async {}).await.is_ok() {
            systemd::watchdog();
        }
    }
}
