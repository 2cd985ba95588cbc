//! The worker pool: worker scheduling, queueing and deadlines.
//!
//! A call waits three times, and each wait is bounded:
//!
//! 1. For the target, which has at most one child process at a time ([`ChildCensus::claim`]).
//! 2. For a permit ([`permits`]). At most `workers_max` workers are busy. Half of the permits are reserved
//!    for targets whose last probe passed ([`Lane`]). Any number of dead servers leaves that half free.
//! 3. For the answer. The deadline begins only here. If a new worker is needed, it begins when that
//!    worker is ready. So many simultaneous calls, or a busy host, are never mistaken for slow storage.
//!
//! ```text
//!  call
//!    | claim of the target, then a permit of its lane                    -> Stuck, Overloaded
//!    v
//!  schedule: a queue of healthy calls, and idle workers  <-------------------+
//!    | dispatch: up to 16 calls with an idle worker, or one call with a new  |
//!    v                                                                       |
//!  a new worker starts                                                   -> Spawn, NotReady
//!    v                                                                       |
//!  asked --- answered ---> done                                          -> Fault
//!    |  |                                                                    |
//!    |  +--- not started by the worker --------------------------------------+
//!    +------ deadline: the worker is killed                              -> TimedOut
//!    +------ the worker breaks: claim and permit again, then a new worker  -> WorkerDied
//! ```
//!
//! [`schedule`] is the pure part. It decides which call goes to which worker. [`dispatch`] executes its
//! decisions.
//!
//! At the deadline the worker is killed ([`crate::sys::children`]) and the caller continues at once. The next
//! call that needs a worker starts a new one. A worker is also killed when its call is dropped, or when it
//! sends an unexpected reply. So an idle worker never has an unanswered request.
//!
//! When an idle worker breaks after it received a request, the request is repeated with a new worker if that does
//! no harm ([`Request::is_repeatable`]). The repetition waits until the broken worker has exited. That worker may
//! still be busy, and keeps the target's claim until then.

mod dispatch;
mod error;
mod permits;
mod process;
mod program;
mod schedule;
mod settings;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tracing::Span;

use super::protocol::frame::HELLO;
use super::protocol::{Request, Response};
use crate::model::TargetId;
use crate::sys::children::{Assignment, ChildCensus, ClaimError};
use dispatch::{CallOutcome, Dispatcher, PendingCall};
pub use error::CallError;
pub use permits::Permits;
use schedule::Route;
pub use settings::{Lane, PoolStats, WorkerPoolSettings};

/// How long a call of a healthy target waits for an idle worker before it starts a new one. With this wait a
/// few workers serve a thousand targets that are probed at once, also on a busy host. Storage that has just died delays
/// other targets by no more than this time and `LATE_AFTER` of a dispatch. Usually it delays them less: a dispatch
/// occupies its slot for `LATE_AFTER`, so others wait for the whole time only if about ten mounts die together.
const START_AFTER: Duration = Duration::from_millis(100);

/// The probe workers. Clones are cheap, and all are the same pool.
#[derive(Debug, Clone)]
pub struct WorkerPool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dispatcher: Arc<Dispatcher>,
    permits: Permits,
    start_after: Duration,
    busy: AtomicUsize,
    next_number: AtomicU64,
}

