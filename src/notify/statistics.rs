//! Counts of notifications since the start of the agent: the data of their metrics.

use crate::model::named::named;
use crate::model::tally::Tally;

named! {
    /// Kind of a receiver.
    ReceiverKind {
        /// A URL to which notifications are posted.
        Webhook => "webhook",
        /// A program that is run for each notification.
        Command => "command",
    }
}

named! {
    /// What became of a notification for one receiver.
    NotificationResult {
        /// The receiver accepted it.
        Delivered => "delivered",
        /// A webhook refused it, or a command failed. It was not tried again.
        Failed => "failed",
        /// All attempts failed until it was too old.
        Expired => "expired",
        /// It was dropped because the queue was full, the receiver was removed or the agent stopped.
        Dropped => "dropped",
    }
}

/// Counts of all receivers of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiverCounts {
    /// The kind.
    pub kind: ReceiverKind,
    /// Number of notifications that wait.
    pub waiting: usize,
    /// Number of notifications with each result.
    pub results: Vec<(NotificationResult, u64)>,
}

/// Counts of all receivers, including those that were removed.
#[derive(Debug, Default)]
pub(super) struct Statistics(Tally<(&'static str, &'static str)>);

impl Statistics {
    pub(super) fn add(&self, kind: ReceiverKind, result: NotificationResult, notifications: usize) {
        self.0.add((kind.as_str(), result.as_str()), notifications as u64);
    }

    pub(super) fn counts(&self, kind: ReceiverKind, waiting: usize) -> ReceiverCounts {
        let results = NotificationResult::ALL.iter();
        let results = results.map(|result| (*result, self.0.of(&(kind.as_str(), result.as_str())))).collect();
        ReceiverCounts { kind, waiting, results }
    }
}
