//! What an agent answers to `GET /backup_targets/detail`, reduced to what the view of the fleet needs.
//!
//! An aggregator keeps an answer of every node, so a target of a node has few bytes: texts that other nodes also have are
//! shared, and a message exists only for a problem. An answer of an agent of another version may have more fields and
//! values.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::Deserialize;
use uuid::Uuid;

use crate::api::wire;
use crate::model;

/// Largest number of targets of one node. An agent has at most as many.
const TARGETS_MAX: usize = 10_000;

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
    /// When its latest probe ended.
    pub(super) observed_at: Option<Timestamp>,
    /// Reason code and message of a problem or of a warning.
    pub(super) problem: Option<Box<(Arc<str>, String)>>,
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
}

/// A decoded answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct AgentAnswer {
    /// The targets of the node.
    pub(super) targets: Vec<NodeTarget>,
    /// The same targets in the form of the API, in the same order.
    pub(super) described: Vec<wire::Target>,
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
}

/// Why an answer cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum AnswerError {
    #[error("the answer is not that of an agent ({0})")]
    Malformed(#[from] serde_json::Error),
    #[error("the answer has {0} targets, expected at most {TARGETS_MAX}")]
    TooMany(usize),
    #[error("the answer was not decoded")]
    Aborted,
}

impl AgentAnswer {
    /// Decodes an answer.
    pub(super) fn decode(body: &[u8], texts: &SharedTexts) -> Result<Self, AnswerError> {
        // Decoded twice, because a flattened field would be buffered, which takes longer.
        let wire::TargetList { backup_targets: described } = serde_json::from_slice(body)?;
        let Details { backup_targets: details } = serde_json::from_slice(body)?;
        if described.len() > TARGETS_MAX {
            return Err(AnswerError::TooMany(described.len()));
        }
        let pairs = described.iter().zip(details);
        let targets = pairs.map(|(target, detail)| NodeTarget::new(target, detail.report, texts)).collect();
        Ok(Self { targets, described })
    }
}

impl NodeTarget {
    fn new(target: &wire::Target, report: Report, texts: &SharedTexts) -> Self {
        let state = if report.verdict.is_none() {
            NodeTargetState::NotProbed
        } else if target.status != model::Status::Available {
            NodeTargetState::Offline
        } else if report.reason.is_some() {
            NodeTargetState::Warning
        } else {
            NodeTargetState::Available
        };
        let message = report.message.unwrap_or_default();
        Self {
            id: target.id.parse().unwrap_or_default(),
            export: texts.get(&target.filesystem_export),
            state,
            since: wire::parse_timestamp(&report.since),
            observed_at: report.checked_at.as_deref().and_then(wire::parse_timestamp),
            problem: report
                .reason
                .map(|reason| Box::new((texts.get(&reason), message.chars().take(MESSAGE_MAX_CHARS).collect()))),
        }
    }
}
