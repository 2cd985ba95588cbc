//! State that all handlers share.

use std::sync::{Arc, LazyLock};

use axum::Extension;
use axum::body::Bytes;
use axum::extract::FromRequestParts;
use axum::extract::rejection::ExtensionRejection;
use axum::http::request::Parts;
use serde::Serialize;
use tokio::sync::Semaphore;

use super::cache::rendered::{RenderedItem, hash_of};
use super::cache::{ListCache, ListSource};
use super::wire;
use super::wire::verdict::without_measurements;
use crate::agent::{Agent, TargetView};
use crate::model::{Caller, TargetType};
use crate::sys::NodeFacts;

/// Largest number of pages for browsers that are made at a time. Further requests wait.
const PAGES_MAX: usize = 8;

/// Reads the facts about host and agent, as [`NodeFacts::read`] does.
pub type ReadNodeFacts = Arc<dyn Fn() -> NodeFacts + Send + Sync>;

/// Renders the OpenAPI document.
pub(super) type Describe = Box<dyn FnOnce() -> Bytes + Send>;

/// Reference to the shared state. A single one, because every request clones it several times.
pub(super) type State = Arc<ApiState>;

/// The shared state, and the caller of a request.
pub(super) struct Context {
    pub(super) state: State,
    pub(super) caller: Arc<Caller>,
}

impl FromRequestParts<State> for Context {
    type Rejection = ExtensionRejection;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, ExtensionRejection> {
        let Extension(caller) = Extension::from_request_parts(parts, state).await?;
        Ok(Self { state: state.clone(), caller })
    }
}

/// State that all handlers share.
pub(super) struct ApiState {
    pub(super) agent: Agent,
    pub(super) node_facts: ReadNodeFacts,
    /// The list of targets.
    pub(super) targets: ListCache<TargetView>,
    /// The list of targets with their reports.
    pub(super) details: ListCache<TargetView>,
    /// The list of targets with their verdicts.
    pub(super) verdicts: ListCache<TargetView>,
    /// The list of target types.
    pub(super) types: ListCache<TargetType>,
    /// The OpenAPI document, rendered on the first request. Most agents are never asked for it.
    pub(super) description: LazyLock<Bytes, Describe>,
    /// Permits to make a page for a browser.
    pub(super) pages: Semaphore,
}

impl ApiState {
    /// State with empty caches.
    pub(super) fn new(agent: Agent, node_facts: ReadNodeFacts, describe: Describe) -> Self {
        Self {
            node_facts,
            targets: targets(|caller, target| json(&wire::Target::seen_by(caller, target))),
            details: targets(|caller, target| json(&wire::TargetDetail::seen_by(caller, target))),
            verdicts: ListCache::new(ListSource {
                more: fleet_node(&agent),
                ..targets_source(|caller, target| verdict(wire::TargetVerdict::seen_by(caller, target)))
            }),
            types: ListCache::new(ListSource {
                key: "backup_target_types",
                more: String::new(),
                generation: |view| view.types_generation,
                items: |caller, view| view.target_types().into_iter().filter(|found| caller.may_see(found)).collect(),
                id: |found| found.id,
                render: |caller, found| json(&wire::TargetType::seen_by(caller, found)),
            }),
            description: LazyLock::new(describe),
            agent,
            pages: Semaphore::new(PAGES_MAX),
        }
    }
}

fn json(item: &impl Serialize) -> serde_json::Result<RenderedItem> {
    serde_json::to_vec(item).map(RenderedItem::from)
}

/// Renders a verdict. The tag of the list does not depend on measurements in its message.
fn verdict(mut verdict: wire::TargetVerdict) -> serde_json::Result<RenderedItem> {
    let bytes = serde_json::to_vec(&verdict)?;
    Ok(match verdict.report.message.take() {
        None => bytes.into(),
        Some(message) => {
            verdict.report.message = Some(without_measurements(&message));
            let hash = hash_of(&serde_json::to_vec(&verdict)?);
            RenderedItem { bytes, hash }
        }
    })
}

/// Returns the field of the list of verdicts with the name and the labels of this node. An aggregator compares them
/// with the scopes of targets.
fn fleet_node(agent: &Agent) -> String {
    let node = agent.fleet_node().map(|node| serde_json::to_string(&wire::FleetNode::from(node)));
    node.and_then(Result::ok).map_or_else(String::new, |node| format!(",\"fleet\":{node}"))
}

fn targets(render: fn(&Caller, &TargetView) -> serde_json::Result<RenderedItem>) -> ListCache<TargetView> {
    ListCache::new(targets_source(render))
}

fn targets_source(render: fn(&Caller, &TargetView) -> serde_json::Result<RenderedItem>) -> ListSource<TargetView> {
    ListSource {
        key: "backup_targets",
        more: String::new(),
        generation: |view| view.generation,
        items: |_, view| view.targets.iter().collect(),
        id: |target| target.target.id,
        render,
    }
}
