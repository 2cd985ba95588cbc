//! The signals that end a program or make it read its configuration again.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What the program does on a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignalAction {
    Stop,
    /// Read the configuration again.
    Reload,
}

/// Signals that the daemon and a one-shot check handle. The daemon installs the handlers before it reports that it is
/// ready, so that no such signal kills it.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// When the kernel refuses one.
    pub(super) fn install() -> anyhow::Result<Self> {
        let handler = |kind| signal(kind).context("cannot install signal handlers");
        Ok(Self {
            terminate: handler(SignalKind::terminate())?,
            interrupt: handler(SignalKind::interrupt())?,
            hang_up: handler(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) -> SignalAction {
        tokio::select! {
            _ = self.terminate.recv() => SignalAction::Stop,
            _ = self.interrupt.recv() => SignalAction::Stop,
            _ = self.hang_up.recv() => SignalAction::Reload,
        }
    }

    /// Waits for `work`. Returns false if a signal to stop arrives first.
    pub(super) async fn completes(&mut self, work: impl Future<Output = ()>) -> bool {
        tokio::select! {
            _ = self.terminate.recv() => false,
            _ = self.interrupt.recv() => false,
            () = work => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn stop_signal_interrupts_a_waiting_reload() {
        let mut signals = Signals::install().expect("signals");
        assert!(signals.completes(async {}).await);
        for stop in [nix::sys::signal::SIGTERM, nix::sys::signal::SIGINT] {
            nix::sys::signal::raise(stop).expect("sent");
            let ended = tokio::time::timeout(Duration::from_secs(5), signals.completes(std::future::pending()));
            assert!(!ended.await.expect("the reload ends"), "{stop}");
        }
    }
}
