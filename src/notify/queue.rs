//! The queue of a receiver: bounded, and read by one task.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::notification::Notification;

/// Largest number of notifications that wait for a receiver. When a server fails, all its targets change at once.
pub(super) const QUEUE_MAX: usize = 1024;

/// Notifications that a receiver did not get yet.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<VecDeque<Arc<Notification>>>,
    /// Number of waiting notifications, including the one that is being delivered.
    length: watch::Sender<usize>,
}

impl Queue {
    /// Appends a notification. Returns the oldest one if that had to be dropped.
    pub(super) fn push(&self, notification: Arc<Notification>) -> Option<Arc<Notification>> {
        let mut waiting = self.waiting();
        let dropped = if waiting.len() >= QUEUE_MAX { waiting.pop_front() } else { None };
        waiting.push_back(notification);
        if dropped.is_none() {
            self.length.send_modify(|length| *length += 1);
        }
        dropped
    }

    /// Waits for the next notification. It counts as waiting until [`Self::done`].
    pub(super) async fn next(&self) -> Arc<Notification> {
        let mut length = self.length.subscribe();
        loop {
            if let Some(next) = self.waiting().pop_front() {
                return next;
            }
            // The sender is part of `self`, so it is not closed.
            let _ = length.changed().await;
        }
    }

    /// Ends the delivery of the latest notification.
    pub(super) fn done(&self) {
        self.length.send_modify(|length| *length = length.saturating_sub(1));
    }

    /// Returns the number of waiting notifications, including the one that is being delivered.
    pub(super) fn len(&self) -> usize {
        *self.length.borrow()
    }

    /// Waits until nothing waits.
    pub(super) async fn empty(self: Arc<Self>) {
        // The sender is part of `self`, so it is not closed.
        let _ = self.length.subscribe().wait_for(|length| *length == 0).await;
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Arc<Notification>>> {
        // Every change is a single push or pop, so a panic leaves nothing half done.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn oldest_notification_is_dropped_when_the_queue_is_full() {
        let queue = Arc::new(Queue::default());
        for number in 0..QUEUE_MAX {
            assert!(queue.push(Arc::new(Notification::sample(number))).is_none());
        }
        assert_eq!(
            queue.push(Arc::new(Notification::sample(QUEUE_MAX))).map(|dropped| dropped.id.clone()),
            Some("0".to_owned())
        );
        assert_eq!(queue.len(), QUEUE_MAX);
        for number in 1..=QUEUE_MAX {
            assert_eq!(queue.next().await.id, number.to_string());
            assert_eq!(queue.len(), QUEUE_MAX + 1 - number, "counted until it is delivered");
            queue.done();
        }
        queue.clone().empty().await;
    }

    #[tokio::test]
    async fn next_notification_is_awaited() {
        let queue = Arc::new(Queue::default());
        let waiting = tokio::spawn({
            let queue = queue.clone();
            async move { queue.next().await.id.clone() }
        });
        tokio::task::yield_now().await;
        queue.push(Arc::new(Notification::sample(7)));
        assert_eq!(waiting.await.expect("no panic"), "7");
    }
}
