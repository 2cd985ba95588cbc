//! The worker pool: worker scheduling, queueing and deadlines.
//!
//! A call waits three times, and each wait is bounded:
//!
//! 1. For the target, which has at most one child process at a time.
//! 2. For a permit. At most `workers_max` workers are busy. Half of the permits are reserved for targets
//!    whose last probe passed, which is what the [`Lane`] says. Any number of dead servers leaves that
//!    half free.
//! 3. For the answer. The deadline begins only here. Where a new worker is needed, it begins when that
//!    worker is ready. So many calls at once, or a busy host, are never mistaken for slow storage.
//!
//! Healthy storage answers sooner than a worker starts. So a healthy target first waits a moment for an
//! idle worker ([`turn`]), and calls that wait at the same time share one ([`batch`]).
//!
//! ```text
//!                    call
//!                     | claim of the target, then a permit of its lane     -> Overloaded, Stuck
//!          healthy    v    suspect
//!        +----------- * ------------+
//!        v                          |
//!   in line for a turn              |
//!     |  | turn, no other call waits|
//!     |  | or 10 ms are over        |
//!     |  +------------------------> by itself --- idle worker? --no--> start one  -> NotReady, Spawn
//!     | turn, others wait                             | yes                | HELLO
//!     v                                               v                    v
//!   in a batch --- answered --------> done <------ asked <-----------------+
//!     |  |  |                          ^             |        -> TimedOut (the worker is killed)
//!     |  |  +-- not begun: in line again, or by itself
//!     |  +----- begun, 10 ms are over: alone with this worker, as asked
//!     +-------- broken worker: claim and place again, then start one
//! ```
//!
//! At the deadline the worker is killed ([`super::super::children`]) and the caller continues at once.
//! The next call that needs a worker starts a new one. A worker is also killed when its call is dropped,
//! or when it sends an unexpected reply. So an idle worker never owes an answer.
//!
//! An idle worker that breaks when it gets a request is replaced, and the request is repeated where that
//! does no harm ([`Request::is_repeatable`]). The repetition waits until the broken worker is gone. That
//! worker may still be busy, and keeps the target's claim until then.

mod batch;
mod error;
mod idle;
mod process;
mod settings;
mod turn;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::protocol::frame::{self, HELLO, Order};
use super::protocol::{Request, Response};
use crate::model::TargetId;
use crate::sys::children::{Assignment, ChildCensus, ClaimError};
pub use error::CallError;
use idle::IdleWorkers;
use process::{Answer, AskError, Worker, log_broken};
pub use settings::{Lane, PoolStats, WorkerPoolSettings};
use turn::{AskedOn, Turn, Turns};

/// Maximum number of workers that start at the same time for suspect targets. It is also at most half of
/// the processors. Many dead mounts cost one worker each at every probe. A start needs nothing but a
/// processor, so more starts at once would not be ready sooner.
const SUSPECT_STARTS_MAX: usize = 4;

/// The probe workers. Cheap to clone; all clones are the same pool.
#[derive(Debug, Clone)]
pub struct WorkerPool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: WorkerPoolSettings,
    census: ChildCensus,
    idle: Arc<IdleWorkers>,
    turns: Turns,
    busy: AtomicUsize,
    spawned: AtomicU64,
    next_number: AtomicU64,
    healthy_places: Arc<Semaphore>,
    suspect_places: Arc<Semaphore>,
    suspect_starts: Semaphore,
}

