//! The tasks of an aggregator: they poll the nodes, follow the list of nodes, and publish the view.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::agent_client::{AgentClient, AgentClientError, Polled};
use super::answer::{AgentAnswer, NodeTarget, SharedTexts};
use super::compute::compute;
use super::node::Node;
use super::node_list::{self, NodeListError};
use super::view::{FleetView, Policy};
use crate::api::wire::Target;
use crate::model::settings::{AggregateSettings, ApiSettings, NodeAddress};
use crate::model::{Status, random_fraction};

/// Time between two views.
const VIEW_INTERVAL: Duration = Duration::from_secs(1);

/// Largest number of polls at a time. Each needs a file descriptor.
const POLLS_MAX: usize = 512;

/// Longest time for which the first polls are spread, so that they do not all happen at the same moment.
const FIRST_POLLS_WITHIN: Duration = Duration::from_secs(2);

/// Longest time for which the API waits for the first answers of the nodes.
const FIRST_ANSWERS_WITHIN: Duration = Duration::from_secs(15);

/// Part of an interval by which the time between two polls varies.
const JITTER: f64 = 0.2;

/// Time between two looks at the list of nodes.
const LIST_INTERVAL: Duration = Duration::from_secs(10);

/// How long the description of a target that no node has is kept.
const DESCRIPTIONS_KEPT_FOR: Duration = Duration::from_secs(60);

/// Largest number of targets of all nodes together. A target of a node has about 100 bytes.
const NODE_TARGETS_MAX: usize = 2_000_000;

/// Why an aggregator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The configuration has no node.
    #[error("no nodes are listed: set [aggregate] nodes or nodes_file to the addresses of the agents")]
    NoNodes,
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
    nodes: Mutex<BTreeMap<NodeAddress, PolledNode>>,
    texts: Arc<SharedTexts>,
    descriptions: Mutex<HashMap<Arc<str>, Description>>,
    view: ArcSwap<FleetView>,
    started_at: Instant,
}

#[derive(Debug)]
struct PolledNode {
    node: Arc<Node>,
    polling: AbortHandle,
}

/// How one of the agents describes a target.
#[derive(Debug)]
struct Description {
    by: Arc<str>,
    is_available: bool,
    target: Arc<Target>,
    described_at: Instant,
}

impl Fleet {
    /// Starts to poll the nodes. Does not wait for them.
    ///
    /// # Errors
    /// [`FleetError`] when no nodes are listed, or when a file that the settings name cannot be used.
    pub async fn start(settings: &AggregateSettings, api: &ApiSettings) -> Result<Self, FleetError> {
        if settings.nodes.is_empty() && settings.nodes_file.is_none() {
            return Err(FleetError::NoNodes);
        }
        let listed = node_list::read(settings).await?;
        let client = AgentClient::new(settings, api).await?;
        let shared = Arc::new(Shared {
            settings: ArcSwap::from_pointee(settings.clone()),
            client: ArcSwap::from_pointee(client),
            polls: Semaphore::new(POLLS_MAX),
            nodes: Mutex::default(),
            texts: Arc::default(),
            descriptions: Mutex::default(),
            view: ArcSwap::from_pointee(FleetView::new(Vec::new(), policy(settings), |_| None)),
            started_at: Instant::now(),
        });
        shared.follow(listed);
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
        let listed = node_list::read(settings).await?;
        let client = AgentClient::new(settings, api).await?;
        self.shared.client.store(Arc::new(client));
        self.shared.settings.store(Arc::new(settings.clone()));
        self.shared.follow(listed);
        Ok(())
    }

    /// Returns the latest view.
    #[must_use]
    pub fn view(&self) -> Arc<FleetView> {
        self.shared.view.load_full()
    }

    /// Whether the nodes have been polled, or have had enough time to answer.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.view().is_polled || self.shared.started_at.elapsed() > FIRST_ANSWERS_WITHIN
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

    fn descriptions(&self) -> MutexGuard<'_, HashMap<Arc<str>, Description>> {
        self.descriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts to poll the nodes that are new in the list, and forgets those that are not in it any more.
    fn follow(self: &Arc<Self>, listed: BTreeSet<NodeAddress>) {
        let mut nodes = self.nodes();
        nodes.retain(|address, polled| {
            let is_listed = listed.contains(address);
            if !is_listed {
                tracing::info!(
                    node = &**polled.node.name(),
                    "not polled any more, because it is not in the list of nodes"
                );
                polled.polling.abort();
            }
            is_listed
        });
        for address in listed {
            nodes.entry(address.clone()).or_insert_with(|| {
                let node = Arc::new(Node::new(address));
                let polling = tokio::spawn(self.clone().poll_forever(node.clone())).abort_handle();
                PolledNode { node, polling }
            });
        }
    }

