//! Dispatches: a dispatch is one worker and the calls that it answers in order.
//!
//! After [`LATE_AFTER`] without an answer, a dispatch is late, unless its worker only waits for a processor. The call
//! whose answer is due keeps the worker until its own deadline, and the other calls return to the schedule. By then the
//! worker does not start them any more ([`BATCH_TIME`]), so no target has two children. A broken worker keeps the
//! claims of all calls that it may be executing until it has exited. A worker that cannot be killed keeps only the
//! claim of the call in which it hangs.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

use super::super::protocol::frame::{self, BATCH_TIME, Batch, HostTime, Numbered};
use super::super::protocol::{Request, Response};
use super::error::CallError;
use super::process::{Answer, Worker, log_broken};
use super::schedule::{self, Call, Route};
use super::settings::{Lane, WorkerPoolSettings};
use crate::sys::children::{Assignment, ChildCensus};

/// Maximum number of workers that start at the same time for suspect targets. Half the number of processors is a
/// further limit. Each dead mount costs one worker at every probe. A start only needs a processor, so more simultaneous
/// starts would not be ready sooner.
const SUSPECT_STARTS_MAX: usize = 4;

/// How long a dispatch may take before it is late. It is twice the time in which the worker itself starts
/// another request of a batch.
const LATE_AFTER: Duration = BATCH_TIME.saturating_mul(2);

/// How long a dispatch may take before it is late although its worker is not blocked. On a busy host, a worker may wait
/// for a processor this long, and a new worker would wait too.
const RUNNABLE_MAX: Duration = LATE_AFTER.saturating_mul(10);

type CallQueue = schedule::CallQueue<PendingCall, Worker>;
type Dispatch = schedule::Dispatch<PendingCall, Worker>;

/// Result of a call, or `None` if an idle worker broke and the call must be repeated with a new one.
pub(super) type CallOutcome = Option<Result<Response, CallError>>;

/// A call that has its claim and its permit.
#[derive(Debug)]
pub(super) struct PendingCall {
    pub(super) number: u64,
    pub(super) request: Request,
    pub(super) lane: Lane,
    pub(super) route: Route,
    pub(super) start_by: Instant,
    /// Time from the request to the answer of a worker. Also limits the start of a worker.
    pub(super) deadline: Duration,
    /// `None` while a worker has it.
    pub(super) assignment: Option<Assignment>,
    /// Span of the caller's probe.
    pub(super) span: Span,
    pub(super) reply: oneshot::Sender<CallOutcome>,
}

impl Call for PendingCall {
    fn number(&self) -> u64 {
        self.number
    }

    fn route(&self) -> Route {
        self.route
    }

    fn start_by(&self) -> Instant {
        self.start_by
    }
}

impl PendingCall {
    fn finish(self, outcome: Result<Response, CallError>) {
        // The caller may have stopped waiting.
        let _ = self.reply.send(Some(outcome));
    }
}

/// The schedule with its workers, and the execution of its dispatches.
#[derive(Debug)]
pub(super) struct Dispatcher {
    settings: WorkerPoolSettings,
    pub(super) census: ChildCensus,
    schedule: Mutex<CallQueue>,
    suspect_starts: Semaphore,
    pub(super) shutdown: CancellationToken,
    /// Number of workers that were started.
    pub(super) spawned: AtomicU64,
    /// Number of workers that were killed because an answer did not arrive in time, or because the caller stopped
    /// waiting for it.
    pub(super) late: AtomicU64,
    /// Number of workers that broke.
    pub(super) broken: AtomicU64,
}