impl WorkerPool {
    /// A pool without workers, which start when they are needed. `census` is shared with everything
    /// else that starts child processes for the same targets.
    #[must_use]
    pub fn new(settings: WorkerPoolSettings, census: ChildCensus) -> Self {
        let suspects = (settings.workers_max / 2).max(1);
        let healthy = settings.workers_max.saturating_sub(suspects).max(1);
        let idle = Arc::new(IdleWorkers::new(settings.idle_max));
        let turns = Turns::new(settings.idle_max.max(1), idle.clone());
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let inner = Inner {
            settings,
            census,
            idle,
            turns,
            busy: AtomicUsize::new(0),
            spawned: AtomicU64::new(0),
            next_number: AtomicU64::new(HELLO + 1),
            healthy_places: Arc::new(Semaphore::new(healthy)),
            suspect_places: Arc::new(Semaphore::new(suspects)),
            suspect_starts: Semaphore::new((processors / 2).clamp(1, SUSPECT_STARTS_MAX)),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Lets a worker execute `request` for `target`.
    ///
    /// Waits at most `deadline` for a permit, as long again for a new worker to start, and as long again
    /// for the answer. When an idle worker breaks and the request is repeated, the total is at most five
    /// deadlines. The future is safe to drop: its worker is killed at once, or, if the worker also serves
    /// other calls, as soon as it is known to hang in this one.
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
        tokio::select! {
            biased;
            () = self.inner.idle.shut_down() => Err(CallError::ShutDown),
            outcome = self.call_while_open(target, lane, request, deadline) => outcome,
        }
    }

    /// Returns the current counts.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        let children = self.inner.census.counts();
        PoolStats {
            idle: self.inner.idle.workers().len(),
            busy: self.inner.busy.load(Ordering::Relaxed),
            stuck: children.stuck,
            spawned_total: self.inner.spawned.load(Ordering::Relaxed),
            killed_total: children.killed_total,
        }
    }

    /// Returns the census that counts this pool's workers.
    #[must_use]
    pub fn census(&self) -> &ChildCensus {
        &self.inner.census
    }

    /// Kills every worker, idle or busy, and fails every later call. Does not wait.
    pub fn shut_down(&self) {
        self.inner.idle.close();
    }

    async fn call_while_open(
        &self,
        target: TargetId,
        lane: Lane,
        request: Request,
        deadline: Duration,
    ) -> Result<Response, CallError> {
        let number = self.inner.next_number.fetch_add(1, Ordering::Relaxed);
        let assignment = self.assign(target, lane, deadline).await?;
        let _busy = Counted::new(&self.inner.busy);
        let turn = match lane {
            Lane::Healthy => self.inner.turns.wait(number, &request, assignment).await,
            Lane::Suspect => Turn::Own(assignment, None),
        };
        let assignment = match turn {
            // Boxed, because most calls do not need the memory of this future.
            Turn::Own(assignment, _turn) => {
                return Box::pin(self.ask_by_itself(assignment, lane, number, request, deadline)).await;
            }
            Turn::Answered(answer) => return answer.map_err(CallError::Fault),
            Turn::Started(begun) => match self.inner.turns.ask_on(begun, number, deadline).await? {
                AskedOn::Answered(answer) => return answer.map_err(CallError::Fault),
                AskedOn::GivenBack(assignment) => assignment,
                AskedOn::Broken => self.assign(target, lane, deadline).await?,
            },
            Turn::Broken => self.assign(target, lane, deadline).await?,
        };
        let frame = encode(number, &request)?;
        Box::pin(self.ask_anew(assignment, lane, number, &frame, deadline)).await
    }

    /// Sends the request alone to an idle worker, or to a new one.
    async fn ask_by_itself(
        &self,
        assignment: Assignment,
        lane: Lane,
        number: u64,
        request: Request,
        deadline: Duration,
    ) -> Result<Response, CallError> {
        let frame = encode(number, &request)?;
        let target = assignment.claim.target();
        let Some(mut worker) = self.inner.idle.take(lane) else {
            return self.ask_anew(assignment, lane, number, &frame, deadline).await;
        };
        worker.child.assignments.push(assignment);
        match self.ask(&mut worker, number, &frame, deadline).await? {
            Ok(answer) => return self.conclude(worker, answer),
            Err(AskError { source, was_sent }) if was_sent && !request.is_repeatable() => {
                return Err(CallError::WorkerDied { source });
            }
            Err(AskError { source, .. }) => log_broken(&source),
        }
        // This kills it. The claim is free again when it is gone.
        drop(worker);
        let assignment = self.assign(target, lane, deadline).await?;
        self.ask_anew(assignment, lane, number, &frame, deadline).await
    }

