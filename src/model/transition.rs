//! Transitions: when a target became available or offline, and why.

use std::borrow::Cow;

use jiff::Timestamp;

use super::report::{Finding, Status};
use super::target::TargetId;

/// Largest length of a message in a history, in characters. A message may repeat the output of a command or a
/// server, and histories are stored on the disk of the node.
pub const MESSAGE_MAX_CHARS: usize = 512;

/// One change of a target's status on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// The target.
    pub target_id: TargetId,
    /// End of the probe that caused it, by this host's clock.
    pub at: Timestamp,
    /// Status before. `None` for the first verdict after the creation of the target or the start of the agent.
    pub from: Option<Status>,
    /// Status after.
    pub to: Status,
    /// Finding that made the target offline, or a warning of an available target.
    pub finding: Option<PastFinding>,
}

/// A finding in a history. Another version of the agent may have recorded it, with a code that is unknown here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastFinding {
    /// The stable code, see [`super::Reason::as_str`].
    pub code: Cow<'static, str>,
    /// The message, cut to [`MESSAGE_MAX_CHARS`].
    pub message: String,
}

impl From<Finding> for PastFinding {
    fn from(finding: Finding) -> Self {
        let mut message = finding.message;
        if let Some((end, _)) = message.char_indices().nth(MESSAGE_MAX_CHARS - 1)
            && message[end..].chars().nth(1).is_some()
        {
            message.truncate(end);
            message.push('…');
        }
        Self { code: finding.reason.as_str().into(), message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Reason;

    #[test]
    fn message_is_cut_at_its_limit() {
        for (length, is_cut) in [(0, false), (MESSAGE_MAX_CHARS, false), (MESSAGE_MAX_CHARS + 1, true), (9999, true)] {
            let kept = PastFinding::from(Finding::new(Reason::Slow, "ü".repeat(length))).message;
            assert_eq!(
                (kept.chars().count(), kept.ends_with('…')),
                (length.min(MESSAGE_MAX_CHARS), is_cut),
                "{length}"
            );
        }
    }
}
