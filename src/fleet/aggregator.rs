//! The tasks of an aggregator: they poll the nodes, follow the list of nodes, and publish the view.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::agent_client::{AgentClient, AgentClientError, AgentList, PollError, Polled};
use super::answer::{AgentAnswer, SharedTexts};
use super::compute::compute;
use super::descriptions::{Descriptions, TARGETS_MAX};
use super::node::{AnswerContent, Node};
use super::node_list::{self, Listed, NodeListError};
use super::node_snapshot::NodeSnapshot;
use super::registered::RegisteredTargets;
use super::view::{FleetView, Policy};
use crate::model::random_fraction;
use crate::model::settings::{AggregateSettings, ApiSettings, NodeAddress};

/// Time between two views.
const VIEW_INTERVAL: Duration = Duration::from_secs(1);

/// Largest number of polls at a time. Each needs a file descriptor.
const POLLS_MAX: usize = 512;

/// Largest number of polls at a time of nodes whose latest poll failed. They often last until their deadline, and must
/// not delay the others.
const RETRIES_MAX: usize = 128;

/// Longest time for which the first polls are spread, so that they do not all happen at the same moment.
const FIRST_POLLS_WITHIN: Duration = Duration::from_secs(2);

/// Age at which a view is not answered any more.
const VIEW_AGE_MAX: Duration = Duration::from_secs(15);

/// Longest time for which the API waits for the first answers of the nodes.
const FIRST_ANSWERS_WITHIN: Duration = Duration::from_secs(15);

/// Part of an interval by which the time between two polls varies.
const JITTER: f64 = 0.2;

/// Time between two looks at the list of nodes.
const LIST_INTERVAL: Duration = Duration::from_secs(10);

/// Largest number of nodes that are logged by name when many change together.
const LOGGED_MAX: usize = 10;

/// What to do about too many targets.
const SPLIT: &str = "run an aggregator for each part of the nodes";

/// Largest number of targets of all nodes together. A target of a node has about 100 bytes.
const NODE_TARGETS_MAX: usize = 2_000_000;

