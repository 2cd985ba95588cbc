//! Bounds of the time that a check may take.

use std::time::Duration;

use super::result::HostCheck;

/// Longest time of one check. Name lookups and workers have shorter deadlines of their own.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// Deadline of a command, a worker or a lookup within a check.
pub(super) const STEP_DEADLINE: Duration = Duration::from_secs(5);

/// Runs a check for at most [`DEADLINE`].
pub(super) async fn bounded(check: impl Future<Output = HostCheck>) -> HostCheck {
    tokio::time::timeout(DEADLINE, check).await.unwrap_or_else(|_| late())
}

/// The result of a check that took too long.
pub(super) fn late() -> HostCheck {
    HostCheck::unknown(format!(
        "no result within {} s: check the load and the disks of this host (dmesg)",
        DEADLINE.as_secs()
    ))
}

/// Runs blocking work in a thread of its own for at most [`DEADLINE`]. `None` if it took longer.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (reply, result) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("doctor".to_owned());
    // The receiver may have stopped waiting.
    thread.spawn(move || drop(reply.send(work()))).ok()?;
    tokio::time::timeout(DEADLINE, result).await.ok()?.ok()
}
