//! Turns: how many probes over the wire query one server at a time.
//!
//! There are few reserved source ports, and each can have one connection to a server ([`nfs::connect`]). A probe uses
//! one at a time. So a probe that has its turn also has a port. Each server has turns of its own, so that a server that
//! does not answer delays only its own targets.
//!
//! [`nfs::connect`]: crate::nfs::connect

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::model::Reason;
use crate::model::report::{Finding, finding};
use crate::sys::{Lane, Permits};

/// Probes of one server at a time. They leave some of the 320 ports to deleted targets, whose last calls may still run,
/// and to other names of the same server. The search for a free port also stays short.
const PROBES_MAX: usize = 256;

/// Turns at each server, by its name or address and its port.
#[derive(Debug, Default)]
pub struct WireTurns {
    servers: Mutex<HashMap<(String, u16), Weak<Permits>>>,
}

/// The turn of a probe, until it is dropped.
pub(super) struct WireTurn {
    _permits: Arc<Permits>,
    _permit: OwnedSemaphorePermit,
}

impl WireTurns {
    /// Waits for a turn. Targets whose last probe did not pass use half of them.
    ///
    /// # Errors
    /// [`Reason::AgentError`] if there is none within `patience`.
    pub(super) async fn take(
        &self,
        server: &str,
        port: u16,
        lane: Lane,
        patience: Duration,
    ) -> Result<WireTurn, Finding> {
        let permits = self.of_server(server, port);
        match timeout(patience, permits.acquire(lane)).await {
            Ok(Ok(permit)) => Ok(WireTurn { _permits: permits, _permit: permit }),
            _ => Err(finding!(
                Reason::AgentError,
                "the probe waited {} ms for other probes of {server}, and did not begin: too many targets of this server hang at the same time. Repair or delete those that are offline",
                patience.as_millis()
            )),
        }
    }

    fn of_server(&self, server: &str, port: u16) -> Arc<Permits> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (server.to_owned(), port);
        if let Some(permits) = servers.get(&key).and_then(Weak::upgrade) {
            return permits;
        }
        servers.retain(|_, permits| permits.strong_count() > 0);
        let permits = Arc::new(Permits::new(PROBES_MAX));
        servers.insert(key, Arc::downgrade(&permits));
        permits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(2);

    #[tokio::test(start_paused = true)]
    async fn hanging_targets_delay_neither_healthy_ones_nor_other_servers() {
        let turns = WireTurns::default();
        let take = async |server, port, lane| turns.take(server, port, lane, PATIENCE).await;
        let mut hanging = Vec::new();
        let finding = loop {
            match take("nas", 2049, Lane::Suspect).await {
                Ok(turn) => hanging.push(turn),
                Err(finding) => break finding,
            }
        };
        assert_eq!((hanging.len(), finding.reason), (PROBES_MAX / 2, Reason::AgentError));
        assert!(finding.message.starts_with("the probe waited 2000 ms for other probes of nas"), "{finding:?}");
        for (server, port, lane) in
            [("nas", 2049, Lane::Healthy), ("nas2", 2049, Lane::Suspect), ("nas", 2050, Lane::Suspect)]
        {
            let begins = async { take(server, port, lane).await.map(drop) };
            assert!(futures::FutureExt::now_or_never(begins).is_some_and(|turn| turn.is_ok()), "{server}:{port}");
        }
        let (next, ()) = tokio::join!(take("nas", 2049, Lane::Suspect), async { drop(hanging.pop()) });
        assert!(next.is_ok(), "a probe that ends is followed by another");
        drop((hanging, next));
        turns.of_server("nas3", 2049);
        assert_eq!(turns.servers.lock().expect("unpoisoned").len(), 1, "idle servers are forgotten");
    }
}