/// Why an aggregator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The list of nodes cannot be used.
    #[error(transparent)]
    List(#[from] NodeListError),
    /// The agents cannot be polled.
    #[error(transparent)]
    Client(#[from] AgentClientError),
}

/// A running aggregator. Its tasks end when it is dropped.
#[derive(Debug)]
pub struct Fleet {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    settings: ArcSwap<AggregateSettings>,
    client: ArcSwap<AgentClient>,
    polls: Semaphore,
    retries: Semaphore,
    /// Held while the list of nodes is read and applied, so that an older list never replaces a newer one.
    list: tokio::sync::Mutex<()>,
    nodes: Mutex<BTreeMap<NodeAddress, PolledNode>>,
    texts: Arc<SharedTexts>,
    descriptions: Descriptions,
    view: ArcSwap<FleetView>,
    started_at: Instant,
    /// The registry that all nodes share, if the aggregator has joined it.
    registry: Option<RegisteredTargets>,
    /// Whether every source of the list of nodes has been read since the start.
    is_list_whole: AtomicBool,
}

#[derive(Debug)]
struct PolledNode {
    node: Arc<Node>,
    polling: AbortHandle,
}

impl Fleet {
    /// Starts to poll the nodes. Does not wait for them. `registry` has the targets that all nodes should have.
    ///
    /// # Errors
    /// [`FleetError`] when no nodes are listed, or when a file that the settings name cannot be used.
    pub async fn start(
        settings: &AggregateSettings,
        api: &ApiSettings,
        registry: Option<RegisteredTargets>,
    ) -> Result<Self, FleetError> {
        let listed = node_list::read(settings).await?;
        let client = AgentClient::new(settings, api).await?;
        if let Some(problem) = &listed.problem {
            tracing::error!("some nodes are not known, and the others are polled: {problem}");
        }
        let shared = Arc::new(Shared {
            settings: ArcSwap::from_pointee(settings.clone()),
            client: ArcSwap::from_pointee(client),
            polls: Semaphore::new(POLLS_MAX),
            retries: Semaphore::new(RETRIES_MAX),
            list: tokio::sync::Mutex::default(),
            nodes: Mutex::default(),
            texts: Arc::default(),
            descriptions: Descriptions::default(),
            view: ArcSwap::from_pointee(FleetView::new(
                Vec::new(),
                policy(settings, settings.interval(0)),
                &[],
                |_| None,
            )),
            started_at: Instant::now(),
            registry,
            is_list_whole: AtomicBool::new(listed.problem.is_none()),
        });
        shared.follow(&listed.nodes, &listed.nodes, Some(Timestamp::now()));
        shared.publish();
        let tasks =
            vec![tokio::spawn(shared.clone().publish_forever()), tokio::spawn(shared.clone().read_list_forever())];
        Ok(Self { shared, tasks })
    }

    /// Applies settings, and reads the files that they name again. Answers of nodes that stay in the list stay too.
    ///
    /// # Errors
    /// As [`Fleet::start`]. The former settings then stay in force.
    pub async fn reload(&self, settings: &AggregateSettings, api: &ApiSettings) -> Result<(), FleetError> {
        let shared = &self.shared;
        let _list = shared.list.lock().await;
        let listed = node_list::read(settings).await?;
        let client = AgentClient::new(settings, api).await?;
        shared.client.store(Arc::new(client));
        shared.settings.store(Arc::new(settings.clone()));
        shared.apply(&listed, &listed.nodes);
        if let Some(problem) = listed.problem {
            tracing::error!("the nodes that are not known stay as they are: {problem}");
        }
        // The next poll may be as far away as the former interval.
        shared.nodes().values_mut().for_each(|polled| polled.poll_again(shared));
        Ok(())
    }

    /// Returns the latest view.
    #[must_use]
    pub fn view(&self) -> Arc<FleetView> {
        self.shared.view.load_full()
    }

    /// Returns what is known of the nodes now. The view can be older.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeSnapshot> {
        let interval = self.shared.interval();
        self.shared.nodes().values().map(|polled| polled.node.snapshot(interval)).collect()
    }

    /// Returns why the view cannot be trusted, as a sentence, or `None` if it can.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let view = self.view();
        if !view.is_polled && self.shared.started_at.elapsed() <= FIRST_ANSWERS_WITHIN {
            return Some("the nodes have not been polled yet: ask again in a second".to_owned());
        }
        if !view.has_answers {
            let failure = view.nodes.iter().find_map(|node| Some((&node.name, node.failure.as_ref()?)));
            let (node, failure) = failure.map_or(("any", "it has not been polled"), |(name, text)| (&**name, &**text));
            return Some(format!("no node has answered since the start of the aggregator. {node}: {failure}"));
        }
        let age = view.made_at.elapsed();
        (age > VIEW_AGE_MAX)
            .then(|| format!("the state of the nodes is {} s old, because this host is overloaded", age.as_secs()))
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.shared.nodes().values().for_each(|polled| polled.polling.abort());
    }
}

impl Shared {
    fn nodes(&self) -> MutexGuard<'_, BTreeMap<NodeAddress, PolledNode>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies a list of nodes. Forgets those that are not in `kept`, unless a source of the list could not be read.
    fn apply(self: &Arc<Self>, listed: &Listed, kept: &BTreeSet<NodeAddress>) {
        if listed.problem.is_none() {
            self.is_list_whole.store(true, Ordering::Relaxed);
            return self.follow(&listed.nodes, kept, None);
        }
        let present: BTreeSet<NodeAddress> = self.nodes().keys().cloned().collect();
        self.follow(&listed.nodes, &present, None);
    }

