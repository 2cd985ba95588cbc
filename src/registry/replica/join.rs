//! Moving the targets of a single node into a shared registry.
//!
//! [`plan`] decides without changing anything. A target whose storage is registered there gets the id from there, and
//! its former id becomes an alias. [`apply`] moves one target after another. It can be repeated after a failure, because
//! a target that was moved is recognized by its id.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use super::difference;
use crate::model::{Target, TargetId, TargetType};
use crate::registry::change::{Change, TypeChange};
use crate::registry::error::OpenError;
use crate::registry::membership::{Adoption, Renames};
use crate::registry::rules;
use crate::registry::shared::{CloudId, SharedCommitError, SharedRegistry, Unavailable};
use crate::registry::snapshot::{RegisteredTarget, Snapshot, Write};
use crate::registry::sqlite::{SqliteStore, read_copy};
use crate::registry::store::{StorageError, Store as _};

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
    writes: Vec<Write>,
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
        "this node has joined the registry {joined}, and the one at [registry] url is {found}. Correct the URL, or leave the former registry with --leave"
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

/// Decides what joining would do with the registry at `path`. Writes nothing, so there must be a shared registry. An agent
/// may run. `leave` allows that the node has joined
/// another registry.
///
/// # Errors
/// [`JoinError`].
pub async fn plan(path: &Path, shared: &dyn SharedRegistry, leave: bool) -> Result<JoinPlan, JoinError> {
    let (copy, joined) = read_copy(path)?;
    let content = shared.read().await?;
    verify_cloud(joined.filter(|_| !leave), content.version.cloud_id)?;
    let cloud_id = content.version.cloud_id;
    Ok(if joined == Some(cloud_id) {
        JoinPlan::joined_already(cloud_id)
    } else {
        plan_for(&copy, cloud_id, &Snapshot::new(content.targets))
    })
}

/// Lets the node with the registry at `path` join, and returns what was done. The agent must be stopped.
///
/// # Errors
/// [`JoinError`], after which the command can be repeated.
pub async fn apply(path: &Path, shared: &dyn SharedRegistry, leave: bool) -> Result<JoinPlan, JoinError> {
    // Holds the lock of the registry until the end.
    let copy = SqliteStore::open_copy(path)?;
    let joined = apply_to(&copy, shared, leave).await;
    copy.close().await;
    joined
}

