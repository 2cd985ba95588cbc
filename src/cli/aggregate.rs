//! `targetwatch aggregate`: runs an aggregator, which polls the agents of many nodes.
//!
//! It mounts nothing and accesses no storage. If its configuration names a registry that all nodes share, it also
//! changes this registry. Start-up, reload and shutdown are those of the agent ([`super::serve`]).

use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use tokio::runtime::Handle;

use super::plain_text::warn_about_plain_text;
use super::running_agent::{DRAIN_TIMEOUT, host, load_tls, warn_about_expiry};
use super::runtime;
use super::serve::{REGISTRY_CLOSE_TIMEOUT, feed_watchdog, with_log};
use super::signals::{SignalAction, Signals};
use crate::agent::{Agent, ProcessRole};
use crate::api::{self, Auth, CONNECTIONS_MAX, Listeners, wire};
use crate::config::{self, Settings};
use crate::etcd::FleetSize;
use crate::fleet::{self, AllRegistered, Fleet, RegisteredTargets};
use crate::model::Caller;
use crate::registry::{self, Registry};
use crate::sys::{ChildCensus, NodeFacts, heap, systemd};
use crate::tls::ServerTls;

/// Default path of the configuration file of an aggregator. An agent on the same host has its own.
pub(super) const DEFAULT_PATH: &str = "/etc/targetwatch/aggregate.toml";

/// Copy of the registry of an agent on the same host, without a setting.
const AGENT_CACHE: &str = "/var/lib/targetwatch/registry.db";

/// Copy of an aggregator, as its unit permits it.
const CACHE_EXAMPLE: &str = "/var/lib/targetwatch-aggregate/registry.db";

/// Runs the aggregator until a signal stops it.
#[must_use]
pub fn run(config: &Path) -> ExitCode {
    heap::configure(runtime::COMMAND_THREADS);
    with_log(|| {
        let settings = config::load(Some(config))?;
        let registry = open(&settings)?;
        runtime::block_on(serve(settings, registry, config))?
    })
}

/// Opens this aggregator's copy of the registry that all nodes share, if there is one.
fn open(settings: &Settings) -> anyhow::Result<Option<Registry>> {
    let Some(shared) = settings.registry_url.shared() else { return Ok(None) };
    ensure!(
        shared.cache != Path::new(AGENT_CACHE),
        "[registry] cache: {AGENT_CACHE} is the copy of an agent, expected a file of the aggregator's own, such as {CACHE_EXAMPLE}"
    );
    let store = runtime::block_on(super::fleet::connect(shared))??;
    // Aggregators are few, and not counted.
    let size = FleetSize::default();
    size.set(1);
    Ok(Some(registry::open_copy(shared, store, size)?))
}

/// Starts the agent that changes the registry.
async fn registrar(settings: &Settings, registry: &Registry, census: &ChildCensus) -> anyhow::Result<Agent> {
    let host = host(census.clone(), ProcessRole::OneShot).await?;
    Ok(Agent::without_probes(registry.clone(), Arc::new(host), settings.agent.clone()))
}

/// Returns the targets that the agent knows, which are made again when they change.
fn registered(agent: Agent) -> RegisteredTargets {
    let made: Mutex<(Option<u64>, AllRegistered)> = Mutex::default();
    RegisteredTargets::new(move || {
        let view = agent.view();
        let mut made = made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.0 != Some(view.generation) {
            let targets = view.targets.iter().map(|target| Arc::new(wire::Target::seen_by(&Caller::local(), target)));
            *made = (Some(view.generation), targets.collect());
        }
        made.1.clone()
    })
}

async fn serve(settings: Settings, registry: Option<Registry>, config: &Path) -> anyhow::Result<()> {
    let mut signals = Signals::install()?;
    heap::start_trimming().context("cannot start the thread that returns memory")?;
    let listeners = Listeners::bind(&settings.api.listen, settings.api.socket_group.as_deref()).await?;
    warn_about_plain_text(&settings.api);
    if !settings.api.metrics.listen.is_empty() {
        tracing::warn!(
            "[metrics] listen is not used by an aggregator: its metrics are at the addresses of [api] listen"
        );
    }
    let addresses: Vec<String> = listeners.addresses().iter().map(ToString::to_string).collect();
    let auth = Arc::new(Auth::load(&settings.api).await?);
    let tls = load_tls(&settings.api).await?;
    let (census, started_at) = (ChildCensus::new(), Timestamp::now());
    let agent = match &registry {
        Some(registry) => Some(registrar(&settings, registry, &census).await?),
        None => None,
    };
    let following = registry.clone().map(|registry| tokio::spawn(async move { registry.follow().await }));
    let fleet = Fleet::start(&settings.aggregate, &settings.api, agent.clone().map(registered)).await?;
    let fleet = Arc::new(fleet);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let facts: api::ReadNodeFacts = Arc::new(move || NodeFacts::read(started_at, &census));
    let changes = agent.clone().map(|agent| api::registry_routes(agent, facts));
    let router = fleet::router(fleet.clone(), auth.clone(), settings.api.has_ui, changes);
    let serving = listeners.with_tls(tls.clone()).serve(
        CONNECTIONS_MAX,
        router,
        async move { drop(stopped.await) },
        DRAIN_TIMEOUT,
    );
    let serving = tokio::spawn(serving);
    let watchdog = tokio::spawn(feed_watchdog(Handle::current()));
    let nodes = fleet.view().nodes.len();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), listen = addresses.join(", "), nodes, "ready");
    systemd::ready(&format!("answering on {}", addresses.join(", ")));

    while signals.next().await == SignalAction::Reload {
        if !signals.completes(reload(&fleet, &auth, tls.as_ref(), config)).await {
            break;
        }
    }

    systemd::stopping();
    tracing::info!("stopping");
    watchdog.abort();
    drop(stop);
    if let Some(agent) = agent {
        agent.stop().await;
    }
    let served = serving.await.context("the API panicked");
    if let Some(following) = following {
        following.abort();
    }
    if let Some(registry) = registry
        && tokio::time::timeout(REGISTRY_CLOSE_TIMEOUT, registry.close()).await.is_err()
    {
        tracing::warn!("the copy of the registry was not closed in time: its disk is slow");
    }
    served
}

/// Reads the configuration and its files again. What cannot be read stays as it is.
async fn reload(fleet: &Fleet, auth: &Auth, tls: Option<&Arc<ServerTls>>, config: &Path) {
    systemd::reloading();
    match config::load(Some(config)) {
        Ok(settings) => {
            let mut problems = Vec::new();
            problems.extend(auth.reload(&settings.api).await.err().map(|error| format!("[api]: {error}")));
            problems
                .extend(fleet.reload(&settings.aggregate, &settings.api).await.err().map(|error| error.to_string()));
            if let Some(tls) = tls {
                match tls.reload().await {
                    Ok(()) => warn_about_expiry(tls),
                    Err(error) => problems.push(format!("[api.tls]: {error}")),
                }
            }
            for problem in &problems {
                tracing::error!("cannot be reloaded, and the old settings stay in force: {problem}");
            }
            if problems.is_empty() {
                tracing::info!("configuration reloaded. [api] listen and [api.tls] paths need a restart");
            }
        }
        Err(error) => tracing::error!("cannot reload the configuration. The old settings stay in force: {error}"),
    }
    systemd::ready("");
}