impl WorkerPool {
    /// A pool without workers, which start when they are needed. `census` is shared with everything
    /// else that starts child processes for the same targets.
    #[must_use]
    pub fn new(settings: WorkerPoolSettings, census: ChildCensus) -> Self {
        let inner = Inner {
            permits: Permits::new(settings.workers_max),
            dispatcher: Arc::new(Dispatcher::new(settings, census)),
            start_after: START_AFTER,
            busy: AtomicUsize::new(0),
            next_number: AtomicU64::new(HELLO + 1),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Lets a worker execute `request` for `target`.
    ///
    /// Waits at most `deadline` for a claim and a permit, then `deadline` for a new worker to start, and then
    /// `deadline` for the answer. When an idle worker breaks and the request is repeated, the total is at most five
    /// deadlines. The future is safe to drop: its worker is killed at once. If the worker also serves other calls, it
    /// is killed as soon as it is known to hang in this one.
    ///
    /// # Errors
    /// [`CallError`]; [`CallError::Fault`] is the storage's own answer.
    pub async fn call(
        &self,
        target: TargetId,
        lane: Lane,
        request: Request,
        deadline: Duration,
    ) -> Result<Response, CallError> {
        let assignment = self.inner.assign(target, lane, deadline).await?;
        let _busy = Counted::new(&self.inner.busy);
        let route = match lane {
            Lane::Suspect => Route::Surplus,
            Lane::Healthy if request.is_brief() => Route::Shared,
            Lane::Healthy => Route::Exclusive,
        };
        if let Some(outcome) = self.inner.ask(route, lane, request.clone(), deadline, assignment).await {
            return outcome;
        }
        let assignment = self.inner.assign(target, lane, deadline).await?;
        let outcome = self.inner.ask(Route::New, lane, request, deadline, assignment).await;
        outcome.unwrap_or(Err(CallError::ShutDown))
    }

    /// Returns the current counts.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        let children = self.census().counts();
        PoolStats {
            idle: self.inner.dispatcher.schedule().idle().len(),
            busy: self.inner.busy.load(Ordering::Relaxed),
            stuck: children.stuck,
            spawned_total: self.inner.dispatcher.spawned.load(Ordering::Relaxed),
            killed_total: children.killed_total,
            late_total: self.inner.dispatcher.late.load(Ordering::Relaxed),
            broken_total: self.inner.dispatcher.broken.load(Ordering::Relaxed),
        }
    }

    /// Returns the census that counts this pool's workers.
    #[must_use]
    pub fn census(&self) -> &ChildCensus {
        &self.inner.dispatcher.census
    }

    /// Kills every worker, idle or busy, and fails every later call. Does not wait.
    pub fn shut_down(&self) {
        self.inner.permits.close();
        self.inner.dispatcher.shut_down();
    }
}

impl Inner {
    /// Gets the target's claim and a permit, both within `deadline`.
    async fn assign(&self, target: TargetId, lane: Lane, deadline: Duration) -> Result<Assignment, CallError> {
        let give_up = Instant::now() + deadline;
        let claim = tokio::select! {
            biased;
            claim = self.dispatcher.census.claim(target, give_up) => claim,
            // Only a wait for the claim registers for this, not each call.
            () = self.dispatcher.shutdown.cancelled() => return Err(CallError::ShutDown),
        };
        let claim = claim.map_err(|error| match error {
            ClaimError::Busy => CallError::Overloaded { after: deadline },
            ClaimError::Stuck(child) => CallError::Stuck(child),
        })?;
        let permit = timeout_at(give_up, self.permits.acquire(lane))
            .await
            .map_err(|_| CallError::Overloaded { after: deadline })?
            .map_err(|_| CallError::ShutDown)?;
        Ok(Assignment { claim, permit: Some(permit) })
    }

    /// Schedules a call and waits for its outcome. `None` if the call must be repeated.
    async fn ask(
        &self,
        route: Route,
        lane: Lane,
        request: Request,
        deadline: Duration,
        assignment: Assignment,
    ) -> CallOutcome {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let start_by = Instant::now() + self.start_after;
        // Dropped after the receiver, so that a dropped call leaves the queue if it is there, and never enters it
        // again.
        let mut queued = Queued { dispatcher: &self.dispatcher, number, may_be_queued: true };
        let (reply, mut outcome) = oneshot::channel();
        let (assignment, span) = (Some(assignment), Span::current());
        self.dispatcher.enter(PendingCall {
            number,
            request,
            lane,
            route,
            start_by,
            deadline,
            assignment,
            span,
            reply,
        });
        let outcome = match timeout_at(start_by, &mut outcome).await {
            Ok(outcome) => outcome,
            Err(_) => {
                self.dispatcher.report(|schedule| schedule.start(number));
                outcome.await
            }
        };
        queued.may_be_queued = false;
        // Without an outcome, the pool or the runtime was shut down.
        outcome.unwrap_or(Some(Err(CallError::ShutDown)))
    }
}

/// A call that leaves the queue when its caller drops it.
struct Queued<'a> {
    dispatcher: &'a Dispatcher,
    number: u64,
    /// Whether the call has no outcome yet.
    may_be_queued: bool,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        if self.may_be_queued {
            let withdrawn = self.dispatcher.schedule().withdraw(self.number);
            drop(withdrawn);
        }
    }
}

/// Counts a call until it ends, however it does.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
