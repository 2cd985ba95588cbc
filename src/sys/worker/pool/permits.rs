//! Permits: how many workers may be busy, or how many probes may query a server, by lane.

use std::sync::Arc;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use super::settings::Lane;

/// Permits of both lanes. A permit is released when it is dropped.
#[derive(Debug)]
pub struct Permits {
    healthy: Arc<Semaphore>,
    suspect: Arc<Semaphore>,
}

impl Permits {
    /// `max` permits, half of them for each lane, and at least one.
    #[must_use]
    pub fn new(max: usize) -> Self {
        let suspect = (max / 2).max(1);
        let healthy = max.saturating_sub(suspect).max(1);
        Self { healthy: Arc::new(Semaphore::new(healthy)), suspect: Arc::new(Semaphore::new(suspect)) }
    }

    /// Lets every wait for a permit fail, now and later.
    pub(super) fn close(&self) {
        self.healthy.close();
        self.suspect.close();
    }

    /// Waits for a permit. A healthy target takes a permit of the suspect lane only if no suspect target waits for one.
    /// Otherwise it waits for a permit of its own lane.
    ///
    /// # Errors
    /// When the permits are closed, which only a pool does.
    pub async fn acquire(&self, lane: Lane) -> Result<OwnedSemaphorePermit, AcquireError> {
        let (healthy, suspect) = (self.healthy.clone(), self.suspect.clone());
        match lane {
            Lane::Suspect => suspect.acquire_owned().await,
            Lane::Healthy => match healthy.clone().try_acquire_owned().or_else(|_| suspect.try_acquire_owned()) {
                Ok(permit) => Ok(permit),
                Err(_) => healthy.acquire_owned().await,
            },
        }
    }
}

#[cfg(test)]
mod tests;
