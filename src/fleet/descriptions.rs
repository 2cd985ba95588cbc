//! How the agents describe the targets of the fleet.
//!
//! The agents describe a target almost alike, so the aggregator keeps one description of each. That of an agent which
//! finds the target available is preferred, because it has the sizes. A description is replaced before it is old. When
//! its agent stops answering, is removed, or does not find the target available any more, another agent is asked for
//! its own ([`Descriptions::renew`]). Until there are newer sizes, the last ones are kept with their node and time. The
//! latest proof of an object lock counts, whichever agent it is from.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::answer::{AgentAnswer, DescribedTarget};
use super::described::{Described, Sizes};
use super::view::FleetView;
use crate::api::wire::Target;
use crate::model::Status;

/// Largest number of different targets in the fleet. An agent has at most as many.
pub(super) const TARGETS_MAX: usize = 10_000;

/// Age at which the description of another agent replaces one.
const OLD_AFTER: Duration = Duration::from_secs(60);

/// How long the description of a target that no node has is kept.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// The descriptions, by export.
#[derive(Debug, Default)]
pub(super) struct Descriptions(Mutex<HashMap<Arc<str>, Description>>);

#[derive(Debug)]
struct Description {
    /// Name of the node whose agent it is from.
    by: Arc<str>,
    is_available: bool,
    target: Arc<Target>,
    /// Time of the latest proof of its object lock.
    lock_proved_at: Option<Timestamp>,
    sizes: Option<Arc<Sizes>>,
    described_at: Instant,
    /// Whether its agent does not find the target available any more, but another one does.
    is_replaced_soon: bool,
    /// When an answer last contained the target.
    seen_at: Instant,
}

impl Descriptions {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Description>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what is better in an answer. Returns false, and takes over nothing, if there would be more than
    /// [`TARGETS_MAX`] targets.
    pub(super) fn add(&self, node: &Arc<str>, answer: &mut AgentAnswer) -> bool {
        let (mut descriptions, now) = (self.lock(), Instant::now());
        let new = answer.targets.iter().filter(|target| !descriptions.contains_key(&target.export)).count();
        if descriptions.len() + new > TARGETS_MAX {
            return false;
        }
        for (target, described) in answer.targets.iter().zip(answer.described.drain(..)) {
            let DescribedTarget { target: mut described, figures } = described;
            let is_available = described.status == Status::Available;
            let mut lock_proved_at = figures.lock_proved_at;
            let mut sizes = Sizes::new(node, &described, figures).map(Arc::new);
            if let Some(present) = descriptions.get_mut(&target.export) {
                lock_proved_at = lock_proved_at.max(present.lock_proved_at);
                present.lock_proved_at = lock_proved_at;
                if !present.is_replaced_by(node, is_available) {
                    present.seen_at = now;
                    if present.sizes.as_ref().is_some_and(|known| known.by == *node) && sizes.is_some() {
                        present.sizes = sizes;
                    }
                    continue;
                }
                sizes = sizes.or_else(|| present.sizes.clone());
                if answer.fleet_node.is_none() {
                    // Agents of earlier releases do not know scopes.
                    described.scope.clone_from(&present.target.scope);
                }
            }
            let description = Description {
                by: node.clone(),
                is_available,
                target: Arc::new(described),
                lock_proved_at,
                sizes,
                described_at: now,
                is_replaced_soon: false,
                seen_at: now,
            };
            descriptions.insert(target.export.clone(), description);
        }
        true
    }

    /// Takes over from a view which nodes still measure the same sizes. Returns the indexes of nodes whose descriptions
    /// are needed, because the target is available there and not on the node that describes it.
    pub(super) fn renew(&self, view: &FleetView) -> BTreeSet<usize> {
        let (mut descriptions, mut needed) = (self.lock(), BTreeSet::new());
        for target in &view.targets {
            let Some(description) = descriptions.get_mut(&*target.described.filesystem_export) else { continue };
            if let (Some(at), Some(sizes)) = (target.sizes_confirmed_at, &mut description.sizes) {
                Arc::make_mut(sizes).at = at;
            }
            if !target.is_described_where_available
                && let Some(index) = view.node_with(target)
            {
                description.is_replaced_soon = true;
                needed.insert(index);
            }
        }
        needed
    }

    /// Returns all descriptions.
    pub(super) fn all(&self) -> HashMap<Arc<str>, Described> {
        let descriptions = self.lock();
        descriptions.iter().map(|(export, found)| (export.clone(), found.shown())).collect()
    }

    /// Forgets the targets that no node has. A description is kept for a while, because it is added before the answer
    /// that it is from.
    pub(super) fn forget_others_than(&self, present: &HashSet<&str>) {
        self.lock()
            .retain(|export, description| present.contains(&**export) || description.seen_at.elapsed() < KEPT_FOR);
    }
}

