//! What an agent answers to `GET /backup_targets/verdicts` or `…/detail`, reduced to what the view of the fleet needs.
//!
//! An aggregator keeps an answer of every node, so a target of a node has few bytes. Texts that other nodes also have
//! are shared, and a message exists only for a problem. An answer of an agent of another version may have more fields
//! and values.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use uuid::Uuid;

use crate::api::wire;
use crate::api::wire::Extensible::{Known, Unknown};
use crate::model::{self, LabeledNode};

/// Largest number of targets of one node. An agent has at most as many.
const TARGETS_MAX: usize = 10_000;

/// Longest export that is accepted, in bytes. A path has at most 4,096 (PATH_MAX), and a host name 253.
const EXPORT_MAX_BYTES: usize = 4400;

/// Longest reason code that is accepted, in bytes.
const REASON_MAX_BYTES: usize = 64;

/// Largest difference between the clocks of two nodes that is not an error.
const CLOCK_DIFFERENCE_MAX: SignedDuration = SignedDuration::from_secs(60);

/// Longest message that is kept, in characters.
const MESSAGE_MAX_CHARS: usize = 300;

/// A target on one node, according to its agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodeTarget {
    /// Id that the agent gave it.
    pub(super) id: Uuid,
    /// Export, which identifies the target in the fleet.
    pub(super) export: Arc<str>,
    pub(super) state: NodeTargetState,
    /// Since when the target has its status.
    pub(super) since: Option<Timestamp>,
    /// When its latest probe ended, if the answer says so.
    pub(super) observed_at: Option<Timestamp>,
    /// Reason code and message of a problem or of a warning.
    pub(super) problem: Option<(Arc<str>, Arc<str>)>,
}

/// State of a target on one node, according to its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NodeTargetState {
    /// Available, without a warning.
    Available,
    /// Available, with a warning.
    Warning,
    /// Offline.
    Offline,
    /// Not probed yet.
    NotProbed,
    /// Its probes do not end any more.
    Overdue,
}

/// Measurements of a target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Figures {
    /// Size, in bytes.
    pub(super) size_bytes: Option<u64>,
    /// Used space, in bytes.
    pub(super) used_bytes: Option<u64>,
    /// Time of the latest proof that its object lock is enforced.
    pub(super) lock_proved_at: Option<Timestamp>,
}

/// A target as an agent describes it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct DescribedTarget {
    pub(super) target: wire::Target,
    pub(super) figures: Figures,
}

/// A decoded answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct AgentAnswer {
    /// The targets of the node.
    pub(super) targets: Vec<NodeTarget>,
    /// The same targets in the form of the API, in the same order.
    pub(super) described: Vec<DescribedTarget>,
    /// The node, as scopes name it. `None` if its agent does not say so, or says more than a node can have.
    pub(super) fleet_node: Option<LabeledNode>,
}

/// Texts that many targets share.
#[derive(Debug, Default)]
pub(super) struct SharedTexts(Mutex<HashSet<Arc<str>>>);

impl SharedTexts {
    fn get(&self, text: &str) -> Arc<str> {
        let mut texts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = texts.get(text) {
            return known.clone();
        }
        let new: Arc<str> = text.into();
        texts.insert(new.clone());
        new
    }

    /// Forgets the texts that no target has any more.
    pub(super) fn forget_unused(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|text| Arc::strong_count(text) > 1);
    }
}

#[derive(Deserialize)]
struct Details {
    backup_targets: Vec<Detail>,
    #[serde(default)]
    fleet: Option<wire::FleetNode>,
}

#[derive(Deserialize)]
struct Detail {
    report: Report,
}

/// The fields of a report that the view needs.
#[derive(Deserialize)]
struct Report {
    verdict: Option<wire::ProbeVerdict>,
    reason: Option<String>,
    message: Option<String>,
    since: String,
    checked_at: Option<String>,
    capacity_bytes: Option<u64>,
    used_bytes: Option<u64>,
    object_lock_proof: Option<LockProof>,
}

#[derive(Deserialize)]
struct LockProof {
    verdict: Option<wire::ProofVerdict>,
    proved_at: Option<String>,
}

impl LockProof {
    /// When the lock was proved to be enforced. A time in the future is that of a wrong clock, and counts as none:
    /// otherwise it would be the latest one until then.
    fn enforced_at(&self) -> Option<Timestamp> {
        let is_enforced = self.verdict == Some(Known(model::report::ProofVerdict::Enforced));
        let at = wire::parse_timestamp(self.proved_at.as_deref()?)?;
        (is_enforced && at <= Timestamp::now() + CLOCK_DIFFERENCE_MAX).then_some(at)
    }
}

