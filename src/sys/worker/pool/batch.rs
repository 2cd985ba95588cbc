//! Batches: requests of healthy targets that wait at the same time go to a worker in one frame.
//!
//! A message to a process and back costs ten times what healthy storage takes to answer. A thousand
//! targets that are probed at once would wait for the processors and not for storage. A brief request
//! ([`Request::is_brief`]) waits in the [`CallQueue`] for its turn. The call that gets a turn and a worker
//! takes the queued calls along, up to [`BATCH_MAX`].
//!
//! No call waits for the storage of another. After [`BATCH_TIMEOUT`], if there is nothing to read, the call
//! whose answer is due keeps the worker until its own deadline, and the others continue without it. The
//! worker does not start them any more either ([`BATCH_TIME`]), so no target has two children. A broken
//! worker keeps the claims of all calls that it may be executing until it is gone. One that cannot be
//! killed keeps only the claim of the call that it is stuck in.

use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::super::protocol::Request;
use super::super::protocol::frame::{self, BATCH_MAX, BATCH_TIME, HELLO, HostTime, Numbered, Order};
use super::idle::IdleWorkers;
use super::process::{Answer, Worker, log_broken};
use super::settings::Lane;
use crate::sys::children::Assignment;

/// How long a batch may take before the calls without an answer continue without it. It is twice the time
/// in which the worker itself starts another request of the batch.
const BATCH_TIMEOUT: Duration = BATCH_TIME.saturating_mul(2);

/// Result of a call that was queued.
#[derive(Debug)]
pub(super) enum Outcome {
    Answered(Answer),
    /// No worker started it.
    NotStarted(Assignment),
    /// A worker started it and has not answered.
    Started(Box<StartedCall>),
    /// The worker broke during this request or before it.
    Broken,
}

/// A worker whose next answer belongs to this call. Dropping it kills the worker.
#[derive(Debug)]
pub(super) struct StartedCall {
    pub(super) worker: Worker,
    /// The requests that the worker hands back after that.
    owed: Vec<u64>,
}

impl StartedCall {
    /// Waits for the answer without a deadline. `None` if the worker did not start the request after all.
    pub(super) async fn answer(&mut self, number: u64) -> io::Result<Option<Answer>> {
        self.worker.answer_of_batch(number).await
    }

    /// Waits, after the answer, until the worker has handed back the other requests. `None` if it does not:
    /// it may have started one of them, although their time was up.
    pub(super) async fn drain(mut self) -> Option<Worker> {
        let give_back = async {
            for number in &self.owed {
                self.worker.answer_of_batch(*number).await.ok()?;
            }
            Some(())
        };
        timeout(BATCH_TIMEOUT, give_back).await.ok().flatten()?;
        Some(self.worker)
    }
}

/// A queued call.
#[derive(Debug)]
struct PendingCall {
    number: u64,
    request: Request,
    assignment: Assignment,
    reply: oneshot::Sender<Outcome>,
}

/// The calls that a batch may take along, in order of arrival. Each holds a permit, which bounds their number.
#[derive(Debug, Default)]
pub(super) struct CallQueue(Mutex<VecDeque<PendingCall>>);

impl CallQueue {
    /// Adds a call at the end. The call leaves the queue when the [`QueuedCall`] is dropped.
    pub(super) fn join(&self, number: u64, request: Request, assignment: Assignment) -> QueuedCall<'_> {
        let (reply, outcome) = oneshot::channel();
        self.pending().push_back(PendingCall { number, request, assignment, reply });
        QueuedCall { queue: self, number, outcome }
    }

    fn first(&self, most: usize) -> Vec<PendingCall> {
        let mut pending = self.pending();
        let count = most.min(pending.len());
        pending.drain(..count).collect()
    }

    fn is_empty(&self) -> bool {
        self.pending().is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.pending().len()
    }

    fn leave(&self, number: u64) -> Option<PendingCall> {
        let mut pending = self.pending();
        let index = pending.iter().position(|call| call.number == number)?;
        pending.remove(index)
    }

    fn pending(&self) -> MutexGuard<'_, VecDeque<PendingCall>> {
        // Every change is a single push, remove or drain: nothing is half done after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The caller's side of a queued call, also after a batch took it along.
#[derive(Debug)]
pub(super) struct QueuedCall<'a> {
    queue: &'a CallQueue,
    number: u64,
    outcome: oneshot::Receiver<Outcome>,
}

impl QueuedCall<'_> {
    /// Waits for the result of the call. Does not end while the call is queued.
    pub(super) async fn outcome(&mut self) -> Outcome {
        // The sender is gone, because the pool was shut down.
        (&mut self.outcome).await.unwrap_or(Outcome::Broken)
    }

    /// Leaves the queue, with a turn or because the wait for one is over. With a turn it takes other
    /// queued calls along, if there are any and a worker is idle.
    pub(super) fn leave_with(&self, turn: Option<OwnedSemaphorePermit>, idle: &Arc<IdleWorkers>) -> LeftQueue {
        let Some(call) = self.queue.leave(self.number) else { return LeftQueue::TakenAlong };
        let Some(turn) = turn else { return LeftQueue::Alone(call.assignment, None) };
        if self.queue.is_empty() {
            return LeftQueue::Alone(call.assignment, Some(turn));
        }
        let Some(worker) = idle.take(Lane::Healthy) else {
            return LeftQueue::Alone(call.assignment, Some(turn));
        };
        let mut calls = vec![call];
        let others = self.queue.first(BATCH_MAX - 1);
        calls.extend(others);
        tokio::spawn(run(idle.clone(), worker, calls, turn));
        LeftQueue::TakenAlong
    }
}