    async fn poll_forever(self: Arc<Self>, node: Arc<Node>) {
        let spread = FIRST_POLLS_WITHIN.min(self.settings.load().interval);
        sleep(spread.mul_f64(random_fraction())).await;
        loop {
            self.poll(&node).await;
            let delay = node.delay(self.settings.load().interval);
            sleep(delay.mul_f64(1.0 - JITTER + 2.0 * JITTER * random_fraction())).await;
        }
    }

    async fn poll(&self, node: &Node) {
        // The semaphore is never closed.
        let _permit = self.polls.acquire().await;
        let polled = self.client.load_full().poll(&node.address, node.tag(), &self.texts).await;
        let changed = match polled {
            Ok(Polled::Unchanged) => None,
            Ok(Polled::Changed(answer, tag)) if self.has_room_for(&answer) => Some((self.described(node, answer), tag)),
            Ok(Polled::Changed(..)) => {
                return failed(
                    node,
                    &format!(
                        "the nodes have more than {NODE_TARGETS_MAX} targets together. Run an aggregator for each part of the nodes"
                    ),
                );
            }
            Err(error) => return failed(node, &error.to_string()),
        };
        if node.answered(changed) {
            tracing::info!(node = &**node.name(), "the agent answers again");
        }
    }

    fn has_room_for(&self, answer: &AgentAnswer) -> bool {
        let known: usize = self.view.load().targets.iter().map(|target| target.counts.expected).sum();
        known + answer.targets.len() <= NODE_TARGETS_MAX
    }

    /// Keeps the descriptions of targets that are better than the present ones: that of an agent which finds the target
    /// available, or else the first one. Returns the targets of the node.
    fn described(&self, node: &Node, answer: AgentAnswer) -> Arc<[NodeTarget]> {
        let mut descriptions = self.descriptions();
        for (target, described) in answer.targets.iter().zip(answer.described) {
            let is_available = described.status == Status::Available;
            let is_better = descriptions
                .get(&target.export)
                .is_none_or(|present| present.by == *node.name() || (is_available && !present.is_available));
            if is_better {
                let (by, target_of_node) = (node.name().clone(), Arc::new(described));
                let description =
                    Description { by, is_available, target: target_of_node, described_at: Instant::now() };
                descriptions.insert(target.export.clone(), description);
            }
        }
        answer.targets.into()
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
        let nodes = nodes.iter().map(|node| node.snapshot(settings.interval)).collect();
        let described: HashMap<Arc<str>, Arc<Target>> = {
            let descriptions = self.descriptions();
            descriptions.iter().map(|(export, description)| (export.clone(), description.target.clone())).collect()
        };
        let view = FleetView::new(nodes, policy(&settings), |export| described.get(export).cloned());
        if view.notice.is_some() && self.view.load().notice.is_none() {
            tracing::warn!("{}", view.notice.as_deref().unwrap_or_default());
        }
        let present: HashSet<&str> = view.targets.iter().map(|target| &*target.described.filesystem_export).collect();
        // A description is kept before the answer that it comes from, so a new one may not be in this view yet.
        self.descriptions().retain(|export, description| {
            present.contains(&**export) || description.described_at.elapsed() < DESCRIPTIONS_KEPT_FOR
        });
        drop((present, described));
        self.view.store(Arc::new(view));
        self.texts.forget_unused();
    }

    /// Reads the file of nodes again and again. A change is used at once, and a file that cannot be used is logged once.
    async fn read_list_forever(self: Arc<Self>) {
        let mut problem = None;
        loop {
            sleep(LIST_INTERVAL).await;
            let settings = self.settings.load_full();
            if settings.nodes_file.is_none() {
                continue;
            }
            match node_list::read(&settings).await {
                Ok(listed) => {
                    problem = None;
                    self.follow(listed);
                }
                Err(error) => {
                    let new = error.to_string();
                    if problem.as_ref() != Some(&new) {
                        tracing::error!("the list of nodes cannot be read again. The old one stays in force: {new}");
                        problem = Some(new);
                    }
                }
            }
        }
    }
}

/// Records and logs a failed poll.
fn failed(node: &Node, failure: &str) {
    if node.failed(failure) {
        tracing::warn!(node = &**node.name(), "a poll failed: {failure}");
    }
}

fn policy(settings: &AggregateSettings) -> Policy {
    Policy { available_when: settings.available_when, expected_on: settings.expected_on }
}
