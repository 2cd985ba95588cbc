//! `targetwatch serve`: the daemon, and the only place that sees everything.
//!
//! Start-up is in the order in which it can fail: configuration, registry, listeners; storage has
//! no part in it. Once the API answers, the service manager is told. `SIGHUP` reads the
//! configuration again, and a bad one is reported and changes nothing. `SIGTERM` and `SIGINT` end
//! the agent in under two seconds whatever is dead: requests get [`DRAIN`], children are killed, and
//! what is mounted stays mounted.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use super::runtime;
use crate::agent::Agent;
use crate::api::{self, Auth, Listeners};
use crate::config::{self, Settings};
use crate::driver::{Host, ProcessRole};
use crate::model::settings::{ApiSettings, AuthSettings};
use crate::registry::{self, Registry};
use crate::sys::{ChildCensus, MountTableWatch, NodeFacts, WorkerPool, WorkerPoolSettings, heap, node, systemd};
use crate::tls::ServerTls;

/// How long requests that are being answered may go on at the end.
const DRAIN: Duration = Duration::from_secs(1);

/// How long the process waits at its end for log lines to be written.
const LOG_FLUSH_TIMEOUT: Duration = Duration::from_millis(200);

/// What a probe worker is started from: this very program, also after an upgrade has replaced it
/// on disk (proc(5)).
pub(super) const THIS_PROGRAM: &str = "/proc/self/exe";

/// Runs the daemon until it is told to stop. `config` names the configuration file.
#[must_use]
pub fn run(config: Option<&Path>) -> ExitCode {
    heap::limit(runtime::WORKER_THREADS);
    let log = match super::log::start() {
        Ok(log) => log,
        Err(error) => {
            eprintln!("targetwatch: logging cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = prepare(config).and_then(|prepared| runtime::block_on(serve(prepared, config.map(Path::to_owned)))?);
    let code = match outcome {
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
}

fn prepare(config: Option<&Path>) -> anyhow::Result<Prepared> {
    let settings = config::load(config)?;
    let registry = registry::open(&settings.registry_url)?;
    Ok(Prepared { settings, registry })
}

/// The signals that mean something to the daemon. Taken before it says that it is ready, so that
/// none of them ends it in another way.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn take() -> anyhow::Result<Self> {
        let take = |kind| signal(kind).context("signals cannot be handled");
        Ok(Self {
            terminate: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
            hang_up: take(SignalKind::hangup())?,
        })
    }
}

impl Signals {
    /// Whether something came to its end before the agent was told to.
    async fn unless_ended(&mut self, what: impl Future<Output = ()>) -> bool {
        tokio::select! {
            _ = self.terminate.recv() => false,
            _ = self.interrupt.recv() => false,
            () = what => true,
        }
    }
}

async fn serve(prepared: Prepared, config: Option<PathBuf>) -> anyhow::Result<()> {
    let Prepared { settings, registry } = prepared;
    let mut signals = Signals::take()?;
    let listeners = Listeners::bind(&settings.api.listen).await?;
    if let Some(group) = &settings.api.socket_group {
        listeners.share_with(group)?;
    }
    warn_of_plain_text(&settings.api);
    let addresses: Vec<String> = listeners.addresses().iter().map(ToString::to_string).collect();

    let running = RunningAgent::start(&settings, registry, listeners).await?;
    let agent = running.agent.clone();
    let watchdog = tokio::spawn(feed_watchdog());
    let targets = agent.view().targets.len();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), listen = addresses.join(", "), targets, "ready");
    systemd::ready(&format!("answering on {}", addresses.join(", ")));

    let declaring = tokio::spawn({
        let (agent, declared) = (agent.clone(), settings.declared.clone());
        async move { agent.declare_targets(&declared).await }
    });
    let mut settings = settings;
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            _ = signals.hang_up.recv() => {
                if !signals.unless_ended(reload(&running, &mut settings, config.as_deref())).await {
                    break;
                }
            }
        }
    }

    systemd::stopping();
    tracing::info!("stopping; what is mounted stays mounted");
    watchdog.abort();
    declaring.abort();
    running.stop().await
}

/// An agent that is at work and answers.
pub struct RunningAgent {
    /// The agent.
    pub agent: Agent,
    auth: Arc<Auth>,
    tls: Option<Arc<ServerTls>>,
    serving: JoinHandle<()>,
}