impl Dispatcher {
    pub(super) fn new(settings: WorkerPoolSettings, census: ChildCensus) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            schedule: Mutex::new(CallQueue::new(settings.idle_max)),
            settings,
            census,
            suspect_starts: Semaphore::new((processors / 2).clamp(1, SUSPECT_STARTS_MAX)),
            shutdown: CancellationToken::new(),
            spawned: AtomicU64::new(0),
            late: AtomicU64::new(0),
            broken: AtomicU64::new(0),
        }
    }

    /// Kills every worker, and ends every queued call.
    pub(super) fn shut_down(&self) {
        self.shutdown.cancel();
        let mut schedule = self.schedule();
        let dropped = (std::mem::take(schedule.idle()), std::mem::take(&mut schedule.queue));
        drop(schedule);
        drop(dropped);
    }

    /// Adds a call to the schedule, unless its caller has stopped waiting or the pool was shut down.
    pub(super) fn enter(self: &Arc<Self>, call: PendingCall) {
        // Checked under the lock, so that the caller's own `start` or `withdraw` comes either before or after, and
        // `shut_down` as well.
        self.report(|schedule| {
            let is_over = call.reply.is_closed() || self.shutdown.is_cancelled();
            if is_over { None } else { schedule.enter(call, Instant::now()) }
        });
    }

    /// Reports an event to the schedule, and executes the dispatch that it results in.
    pub(super) fn report(self: &Arc<Self>, event: impl FnOnce(&mut CallQueue) -> Option<Dispatch>) {
        let dispatch = event(&mut self.schedule());
        let (Some(dispatch), Ok(runtime)) = (dispatch, Handle::try_current()) else { return };
        let span = match &dispatch.calls[..] {
            [call] => call.span.clone(),
            _ => Span::none(),
        };
        let dispatcher = self.clone();
        // `run_until_cancelled` would store the future twice, as an argument and as a local.
        let executing = async move {
            let shutdown = dispatcher.shutdown.clone();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = execute(dispatcher, dispatch) => {}
            }
        };
        runtime.spawn(executing.instrument(span));
    }

    /// Makes a worker idle, or lets it end if there are enough idle workers.
    fn put_back(&self, worker: Worker) {
        let mut schedule = self.schedule();
        let surplus = if self.shutdown.is_cancelled() { Some(worker) } else { schedule.put_back(worker) };
        drop(schedule);
        if let Some(worker) = surplus {
            worker.end();
        }
    }

    pub(super) fn schedule(&self) -> MutexGuard<'_, CallQueue> {
        // Every change is a single push, pop or take, so a panic leaves nothing half done.
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Guard of a slot of the schedule. Dropping it frees the slot.
#[derive(Debug)]
struct Slot(Arc<Dispatcher>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.report(CallQueue::free_slot);
    }
}