async fn apply_to(copy: &SqliteStore, shared: &dyn SharedRegistry, leave: bool) -> Result<JoinPlan, JoinError> {
    let joined = copy.cloud_id();
    if joined.is_none() || leave {
        // Creates the registry if there is none.
        shared.cloud_id().await?;
    }
    let content = shared.read().await?;
    verify_cloud(joined.filter(|_| !leave), content.version.cloud_id)?;
    let mut version = content.version;
    // The copy may have targets that the fleet has deleted since. The agent removes them when it compares.
    if joined == Some(version.cloud_id) {
        return Ok(JoinPlan::joined_already(version.cloud_id));
    }
    let mut snapshot = Snapshot::new(content.targets);
    let plan = plan_for(&copy.snapshot(), version.cloud_id, &snapshot);
    let conflicts = plan.targets.iter().filter(|planned| matches!(planned.action, JoinAction::Conflict(_)));
    let conflicts: Vec<&str> = conflicts.map(|planned| planned.export.as_str()).collect();
    if !conflicts.is_empty() {
        return Err(JoinError::Conflicts(conflicts.join(", ")));
    }
    for planned in plan.targets.iter().filter(|planned| !planned.writes.is_empty()) {
        version = shared.commit(version, &snapshot, &planned.writes).await?;
        snapshot = snapshot.apply(&planned.writes, snapshot.revision().next());
    }
    let shared_targets: Vec<_> =
        snapshot.targets().iter().map(|registered| RegisteredTarget::clone(registered)).collect();
    copy.adopt(Adoption {
        cloud_id: plan.cloud_id,
        writes: difference::writes(&renamed(&copy.snapshot(), &plan.renames), &shared_targets),
        renames: plan.renames.clone(),
        order: shared_targets.iter().map(|registered| registered.target.id).collect(),
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

fn verify_cloud(joined: Option<CloudId>, found: CloudId) -> Result<(), JoinError> {
    match joined {
        Some(joined) if joined != found => Err(JoinError::AnotherCloud { joined, found }),
        _ => Ok(()),
    }
}

fn plan_for(node: &Snapshot, cloud_id: CloudId, shared: &Snapshot) -> JoinPlan {
    let mut renames = Renames::default();
    let mut now = shared.clone();
    let mut targets = Vec::new();
    for registered in node.targets() {
        let target = &registered.target;
        let mut steps = Steps { snapshot: now.clone(), writes: Vec::new(), renames: Renames::default() };
        let decided = steps.decide(registered);
        let (action, writes) = match decided {
            Ok(action) => {
                now = steps.snapshot;
                renames.targets.extend(steps.renames.targets);
                renames.types.extend(steps.renames.types);
                (action, steps.writes)
            }
            Err(problem) => (JoinAction::Conflict(problem), Vec::new()),
        };
        targets.push(PlannedTarget { id: target.id, export: target.spec.export(), action, writes });
    }
    let is_here = |id: TargetId| node.target(id).is_some() || renames.targets.iter().any(|(_, renamed)| *renamed == id);
    let received = shared.targets().iter().filter(|registered| !is_here(registered.target.id)).count();
    JoinPlan { cloud_id, is_joined_already: false, targets, received, renames }
}

/// The decision about one target.
struct Steps {
    /// The shared registry after the writes.
    snapshot: Snapshot,
    writes: Vec<Write>,
    renames: Renames,
}

impl Steps {
    fn decide(&mut self, registered: &Arc<RegisteredTarget>) -> Result<JoinAction, String> {
        let target = &registered.target;
        let is_same = |other: &&Arc<RegisteredTarget>| other.target.spec.is_same_storage(&target.spec);
        let known = self.snapshot.target(target.id).or_else(|| self.snapshot.targets().iter().find(is_same)).cloned();
        let Some(known) = known else {
            self.add(registered)?;
            return Ok(JoinAction::Added);
        };
        let id = known.target.id;
        if !known.target.spec.is_same_storage(&target.spec) {
            return Err(format!("backup target {id} is {} in the registry of the fleet", known.target.spec.export()));
        }
        if known.target.mount_name != target.mount_name {
            return Err(format!(
                "its directory {} would become {}, and backup images contain the path. Delete it on this node once nothing uses it",
                target.mount_name, known.target.mount_name
            ));
        }
        for kept in registered.types.iter() {
            self.add_type(kept, &known)?;
        }
        if id == target.id {
            return Ok(JoinAction::None);
        }
        self.renames.targets.push((target.id, id));
        Ok(JoinAction::Renamed(id))
    }

    /// Adds a target with its types. It stays the default if there is none.
    fn add(&mut self, registered: &RegisteredTarget) -> Result<(), String> {
        let target = &registered.target;
        let becomes_default = target.is_default && self.snapshot.default_target().is_none();
        let mut types = registered.types.iter().map(|kept| TargetType { is_default: false, ..TargetType::clone(kept) });
        let first_type = types.next().ok_or("it has no type")?;
        let rest: Vec<TargetType> = types.collect();
        self.change(&Change::CreateTarget {
            target: Target { is_default: false, ..Target::clone(target) }.into(),
            first_type,
            declines_default: !becomes_default,
        })?;
        for kept in rest {
            self.change(&Change::CreateType(kept))?;
        }
        let default_type = registered.types.iter().find(|kept| kept.is_default);
        if let Some(kept) = default_type.filter(|_| becomes_default) {
            let change = TypeChange { is_default: Some(true), ..TypeChange::default() };
            self.change(&Change::ModifyType { id: kept.id, change, now: Timestamp::now() })?;
        }
        Ok(())
    }

    /// Adds a type of the node to a known target. A type of the same name gets the id from there.
    fn add_type(&mut self, kept: &TargetType, known: &RegisteredTarget) -> Result<(), String> {
        let target_id = known.target.id;
        if self.snapshot.target_type(kept.id).is_some_and(|found| found.target_id == target_id) {
            return Ok(());
        }
        match known.types.iter().find(|found| found.name == kept.name) {
            Some(found) => {
                self.renames.types.push((kept.id, found.id));
                Ok(())
            }
            None => self.change(&Change::CreateType(TargetType { target_id, is_default: false, ..kept.clone() })),
        }
    }

    fn change(&mut self, change: &Change) -> Result<(), String> {
        let writes = rules::decide(&self.snapshot, change).map_err(|refusal| refusal.to_string())?;
        self.snapshot = self.snapshot.apply(&writes, self.snapshot.revision().next());
        self.writes.extend(writes);
        Ok(())
    }
}
