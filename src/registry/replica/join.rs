//! Moving the targets of a single node into a shared registry.
//!
//! [`plan`] decides without changing anything. A target whose storage is registered there gets the id from there, and
//! its former id becomes an alias. [`apply`] moves one target after another. A target with many types needs several
//! commits: the first one has the target and its first types, and the others add types. The command can be repeated
//! after a failure, because what was moved is recognized by its id.
//!
//! A node that has joined another registry has a copy of all its targets. They belong to the other nodes too, so they
//! are moved only on request ([`FormerRegistry`]).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::difference;
use crate::model::node_scope::SCOPE_ENTRIES_MAX;
use crate::model::{Target, TargetId, TargetType};
use crate::registry::change::Change;
use crate::registry::error::OpenError;
use crate::registry::membership::{Adoption, Renames};
use crate::registry::rules;
use crate::registry::shared::{
    COMMIT_BYTES_MAX, COMMIT_WRITES_MAX, CloudId, SharedCommitError, SharedRegistry, Unavailable,
};
use crate::registry::snapshot::{RegisteredTarget, Snapshot, Write};
use crate::registry::sqlite::{SqliteStore, read_copy};
use crate::registry::store::{CopyStore as _, StorageError, Store as _};

/// What joining does if the node has joined another registry before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormerRegistry {
    /// It refuses to join.
    Stay,
    /// The node leaves it. Its targets stay there, and the node removes those that the new registry does not have.
    Leave,
    /// The node leaves it, and adds its targets to the new registry. So the registry of a lost etcd is made again.
    LeaveWithTargets,
}

/// What joining does with the targets of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinPlan {
    /// The shared registry.
    pub cloud_id: CloudId,
    /// Whether the node has joined it already. Then nothing changes, and there are no targets here.
    pub is_joined_already: bool,
    /// What happens to each target of the node, oldest first.
    pub targets: Vec<PlannedTarget>,
    /// Number of targets of the shared registry that this node does not have yet.
    pub received: usize,
    renames: Renames,
}

impl JoinPlan {
    fn joined_already(cloud_id: CloudId) -> Self {
        Self { cloud_id, is_joined_already: true, targets: Vec::new(), received: 0, renames: Renames::default() }
    }
}

/// What joining does with one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedTarget {
    /// Its id on the node.
    pub id: TargetId,
    /// Its export.
    pub export: String,
    /// What happens to it.
    pub action: JoinAction,
    commits: Vec<Vec<Write>>,
}

/// What joining does with a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinAction {
    /// The shared registry has it already, with this id.
    None,
    /// It is added to the shared registry and keeps its id.
    Added,
    /// The shared registry has the same storage with this id. The node's id becomes an alias.
    Renamed(TargetId),
    /// It stays in the registry that the node leaves, and the node removes it.
    Left,
    /// It contradicts a target or a type of the shared registry.
    Conflict(String),
}

/// Why a node could not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The registry of the node cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The registry of the node cannot be changed.
    #[error("the registry of this node could not be changed: {0}. Repeat the command")]
    Storage(#[from] StorageError),
    /// The shared registry cannot be used.
    #[error("the registry of the fleet cannot be used now: {0}. Repeat the command when it can")]
    Unavailable(#[from] Unavailable),
    /// The shared registry could not be changed.
    #[error("the registry of the fleet could not be changed: {0}. Repeat the command")]
    Commit(#[from] SharedCommitError),
    /// The node has joined another registry.
    #[error(
        "this node has joined the registry {joined}, and the one at [registry] url is {found}. Correct the URL, or leave the former registry and its targets with --leave"
    )]
    AnotherCloud {
        /// The registry that the node has joined.
        joined: CloudId,
        /// The registry at the URL.
        found: CloudId,
    },
    /// Some targets contradict those of the shared registry.
    #[error(
        "nothing was changed, because {0} cannot be moved: delete or rename what the messages name, and repeat the command"
    )]
    Conflicts(String),
}

/// Decides what joining would do with the registry at `path`. Writes nothing, so there must be a shared registry. An
/// agent may run.
///
/// # Errors
/// [`JoinError`].
pub async fn plan(path: &Path, shared: &dyn SharedRegistry, former: FormerRegistry) -> Result<JoinPlan, JoinError> {
    let (copy, joined) = read_copy(path)?;
    let content = shared.read().await?;
    let cloud_id = content.version.cloud_id;
    let takes_targets = takes_targets(joined, cloud_id, former)?;
    Ok(if joined == Some(cloud_id) {
        JoinPlan::joined_already(cloud_id)
    } else {
        plan_for(&copy, cloud_id, &Snapshot::new(content.targets), takes_targets)
    })
}