/// Executes a dispatch. Dropping the future kills the worker.
async fn execute(dispatcher: Arc<Dispatcher>, dispatch: Dispatch) {
    let Dispatch { mut calls, worker, has_slot } = dispatch;
    let slot = has_slot.then(|| Slot(dispatcher.clone()));
    let requests = calls.iter().map(|call| Numbered { number: call.number, body: &call.request }).collect();
    // The worker's time begins before `LATE_AFTER` begins, so it ends well before `LATE_AFTER` ends.
    let frame = match frame::encode(&Batch { until: HostTime::now().after(BATCH_TIME), requests }) {
        Ok(frame) => frame,
        Err(source) => {
            worker.into_iter().for_each(|worker| dispatcher.put_back(worker));
            let is_batch = calls.len() > 1;
            return fail(calls, CallError::Request { source }, is_batch);
        }
    };
    // If a new worker breaks, another new worker would break too, so the call is not repeated.
    let is_new = worker.is_none();
    let may_repeat = !is_new && calls.iter().all(|call| call.request.is_repeatable());
    let mut worker = match worker {
        Some(worker) => worker,
        None => match start(&dispatcher, &mut calls[0]).await {
            Ok(worker) => worker,
            Err(error) => return fail(calls, error, false),
        },
    };
    // A worker executes its assignments from the last one on.
    worker.child.assignments.extend(calls.iter_mut().rev().filter_map(|call| call.assignment.take()));
    let time_to_send = if calls.len() > 1 { LATE_AFTER } else { calls[0].deadline };
    let due_since = Instant::now();
    let sent = timeout(time_to_send, worker.send(&frame)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    if let Err(source) = sent {
        // A worker does not execute a frame that was not written completely.
        dispatcher.broken.fetch_add(1, Ordering::Relaxed);
        drop(worker);
        return fail(calls, CallError::WorkerDied { source }, !is_new);
    }
    let expected = calls.into_iter().map(|call| (call.number, Some(call))).collect();
    let late_at = due_since + LATE_AFTER;
    Execution { dispatcher, worker, expected, slot, due_since, late_at, is_late: false }.finish(may_repeat).await;
}

/// A worker that executes calls. Dropping it kills the worker.
struct Execution {
    dispatcher: Arc<Dispatcher>,
    worker: Worker,
    /// Answers that the worker still sends, in order, each with its call. `None` if the call returned to the schedule.
    expected: VecDeque<(u64, Option<PendingCall>)>,
    /// `None` once the worker is late.
    slot: Option<Slot>,
    /// When the worker started the call whose answer is due, or could have started it.
    due_since: Instant,
    late_at: Instant,
    is_late: bool,
}

impl Execution {
    /// Waits for all answers, and makes the worker idle. Kills it if a call does not end in time.
    async fn finish(mut self, may_repeat: bool) {
        let mut is_first = true;
        while let Some((number, mut call)) = self.expected.pop_front() {
            let answer = match self.answer(number, call.as_mut()).await {
                Some(Ok(None)) if is_first => Err(io::Error::other("it did not execute its first request")),
                Some(answer) => answer,
                None => {
                    self.dispatcher.late.fetch_add(1, Ordering::Relaxed);
                    drop(self.worker);
                    let Some(call) = call else { return };
                    let after = call.deadline;
                    return call.finish(Err(CallError::TimedOut { after }));
                }
            };
            let answer = match answer {
                Ok(answer) => answer,
                Err(source) => {
                    // The worker is killed, and keeps the claims until it has exited.
                    self.dispatcher.broken.fetch_add(1, Ordering::Relaxed);
                    drop(self.worker);
                    let others = self.expected.into_iter().filter_map(|(_, call)| call);
                    return fail(call.into_iter().chain(others), CallError::WorkerDied { source }, may_repeat);
                }
            };
            is_first = false;
            self.due_since = Instant::now();
            let assignment = call.as_ref().and_then(|_| self.worker.child.assignments.pop());
            if self.expected.is_empty() {
                // Before the permit is released, so that the next holder of the permit finds the worker idle.
                self.dispatcher.put_back(self.worker);
                return conclude(&self.dispatcher, call, assignment, answer);
            }
            conclude(&self.dispatcher, call, assignment, answer);
        }
    }

    /// Waits for an answer. `None` if it does not arrive in time, or if the caller has stopped waiting.
    async fn answer(&mut self, number: u64, mut call: Option<&mut PendingCall>) -> Option<io::Result<Option<Answer>>> {
        let mut was_extended = false;
        loop {
            let give_up = match &call {
                Some(call) if self.is_late => self.due_since + call.deadline,
                // The call returned to the schedule, and the worker hands its request back.
                None => self.due_since + LATE_AFTER,
                Some(_) => self.late_at,
            };
            tokio::select! {
                biased;
                answer = self.worker.answer(number) => return Some(answer),
                () = dropped(call.as_deref_mut()), if self.is_late || self.expected.is_empty() => return None,
                () = sleep_until(give_up) => {}
            }
            if self.is_late {
                return None;
            }
            // This process may not have run during that time. Unread bytes should be an answer. If they are only part
            // of one, the wait is extended once.
            let has_bytes = !was_extended && !self.worker.is_silent();
            was_extended |= has_bytes;
            if has_bytes || (self.due_since.elapsed() < RUNNABLE_MAX && self.worker.is_runnable()) {
                self.late_at = Instant::now() + LATE_AFTER;
            } else {
                self.is_late = true;
                self.slot = None;
                self.hand_over();
            }
        }
    }

    /// Leaves a late worker to the call whose answer is due. The other calls return to the schedule.
    fn hand_over(&mut self) {
        let due = self.worker.child.assignments.pop();
        for mut call in self.expected.iter_mut().filter_map(|(_, call)| call.take()) {
            call.assignment = self.worker.child.assignments.pop();
            self.dispatcher.enter(call);
        }
        self.worker.child.assignments.extend(due);
    }
}

/// Starts a worker for this call, and waits until it is ready.
async fn start(dispatcher: &Dispatcher, call: &mut PendingCall) -> Result<Worker, CallError> {
    let PendingCall { lane, deadline, assignment, reply, .. } = call;
    let starting = async {
        let _permit = match lane {
            Lane::Healthy => None,
            Lane::Suspect => Some(dispatcher.suspect_starts.acquire().await.map_err(|_| CallError::ShutDown)?),
        };
        let failed = |source| CallError::Spawn { program: dispatcher.settings.program.clone(), source };
        let mut worker = Worker::start(&dispatcher.settings, &dispatcher.census).await.map_err(failed)?;
        worker.child.assignments.extend(assignment.take());
        dispatcher.spawned.fetch_add(1, Ordering::Relaxed);
        worker.ready().await.map_err(|source| CallError::WorkerDied { source })?;
        Ok(worker)
    };
    tokio::select! {
        biased;
        started = timeout(*deadline, starting) => started.map_err(|_| CallError::NotReady { after: *deadline })?,
        // Nobody receives this error.
        () = reply.closed() => Err(CallError::ShutDown),
    }
}

/// Waits until the caller has dropped the call.
async fn dropped(call: Option<&mut PendingCall>) {
    match call {
        Some(call) => call.reply.closed().await,
        None => std::future::pending().await,
    }
}

/// Sends the answer to the caller, or returns a call that the worker did not start to the schedule.
fn conclude(
    dispatcher: &Arc<Dispatcher>,
    call: Option<PendingCall>,
    assignment: Option<Assignment>,
    answer: Option<Answer>,
) {
    match (call, answer) {
        (Some(call), Some(answer)) => {
            // The caller's next call for this target finds it free.
            drop(assignment);
            call.finish(answer.map_err(CallError::Fault));
        }
        (Some(mut call), None) => {
            call.assignment = assignment;
            dispatcher.enter(call);
        }
        (None, _) => {}
    }
}

/// Ends calls without an answer. A call that must not be repeated is always the only call of its dispatch.
fn fail(calls: impl IntoIterator<Item = PendingCall>, error: CallError, may_repeat: bool) {
    let mut calls = calls.into_iter();
    if may_repeat {
        log_broken(&error);
        calls.for_each(|call| drop(call.reply.send(None)));
    } else if let Some(call) = calls.next() {
        call.finish(Err(error));
    }
}
