//! `targetwatch serve`: runs the daemon.
//!
//! This is the only module that knows all parts of the daemon. Start-up opens the configuration, the
//! registry and the listeners, in this order, and stops at the first error. It does not access storage.
//! When the API answers, the daemon notifies the service manager. `SIGHUP` reloads the configuration.
//! An invalid one is logged, and the old settings stay in force. `SIGTERM` and `SIGINT` stop the daemon
//! in less than two seconds, even if all storage is dead. Running requests get [`DRAIN_TIMEOUT`], child
//! processes are killed, and mounts stay in place.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::fleet_member::{FleetMember, FleetStore};
use super::runtime;
use crate::agent::{Agent, StatusChange, recall_own_mounts};
use crate::api::{self, Auth, CONNECTIONS_MAX, ConfigState, Listeners, METRICS_CONNECTIONS_MAX, Metrics};
use crate::config::{self, Settings};
use crate::driver::{FactBoard, Host, ProcessRole};
use crate::model::LabeledNode;
use crate::model::settings::{AgentSettings, ApiSettings, AuthSettings, NotifySettings, SharedRegistrySettings};
use crate::notify::{CHANGES_MAX, Notifier};
use crate::registry::{self, Registry};
use crate::sys::{ChildCensus, MountTableWatch, NodeFacts, WorkerPool, WorkerPoolSettings, heap, node, systemd};
use crate::tls::ServerTls;

/// Time that running requests get to finish when the daemon stops.
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the daemon waits for the registry to be closed when it stops. Acknowledged changes are already stored.
pub(super) const REGISTRY_CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// How long the process waits for log lines to be written when it stops.
const LOG_FLUSH_TIMEOUT: Duration = Duration::from_millis(200);

/// Executable of probe workers: this program, even after an upgrade replaced it on disk (proc(5)).
const THIS_PROGRAM: &str = "/proc/self/exe";

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
            let member = FleetStore::new(store.clone(), shared);
            let copy = registry::open_copy(shared, super::fleet::registry_in(store, shared), member.size.clone())?;
            fleet = Some(member);
            copy
        }
    };
    Ok(Prepared { settings, registry, fleet })
}

/// What the program does on a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignalAction {
    Stop,
    /// Read the configuration again.
    Reload,
}

