//! Computations that take some milliseconds with thousands of nodes.

/// Runs a computation on a thread of its own, so that no request waits for it. `None` if it panicked.
#[allow(clippy::disallowed_methods, reason = "a computation ends, and does not delay the shutdown")]
pub(super) async fn compute<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}
