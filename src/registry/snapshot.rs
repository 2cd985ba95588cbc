//! Snapshots: the content of a registry at one revision.
//!
//! A snapshot is immutable. The next one shares every unchanged entry with it, so a change copies
//! pointers and not targets, and [`Snapshot::differences_from`] finds what changed by comparing them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::{Target, TargetId, TargetType, TargetTypeId};

/// A target with its types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredTarget {
    /// The target.
    pub target: Arc<Target>,
    /// Its types, oldest first. Empty only between the two writes that create a target.
    pub types: Arc<[Arc<TargetType>]>,
}

/// Version of a registry's content. It grows with every commit. Revisions are comparable only while one store stays
/// open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Revision(u64);

impl Revision {
    /// Returns the revision of the next commit.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// One row-level write. A store makes those of one commit together or none of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Adds a target after all others, or replaces the one with its id.
    PutTarget(Arc<Target>),
    /// Removes a target with its types and its history.
    DeleteTarget(TargetId),
    /// Adds a type to its target after all others, or replaces the one with its id.
    PutType(Arc<TargetType>),
    /// Removes a target type.
    DeleteType(TargetTypeId),
}

/// The content of a registry at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    revision: Revision,
    /// Oldest first.
    targets: Vec<Arc<RegisteredTarget>>,
}

/// What happened to one target between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// The target is new.
    Added(Arc<RegisteredTarget>),
    /// The target or one of its types changed.
    Changed(Arc<RegisteredTarget>),
    /// The target was removed.
    Removed(Arc<RegisteredTarget>),
}

impl Snapshot {
    /// Returns the first snapshot of a store that contains these targets, oldest first.
    #[must_use]
    pub fn new(targets: Vec<RegisteredTarget>) -> Self {
        Self { revision: Revision::default(), targets: targets.into_iter().map(Arc::new).collect() }
    }

    /// The revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Every target with its types, oldest first.
    #[must_use]
    pub fn targets(&self) -> &[Arc<RegisteredTarget>] {
        &self.targets
    }

    /// Every target type, in the order of their targets.
    pub fn types(&self) -> impl Iterator<Item = &Arc<TargetType>> {
        self.targets.iter().flat_map(|registered| registered.types.iter())
    }

    /// Returns the target with this id.
    #[must_use]
    pub fn target(&self, id: TargetId) -> Option<&Arc<RegisteredTarget>> {
        self.targets.iter().find(|registered| registered.target.id == id)
    }

    /// Returns the target type with this id.
    #[must_use]
    pub fn target_type(&self, id: TargetTypeId) -> Option<&Arc<TargetType>> {
        self.types().find(|target_type| target_type.id == id)
    }

    /// Returns the default target. There is none while every target declined to be it.
    #[must_use]
    pub fn default_target(&self) -> Option<&Arc<RegisteredTarget>> {
        self.targets.iter().find(|registered| registered.target.is_default)
    }

    /// Returns the part of this snapshot whose targets are `kept`, at the same revision.
    #[must_use]
    pub fn part(self: &Arc<Self>, kept: impl Fn(&Target) -> bool) -> Arc<Self> {
        if self.targets.iter().all(|registered| kept(&registered.target)) {
            return self.clone();
        }
        let targets = self.targets.iter().filter(|registered| kept(&registered.target));
        Arc::new(Self { revision: self.revision, targets: targets.cloned().collect() })
    }

    /// Returns the snapshot after these writes. A write to a target or type that does not exist is
    /// ignored; the rules never make one.
    #[must_use]
    pub fn apply(&self, writes: &[Write], revision: Revision) -> Self {
        let mut next = Self { revision, targets: self.targets.clone() };
        for write in writes {
            match write {
                Write::PutTarget(target) => next.put_target(target),
                Write::DeleteTarget(id) => next.targets.retain(|registered| registered.target.id != *id),
                Write::PutType(target_type) => next.change_types(target_type.target_id, |types| {
                    match types.iter_mut().find(|other| other.id == target_type.id) {
                        Some(other) => *other = target_type.clone(),
                        None => types.push(target_type.clone()),
                    }
                }),
                Write::DeleteType(id) => {
                    if let Some(target_id) = next.target_type(*id).map(|target_type| target_type.target_id) {
                        next.change_types(target_id, |types| types.retain(|other| other.id != *id));
                    }
                }
            }
        }
        next
    }

    /// Returns the same content with targets and types ordered by their times of creation, and then by their ids. All
    /// nodes that share a registry have this order, whatever they read first.
    #[must_use]
    pub fn ordered_by_creation(mut self) -> Self {
        for registered in &mut self.targets {
            if !registered.types.is_sorted_by_key(|kept| (kept.created_at, kept.id)) {
                let mut types = registered.types.to_vec();
                types.sort_by_key(|kept| (kept.created_at, kept.id));
                *registered = Arc::new(RegisteredTarget { target: registered.target.clone(), types: types.into() });
            }
        }
        self.targets.sort_by_key(|registered| (registered.target.created_at, registered.target.id));
        self
    }

    /// Returns what changed since an older snapshot of the same store: what was removed, then what is new or changed,
    /// in the order of this snapshot. Entries that are the same allocation in both are not compared.
    #[must_use]
    pub fn differences_from(&self, older: &Self) -> Vec<Difference> {
        let is_same = |(before, after): (&Arc<RegisteredTarget>, &Arc<RegisteredTarget>)| {
            Arc::ptr_eq(before, after) || before.target.id == after.target.id
        };
        // Most changes leave most targets at their places.
        let kept = older.targets.iter().zip(&self.targets).take_while(|pair| is_same(*pair)).count();
        let mut moved: HashMap<TargetId, &Arc<RegisteredTarget>> =
            older.targets[kept..].iter().map(|before| (before.target.id, before)).collect();
        let mut changes = Vec::new();
        for (at, after) in self.targets.iter().enumerate() {
            let before = if at < kept { Some(&older.targets[at]) } else { moved.remove(&after.target.id) };
            match before {
                None => changes.push(Difference::Added(after.clone())),
                Some(before) if Arc::ptr_eq(before, after) || before == after => {}
                Some(_) => changes.push(Difference::Changed(after.clone())),
            }
        }
        let removed = older.targets[kept..].iter().filter(|before| moved.contains_key(&before.target.id));
        removed.cloned().map(Difference::Removed).chain(changes).collect()
    }

    fn position(&self, id: TargetId) -> Option<usize> {
        self.targets.iter().position(|registered| registered.target.id == id)
    }

    fn put_target(&mut self, target: &Arc<Target>) {
        let at = self.position(target.id);
        let types = at.map_or_else(|| Arc::from([]), |at| self.targets[at].types.clone());
        let registered = Arc::new(RegisteredTarget { target: target.clone(), types });
        match at {
            Some(at) => self.targets[at] = registered,
            None => self.targets.push(registered),
        }
    }

    fn change_types(&mut self, target_id: TargetId, change: impl FnOnce(&mut Vec<Arc<TargetType>>)) {
        let Some(at) = self.position(target_id) else {
            return;
        };
        let RegisteredTarget { target, types } = &*self.targets[at];
        let mut types = types.to_vec();
        change(&mut types);
        self.targets[at] = Arc::new(RegisteredTarget { target: target.clone(), types: types.into() });
    }
}