/// Signals that the daemon and a one-shot check handle. The daemon installs the handlers before it reports that it is
/// ready, so that no such signal kills it.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// When the kernel refuses one.
    pub(super) fn install() -> anyhow::Result<Self> {
        let handler = |kind| signal(kind).context("cannot install signal handlers");
        Ok(Self {
            terminate: handler(SignalKind::terminate())?,
            interrupt: handler(SignalKind::interrupt())?,
            hang_up: handler(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) -> SignalAction {
        tokio::select! {
            _ = self.terminate.recv() => SignalAction::Stop,
            _ = self.interrupt.recv() => SignalAction::Stop,
            _ = self.hang_up.recv() => SignalAction::Reload,
        }
    }

    /// Waits for `work`. Returns false if a signal to stop arrives first.
    pub(super) async fn completes(&mut self, work: impl Future<Output = ()>) -> bool {
        tokio::select! {
            _ = self.terminate.recv() => false,
            _ = self.interrupt.recv() => false,
            () = work => true,
        }
    }
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
        if !signals.completes(reload(&running, &mut settings, config.as_deref())).await {
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

/// Running agent with its API.
pub struct RunningAgent {
    /// The agent.
    pub agent: Agent,
    /// This node in its fleet.
    member: Option<FleetMember>,
    auth: Arc<Auth>,
    tls: Option<Arc<ServerTls>>,
    metrics: Arc<Metrics>,
    notifier: Arc<Notifier>,
    notifying: JoinHandle<()>,
    serving: JoinHandle<()>,
    serving_metrics: JoinHandle<()>,
}

impl RunningAgent {
    /// Starts the agent and its API. With a `fleet`, the node becomes a member of it.
    ///
    /// # Errors
    /// When the registry or a file of `[api]` or `[notify]` cannot be used, or when this host has no /proc.
    pub async fn start(
        settings: &Settings,
        registry: Registry,
        listeners: Listeners,
        fleet: Option<FleetStore>,
    ) -> anyhow::Result<Self> {
        let started_at = Timestamp::now();
        let auth = Arc::new(Auth::load(&settings.api).await?);
        let metrics_listeners = bind_metrics(&settings.api).await?;
        let tls = load_tls(&settings.api).await?;
        let census = ChildCensus::new();
        let notifier = Arc::new(Notifier::new(census.clone()));
        notifier.load(&settings.notify).await?;
        let (changed, changes) = mpsc::channel(CHANGES_MAX);
        let board = fleet.is_some().then(Arc::<FactBoard>::default);
        let node = fleet.as_ref().map(|fleet| fleet.node.clone());
        let agent = start_agent(settings, registry, census.clone(), changed, board.clone().zip(node)).await?;
        let member = fleet.zip(board).map(|(fleet, board)| FleetMember::start(fleet, &agent, board));
        let notifying = tokio::spawn({
            let (notifier, agent) = (notifier.clone(), agent.clone());
            async move { notifier.follow(agent, changes).await }
        });
        let fleet = member.as_ref().map(FleetMember::facts);
        let facts: api::ReadNodeFacts = Arc::new(move || NodeFacts {
            fleet: fleet.as_ref().map(|read| read()),
            ..NodeFacts::read(started_at, &census)
        });
        let config =
            ConfigState { fingerprint: settings.fingerprint(), is_last_reload_successful: true, loaded_at: started_at };
        let detail = settings.api.metrics.detail;
        let metrics = Metrics::new(agent.clone(), facts.clone(), auth.clone(), notifier.clone(), detail, config)
            .with_tls(tls.clone());
        let metrics = Arc::new(metrics);
        let serve = |listeners: Listeners, connections_max, router| {
            let mut stopping = agent.stopping();
            let stop = async move { drop(stopping.wait_for(|stopping| *stopping).await) };
            tokio::spawn(listeners.with_tls(tls.clone()).serve(connections_max, router, stop, DRAIN_TIMEOUT))
        };
        let router = api::router(agent.clone(), facts, auth.clone(), &metrics, settings.api.has_ui);
        let serving = serve(listeners, CONNECTIONS_MAX, router);
        let serving_metrics =
            serve(metrics_listeners, METRICS_CONNECTIONS_MAX, api::metrics_router(auth.clone(), &metrics));
        Ok(Self { agent, member, auth, tls, metrics, notifier, notifying, serving, serving_metrics })
    }

    /// Applies the settings of authentication and reads their files again. Returns whether that succeeded. Otherwise it
    /// logs why, and the old settings and content stay in use.
    async fn reload_auth(&self, settings: &ApiSettings) -> bool {
        let reloaded = self.auth.reload(settings).await;
        if let Err(error) = &reloaded {
            tracing::error!("cannot reload the files of [api]; the old ones stay in force: {error}");
        }
        reloaded.is_ok()
    }

    /// Reads the certificate and its key again. Returns whether that succeeded, as [`Self::reload_auth`].
    async fn reload_tls(&self) -> bool {
        let Some(tls) = &self.tls else { return true };
        let reloaded = tls.reload().await;
        match &reloaded {
            Ok(()) => warn_about_expiry(tls),
            Err(error) => tracing::error!("cannot reload the files of [api.tls]; the old ones stay in force: {error}"),
        }
        reloaded.is_ok()
    }

    /// Replaces the receivers of notifications, and reads their files again. Returns whether that succeeded, as
    /// [`Self::reload_auth`].
    async fn reload_notify(&self, settings: &NotifySettings) -> bool {
        let reloaded = self.notifier.load(settings).await;
        if let Err(error) = &reloaded {
            tracing::error!("cannot reload [notify]; the old receivers stay in force: {error}");
        }
        reloaded.is_ok()
    }

    /// Stops the API and the agent within `DRAIN_TIMEOUT`. Mounts stay in place.
    ///
    /// # Errors
    /// When the API panicked.
    pub async fn stop(self) -> anyhow::Result<()> {
        // The listeners stop together with the agent, and wait for running requests.
        let leave = async {
            if let Some(member) = self.member {
                member.stop().await;
            }
        };
        let ((), (), (), served, metrics_served) =
            tokio::join!(self.agent.stop(), leave, self.notifier.stop(), self.serving, self.serving_metrics);
        self.notifying.abort();
        served.and(metrics_served).context("the API panicked")
    }
}

/// Binds the addresses that serve only the metrics.
async fn bind_metrics(api: &ApiSettings) -> anyhow::Result<Listeners> {
    let bound = Listeners::bind(&api.metrics.listen, api.socket_group.as_deref()).await.context("[metrics] listen")?;
    for address in bound.addresses() {
        tracing::info!(listen = %address, "serving the metrics");
    }
    Ok(bound)
}

pub(super) async fn load_tls(api: &ApiSettings) -> anyhow::Result<Option<Arc<ServerTls>>> {
    let Some(tls) = &api.tls else { return Ok(None) };
    let tls = ServerTls::load(tls.clone()).await.context("[api.tls]")?;
    warn_about_expiry(&tls);
    Ok(Some(Arc::new(tls)))
}

pub(super) fn warn_about_expiry(tls: &ServerTls) {
    if let Some(warning) = tls.expiry_warning(Timestamp::now()) {
        tracing::warn!("[api.tls]: {warning}");
    }
}

async fn start_agent(
    settings: &Settings,
    registry: Registry,
    census: ChildCensus,
    changes: mpsc::Sender<StatusChange>,
    fleet: Option<(Arc<FactBoard>, LabeledNode)>,
) -> anyhow::Result<Agent> {
    let host = host(census, ProcessRole::Daemon).await?.with_canary_store(Arc::new(registry.clone()));
    let (facts, fleet_node) = fleet.unzip();
    let host = Host { facts, fleet_node, ..host };
    recall_own_mounts(&registry, &host).await;
    Ok(Agent::start(registry, Arc::new(host), settings.agent.clone(), changes))
}

/// Returns the resources of this host. `census` counts the child processes.
///
/// # Errors
/// When this host has no /proc.
pub(super) async fn host(census: ChildCensus, role: ProcessRole) -> anyhow::Result<Host> {
    let workers = WorkerPool::new(WorkerPoolSettings::choose(THIS_PROGRAM.into(), &census).await, census);
    let mounts = MountTableWatch::start().context("cannot watch the mount table. Check that /proc is mounted")?;
    Ok(Host::new(workers, mounts, node::hostname(), role))
}

pub(super) fn warn_about_plain_text(api: &ApiSettings) {
    for warning in plain_text_warnings(api) {
        tracing::warn!("{warning}");
    }
}

/// Returns a warning if the credentials of buckets cross a network in plain text.
pub(super) fn key_manager_warning(settings: &AgentSettings) -> Option<String> {
    let key_manager = settings.key_manager.as_ref()?;
    let keystone = &key_manager.keystone;
    let plain = match &key_manager.endpoint {
        Some(endpoint) if key_manager.is_plain_text_elsewhere() => endpoint,
        _ if keystone.is_plain_text_elsewhere() => &keystone.url,
        _ => return None,
    };
    Some(format!(
        "{plain} is used without TLS, so others on the network can read the credentials of buckets or the agent's password. Set https:// URLs in [key_manager] endpoint and [api.keystone] url"
    ))
}

/// Returns a warning for each way in which tokens cross a network in plain text.
pub(super) fn plain_text_warnings(api: &ApiSettings) -> Vec<String> {
    let mut warnings = Vec::new();
    if let AuthSettings::Keystone(keystone) = &api.auth
        && keystone.is_plain_text_elsewhere()
    {
        warnings.push(format!(
            "Keystone at {} is used without TLS, so others on the network can read the agent's password and all tokens. Set an https:// URL in [api.keystone] url",
            keystone.url
        ));
    }
    if api.tls.is_some() || (api.auth == AuthSettings::None && api.metrics.token_file.is_none()) {
        return warnings;
    }
    let remote = api.listen.iter().chain(&api.metrics.listen).filter(|address| address.is_remote());
    warnings.extend(remote.map(|address| {
        format!("{address} is reachable from other hosts without TLS, so others on the network can read tokens. Set [api.tls]")
    }));
    warnings
}

async fn reload(running: &RunningAgent, settings: &mut Settings, config: Option<&Path>) {
    let agent = &running.agent;
    systemd::reloading();
    let loaded = config::load(config);
    let has_new_auth = running.reload_auth(loaded.as_ref().map_or(&settings.api, |new| &new.api)).await;
    let has_new_tls = running.reload_tls().await;
    let has_new_receivers = running.reload_notify(loaded.as_ref().map_or(&settings.notify, |new| &new.notify)).await;
    match loaded {
        Ok(new) => {
            if has_new_auth {
                apply_auth(&mut settings.api, &new.api);
            }
            if has_new_auth && new.api != settings.api || new.registry_url != settings.registry_url {
                tracing::warn!(
                    "changes of [api] (except [api.token] and [api.keystone]), [metrics] (except token_file), [ui], [registry] and [fleet] (except bucket_check_interval) need a restart: the old settings stay in force"
                );
            }
            agent.change_settings(new.agent.clone());
            agent.declare_targets(&new.declared).await;
            if has_new_auth && has_new_tls && has_new_receivers {
                running.metrics.config_loaded(new.fingerprint());
                tracing::info!("configuration reloaded");
            } else {
                running.metrics.config_rejected();
                tracing::warn!(
                    "configuration reloaded in part: correct the files that the errors above name, and reload again"
                );
            }
            settings.agent = new.agent;
            settings.declared = new.declared;
            if has_new_receivers {
                settings.notify = new.notify;
            }
        }
        Err(error) => {
            running.metrics.config_rejected();
            tracing::error!("cannot reload the configuration. The old settings stay in force: {error}");
        }
    }
    systemd::ready("");
}

/// Takes over the settings that [`Auth::reload`] applied.
fn apply_auth(settings: &mut ApiSettings, new: &ApiSettings) {
    let token_file = &mut settings.metrics.token_file;
    if token_file.is_some() && new.metrics.token_file.is_none() {
        tracing::warn!("the removal of [metrics] token_file needs a restart: the old token stays in force");
    } else {
        token_file.clone_from(&new.metrics.token_file);
    }
    let is_same_kind = std::mem::discriminant(&new.auth) == std::mem::discriminant(&settings.auth);
    if is_same_kind && new.auth != settings.auth {
        settings.auth.clone_from(&new.auth);
        warn_about_plain_text(settings);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stop_signal_interrupts_a_waiting_reload() {
        let mut signals = Signals::install().expect("signals");
        assert!(signals.completes(async {}).await);
        for stop in [nix::sys::signal::SIGTERM, nix::sys::signal::SIGINT] {
            nix::sys::signal::raise(stop).expect("sent");
            let ended = tokio::time::timeout(Duration::from_secs(5), signals.completes(std::future::pending()));
            assert!(!ended.await.expect("the reload ends"), "{stop}");
        }
    }
}
