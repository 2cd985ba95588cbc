//! Outcome of an attempt to deliver a notification.

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum AttemptError {
    /// The next attempt may succeed.
    #[error("{0}")]
    Temporary(String),
    /// The receiver refused the notification, or may have acted on it.
    #[error("{0}")]
    Final(String),
}
