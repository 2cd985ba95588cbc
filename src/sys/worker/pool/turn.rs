//! Turns: access of healthy targets to the idle workers.
//!
//! Healthy storage answers sooner than a worker starts. So a few workers serve any number of healthy
//! targets, one after the other. A call that waits longer than [`STARTED_AFTER`] starts a worker.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::super::protocol::Request;
use super::batch::{CallQueue, LeftQueue, Outcome, StartedCall};
use super::error::CallError;
use super::idle::IdleWorkers;
use super::process::{Answer, log_broken};
use crate::sys::children::Assignment;

/// How long a call of a healthy target waits for an idle worker before it starts another. With this wait a
/// few workers serve a thousand targets that are probed at once. Storage that has just died delays the
/// other targets by no more than this and `BATCH_TIMEOUT` of a batch.
const STARTED_AFTER: Duration = Duration::from_millis(10);

/// Result of a healthy target's wait for its turn.
pub(super) enum Turn {
    /// This call finds a worker itself.
    Own(Assignment, Option<OwnedSemaphorePermit>),
    /// A batch took it along, and it was answered.
    Answered(Answer),
    /// A batch took it along, and its worker is executing it.
    Started(Box<StartedCall>),
    /// A batch took it along, and its worker broke.
    Broken,
}

/// Result of a call that a worker had started.
pub(super) enum AskedOn {
    Answered(Answer),
    /// The worker had not started it after all.
    GivenBack(Assignment),
    /// The worker broke.
    Broken,
}

/// Turns of healthy targets at the idle workers, first come, first served.
#[derive(Debug)]
pub(super) struct Turns {
    pub(super) free: Arc<Semaphore>,
    pub(super) queue: CallQueue,
    idle: Arc<IdleWorkers>,
}

impl Turns {
    /// As many turns at a time as workers are kept.
    pub(super) fn new(count: usize, idle: Arc<IdleWorkers>) -> Self {
        Self { free: Arc::new(Semaphore::new(count)), queue: CallQueue::default(), idle }
    }

    /// Waits for a turn, or for the result of a batch that another call's turn took this one along in.
    pub(super) async fn wait(&self, number: u64, request: &Request, mut assignment: Assignment) -> Turn {
        let give_up = Instant::now() + STARTED_AFTER;
        let turns = &self.free;
        if !request.is_brief() {
            return Turn::Own(
                assignment,
                timeout_at(give_up, turns.clone().acquire_owned()).await.ok().and_then(Result::ok),
            );
        }
        loop {
            let mut queued = self.queue.join(number, request.clone(), assignment);
            let turn = tokio::select! {
                biased;
                outcome = queued.outcome() => Err(outcome),
                turn = timeout_at(give_up, turns.clone().acquire_owned()) => Ok(turn.ok().and_then(Result::ok)),
            };
            let outcome = match turn {
                Err(outcome) => outcome,
                Ok(turn) => match queued.leave_with(turn, &self.idle) {
                    LeftQueue::Alone(assignment, turn) => return Turn::Own(assignment, turn),
                    LeftQueue::TakenAlong => queued.outcome().await,
                },
            };
            match outcome {
                Outcome::Answered(answer) => return Turn::Answered(answer),
                Outcome::Started(begun) => return Turn::Started(begun),
                Outcome::Broken => return Turn::Broken,
                Outcome::NotStarted(own) if Instant::now() < give_up => assignment = own,
                Outcome::NotStarted(own) => return Turn::Own(own, None),
            }
        }
    }

    /// Waits for the answer of a worker that had started the request.
    pub(super) async fn ask_on(
        &self,
        mut begun: Box<StartedCall>,
        number: u64,
        deadline: Duration,
    ) -> Result<AskedOn, CallError> {
        let outcome = timeout(deadline, begun.answer(number)).await;
        let outcome = match outcome.map_err(|_| CallError::TimedOut { after: deadline })? {
            Ok(Some(answer)) => AskedOn::Answered(answer),
            Ok(None) => begun.worker.child.assignments.pop().map_or(AskedOn::Broken, AskedOn::GivenBack),
            Err(source) => {
                log_broken(&source);
                return Ok(AskedOn::Broken);
            }
        };
        if let Some(worker) = begun.drain().await {
            self.idle.put_back(worker);
        }
        Ok(outcome)
    }
}
