//! Notifications: tells webhooks and commands when a target becomes available or offline.
//!
//! ```text
//! agent ── change of status ──► Notifier ──► queue ──► task of the receiver ──► webhook or command
//!                                       └──► queue ──► …
//! ```
//!
//! Each receiver has a bounded queue and a task of its own, so a receiver that hangs delays no probe, no request and no
//! other receiver. A notification that cannot be delivered is tried again ([`receiver`]), and is dropped when it is too
//! old or when the queue is full. Notifications are kept in memory only: what was not delivered when the agent stops is
//! lost after a short wait.
//!
//! The first verdict after a start is compared with the latest entry of the target's history. So after a restart there
//! is a notification only if the status changed meanwhile.

mod attempt;
mod command;
mod delivery;
mod error;
mod notification;
mod queue;
mod receiver;
mod signature;
mod statistics;
mod webhook;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::agent::{Agent, StatusChange};
use crate::model::settings::NotifySettings;
use crate::model::{Status, TargetId};
use crate::sys::{ChildCensus, node};
use command::NotifyCommand;
use delivery::Delivery;
use notification::Notification;
use receiver::{Receiver, ReceiverSettings};
use statistics::Statistics;
use webhook::Webhook;

pub use error::NotifyError;
pub use statistics::{NotificationResult, ReceiverCounts, ReceiverKind};

/// Largest number of changes that wait to be put into the queues: several for each target of a full registry.
pub const CHANGES_MAX: usize = 1 << 15;

/// Longest time for which deliveries continue when the agent stops.
const LAST_DELIVERIES_MAX: Duration = Duration::from_millis(500);

/// Time for which no history is read after one could not be read. Changes of other targets wait for each attempt.
const HISTORY_PAUSE: Duration = Duration::from_secs(30);

/// Receivers of notifications, and their queues.
#[derive(Debug)]
pub struct Notifier {
    census: ChildCensus,
    host: String,
    receivers: Mutex<Vec<Receiver>>,
    statistics: Arc<Statistics>,
}

impl Notifier {
    /// A notifier without receivers. `census` counts the child processes.
    #[must_use]
    pub fn new(census: ChildCensus) -> Self {
        Self { census, host: node::hostname(), receivers: Mutex::default(), statistics: Arc::default() }
    }

    /// Replaces the receivers by those of the settings, and reads their files. A receiver whose settings did not change
    /// keeps its queue. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`NotifyError`] for the first receiver that cannot be used. The old ones then stay in use.
    pub async fn load(&self, settings: &NotifySettings) -> Result<(), NotifyError> {
        let loaded = load(settings, &self.census).await?;
        let mut receivers = self.receivers();
        let mut former = std::mem::take(&mut *receivers);
        for (of_receiver, delivery) in loaded {
            let kept = former.iter().position(|receiver| receiver.settings() == &of_receiver);
            receivers.push(match kept {
                Some(at) => former.swap_remove(at).with_delivery(delivery),
                None => Receiver::start(of_receiver, delivery, self.statistics.clone()),
            });
        }
        drop(receivers);
        for receiver in former {
            receiver.discard("the receiver was removed from the configuration");
        }
        Ok(())
    }

    /// Queues a notification of each change until the agent ends.
    pub async fn follow(&self, agent: Agent, mut changes: mpsc::Receiver<StatusChange>) {
        let mut history = History { agent, readable_from: Instant::now() };
        while let Some(change) = changes.recv().await {
            if self.receivers().is_empty() {
                continue;
            }
            let status = &change.target.status;
            let from = match change.from {
                Some(from) => Some(from),
                None => history.recorded_before(change.target.target.id, status.since).await,
            };
            // A target without a recorded status is expected to be available.
            if from.map_or(Status::Available, |(from, _)| from) == status.status {
                continue;
            }
            match Notification::new(&self.host, &change.target, from) {
                Ok(notification) => self.push(&Arc::new(notification)),
                Err(error) => tracing::error!(%error, "a notification cannot be encoded"),
            }
        }
    }

    /// Returns the counts of each kind of receiver that is configured.
    #[must_use]
    pub fn counts(&self) -> Vec<ReceiverCounts> {
        let receivers = self.receivers();
        let kinds = ReceiverKind::ALL.iter().filter_map(|kind| {
            let of_kind: Vec<usize> =
                receivers.iter().filter(|one| one.settings().kind() == *kind).map(Receiver::waiting).collect();
            (!of_kind.is_empty()).then(|| self.statistics.counts(*kind, of_kind.iter().sum()))
        });
        kinds.collect()
    }

    /// Ends all deliveries, after at most [`LAST_DELIVERIES_MAX`] for what waits.
    pub async fn stop(&self) {
        let delivered: Vec<_> = self.receivers().iter().map(Receiver::all_delivered).collect();
        // What is left is logged below.
        let _ = timeout(LAST_DELIVERIES_MAX, join_all(delivered)).await;
        let receivers = std::mem::take(&mut *self.receivers());
        for receiver in receivers {
            receiver.discard("the agent stops");
        }
    }

    fn push(&self, notification: &Arc<Notification>) {
        for receiver in self.receivers().iter() {
            receiver.push(notification);
        }
    }

    fn receivers(&self) -> MutexGuard<'_, Vec<Receiver>> {
        // After a panic a receiver may be missing. The others work.
        self.receivers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the files of all receivers, as [`Notifier::load`] does.
///
/// # Errors
/// As [`Notifier::load`].
pub async fn verify(settings: &NotifySettings) -> Result<(), NotifyError> {
    load(settings, &ChildCensus::new()).await.map(drop)
}

async fn load(
    settings: &NotifySettings,
    census: &ChildCensus,
) -> Result<Vec<(ReceiverSettings, Delivery)>, NotifyError> {
    let webhooks = settings.webhooks.iter().map(async |settings| {
        let delivery = Delivery::Webhook(Box::new(Webhook::load(settings).await?));
        Ok::<_, NotifyError>((ReceiverSettings::Webhook(settings.clone()), delivery))
    });
    let commands = settings.commands.iter().map(async |settings| {
        let delivery = Delivery::Command(NotifyCommand::load(settings, census).await.map_err(NotifyError::Program)?);
        Ok((ReceiverSettings::Command(settings.clone()), delivery))
    });
    // All files at once, because each of them may be on storage that does not answer.
    let (webhooks, commands) = tokio::try_join!(try_join_all(webhooks), try_join_all(commands))?;
    Ok(webhooks.into_iter().chain(commands).collect())
}

/// Recorded histories of targets.
struct History {
    agent: Agent,
    readable_from: Instant,
}

impl History {
    /// Returns the latest status that was recorded before a change, and since when. `None` if there is none, or if the
    /// history cannot be read now.
    async fn recorded_before(&mut self, id: TargetId, change: Timestamp) -> Option<(Status, Timestamp)> {
        if Instant::now() < self.readable_from {
            return None;
        }
        match self.agent.history(id).await {
            Ok(transitions) => {
                let mut earlier = transitions.iter().filter(|transition| transition.at < change).peekable();
                let status = earlier.peek()?.to;
                // Each restart records the status again.
                let since = earlier.take_while(|transition| transition.to == status).last()?.at;
                Some((status, since))
            }
            Err(error) => {
                tracing::warn!(%error, "the status before the start of the agent is not known");
                self.readable_from = Instant::now() + HISTORY_PAUSE;
                None
            }
        }
    }
}
