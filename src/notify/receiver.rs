//! A receiver: its queue, and the task that delivers from it.
//!
//! Notifications are delivered in order, one at a time. After a temporary failure the task waits [`BACKOFF_MIN`], then
//! twice as long after each further one, up to [`BACKOFF_MAX`]. It gives up when the notification is older than
//! [`AGE_MAX`].

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::attempt::AttemptError;
use super::delivery::Delivery;
use super::notification::Notification;
use super::queue::Queue;
use super::statistics::{NotificationResult, ReceiverKind, Statistics};
use crate::model::settings::{CommandSettings, WebhookSettings};
use crate::model::{Status, random_fraction};

/// Wait after the first failed attempt.
const BACKOFF_MIN: Duration = Duration::from_secs(1);

/// Longest wait between two attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// Age at which a notification is given up. It is of little use later, and newer ones wait behind it.
const AGE_MAX: Duration = Duration::from_secs(3600);

/// Settings of a receiver, which identify it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ReceiverSettings {
    Webhook(WebhookSettings),
    Command(CommandSettings),
}

impl ReceiverSettings {
    pub(super) fn kind(&self) -> ReceiverKind {
        match self {
            Self::Webhook(_) => ReceiverKind::Webhook,
            Self::Command(_) => ReceiverKind::Command,
        }
    }

    fn on(&self) -> &[Status] {
        match self {
            Self::Webhook(webhook) => &webhook.on,
            Self::Command(command) => &command.on,
        }
    }

    /// Name in the log. It contains no path or query of a URL, and no argument of a command.
    fn name(&self) -> String {
        match self {
            Self::Webhook(webhook) => webhook.origin().to_owned(),
            Self::Command(command) => command.program.display().to_string(),
        }
    }
}

/// A receiver whose task runs until it is dropped.
#[derive(Debug)]
pub(super) struct Receiver {
    settings: ReceiverSettings,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// State that the task shares.
#[derive(Debug)]
struct Shared {
    kind: ReceiverKind,
    name: String,
    queue: Arc<Queue>,
    delivery: ArcSwap<Delivery>,
    statistics: Arc<Statistics>,
}

impl Receiver {
    /// Starts the task of a receiver. Must be called within a tokio runtime.
    pub(super) fn start(settings: ReceiverSettings, delivery: Delivery, statistics: Arc<Statistics>) -> Self {
        let shared = Arc::new(Shared {
            kind: settings.kind(),
            name: settings.name(),
            queue: Arc::default(),
            delivery: ArcSwap::from_pointee(delivery),
            statistics,
        });
        let task = tokio::spawn({
            let shared = shared.clone();
            async move { shared.run().await }
        });
        Self { settings, shared, task }
    }

    pub(super) fn settings(&self) -> &ReceiverSettings {
        &self.settings
    }

    /// Uses the new content of its files from the next attempt on.
    pub(super) fn with_delivery(self, delivery: Delivery) -> Self {
        self.shared.delivery.store(Arc::new(delivery));
        self
    }

    /// Queues a notification if the receiver wants it.
    pub(super) fn push(&self, notification: &Arc<Notification>) {
        if !self.settings.on().contains(&notification.to) {
            return;
        }
        if let Some(dropped) = self.shared.queue.push(notification.clone()) {
            self.shared.lost(NotificationResult::Dropped, &dropped, "its queue is full");
        }
    }

    /// Number of notifications that wait.
    pub(super) fn waiting(&self) -> usize {
        self.shared.queue.len()
    }

    /// Waits until no notification waits.
    pub(super) fn all_delivered(&self) -> impl Future<Output = ()> + use<> {
        self.shared.queue.clone().empty()
    }