    /// Starts to poll the nodes of `listed` that are new, and forgets those that are not in `kept`. `start` is the
    /// start of the aggregator, if this is the first list.
    fn follow(
        self: &Arc<Self>,
        listed: &BTreeSet<NodeAddress>,
        kept: &BTreeSet<NodeAddress>,
        start: Option<Timestamp>,
    ) {
        let mut nodes = self.nodes();
        nodes.retain(|address, polled| {
            let is_kept = kept.contains(address);
            if !is_kept {
                tracing::info!(
                    node = &**polled.node.name(),
                    "not polled any more, because it is not in the list of nodes"
                );
                polled.polling.abort();
            }
            is_kept
        });
        for address in listed {
            nodes.entry(address.clone()).or_insert_with(|| {
                let node = Arc::new(Node::new(address.clone(), start));
                PolledNode { polling: start_polling(self, &node), node }
            });
        }
    }

    /// Time between two polls of a node.
    fn interval(&self) -> Duration {
        let nodes = self.nodes().len();
        self.settings.load().interval(nodes)
    }

    async fn poll_forever(self: Arc<Self>, node: Arc<Node>) {
        let spread = FIRST_POLLS_WITHIN.min(self.interval());
        sleep(spread.mul_f64(random_fraction())).await;
        loop {
            self.poll(&node).await;
            let delay = node.delay(self.interval());
            sleep(delay.mul_f64(1.0 - JITTER + 2.0 * JITTER * random_fraction())).await;
        }
    }

    async fn poll(&self, node: &Node) {
        let permits = if node.is_failing() { &self.retries } else { &self.polls };
        // The semaphore is never closed.
        let _permit = permits.acquire().await;
        let client = self.client.load_full();
        let (mut list, tag) = node.list();
        let mut polled = client.poll(&node.address, list, tag, &self.texts).await;
        if list == AgentList::Verdicts && polled.as_ref().is_err_and(PollError::is_not_found) {
            node.has_no_verdicts();
            let (details, tag) = node.list();
            list = details;
            polled = client.poll(&node.address, list, tag, &self.texts).await;
        }
        let changed = match polled {
            Ok(Polled::Unchanged) => None,
            Ok(Polled::Changed(answer, tag)) => match self.accept(node, answer) {
                Ok(content) => Some(AnswerContent { tag: tag.map(|tag| (list, tag)), ..content }),
                Err(limit) => return node.failed(&limit, false),
            },
            Err(error) => return node.failed(&error.to_string(), error.is_silence()),
        };
        node.answered(changed, self.interval());
    }

    /// Returns the content of an answer, or the limit that it exceeds.
    fn accept(&self, node: &Node, mut answer: AgentAnswer) -> Result<AnswerContent, String> {
        let others = self.view.load().node_targets.saturating_sub(node.targets());
        if others + answer.targets.len() > NODE_TARGETS_MAX {
            return Err(format!("the nodes have more than {NODE_TARGETS_MAX} targets together, {SPLIT}"));
        }
        if !self.descriptions.add(node.name(), &mut answer) {
            return Err(format!("the nodes have more than {TARGETS_MAX} different targets, {SPLIT}"));
        }
        let AgentAnswer { targets, fleet_node, .. } = answer;
        Ok(AnswerContent { targets: targets.into(), fleet_node: fleet_node.map(Arc::new), tag: None })
    }

    async fn publish_forever(self: Arc<Self>) {
        let mut ticks = interval(VIEW_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let shared = self.clone();
            // It takes some milliseconds with thousands of nodes.
            if compute(move || shared.publish()).await.is_none() {
                tracing::error!("the view of the fleet could not be made");
            }
        }
    }