impl RunningAgent {
    /// Starts the agent and its API.
    ///
    /// # Errors
    /// When the registry cannot be read, or this host has no /proc.
    pub async fn start(settings: &Settings, registry: Registry, listeners: Listeners) -> anyhow::Result<Self> {
        let started_at = Timestamp::now();
        let auth = Arc::new(Auth::load(&settings.api).await?);
        let (listeners, tls) = match &settings.api.tls {
            None => (listeners, None),
            Some(tls) => {
                let tls = Arc::new(ServerTls::load(tls.clone()).await.context("[api.tls]")?);
                (listeners.with_tls(tls.clone()), Some(tls))
            }
        };
        let census = ChildCensus::new();
        let workers = WorkerPool::new(WorkerPoolSettings::new(THIS_PROGRAM.into()), census.clone());
        let mounts = MountTableWatch::start().context("the mount table cannot be watched: is /proc mounted?")?;
        let host = Arc::new(Host::new(workers, mounts, node::hostname(), ProcessRole::Daemon));
        let agent = Agent::start(registry, host, settings.agent.clone());
        let facts = Arc::new(move || NodeFacts::read(started_at, &census));
        let router = api::router(agent.clone(), facts, auth.clone());
        let mut stopping = agent.stopping();
        let stop = async move {
            let _ = stopping.wait_for(|stopping| *stopping).await;
        };
        let serving = tokio::spawn(listeners.serve(router, stop, DRAIN));
        Ok(Self { agent, auth, tls, serving })
    }

    /// Reads the files again that the API was configured with. What is wrong is reported, and the
    /// old one stays in force.
    async fn reload_files(&self) {
        if let Err(error) = self.auth.reload().await {
            tracing::error!("authentication was not changed: {error}");
        }
        if let Some(tls) = &self.tls
            && let Err(error) = tls.reload().await
        {
            tracing::error!("TLS was not changed: [api.tls] {error}");
        }
    }

    /// Stops both, within the time to drain. What is mounted stays mounted.
    ///
    /// # Errors
    /// When the API had ended by a panic.
    pub async fn stop(self) -> anyhow::Result<()> {
        // The listeners end with the agent, and wait for requests that are being answered.
        let ((), served) = tokio::join!(self.agent.stop(), self.serving);
        served.context("the API ended by a panic")
    }
}

/// A token that crosses a network in plain text is everybody's.
fn warn_of_plain_text(api: &ApiSettings) {
    if let AuthSettings::Keystone(keystone) = &api.auth
        && keystone.is_plain_text_elsewhere()
    {
        tracing::warn!(
            "Keystone is asked without TLS at {}, so the agent's password and all tokens can be read on their way: give an https:// address in [api.keystone] url",
            keystone.url
        );
    }
    if api.tls.is_some() || api.auth == AuthSettings::None {
        return;
    }
    for address in api.listen.iter().filter(|address| address.is_remote()) {
        tracing::warn!(
            "{address} is reachable from other hosts without TLS, so tokens can be read on their way: set [api.tls]"
        );
    }
}

async fn reload(running: &RunningAgent, settings: &mut Settings, config: Option<&Path>) {
    let agent = &running.agent;
    systemd::reloading();
    running.reload_files().await;
    match config::load(config) {
        Ok(new) => {
            if new.api != settings.api || new.registry_url != settings.registry_url {
                tracing::warn!("[api] and [registry] are changed by a restart only; the old ones stay in force");
            }
            agent.change_settings(new.agent.clone());
            agent.declare_targets(&new.declared).await;
            tracing::info!("the configuration was read again");
            settings.agent = new.agent;
            settings.declared = new.declared;
        }
        Err(error) => tracing::error!("the configuration was not changed: {error}"),
    }
    systemd::ready("");
}

/// Tells the service manager that this process is alive, from the runtime that the API and all
/// tasks run on: when that is stuck, it is restarted.
async fn feed_watchdog() {
    let Some(every) = systemd::watchdog_interval() else {
        return;
    };
    let mut ticks = tokio::time::interval(every);
    loop {
        ticks.tick().await;
        systemd::watchdog();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reload_that_waits_does_not_hold_up_the_end() {
        let mut signals = Signals::take().expect("signals");
        assert!(signals.unless_ended(async {}).await);
        for told in [nix::sys::signal::SIGTERM, nix::sys::signal::SIGINT] {
            nix::sys::signal::raise(told).expect("sent");
            let ended = tokio::time::timeout(Duration::from_secs(5), signals.unless_ended(std::future::pending()));
            assert!(!ended.await.expect("it waits for the reload"), "{told}");
        }
    }
}