    /// Ends the receiver. What waits is lost.
    pub(super) fn discard(self, why: &str) {
        self.task.abort();
        let notifications = self.waiting();
        if notifications > 0 {
            let Shared { kind, name, statistics, .. } = &*self.shared;
            statistics.add(*kind, NotificationResult::Dropped, notifications);
            tracing::warn!(receiver = name, notifications, "notifications were not delivered: {why}");
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    async fn run(&self) {
        let mut failures = 0;
        loop {
            let notification = self.queue.next().await;
            self.deliver(&notification, &mut failures).await;
            self.queue.done();
        }
    }

    /// Delivers one notification or gives it up. `failures` is the number of temporary failures since the last success.
    async fn deliver(&self, notification: &Notification, failures: &mut u64) {
        let mut backoff = BACKOFF_MIN;
        loop {
            let delivery = self.delivery.load_full();
            let problem = match delivery.attempt(notification).await {
                Ok(()) => {
                    self.statistics.add(self.kind, NotificationResult::Delivered, 1);
                    if std::mem::take(failures) > 0 {
                        tracing::info!(receiver = self.name, "the receiver accepts notifications again");
                    }
                    return;
                }
                Err(AttemptError::Final(problem)) => {
                    return self.lost(NotificationResult::Failed, notification, &problem);
                }
                Err(AttemptError::Temporary(problem)) => problem,
            };
            if *failures == 0 {
                tracing::warn!(receiver = self.name, problem, "a notification could not be delivered yet");
            }
            *failures += 1;
            let wait = backoff.mul_f64(jitter());
            if Instant::now() + wait > notification.queued_at + AGE_MAX {
                return self.lost(NotificationResult::Expired, notification, &problem);
            }
            sleep(wait).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Counts and logs a notification that the receiver will not get.
    fn lost(&self, result: NotificationResult, notification: &Notification, problem: &str) {
        self.statistics.add(self.kind, result, 1);
        let Notification { id, target_id, export, .. } = notification;
        tracing::warn!(receiver = self.name, event_id = id, %target_id, export, %result, problem, "a notification was not delivered");
    }
}

/// Returns a random factor from 0.5 to 1, so that many nodes do not retry at the same moments.
fn jitter() -> f64 {
    1.0 - random_fraction() / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::webhook::Webhook;

    /// Starts a webhook that refuses connections.
    async fn unreachable() -> Receiver {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let settings = WebhookSettings {
            url: format!("http://{}/", listener.local_addr().expect("its address")),
            secret_file: None,
            ca_bundle: None,
            timeout: Duration::from_secs(10),
            on: vec![Status::Offline],
        };
        let webhook = Webhook::load(&settings).await.expect("usable");
        Receiver::start(ReceiverSettings::Webhook(settings), Delivery::Webhook(Box::new(webhook)), Arc::default())
    }

    fn count(receiver: &Receiver, result: NotificationResult) -> u64 {
        let counts = receiver.shared.statistics.counts(ReceiverKind::Webhook, 0);
        counts.results.iter().find(|(found, _)| *found == result).expect("a count").1
    }

    #[tokio::test(start_paused = true)]
    async fn notification_expires_after_an_hour_of_failures() {
        let receiver = unreachable().await;
        let began = Instant::now();
        receiver.push(&Arc::new(Notification::sample(1)));
        receiver.push(&Arc::new(Notification { to: Status::Available, ..Notification::sample(2) }));
        assert_eq!(receiver.waiting(), 1, "it is notified of offline only");
        receiver.all_delivered().await;
        let took = began.elapsed();
        assert!(took > AGE_MAX - BACKOFF_MAX && took <= AGE_MAX + BACKOFF_MAX, "{took:?}");
        assert_eq!(count(&receiver, NotificationResult::Expired), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn discarded_receiver_counts_what_it_did_not_deliver() {
        let receiver = unreachable().await;
        let statistics = receiver.shared.statistics.clone();
        for number in 0..3 {
            receiver.push(&Arc::new(Notification::sample(number)));
        }
        receiver.discard("the agent stops");
        let counts = statistics.counts(ReceiverKind::Webhook, 0);
        assert!(counts.results.contains(&(NotificationResult::Dropped, 3)), "{counts:?}");
    }
}