/// Lets the node with the registry at `path` join, and returns what was done. The agent must be stopped.
///
/// # Errors
/// [`JoinError`], after which the command can be repeated.
pub async fn apply(path: &Path, shared: &dyn SharedRegistry, former: FormerRegistry) -> Result<JoinPlan, JoinError> {
    // Holds the lock of the registry until the end.
    let copy = SqliteStore::open_copy(path)?;
    let joined = apply_to(&copy, shared, former).await;
    copy.close().await;
    joined
}

async fn apply_to(
    copy: &SqliteStore,
    shared: &dyn SharedRegistry,
    former: FormerRegistry,
) -> Result<JoinPlan, JoinError> {
    let joined = copy.cloud_id();
    if joined.is_none() || former != FormerRegistry::Stay {
        // Creates the registry if there is none.
        shared.cloud_id().await?;
    }
    let content = shared.read().await?;
    let mut version = content.version;
    let takes_targets = takes_targets(joined, version.cloud_id, former)?;
    // The copy may have targets that the fleet has deleted since. The agent removes them when it compares.
    if joined == Some(version.cloud_id) {
        return Ok(JoinPlan::joined_already(version.cloud_id));
    }
    let mut snapshot = Snapshot::new(content.targets);
    let plan = plan_for(&copy.snapshot(), version.cloud_id, &snapshot, takes_targets);
    let conflicts = plan.targets.iter().filter(|planned| matches!(planned.action, JoinAction::Conflict(_)));
    let conflicts: Vec<&str> = conflicts.map(|planned| planned.export.as_str()).collect();
    if !conflicts.is_empty() {
        return Err(JoinError::Conflicts(conflicts.join(", ")));
    }
    for writes in plan.targets.iter().flat_map(|planned| &planned.commits) {
        version = shared.commit(version, &snapshot, writes).await?;
        snapshot = snapshot.apply(writes, snapshot.revision().next());
    }
    let shared_targets: Vec<_> =
        snapshot.targets().iter().map(|registered| RegisteredTarget::clone(registered)).collect();
    copy.adopt(Adoption {
        cloud_id: plan.cloud_id,
        writes: difference::writes(&renamed(&copy.snapshot(), &plan.renames), &shared_targets),
        renames: plan.renames.clone(),
    })
    .await?;
    Ok(plan)
}

/// Returns the content of the node with the new ids.
fn renamed(node: &Snapshot, renames: &Renames) -> Snapshot {
    let new_id =
        |list: &[(TargetId, TargetId)], id| list.iter().find(|(former, _)| *former == id).map_or(id, |(_, id)| *id);
    let targets = node.targets().iter().map(|registered| {
        let target_id = new_id(&renames.targets, registered.target.id);
        let with_ids = |kept: &Arc<TargetType>| {
            TargetType { id: new_id(&renames.types, kept.id), target_id, ..TargetType::clone(kept) }.into()
        };
        RegisteredTarget {
            target: Target { id: target_id, ..Target::clone(&registered.target) }.into(),
            types: registered.types.iter().map(with_ids).collect(),
        }
    });
    Snapshot::new(targets.collect())
}

/// Whether the targets of the node are added to the registry with this id.
fn takes_targets(joined: Option<CloudId>, found: CloudId, former: FormerRegistry) -> Result<bool, JoinError> {
    match (joined, former) {
        (Some(joined), FormerRegistry::Stay) if joined != found => Err(JoinError::AnotherCloud { joined, found }),
        (Some(_), FormerRegistry::Leave) => Ok(false),
        _ => Ok(true),
    }
}

fn plan_for(node: &Snapshot, cloud_id: CloudId, shared: &Snapshot, takes_targets: bool) -> JoinPlan {
    let mut renames = Renames::default();
    let mut now = shared.clone();
    let mut targets = Vec::new();
    for registered in node.targets() {
        let target = &registered.target;
        let mut steps = Steps::new(now.clone(), takes_targets);
        let (action, commits) = match steps.decide(registered) {
            Ok(action) => {
                now = steps.snapshot;
                renames.targets.extend(steps.renames.targets);
                renames.types.extend(steps.renames.types);
                (action, steps.commits)
            }
            Err(problem) => (JoinAction::Conflict(problem), Vec::new()),
        };
        targets.push(PlannedTarget { id: target.id, export: target.spec.export(), action, commits });
    }
    let is_here = |id: TargetId| node.target(id).is_some() || renames.targets.iter().any(|(_, renamed)| *renamed == id);
    let received = shared.targets().iter().filter(|registered| !is_here(registered.target.id)).count();
    JoinPlan { cloud_id, is_joined_already: false, targets, received, renames }
}

/// The decision about one target.
struct Steps {
    /// The shared registry after the commits.
    snapshot: Snapshot,
    /// Whether what the shared registry does not have is added to it.
    takes_targets: bool,
    commits: Vec<Vec<Write>>,
    renames: Renames,
}

impl Steps {
    fn new(snapshot: Snapshot, takes_targets: bool) -> Self {
        Self { snapshot, takes_targets, commits: Vec::new(), renames: Renames::default() }
    }

