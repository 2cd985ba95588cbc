//! Batches: what healthy targets ask for at the same time is asked in one frame.
//!
//! A message to a process and back costs ten times what healthy storage takes to answer, so a thousand
//! targets that are probed at once would wait for the processors and not for storage. A call that asks
//! for something brief ([`Request::is_brief`]) stands in the [`Line`] while it waits for its turn; who gets
//! a turn and a worker takes along those who stand there, up to [`BATCH_MAX`].
//!
//! Nobody waits for another's storage. A batch has [`PATIENCE`]: when that is up and nothing is to be read,
//! the target whose answer is due keeps the worker, for as long as its own deadline lets it, and the others go
//! on without. The worker does not begin with them any more either ([`BATCH_TIME`]), so none of them has two
//! children. A worker that breaks keeps the claims of all that it may be at work for until it is gone; where
//! it cannot die, that is the one which it is stuck in.

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
use super::process::{Answer, Worker, tell_of};
use super::settings::Lane;
use crate::sys::children::Assignment;

/// How long a batch may take before those that were not answered go on without it: twice as long as the
/// worker itself begins with another of it.
const PATIENCE: Duration = BATCH_TIME.saturating_mul(2);

/// What becomes of a call that stood in line.
#[derive(Debug)]
pub(super) enum Outcome {
    Answered(Answer),
    /// No worker began with it.
    NotBegun(Assignment),
    /// A worker began with it and has not answered.
    Begun(Box<Begun>),
    /// The worker broke, by this or before it.
    Broken,
}

/// A worker whose next answer is this call's. Dropping it kills the worker.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) worker: Worker,
    /// The requests that it gives back after that.
    owed: Vec<u64>,
}

impl Begun {
    /// Waits for the answer, for as long as that takes. `None` if the request was given back after all.
    pub(super) async fn answer(&mut self, number: u64) -> io::Result<Option<Answer>> {
        self.worker.answer_of_batch(number).await
    }

    /// Waits until the worker, whose answer is there, has given back the others. `None` if it does not: it
    /// may be at work for one of them, which it was seen to have no time for.
    pub(super) async fn blank(mut self) -> Option<Worker> {
        let give_back = async {
            for number in &self.owed {
                self.worker.answer_of_batch(*number).await.ok()?;
            }
            Some(())
        };
        timeout(PATIENCE, give_back).await.ok().flatten()?;
        Some(self.worker)
    }
}

/// A call that stands in line.
#[derive(Debug)]
struct Standing {
    number: u64,
    request: Request,
    assignment: Assignment,
    reply: oneshot::Sender<Outcome>,
}

/// The calls that may be taken along, first come, first served. No more than there are places at work.
#[derive(Debug, Default)]
pub(super) struct Line(Mutex<VecDeque<Standing>>);

impl Line {
    /// Puts a call at the end. It leaves when the [`Place`] is dropped.
    pub(super) fn join(&self, number: u64, request: Request, assignment: Assignment) -> Place<'_> {
        let (reply, outcome) = oneshot::channel();
        self.standing().push_back(Standing { number, request, assignment, reply });
        Place { line: self, number, outcome }
    }

    fn first(&self, most: usize) -> Vec<Standing> {
        let mut standing = self.standing();
        let count = most.min(standing.len());
        standing.drain(..count).collect()
    }

    fn is_empty(&self) -> bool {
        self.standing().is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.standing().len()
    }

    fn leave(&self, number: u64) -> Option<Standing> {
        let mut standing = self.standing();
        let index = standing.iter().position(|call| call.number == number)?;
        standing.remove(index)
    }

    fn standing(&self) -> MutexGuard<'_, VecDeque<Standing>> {
        // Every change is a single push, remove or drain: nothing is half done after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call's place in the line, also when it was taken along.
#[derive(Debug)]
pub(super) struct Place<'a> {
    line: &'a Line,
    number: u64,
    outcome: oneshot::Receiver<Outcome>,
}