    /// Gets the target's claim and a permit, both within `deadline`.
    async fn assign(&self, target: TargetId, lane: Lane, deadline: Duration) -> Result<Assignment, CallError> {
        let give_up = Instant::now() + deadline;
        let claim = self.inner.census.claim(target, give_up).await.map_err(|error| match error {
            ClaimError::Busy => CallError::Overloaded { after: deadline },
            ClaimError::Stuck(child) => CallError::Stuck(child),
        })?;
        let permit = timeout_at(give_up, self.place(lane))
            .await
            .map_err(|_| CallError::Overloaded { after: deadline })?
            .ok_or(CallError::ShutDown)?;
        Ok(Assignment { claim, permit: Some(permit) })
    }

    /// Returns a permit, or `None` when the pool is shut down.
    async fn place(&self, lane: Lane) -> Option<OwnedSemaphorePermit> {
        let (healthy, suspect) = (self.inner.healthy_places.clone(), self.inner.suspect_places.clone());
        match lane {
            Lane::Suspect => suspect.acquire_owned().await.ok(),
            // A healthy target takes a permit of the suspects only when none of them waits for it. It
            // waits only for a permit of its own lane.
            Lane::Healthy => match healthy.clone().try_acquire_owned().or_else(|_| suspect.try_acquire_owned()) {
                Ok(permit) => Some(permit),
                Err(_) => healthy.acquire_owned().await.ok(),
            },
        }
    }

    /// Sends a request to a worker and waits for the answer until the deadline.
    async fn ask(
        &self,
        worker: &mut Worker,
        number: u64,
        frame: &[u8],
        deadline: Duration,
    ) -> Result<Result<Answer, AskError>, CallError> {
        timeout(deadline, worker.ask(number, frame)).await.map_err(|_| CallError::TimedOut { after: deadline })
    }

    /// Sends the request to a new worker. When that one breaks, another would break too.
    async fn ask_anew(
        &self,
        assignment: Assignment,
        lane: Lane,
        number: u64,
        frame: &[u8],
        deadline: Duration,
    ) -> Result<Response, CallError> {
        let mut worker = self.start_within(assignment, lane, deadline).await?;
        match self.ask(&mut worker, number, frame, deadline).await? {
            Ok(answer) => self.conclude(worker, answer),
            Err(AskError { source, .. }) => Err(CallError::WorkerDied { source }),
        }
    }

    /// Starts a worker with this assignment, within `deadline`.
    async fn start_within(&self, assignment: Assignment, lane: Lane, deadline: Duration) -> Result<Worker, CallError> {
        let starting = timeout(deadline, self.start(assignment, lane));
        starting.await.map_err(|_| CallError::NotReady { after: deadline })?
    }

    /// Makes a worker that has answered idle, and returns its answer.
    fn conclude(&self, worker: Worker, answer: Answer) -> Result<Response, CallError> {
        self.inner.idle.put_back(worker);
        answer.map_err(CallError::Fault)
    }

    /// Starts a worker and waits until it is ready.
    async fn start(&self, assignment: Assignment, lane: Lane) -> Result<Worker, CallError> {
        let _turn = match lane {
            Lane::Healthy => None,
            Lane::Suspect => Some(self.inner.suspect_starts.acquire().await.map_err(|_| CallError::ShutDown)?),
        };
        let settings = &self.inner.settings;
        let failed = |source| CallError::Spawn { program: settings.program.clone(), source };
        let mut worker = Worker::start(settings, &self.inner.census).await.map_err(failed)?;
        worker.child.assignments.push(assignment);
        self.inner.spawned.fetch_add(1, Ordering::Relaxed);
        match worker.answer(HELLO).await {
            Ok(_) => Ok(worker),
            Err(source) => Err(CallError::WorkerDied { source }),
        }
    }
}

/// Encodes a request that is sent alone.
fn encode(number: u64, request: &Request) -> Result<Vec<u8>, CallError> {
    frame::encode(number, &Order::One(request)).map_err(|source| CallError::Request { source })
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
