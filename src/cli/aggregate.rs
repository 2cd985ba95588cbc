//! `targetwatch aggregate`: runs an aggregator, which polls the agents of many nodes.
//!
//! It has no registry, mounts nothing and accesses no storage. Start-up, reload and shutdown are those of the agent
//! ([`super::serve`]).

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;

use super::runtime;
use super::serve::{
    DRAIN_TIMEOUT, SignalAction, Signals, feed_watchdog, load_tls, warn_about_expiry, warn_about_plain_text, with_log,
};
use crate::api::{Auth, CONNECTIONS_MAX, Listeners};
use crate::config::{self, Settings};
use crate::fleet::{self, Fleet};
use crate::sys::{heap, systemd};
use crate::tls::ServerTls;

/// Default path of the configuration file of an aggregator. An agent on the same host has its own.
pub(super) const DEFAULT_PATH: &str = "/etc/targetwatch/aggregate.toml";

/// Runs the aggregator until a signal stops it.
#[must_use]
pub fn run(config: &Path) -> ExitCode {
    heap::configure(runtime::WORKER_THREADS);
    with_log(|| runtime::block_on(serve(config::load(Some(config))?, config))?)
}

async fn serve(settings: Settings, config: &Path) -> anyhow::Result<()> {
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
    let fleet = Arc::new(Fleet::start(&settings.aggregate, &settings.api).await?);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let router = fleet::router(fleet.clone(), auth.clone(), settings.api.has_ui);
    let serving = listeners.with_tls(tls.clone()).serve(
        CONNECTIONS_MAX,
        router,
        async move { drop(stopped.await) },
        DRAIN_TIMEOUT,
    );
    let serving = tokio::spawn(serving);
    let watchdog = tokio::spawn(feed_watchdog());
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
    serving.await.context("the API panicked")
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