impl Place<'_> {
    /// What became of the call. Waits for ever while it stands in line.
    pub(super) async fn outcome(&mut self) -> Outcome {
        // Nobody is left to tell it: the pool was shut down.
        (&mut self.outcome).await.unwrap_or(Outcome::Broken)
    }

    /// Leaves the line with a turn. Others are taken along if there are any, and a worker is idle.
    pub(super) fn leave_with(&self, turn: Option<OwnedSemaphorePermit>, idle: &Arc<IdleWorkers>) -> Left {
        let Some(call) = self.line.leave(self.number) else { return Left::TakenAlong };
        let Some(turn) = turn else { return Left::Alone(call.assignment, None) };
        if self.line.is_empty() {
            return Left::Alone(call.assignment, Some(turn));
        }
        let Some(worker) = idle.take(Lane::Healthy) else {
            return Left::Alone(call.assignment, Some(turn));
        };
        let mut calls = vec![call];
        // Their places are found in the batch from now on.
        let others = self.line.first(BATCH_MAX - 1);
        calls.extend(others);
        tokio::spawn(run(idle.clone(), worker, calls, turn));
        Left::TakenAlong
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.line.leave(self.number);
    }
}

/// How a call left the line.
#[derive(Debug)]
pub(super) enum Left {
    /// In a batch: it is told the outcome.
    TakenAlong,
    /// By itself, with its turn if it had one.
    Alone(Assignment, Option<OwnedSemaphorePermit>),
}

/// Asks a worker for all of it, and tells each call what became of it. Ends within [`PATIENCE`], or as much
/// again for each answer that was there by then and not seen yet.
async fn run(idle: Arc<IdleWorkers>, worker: Worker, calls: Vec<Standing>, turn: OwnedSemaphorePermit) {
    tokio::select! {
        biased;
        // The worker dies of this.
        () = idle.shut_down() => {}
        worker = ask(worker, calls) => if let Some(worker) = worker {
            idle.put_back(worker);
        },
    }
    drop(turn);
}

/// The worker comes back if it is blank.
async fn ask(mut worker: Worker, calls: Vec<Standing>) -> Option<Worker> {
    let requests = calls.iter().map(|call| Numbered { number: call.number, body: &call.request }).collect();
    // Before the patience begins, so that the worker's time is up long before that is.
    let until = HostTime::now().after(BATCH_TIME);
    let mut give_up = pin!(sleep(PATIENCE));
    let frame = match frame::encode(HELLO, &Order::Batch { until, requests }) {
        Ok(frame) => frame,
        Err(_) => {
            calls.into_iter().for_each(|call| drop(call.reply.send(Outcome::NotBegun(call.assignment))));
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
        // Nobody reads what could not be written whole.
        () = &mut give_up => Err(io::ErrorKind::TimedOut.into()),
    };
    if let Err(source) = sent {
        break_off(worker, waiting, &source);
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
            // This process may have been kept from reading all that time. What is there should be an answer,
            // and is not waited for again if it is not.
            if is_late || worker.is_silent() {
                break None;
            }
            is_late = true;
            give_up.as_mut().reset(Instant::now() + PATIENCE);
        };
        let answer = match answer {
            Some(Ok(answer)) => answer,
            Some(Err(source)) => {
                waiting.push_front((number, reply));
                break_off(worker, waiting, &source);
                return None;
            }
            None => {
                hand_over(worker, reply, waiting);
                return None;
            }
        };
        // Whoever waits for this target finds it free.
        let assignment = worker.child.assignments.pop();
        // A call that was dropped is told nothing.
        let _ = match (answer, assignment) {
            (Some(answer), assignment) => {
                drop(assignment);
                reply.send(Outcome::Answered(answer))
            }
            (None, Some(assignment)) => reply.send(Outcome::NotBegun(assignment)),
            (None, None) => Ok(()),
        };
    }
    Some(worker)
}

type Waiting = VecDeque<(u64, oneshot::Sender<Outcome>)>;

/// The worker is the call's whose answer is due; the others go on without it.
fn hand_over(mut worker: Worker, due: oneshot::Sender<Outcome>, others: Waiting) {
    let due_assignment = worker.child.assignments.pop();
    let mut owed = Vec::with_capacity(others.len());
    let mut given_back = std::mem::take(&mut worker.child.assignments);
    worker.child.assignments.extend(due_assignment);
    for (number, reply) in others {
        owed.push(number);
        if let Some(assignment) = given_back.pop() {
            let _ = reply.send(Outcome::NotBegun(assignment));
        }
    }
    let _ = due.send(Outcome::Begun(Box::new(Begun { worker, owed })));
}

fn break_off(worker: Worker, waiting: Waiting, source: &io::Error) {
    tell_of(source);
    // Killed here; the claims are free again when it is gone.
    drop(worker);
    for (_, reply) in waiting {
        let _ = reply.send(Outcome::Broken);
    }
}