impl Drop for QueuedCall<'_> {
    fn drop(&mut self) {
        self.queue.leave(self.number);
    }
}

/// How a call left the queue.
#[derive(Debug)]
pub(super) enum LeftQueue {
    /// In a batch, which sends the result.
    TakenAlong,
    /// Alone, with its turn if it had one.
    Alone(Assignment, Option<OwnedSemaphorePermit>),
}

/// Sends a batch to a worker, and each call its result. Ends within [`BATCH_TIMEOUT`], extended by as much
/// for each answer that had arrived by then and was not read yet.
async fn run(idle: Arc<IdleWorkers>, worker: Worker, calls: Vec<PendingCall>, turn: OwnedSemaphorePermit) {
    tokio::select! {
        biased;
        // This drops the worker, which kills it.
        () = idle.shut_down() => {}
        worker = ask(worker, calls) => if let Some(worker) = worker {
            idle.put_back(worker);
        },
    }
    drop(turn);
}

/// Returns the worker if it owes no answer.
async fn ask(mut worker: Worker, calls: Vec<PendingCall>) -> Option<Worker> {
    let requests = calls.iter().map(|call| Numbered { number: call.number, body: &call.request }).collect();
    // Before the timeout of the batch begins, so that the time of the worker is up long before it.
    let until = HostTime::now().after(BATCH_TIME);
    let mut give_up = pin!(sleep(BATCH_TIMEOUT));
    let frame = match frame::encode(HELLO, &Order::Batch { until, requests }) {
        Ok(frame) => frame,
        Err(_) => {
            calls.into_iter().for_each(|call| drop(call.reply.send(Outcome::NotStarted(call.assignment))));
            return Some(worker);
        }
    };
    let mut waiting = VecDeque::with_capacity(calls.len());
    // The first is taken from the end.
    for call in calls.into_iter().rev() {
        worker.child.assignments.push(call.assignment);
        waiting.push_front((call.number, call.reply));
    }
    let sent = tokio::select! {
        biased;
        sent = worker.send(&frame) => sent,
        // A frame that was not written whole is not executed.
        () = &mut give_up => Err(io::ErrorKind::TimedOut.into()),
    };
    if let Err(source) = sent {
        fail_batch(worker, waiting, &source);
        return None;
    }
    while let Some((number, reply)) = waiting.pop_front() {
        let mut is_late = false;
        let answer = loop {
            tokio::select! {
                biased;
                answer = worker.answer_of_batch(number) => break Some(answer),
                () = &mut give_up => {}
            }
            // This process may not have run all that time. Unread bytes should be an answer, and are
            // waited for only once more if they are not.
            if is_late || worker.is_silent() {
                break None;
            }
            is_late = true;
            give_up.as_mut().reset(Instant::now() + BATCH_TIMEOUT);
        };
        let answer = match answer {
            Some(Ok(answer)) => answer,
            Some(Err(source)) => {
                waiting.push_front((number, reply));
                fail_batch(worker, waiting, &source);
                return None;
            }
            None => {
                hand_over(worker, reply, waiting);
                return None;
            }
        };
        // The next call for this target finds it free.
        let assignment = worker.child.assignments.pop();
        // A call that was dropped has no receiver.
        let _ = match (answer, assignment) {
            (Some(answer), assignment) => {
                drop(assignment);
                reply.send(Outcome::Answered(answer))
            }
            (None, Some(assignment)) => reply.send(Outcome::NotStarted(assignment)),
            (None, None) => Ok(()),
        };
    }
    Some(worker)
}

type Waiting = VecDeque<(u64, oneshot::Sender<Outcome>)>;

/// Gives the worker to the call whose answer is due. The others continue without it.
fn hand_over(mut worker: Worker, due: oneshot::Sender<Outcome>, others: Waiting) {
    let due_assignment = worker.child.assignments.pop();
    let mut owed = Vec::with_capacity(others.len());
    let mut given_back = std::mem::take(&mut worker.child.assignments);
    worker.child.assignments.extend(due_assignment);
    for (number, reply) in others {
        owed.push(number);
        if let Some(assignment) = given_back.pop() {
            let _ = reply.send(Outcome::NotStarted(assignment));
        }
    }
    let _ = due.send(Outcome::Started(Box::new(StartedCall { worker, owed })));
}

fn fail_batch(worker: Worker, waiting: Waiting, source: &io::Error) {
    log_broken(source);
    // This kills it. The claims are free again when it is gone.
    drop(worker);
    for (_, reply) in waiting {
        let _ = reply.send(Outcome::Broken);
    }
}

#[cfg(test)]
mod tests;
