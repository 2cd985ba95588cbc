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
//! At the deadline the worker is killed ([`super::super::children`]) and the caller goes on at once;
//! a new one is started when the next call needs it. The same happens when a call is dropped, or
//! when a worker dies or answers what it was not asked: a worker is either idle and blank, or gone.
//!
//! A kept worker that breaks when it is asked is replaced, and the request repeated, where that does no
//! harm ([`Request::is_repeatable`]) and not before the broken one is really gone: it may be at work
//! still, and keeps the target's claim until then.

mod batch;
mod error;
mod process;
mod turn;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::protocol::frame::{self, HELLO, Order};
use super::protocol::{Request, Response};
use crate::model::TargetId;
use crate::sys::children::{Assignment, ChildCensus, ClaimError};
use batch::Line;
pub use error::CallError;
use process::{Answer, AskError, Worker, retain_silent, tell_of};
use turn::{AskedOn, Turn};

/// How many workers of suspect targets may be starting at the same time, where there are processors enough
/// for half of them to be left to others. A crowd of dead mounts costs as many workers at each probe, and
/// starting takes nothing but a processor, so more at once would be ready no sooner.
const SUSPECT_STARTS_MAX: usize = 4;

/// How a pool starts workers, and how many.
#[derive(Debug, Clone)]
pub struct WorkerPoolSettings {
    /// The program: this one.
    pub program: PathBuf,
    /// Its arguments: `probe-worker`.
    pub arguments: Vec<OsString>,
    /// How many workers are kept when there is nothing to do.
    pub idle_max: usize,
    /// How many workers may be at work at the same time, at least 2.
    pub workers_max: usize,
}

impl WorkerPoolSettings {
    /// `program probe-worker`, 4 idle ones, 64 at work.
    #[must_use]
    pub fn new(program: PathBuf) -> Self {
        Self { program, arguments: vec![super::ARGUMENT.into()], idle_max: 4, workers_max: 64 }
    }
}

/// Which places a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// The target's last probe passed. Has its own half of the places, and of the other half what
    /// is free.
    Healthy,
    /// It did not, or there was none. Has half of the places.
    Suspect,
}

/// How many workers there are and were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolStats {
    /// Waiting for work.
    pub idle: usize,
    /// Calls that a worker is at work for, or that have a place and wait for one.
    pub busy: usize,
    /// Children of any kind that were killed and do not die.
    pub stuck: usize,
    /// Workers ever started.
    pub spawned_total: u64,
    /// Children of any kind ever killed.
    pub killed_total: u64,
}

/// The probe workers. Cheap to clone; all clones are the same pool.
#[derive(Debug, Clone)]
pub struct WorkerPool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: WorkerPoolSettings,
    census: ChildCensus,
    /// Most recently used last, so that the surplus of a busy hour is what grows old.
    idle: Mutex<Vec<Worker>>,
    /// Turns of healthy targets at the workers that are kept, first come, first served.
    turns: Arc<Semaphore>,
    line: Line,
    busy: AtomicUsize,
    spawned: AtomicU64,
    next_number: AtomicU64,
    healthy_places: Arc<Semaphore>,
    suspect_places: Arc<Semaphore>,
    suspect_starts: Semaphore,
    /// Has no places to give: closed at shutdown, which everybody at work waits for.
    open: Semaphore,
}

impl WorkerPool {
    /// A pool without workers: each is started when it is needed. `census` is shared with whatever
    /// else makes children for the same targets.
    #[must_use]
    pub fn new(settings: WorkerPoolSettings, census: ChildCensus) -> Self {
        let suspects = (settings.workers_max / 2).max(1);
        let healthy = settings.workers_max.saturating_sub(suspects).max(1);
        let turns = Arc::new(Semaphore::new(settings.idle_max.max(1)));
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let inner = Inner {
            settings,
            census,
            idle: Mutex::default(),
            turns,
            line: Line::default(),
            busy: AtomicUsize::new(0),
            spawned: AtomicU64::new(0),
            next_number: AtomicU64::new(HELLO + 1),
            healthy_places: Arc::new(Semaphore::new(healthy)),
            suspect_places: Arc::new(Semaphore::new(suspects)),
            suspect_starts: Semaphore::new((processors / 2).clamp(1, SUSPECT_STARTS_MAX)),
            open: Semaphore::new(0),
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
            _ = self.inner.open.acquire() => Err(CallError::ShutDown),
            outcome = self.call_while_open(target, lane, request, deadline) => outcome,
        }
    }

    /// The counts now.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        let children = self.inner.census.counts();
        PoolStats {
            idle: self.idle().len(),
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
        self.inner.open.close();
        let idle = std::mem::take(&mut *self.idle());
        drop(idle);
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
            Lane::Healthy => self.turn(number, &request, assignment).await,
            Lane::Suspect => Turn::Own(assignment, None),
        };
        let assignment = match turn {
            // Apart, as the rest is, since most calls do without what this needs of memory.
            Turn::Own(assignment, _turn) => {
                return Box::pin(self.ask_by_itself(assignment, lane, number, request, deadline)).await;
            }
            Turn::Answered(answer) => return answer.map_err(CallError::Fault),
            Turn::Begun(begun) => match self.ask_on(begun, number, deadline).await? {
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
        let Some(mut worker) = self.take_idle(lane) else {
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

    /// An idle worker, if there is one. Those that have ended meanwhile are reaped here, and those that
    /// said something that nobody asked for are killed: they are broken. A suspect
    /// target may cost a worker its life, and healthy ones would have to wait for another to start: it
    /// takes one only when there are as many as are kept.
    fn take_idle(&self, lane: Lane) -> Option<Worker> {
        let mut idle = self.idle();
        retain_silent(&mut idle);
        let may_take = lane == Lane::Healthy || idle.len() >= self.inner.settings.idle_max;
        if may_take { idle.pop() } else { None }
    }

    /// Puts a worker that has answered back, and passes its answer on.
    fn conclude(&self, worker: Worker, answer: Answer) -> Result<Response, CallError> {
        self.put_back(worker);
        answer.map_err(CallError::Fault)
    }

    /// Keeps a worker that is blank, or lets it go if there are enough.
    fn put_back(&self, mut worker: Worker) {
        // Before the place is given up, so that whoever gets it finds the worker.
        let assignments = std::mem::take(&mut worker.child.assignments);
        let mut idle = self.idle();
        let surplus = if idle.len() < self.inner.settings.idle_max && !self.inner.open.is_closed() {
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

    fn idle(&self) -> MutexGuard<'_, Vec<Worker>> {
        // Every change is a single push, pop or take: nothing is half done after a panic.
        self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner)
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
