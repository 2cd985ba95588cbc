//! Idle workers: the few that are kept while there is nothing to do.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use super::process::{Worker, retain_silent};
use super::settings::Lane;

/// The workers that wait for work, until the pool is shut down.
#[derive(Debug)]
pub(super) struct IdleWorkers {
    /// Maximum number of workers that are kept.
    idle_max: usize,
    /// The most recently used worker is last, so that surplus workers of a busy time grow old.
    workers: Mutex<Vec<Worker>>,
    /// Has no permits. It is closed at shutdown, which every call waits for.
    open: Semaphore,
}

impl IdleWorkers {
    /// An empty set, which keeps at most `idle_max` workers.
    pub(super) fn new(idle_max: usize) -> Self {
        Self { idle_max, workers: Mutex::default(), open: Semaphore::new(0) }
    }

    /// Waits until the pool is shut down.
    pub(super) async fn shut_down(&self) {
        // It has no permits, so this ends only by an error.
        let _ = self.open.acquire().await;
    }

    /// Kills every idle worker, and ends every wait for the shutdown.
    pub(super) fn close(&self) {
        self.open.close();
        let idle = std::mem::take(&mut *self.workers());
        drop(idle);
    }

    /// Returns an idle worker, if there is one. Workers that have ended meanwhile are reaped here, and
    /// those that sent an unexpected reply are killed. A probe of a suspect target often ends with the
    /// death of its worker, and healthy targets would then wait for another to start. So a suspect target
    /// gets an idle worker only when their number is at its maximum.
    pub(super) fn take(&self, lane: Lane) -> Option<Worker> {
        let mut idle = self.workers();
        retain_silent(&mut idle);
        let may_take = lane == Lane::Healthy || idle.len() >= self.idle_max;
        if may_take { idle.pop() } else { None }
    }

    /// Keeps a worker that owes no answer, or lets it end if there are enough.
    pub(super) fn put_back(&self, mut worker: Worker) {
        // Before its permit is released, so that the next holder finds the worker.
        let assignments = std::mem::take(&mut worker.child.assignments);
        let mut idle = self.workers();
        let surplus = if idle.len() < self.idle_max && !self.open.is_closed() {
            idle.push(worker);
            None
        } else {
            Some(worker)
        };
        drop(idle);
        drop(assignments);
        if let Some(worker) = surplus {
            worker.let_go();
        }
    }

    /// Locks the list of idle workers.
    pub(super) fn workers(&self) -> MutexGuard<'_, Vec<Worker>> {
        // Every change is a single push, pop or take: nothing is half done after a panic.
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
