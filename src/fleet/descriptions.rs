//! How the agents describe the targets of the fleet.
//!
//! The agents describe a target almost alike, so the aggregator keeps one description of each. That of an agent which
//! finds the target available is preferred, because it has the capacity. A description is replaced before it is old. When
//! its agent stops answering, another agent is asked for its own ([`Descriptions::not_by`]). The latest proof of an object
//! lock counts, whichever agent it is from.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::answer::{AgentAnswer, DescribedTarget, Figures};
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
    figures: Figures,
    described_at: Instant,
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
            let DescribedTarget { target: described, mut figures } = described;
            let is_available = described.status == Status::Available;
            if let Some(present) = descriptions.get_mut(&target.export) {
                figures.lock_proved_at = figures.lock_proved_at.max(present.figures.lock_proved_at);
                present.figures.lock_proved_at = figures.lock_proved_at;
                if !present.is_replaced_by(node, is_available) {
                    present.seen_at = now;
                    continue;
                }
            }
            let (by, described) = (node.clone(), Arc::new(described));
            let description =
                Description { by, is_available, target: described, figures, described_at: now, seen_at: now };
            descriptions.insert(target.export.clone(), description);
        }
        true
    }

    /// Returns the exports that a node of this set does not describe.
    pub(super) fn not_by(&self, nodes: &HashSet<&str>) -> HashSet<Arc<str>> {
        let descriptions = self.lock();
        let others = descriptions.iter().filter(|(_, description)| !nodes.contains(&*description.by));
        others.map(|(export, _)| export.clone()).collect()
    }

    /// Returns all descriptions.
    pub(super) fn all(&self) -> HashMap<Arc<str>, (Arc<Target>, Figures)> {
        let descriptions = self.lock();
        let all = descriptions.iter();
        all.map(|(export, found)| (export.clone(), (found.target.clone(), found.figures))).collect()
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
        self.by == *node || (is_available && !self.is_available) || (is_old && (is_available || !self.is_available))
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
                    "report": {"verdict": status, "reason": null, "message": null, "since": "", "checked_at": null},
                })
            })
            .collect();
        let body = serde_json::json!({ "backup_targets": targets }).to_string();
        AgentAnswer::decode(body.as_bytes(), &SharedTexts::default()).expect("valid")
    }

    #[tokio::test(start_paused = true)]
    async fn description_of_an_agent_that_finds_the_target_available_is_preferred() {
        let (descriptions, a, b) = (Descriptions::default(), Arc::from("a"), Arc::from("b"));
        let version = || descriptions.all().get("nas:/b").map(|(target, _)| target.version.clone());
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
