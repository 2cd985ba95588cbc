//! `targetwatch serve`: runs the daemon.
//!
//! Only this module and [`super::running_agent`] know all parts of the daemon. Start-up opens the configuration, the
//! registry and the listeners, in this order, and stops at the first error. It does not access storage. When the API
//! answers, the daemon notifies the service manager. `SIGHUP` reloads the configuration. An invalid one is logged, and
//! the old settings stay in force. `SIGTERM` and `SIGINT` stop the daemon in less than two seconds, even if all storage
//! is dead. Running requests get a second, child processes are killed, and mounts stay in place.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use super::fleet_member::FleetStore;
use super::plain_text::{key_manager_warning, warn_about_plain_text};
use super::running_agent::RunningAgent;
use super::runtime;
use super::signals::{SignalAction, Signals};
use crate::api::Listeners;
use crate::config::{self, Settings};
use crate::model::settings::SharedRegistrySettings;
use crate::registry::{self, EtcdRegistry, Registry};
use crate::sys::{heap, systemd};

/// How long the daemon waits for the registry to be closed when it stops. Acknowledged changes are already stored.
pub(super) const REGISTRY_CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// How long the process waits for log lines to be written when it stops.
const LOG_FLUSH_TIMEOUT: Duration = Duration::from_millis(200);

/// Runs the daemon until a signal stops it. `config` is the path of the configuration file.
#[must_use]
pub fn run(config: Option<&Path>) -> ExitCode {
    heap::configure(runtime::WORKER_THREADS);
    with_log(|| prepare(config).and_then(|prepared| runtime::block_on(serve(prepared, config.map(Path::to_owned)))?))
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

struct Prepared {
    settings: Settings,
    registry: Registry,
    fleet: Option<FleetStore>,
}

fn prepare(config: Option<&Path>) -> anyhow::Result<Prepared> {
    let settings = config::load(config)?;
    let mut fleet = None;
    let registry = match settings.registry_url.shared() {
        None => registry::open(&settings.registry_url)?,
        Some(shared) => {
            let store = runtime::block_on(super::fleet::connect_client(shared))??;
            let in_etcd = EtcdRegistry::new(store.clone(), &shared.prefix);
            let member = FleetStore::new(store, shared, in_etcd.observed_generation());
            let copy = registry::open_copy(shared, Arc::new(in_etcd), member.size.clone())?;
            fleet = Some(member);
            copy
        }
    };
    Ok(Prepared { settings, registry, fleet })
}

async fn serve(prepared: Prepared, config: Option<PathBuf>) -> anyhow::Result<()> {
    let Prepared { settings, registry, fleet } = prepared;
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

    let running = RunningAgent::start(&settings, registry.clone(), listeners, fleet).await?;
    let agent = running.agent.clone();
    let following = tokio::spawn({
        let registry = registry.clone();
        async move { registry.follow().await }
    });
    let watchdog = tokio::spawn(feed_watchdog());
    let targets = agent.view().targets.len();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), listen = addresses.join(", "), targets, "ready");
    systemd::ready(&format!("answering on {}", addresses.join(", ")));

    let declaring = tokio::spawn({
        let (agent, declared) = (agent.clone(), settings.declared.clone());
        async move { agent.declare_targets(&declared).await }
    });
    let mut settings = settings;
    while signals.next().await == SignalAction::Reload {
        if !signals.completes(running.reload(&mut settings, config.as_deref())).await {
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

/// Sends keep-alive messages to the service manager. The task shares the runtime with the API and all
/// other tasks, so systemd restarts the daemon when the runtime is stuck.
pub(super) async fn feed_watchdog() {
    let Some(interval) = systemd::watchdog_interval() else {
        return;
    };
    let mut ticks = tokio::time::interval(interval);
    loop {
        ticks.tick().await;
        systemd::watchdog();
    }
}
