//! Delivery: one attempt to hand a notification to a receiver.

use super::attempt::AttemptError;
use super::command::NotifyCommand;
use super::notification::Notification;
use super::webhook::Webhook;

/// A receiver with the content of its files.
#[derive(Debug)]
pub(super) enum Delivery {
    Webhook(Box<Webhook>),
    Command(NotifyCommand),
}

impl Delivery {
    /// Makes one attempt, within the timeout of the receiver.
    ///
    /// # Errors
    /// [`AttemptError`] when the receiver did not accept the notification.
    pub(super) async fn attempt(&self, notification: &Notification) -> Result<(), AttemptError> {
        match self {
            Self::Webhook(webhook) => webhook.post(notification).await,
            Self::Command(command) => command.run(notification).await,
        }
    }
}
