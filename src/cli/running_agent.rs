//! Agent with its API and its notifications, and how their settings change while they run.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::fleet_member::{FleetMember, FleetStore};
use super::plain_text::warn_about_plain_text;
use crate::agent::{Agent, StatusChange, recall_own_mounts};
use crate::api::{self, Auth, CONNECTIONS_MAX, ConfigState, Listeners, METRICS_CONNECTIONS_MAX, Metrics, RouteTable};
use crate::config::{self, Settings};
use crate::driver::{FactBoard, Host, ProcessRole};
use crate::model::LabeledNode;
use crate::model::settings::{ApiSettings, NotifySettings};
use crate::notify::{CHANGES_MAX, Notifier};
use crate::registry::Registry;
use crate::sys::{ChildCensus, MountTableWatch, NodeFacts, WorkerPool, WorkerPoolSettings, node, systemd};
use crate::tls::ServerTls;

/// Time that running requests get to finish when the daemon stops.
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Executable of probe workers: this program, even after an upgrade replaced it on disk (proc(5)).
const THIS_PROGRAM: &str = "/proc/self/exe";

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
    /// Starts the agent with workers from [`start_workers`], and its API in the runtime `api`. With a `fleet`, the node
    /// becomes a member of it.
    ///
    /// # Errors
    /// When the registry or a file of `[api]` or `[notify]` cannot be used, or when this host has no /proc.
    pub async fn start(
        settings: &Settings,
        registry: Registry,
        listeners: Listeners,
        fleet: Option<FleetStore>,
        workers: JoinHandle<WorkerPool>,
        api: &Handle,
    ) -> anyhow::Result<Self> {
        let started_at = Timestamp::now();
        let routes = RouteTable::new(settings.api.has_ui);
        let auth = Arc::new(Auth::load(&settings.api).await?);
        let metrics_listeners = bind_metrics(&settings.api).await?;
        let tls = load_tls(&settings.api).await?;
        let workers = workers.await.context("the start of the workers panicked")?;
        let census = workers.census().clone();
        let notifier = Arc::new(Notifier::new(census.clone()));
        notifier.load(&settings.notify).await?;
        let (changed, changes) = mpsc::channel(CHANGES_MAX);
        let board = fleet.is_some().then(Arc::<FactBoard>::default);
        let node = fleet.as_ref().map(|fleet| fleet.node.clone());
        let agent = start_agent(settings, registry, workers, changed, board.clone().zip(node)).await?;
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
            api.spawn(listeners.with_tls(tls.clone()).serve(connections_max, router, stop, DRAIN_TIMEOUT))
        };
        let router = routes.serve(agent.clone(), facts, auth.clone(), &metrics);
        let serving = serve(listeners, CONNECTIONS_MAX, router);
        let serving_metrics =
            serve(metrics_listeners, METRICS_CONNECTIONS_MAX, api::metrics_router(auth.clone(), &metrics));
        Ok(Self { agent, member, auth, tls, metrics, notifier, notifying, serving, serving_metrics })
    }

    /// Reads the configuration at `config` and applies it to what runs. Updates `settings` with what it applied. Logs
    /// what it could not apply: there, the old settings stay in force.
    pub(super) async fn reload(&self, settings: &mut Settings, config: Option<&Path>) {
        systemd::reloading();
        let loaded = config::load(config);
        let has_new_auth = self.reload_auth(loaded.as_ref().map_or(&settings.api, |new| &new.api)).await;
        let has_new_tls = self.reload_tls().await;
        let has_new_receivers = self.reload_notify(loaded.as_ref().map_or(&settings.notify, |new| &new.notify)).await;
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
                self.agent.change_settings(new.agent.clone());
                self.agent.declare_targets(&new.declared).await;
                if has_new_auth && has_new_tls && has_new_receivers {
                    self.metrics.config_loaded(new.fingerprint());
                    tracing::info!("configuration reloaded");
                } else {
                    self.metrics.config_rejected();
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
                self.metrics.config_rejected();
                tracing::error!("cannot reload the configuration. The old settings stay in force: {error}");
            }
        }
        systemd::ready("");
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

    /// Stops the API and the agent within [`DRAIN_TIMEOUT`]. Mounts stay in place.
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
    workers: WorkerPool,
    changes: mpsc::Sender<StatusChange>,
    fleet: Option<(Arc<FactBoard>, LabeledNode)>,
) -> anyhow::Result<Agent> {
    let host = host_with(workers, ProcessRole::Daemon)?.with_canary_store(Arc::new(registry.clone()));
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
    host_with(worker_pool(census).await, role)
}

/// Chooses the program of the workers in a task, which starts a child.
#[must_use]
pub fn start_workers() -> JoinHandle<WorkerPool> {
    tokio::spawn(worker_pool(ChildCensus::new()))
}

async fn worker_pool(census: ChildCensus) -> WorkerPool {
    WorkerPool::new(WorkerPoolSettings::choose(THIS_PROGRAM.into(), &census).await, census)
}

fn host_with(workers: WorkerPool, role: ProcessRole) -> anyhow::Result<Host> {
    let mounts = MountTableWatch::start().context("cannot watch the mount table. Check that /proc is mounted")?;
    Ok(Host::new(workers, mounts, node::hostname(), role))
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
