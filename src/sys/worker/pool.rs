//! The agent's side of the probe workers: who works, who waits, and until when.
//!
//! A call goes through three waits, each bounded. First for the target: it has one child at a time.
//! Then for a place: at most `workers_max` workers are at work, and half of the places are kept for
//! targets that were healthy at last sight, which are told apart by their [`Lane`]: any number of
//! dead servers leaves the other half free. Then for the answer, whose time begins only here and,
//! where a new worker is needed, when it has said that it is there: a crowd, or a host that is busy,
//! is never mistaken for slow storage. Healthy storage answers sooner than a worker starts, so a
//! healthy target first waits a moment ([`turn`]) for a worker that is about to be idle.
//!
//! Those who wait at the same time are asked for together ([`batch`]).
//!
//! ```text
//!                    call
//!                     | claim of the target, then a place of its lane      -> Overloaded, Stuck
//!          healthy    v    suspect
//!        +----------- * ------------+
//!        v                          |
//!   in line for a turn              |
//!     |  | turn, nobody else waits, |
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
//! At the deadline the worker is killed ([`super::super::children`]) and the caller goes on at once;
//! a new one is started when the next call needs it. The same happens when a call is dropped, or
//! when a worker dies or answers what it was not asked: a worker is either idle and blank, or gone.
//!
//! A kept worker that breaks when it is asked is replaced, and the request repeated, where that does no
//! harm ([`Request::is_repeatable`]) and not before the broken one is really gone: it may be at work
//! still, and keeps the target's claim until then.

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
use process::{Answer, AskError, Worker, tell_of};
pub use settings::{Lane, PoolStats, WorkerPoolSettings};
use turn::{AskedOn, Turn, Turns};

/// How many workers of suspect targets may be starting at the same time, where there are processors enough
/// for half of them to be left to others. A crowd of dead mounts costs as many workers at each probe, and
/// starting takes nothing but a processor, so more at once would be ready no sooner.
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
    /// A pool without workers: each is started when it is needed. `census` is shared with whatever
    /// else makes children for the same targets.
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

    /// Has a worker do `request` for `target`. Returns within `deadline` of a worker being free,
    /// and waits for that at most as long again, and as long again for a new one to start; when an idle
    /// worker broke by what may be done twice, within five deadlines in all. Safe to drop: the worker is
    /// killed then, at once, or, if it is asked for others too and hangs in this, when that is known.
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

    /// The counts now.
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

    /// The census that this pool's workers are counted in.
    #[must_use]
    pub fn census(&self) -> &ChildCensus {
        &self.inner.census
    }

    /// Kills every worker, idle or at work, and refuses every call from now on. Does not wait.
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
            // Apart, as the rest is, since most calls do without what this needs of memory.
            Turn::Own(assignment, _turn) => {
                return Box::pin(self.ask_by_itself(assignment, lane, number, request, deadline)).await;
            }
            Turn::Answered(answer) => return answer.map_err(CallError::Fault),
            Turn::Begun(begun) => match self.inner.turns.ask_on(begun, number, deadline).await? {
                AskedOn::Answered(answer) => return answer.map_err(CallError::Fault),
                AskedOn::GivenBack(assignment) => assignment,
                AskedOn::Broken => self.assign(target, lane, deadline).await?,
            },
            Turn::Broken => self.assign(target, lane, deadline).await?,
        };
        let frame = encode(number, &request)?;
        Box::pin(self.ask_anew(assignment, lane, number, &frame, deadline)).await
    }

    /// Has an idle worker, or a new one, do this and nothing else.
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
            Err(AskError { source, .. }) => tell_of(&source),
        }
        // Killed here; the claim is free again when it is gone.
        drop(worker);
        let assignment = self.assign(target, lane, deadline).await?;
        self.ask_anew(assignment, lane, number, &frame, deadline).await
    }

    /// The target's claim and a place, both within `deadline`.
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

    /// A place to work, or `None` when the pool is shut down.
    async fn place(&self, lane: Lane) -> Option<OwnedSemaphorePermit> {
        let (healthy, suspect) = (self.inner.healthy_places.clone(), self.inner.suspect_places.clone());
        match lane {
            Lane::Suspect => suspect.acquire_owned().await.ok(),
            // A healthy target takes a suspect's place only when nobody waits for one, and waits
            // itself only where no suspect does.
            Lane::Healthy => match healthy.clone().try_acquire_owned().or_else(|_| suspect.try_acquire_owned()) {
                Ok(permit) => Some(permit),
                Err(_) => healthy.acquire_owned().await.ok(),
            },
        }
    }

    /// Asks a worker and waits until the deadline.
    async fn ask(
        &self,
        worker: &mut Worker,
        number: u64,
        frame: &[u8],
        deadline: Duration,
    ) -> Result<Result<Answer, AskError>, CallError> {
        timeout(deadline, worker.ask(number, frame)).await.map_err(|_| CallError::TimedOut { after: deadline })
    }

    /// The same with a worker that is new: when that breaks, another would.
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

    /// A new worker with this assignment.
    async fn start_within(&self, assignment: Assignment, lane: Lane, deadline: Duration) -> Result<Worker, CallError> {
        let starting = timeout(deadline, self.start(assignment, lane));
        starting.await.map_err(|_| CallError::NotReady { after: deadline })?
    }

    /// Puts a worker that has answered back, and passes its answer on.
    fn conclude(&self, worker: Worker, answer: Answer) -> Result<Response, CallError> {
        self.inner.idle.put_back(worker);
        answer.map_err(CallError::Fault)
    }

    /// A new worker that is ready to be asked.
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

/// What one request is to a worker.
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