/// Why an answer cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum AnswerError {
    /// Without the text of the error, which would quote the answer.
    #[error("the answer is not that of an agent (line {line}, column {column})")]
    Malformed { line: usize, column: usize },
    #[error("the answer has a target whose id is not a UUID, or whose export or reason is too long")]
    Target,
    #[error("the answer has {0} targets, expected at most {TARGETS_MAX}")]
    TooMany(usize),
    #[error("the answer was not decoded")]
    Aborted,
}

impl From<serde_json::Error> for AnswerError {
    fn from(error: serde_json::Error) -> Self {
        Self::Malformed { line: error.line(), column: error.column() }
    }
}

impl AgentAnswer {
    /// Decodes an answer. Of targets with the same export, only the first one counts.
    pub(super) fn decode(body: &[u8], texts: &SharedTexts) -> Result<Self, AnswerError> {
        // Decoded twice, because a flattened field would be buffered, which takes longer.
        let wire::TargetList { backup_targets: described } = serde_json::from_slice(body)?;
        let Details { backup_targets: details, fleet } = serde_json::from_slice(body)?;
        if described.len() > TARGETS_MAX {
            return Err(AnswerError::TooMany(described.len()));
        }
        let fleet_node = fleet.map(LabeledNode::from).filter(LabeledNode::is_valid);
        let mut answer = Self { targets: Vec::with_capacity(described.len()), described: Vec::new(), fleet_node };
        let mut exports = HashSet::new();
        for (target, detail) in described.into_iter().zip(details) {
            if exports.insert(target.filesystem_export.clone()) {
                let figures = Figures::of(&detail.report);
                answer.targets.push(NodeTarget::new(&target, detail.report, texts)?);
                answer.described.push(DescribedTarget { target, figures });
            }
        }
        Ok(answer)
    }
}

impl Figures {
    fn of(report: &Report) -> Self {
        Self {
            size_bytes: report.capacity_bytes,
            used_bytes: report.used_bytes,
            lock_proved_at: report.object_lock_proof.as_ref().and_then(LockProof::enforced_at),
        }
    }
}