    fn publish(&self) {
        let settings = self.settings.load();
        let nodes: Vec<_> = self.nodes().values().map(|polled| polled.node.clone()).collect();
        let interval = settings.interval(nodes.len());
        let snapshots = nodes.iter().map(|node| node.snapshot(interval)).collect();
        let described = self.descriptions.all();
        let registered = self.registry.as_ref().map(RegisteredTargets::read).unwrap_or_default();
        let mut view = FleetView::new(snapshots, policy(&settings, interval), &registered, |export| {
            described.get(export).cloned()
        });
        view.is_complete &= self.is_list_whole.load(Ordering::Relaxed);
        // Most polls are answered with 304, so no other node would send a description until something changes.
        for index in self.descriptions.renew(&view) {
            nodes[index].forget_tag();
        }
        log_changes(&self.view.load(), &view);
        let present: HashSet<&str> = view.targets.iter().map(|target| &*target.described.filesystem_export).collect();
        self.descriptions.forget_others_than(&present);
        drop(present);
        self.view.store(Arc::new(view));
        self.texts.forget_unused();
    }

    /// Reads the list of nodes at an interval. A list that cannot be used is logged once.
    async fn read_list_forever(self: Arc<Self>) {
        let mut problem = None;
        let mut former: BTreeSet<NodeAddress> = self.nodes().keys().cloned().collect();
        loop {
            sleep(LIST_INTERVAL).await;
            let _list = self.list.lock().await;
            let settings = self.settings.load_full();
            let error = match node_list::read(&settings).await {
                Ok(listed) => {
                    // A node is forgotten if two lists do not have it: the first may have been read while it was
                    // written.
                    self.apply(&listed, &listed.nodes.union(&former).cloned().collect());
                    if listed.problem.is_none() {
                        former = listed.nodes;
                    }
                    listed.problem
                }
                Err(error) => Some(error),
            };
            let new = error.map(|error| error.to_string());
            if let Some(error) = new.as_ref().filter(|_| problem != new) {
                tracing::error!("the list of nodes cannot be read again. The nodes stay as they are: {error}");
            }
            problem = new;
        }
    }
}

impl PolledNode {
    /// Polls the node soon.
    fn poll_again(&mut self, shared: &Arc<Shared>) {
        self.polling.abort();
        self.polling = start_polling(shared, &self.node);
    }
}

fn start_polling(shared: &Arc<Shared>, node: &Arc<Node>) -> AbortHandle {
    tokio::spawn(shared.clone().poll_forever(node.clone())).abort_handle()
}

/// Logs the nodes that do not answer any more and those that answer again, at most [`LOGGED_MAX`] of each. A mass
/// outage is one line.
fn log_changes(former: &FleetView, view: &FleetView) {
    if let Some(notice) = view.notice.as_ref().filter(|_| former.notice.is_none()) {
        tracing::warn!("{notice}");
    }
    let was_answering: HashMap<&str, bool> =
        former.nodes.iter().filter(|node| node.is_polled).map(|node| (&*node.name, node.is_answering)).collect();
    // A node that has just been polled for the first time is also logged if it does not answer.
    let changed = |node: &&NodeSnapshot| node.is_polled && was_answering.get(&*node.name) != Some(&node.is_answering);
    let (answering, others): (Vec<_>, Vec<_>) = view.nodes.iter().filter(changed).partition(|node| node.is_answering);
    if view.notice.is_none() {
        for node in others.iter().take(LOGGED_MAX) {
            let failure = node.failure.as_deref().unwrap_or("its latest answer is too old");
            tracing::warn!(node = &*node.name, "the node does not answer: {failure}");
        }
        if others.len() > LOGGED_MAX {
            tracing::warn!("{} more nodes do not answer: GET /nodes lists them", others.len() - LOGGED_MAX);
        }
    }
    let again = answering.iter().filter(|node| was_answering.contains_key(&*node.name));
    let again: Vec<_> = again.collect();
    for node in again.iter().take(LOGGED_MAX) {
        tracing::info!(node = &*node.name, "the node answers again");
    }
    if again.len() > LOGGED_MAX {
        tracing::info!("{} more nodes answer again", again.len() - LOGGED_MAX);
    }
}

fn policy(settings: &AggregateSettings, interval: Duration) -> Policy {
    Policy { available_when: settings.available_when, expected_on: settings.expected_on, interval }
}