    fn decide(&mut self, registered: &Arc<RegisteredTarget>) -> Result<JoinAction, String> {
        let target = &registered.target;
        let is_same = |other: &&Arc<RegisteredTarget>| other.target.spec.is_same_storage(&target.spec);
        let known = self.snapshot.target(target.id).or_else(|| self.snapshot.targets().iter().find(is_same)).cloned();
        let Some(known) = known else {
            return if self.takes_targets { self.add(registered) } else { Ok(JoinAction::Left) };
        };
        let id = known.target.id;
        if !known.target.spec.is_same_storage(&target.spec) {
            return Err(format!("backup target {id} is {} in the registry of the fleet", known.target.spec.export()));
        }
        if known.target.mount_name != target.mount_name {
            if !self.takes_targets {
                return Ok(JoinAction::Left);
            }
            return Err(format!(
                "its directory {} would become {}, and backup images contain the path. Delete it on this node once nothing uses it",
                target.mount_name, known.target.mount_name
            ));
        }
        for kept in registered.types.iter() {
            self.add_type(kept, target.id, &known)?;
        }
        if id == target.id {
            return Ok(JoinAction::None);
        }
        self.renames.targets.push((target.id, id));
        Ok(JoinAction::Renamed(id))
    }

    /// Adds a target with its types. It stays the default if there is none.
    fn add(&mut self, registered: &RegisteredTarget) -> Result<JoinAction, String> {
        let target = &registered.target;
        let becomes_default = target.is_default && self.snapshot.default_target().is_none();
        let mut types = registered.types.iter().map(|kept| {
            let is_default = becomes_default && kept.is_default;
            TargetType { is_default, ..TargetType::clone(kept) }
        });
        let first_type = types.next().ok_or("it has no type")?;
        self.change(&Change::CreateTarget {
            target: Target { is_default: false, ..Target::clone(target) }.into(),
            first_type,
            declines_default: !becomes_default,
        })?;
        types.try_for_each(|kept| self.change(&Change::CreateType(kept)))?;
        Ok(JoinAction::Added)
    }

    /// Adds a type of a target of the node to the known target. A type of the same name gets the id from there.
    fn add_type(&mut self, kept: &TargetType, former_target: TargetId, known: &RegisteredTarget) -> Result<(), String> {
        let target_id = known.target.id;
        if self.snapshot.target_type(kept.id).is_some_and(|found| found.target_id == target_id) {
            return Ok(());
        }
        if let Some(found) = known.types.iter().find(|found| found.name == kept.name) {
            self.renames.types.push((kept.id, found.id));
            return Ok(());
        }
        if !self.takes_targets {
            return Ok(());
        }
        // The same target is there if an earlier attempt was interrupted before it added all types.
        let is_default = kept.is_default && known.target.is_default && target_id == former_target;
        self.change(&Change::CreateType(TargetType { target_id, is_default, ..kept.clone() }))
    }

    /// Adds the writes of a change, which are never in two commits.
    fn change(&mut self, change: &Change) -> Result<(), String> {
        let writes = rules::decide(&self.snapshot, change).map_err(|refusal| refusal.to_string())?;
        self.snapshot = self.snapshot.apply(&writes, self.snapshot.revision().next());
        match self.commits.last_mut() {
            Some(last) if is_small(last.iter().chain(&writes)) => last.extend(writes),
            _ => self.commits.push(writes),
        }
        Ok(())
    }
}

/// Whether one commit can make these writes.
fn is_small<'a>(writes: impl Iterator<Item = &'a Write> + Clone) -> bool {
    writes.clone().count() <= COMMIT_WRITES_MAX && writes.map(size_max).sum::<usize>() <= COMMIT_BYTES_MAX
}

/// Upper limit of the size of the document of a write, in bytes. Half of it is for characters that are escaped.
fn size_max(write: &Write) -> usize {
    const FIELDS: usize = 1 << 10;
    const PROJECT: usize = 400;
    let metadata = |entries: &BTreeMap<String, String>| -> usize {
        entries.iter().map(|(key, value)| 2 * (key.len() + value.len()) + 8).sum()
    };
    match write {
        Write::PutTarget(target) => {
            let export = target.spec.export().len() + target.mount_name.to_string().len();
            // Each name of a scope has two quotation marks and a comma.
            let scope = target.scope.as_ref().map_or(0, |scope| scope.bytes() + 3 * SCOPE_ENTRIES_MAX);
            FIELDS + 2 * (target.spec.option_bytes() + export) + metadata(&target.metadata) + scope
        }
        Write::PutType(kept) => {
            let texts = kept.name.len() + kept.description.as_ref().map_or(0, String::len);
            FIELDS + 2 * texts + PROJECT * kept.projects.len() + metadata(&kept.metadata)
        }
        Write::DeleteTarget(_) | Write::DeleteType(_) => 0,
    }
}