impl NodeTarget {
    fn new(target: &wire::Target, report: Report, texts: &SharedTexts) -> Result<Self, AnswerError> {
        let export = &target.filesystem_export;
        let has_long_reason = report.reason.as_ref().is_some_and(|reason| reason.len() > REASON_MAX_BYTES);
        if export.len() > EXPORT_MAX_BYTES || has_long_reason {
            return Err(AnswerError::Target);
        }
        let state = match (&report.verdict, &target.status, &report.reason) {
            (None, ..) => NodeTargetState::NotProbed,
            (.., Some(reason)) if reason == model::Reason::ProbeOverdue.as_str() => NodeTargetState::Overdue,
            (_, Known(model::Status::Offline), _) => NodeTargetState::Offline,
            (_, Known(model::Status::Available), Some(_)) => NodeTargetState::Warning,
            (_, Known(model::Status::Available), None) => NodeTargetState::Available,
            // A status of another release.
            (_, Unknown(_), _) => NodeTargetState::NotProbed,
        };
        let message: String = report.message.unwrap_or_default().chars().take(MESSAGE_MAX_CHARS).collect();
        Ok(Self {
            id: target.id.parse().map_err(|_| AnswerError::Target)?,
            export: texts.get(export),
            state,
            since: wire::parse_timestamp(&report.since),
            observed_at: report.checked_at.as_deref().and_then(wire::parse_timestamp),
            problem: report.reason.map(|reason| (texts.get(&reason), texts.get(&message))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(export: &str, status: &str, verdict: Option<&str>, reason: Option<&str>) -> serde_json::Value {
        serde_json::json!({
            "id": Uuid::new_v4(), "type": "nfs", "created_at": "2026-01-01T00:00:00.000000", "updated_at": "",
            "version": "0.1.0", "filesystem_export": export, "filesystem_export_mount_path": "/m",
            "nfs_export": export, "nfs_export_mount_path": "/m", "s3_endpoint_url": null, "s3_bucket": null,
            "nfs_mount_opts": null, "secret_ref": null, "is_default": false, "capacity": null, "used": null,
            "status": status, "backup_target_types": [], "backup_target_metadata": [], "a_field_of_a_later_release": 1,
            "report": {
                "verdict": verdict, "reason": reason, "message": "m".repeat(400),
                "since": "2026-01-01T00:00:00.000000", "checked_at": null,
            },
        })
    }

    fn decode(targets: &[serde_json::Value]) -> Result<AgentAnswer, AnswerError> {
        let body = serde_json::json!({ "backup_targets": targets }).to_string();
        AgentAnswer::decode(body.as_bytes(), &SharedTexts::default())
    }

    #[test]
    fn state_is_what_the_agent_says() {
        for (status, verdict, reason, state) in [
            ("available", Some("available"), None, NodeTargetState::Available),
            ("available", Some("available"), Some("storage_slow"), NodeTargetState::Warning),
            ("offline", Some("offline"), Some("export_denied"), NodeTargetState::Offline),
            ("offline", None, Some("not_checked"), NodeTargetState::NotProbed),
            ("available", Some("available"), Some("probe_overdue"), NodeTargetState::Overdue),
            ("offline", Some("offline"), Some("probe_overdue"), NodeTargetState::Overdue),
            ("degraded", Some("available"), None, NodeTargetState::NotProbed),
        ] {
            let answer = decode(&[target("nas:/b", status, verdict, reason)]).expect("valid");
            assert_eq!(answer.targets[0].state, state, "{status} {verdict:?} {reason:?}");
            let message = answer.targets[0].problem.as_ref().map(|problem| problem.1.len());
            assert_eq!(message, reason.map(|_| MESSAGE_MAX_CHARS));
        }
    }

    #[test]
    fn message_that_many_targets_have_is_in_memory_once() {
        let offline = |export| target(export, "offline", Some("offline"), Some("export_denied"));
        let answer = decode(&[offline("nas:/b"), offline("nas:/c")]).expect("valid");
        let messages: Vec<_> = answer.targets.iter().filter_map(|target| Some(&target.problem.as_ref()?.1)).collect();
        assert!(Arc::ptr_eq(messages[0], messages[1]));
    }

    #[test]
    fn only_a_proof_that_the_lock_is_enforced_counts_and_none_of_the_future() {
        let now = Timestamp::now();
        for (verdict, at, counts) in [
            ("enforced", now - SignedDuration::from_hours(1), true),
            ("enforced", now + CLOCK_DIFFERENCE_MAX / 2, true),
            ("enforced", now + SignedDuration::from_hours(24), false),
            ("not_enforced", now - SignedDuration::from_hours(1), false),
            ("bypassable", now - SignedDuration::from_hours(1), false),
            ("a_later_verdict", now - SignedDuration::from_hours(1), false),
        ] {
            let mut target = target("s3/b", "available", Some("available"), None);
            target["report"]["object_lock_proof"] =
                serde_json::json!({"verdict": verdict, "why": null, "proved_at": wire::timestamp(at)});
            let answer = decode(&[target]).expect("valid");
            assert_eq!(answer.described[0].figures.lock_proved_at.is_some(), counts, "{verdict} {at}");
        }
    }

    #[test]
    fn node_of_an_answer_is_known_unless_it_exceeds_a_limit() {
        let decode = |fleet: serde_json::Value| {
            let body = serde_json::json!({ "backup_targets": [], "fleet": fleet }).to_string();
            AgentAnswer::decode(body.as_bytes(), &SharedTexts::default()).expect("valid").fleet_node
        };
        let node = decode(serde_json::json!({ "node": "compute-1", "labels": { "rack": "a" }, "later": 1 }));
        let node = node.expect("a node");
        assert_eq!((&*node.name, node.labels.get("rack").map(String::as_str)), ("compute-1", Some("a")));
        for unusable in [
            serde_json::Value::Null,
            serde_json::json!({ "node": "x".repeat(300), "labels": {} }),
            serde_json::json!({ "node": "a", "labels": { "rack": "x".repeat(300) } }),
        ] {
            assert_eq!(decode(unusable), None);
        }
        assert_eq!(self::decode(&[]).expect("valid").fleet_node, None, "an agent of an earlier release");
    }

    #[test]
    fn export_that_is_listed_twice_counts_once() {
        let twice = [
            target("nas:/b", "available", Some("available"), None),
            target("nas:/b", "offline", Some("offline"), Some("export_denied")),
            target("nas:/c", "available", Some("available"), None),
        ];
        let answer = decode(&twice).expect("valid");
        assert_eq!((answer.targets.len(), answer.described.len()), (2, 2));
        assert_eq!(answer.targets[0].state, NodeTargetState::Available);
    }

    #[test]
    fn answer_beyond_a_limit_is_refused_without_quoting_it() {
        let (long, mut no_id) = ("x".repeat(5000), target("nas:/b", "offline", None, None));
        no_id["id"] = "7".into();
        for targets in [
            vec![target(&long, "available", None, None)],
            vec![target("nas:/b", "offline", Some("offline"), Some(&long))],
            vec![no_id],
            vec![serde_json::json!(long)],
        ] {
            let error = decode(&targets).expect_err("refused").to_string();
            assert!(error.len() < 200, "{error}");
        }
    }

    #[test]
    fn texts_are_shared_and_forgotten() {
        let texts = SharedTexts::default();
        let (one, other) = (texts.get("nas:/b"), texts.get("nas:/b"));
        assert!(Arc::ptr_eq(&one, &other));
        drop((one, other));
        texts.forget_unused();
        assert!(texts.0.lock().expect("no panic").is_empty());
    }
}