impl Description {
    fn is_replaced_by(&self, node: &Arc<str>, is_available: bool) -> bool {
        let is_old = self.described_at.elapsed() >= OLD_AFTER;
        let is_needed = is_available && (self.is_replaced_soon || !self.is_available);
        self.by == *node || is_needed || (is_old && (is_available || !self.is_available))
    }

    fn shown(&self) -> Described {
        let Self { by, target, sizes, lock_proved_at, .. } = self;
        Described { by: by.clone(), target: target.clone(), sizes: sizes.clone(), lock_proved_at: *lock_proved_at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::answer::SharedTexts;

    fn answer(exports: &[&str], status: &str, version: &str) -> AgentAnswer {
        let targets: Vec<_> = exports
            .iter()
            .map(|export| {
                serde_json::json!({
                    "id": uuid::Uuid::new_v4(), "type": "nfs", "created_at": "", "updated_at": "", "version": version,
                    "filesystem_export": export, "filesystem_export_mount_path": "", "nfs_export": export,
                    "nfs_export_mount_path": "", "s3_endpoint_url": null, "s3_bucket": null, "nfs_mount_opts": null,
                    "secret_ref": null, "is_default": false, "capacity": null, "used": null, "status": status,
                    "backup_target_types": [], "backup_target_metadata": [],
                    "report": {"verdict": status, "reason": null, "message": null, "since": "", "checked_at": null,
                        "capacity_bytes": (status == "available").then_some(4096)},
                })
            })
            .collect();
        let body = serde_json::json!({ "backup_targets": targets }).to_string();
        AgentAnswer::decode(body.as_bytes(), &SharedTexts::default()).expect("valid")
    }

    #[tokio::test(start_paused = true)]
    async fn description_of_an_agent_that_finds_the_target_available_is_preferred() {
        let (descriptions, a, b) = (Descriptions::default(), Arc::from("a"), Arc::from("b"));
        let version = || descriptions.all().get("nas:/b").map(|described| described.target.version.clone());
        for (node, status, text, expected) in [
            (&a, "offline", "1", "1"),
            (&b, "offline", "2", "1"),
            (&b, "available", "3", "3"),
            (&a, "available", "4", "3"),
            (&b, "offline", "5", "5"),
            (&a, "available", "6", "6"),
        ] {
            assert!(descriptions.add(node, &mut answer(&["nas:/b"], status, text)));
            assert_eq!(version().as_deref(), Some(expected), "{text}");
        }
        tokio::time::advance(OLD_AFTER).await;
        descriptions.add(&b, &mut answer(&["nas:/b"], "offline", "7"));
        assert_eq!(version().as_deref(), Some("6"), "it has the capacity");
        descriptions.add(&b, &mut answer(&["nas:/b"], "available", "8"));
        assert_eq!(version().as_deref(), Some("8"), "the agent of the old one may be gone");
    }

    #[tokio::test(start_paused = true)]
    async fn sizes_of_a_target_that_became_offline_are_kept_with_their_node() {
        let (descriptions, a, b) = (Descriptions::default(), Arc::from("a"), Arc::from("b"));
        let sizes_by = || descriptions.all()["nas:/b"].sizes.as_ref().map(|sizes| sizes.by.to_string());
        descriptions.add(&a, &mut answer(&["nas:/b"], "offline", "1"));
        assert_eq!(sizes_by(), None);
        descriptions.add(&a, &mut answer(&["nas:/b"], "available", "2"));
        descriptions.add(&a, &mut answer(&["nas:/b"], "offline", "3"));
        assert_eq!(sizes_by().as_deref(), Some("a"));
        descriptions.add(&b, &mut answer(&["nas:/b"], "available", "4"));
        assert_eq!(sizes_by().as_deref(), Some("b"));
    }

    #[tokio::test(start_paused = true)]
    async fn description_is_kept_until_its_answer_is_in_a_view() {
        let (descriptions, a) = (Descriptions::default(), Arc::from("a"));
        descriptions.add(&a, &mut answer(&["nas:/b", "nas:/c"], "available", "1"));
        descriptions.forget_others_than(&HashSet::new());
        assert_eq!(descriptions.all().len(), 2);
        tokio::time::advance(KEPT_FOR).await;
        descriptions.forget_others_than(&HashSet::from(["nas:/c"]));
        assert_eq!(descriptions.all().into_keys().collect::<Vec<_>>(), [Arc::from("nas:/c")]);
    }

    #[test]
    fn answer_with_too_many_new_targets_is_refused() {
        let (descriptions, a) = (Descriptions::default(), Arc::from("a"));
        let exports: Vec<String> = (0..TARGETS_MAX).map(|number| format!("nas:/{number}")).collect();
        let exports: Vec<&str> = exports.iter().map(String::as_str).collect();
        assert!(descriptions.add(&a, &mut answer(&exports, "available", "1")));
        assert!(!descriptions.add(&a, &mut answer(&["nas:/one-more"], "available", "1")));
        assert!(descriptions.add(&a, &mut answer(&["nas:/7"], "available", "1")));
    }
}
