//! Turns: who of the healthy targets has one of the workers that are kept, and for how long one waits for it.
//!
//! Healthy storage answers sooner than a worker starts, so a few workers do for any number of healthy
//! targets, one after the other. Who waits longer than [`STARTED_AFTER`] has one started.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::super::protocol::Request;
use super::batch::{Begun, Left, Line, Outcome};
use super::error::CallError;
use super::idle::IdleWorkers;
use super::process::{Answer, tell_of};
use crate::sys::children::Assignment;

/// How long a call of a healthy target waits for its turn at the workers that are kept before it has
/// another started. A thousand targets that are probed at once are done by a few workers then, and
/// one that waits for storage that has just died costs the others no more than this and the patience of a
/// batch.
const STARTED_AFTER: Duration = Duration::from_millis(10);

/// What a healthy target's wait for its turn came to.
pub(super) enum Turn {
    /// It is for this call to find a worker.
    Own(Assignment, Option<OwnedSemaphorePermit>),
    /// It was taken along and answered.
    Answered(Answer),
    /// It was taken along, and is what its worker is at work for.
    Begun(Box<Begun>),
    /// The worker broke that it was taken along to.
    Broken,
}

/// What became of a call that a worker had begun with.
pub(super) enum AskedOn {
    Answered(Answer),
    /// It had not begun with it after all.
    GivenBack(Assignment),
    /// It broke.
    Broken,
}

/// Turns of healthy targets at the idle workers, first come, first served.
#[derive(Debug)]
pub(super) struct Turns {
    pub(super) free: Arc<Semaphore>,
    pub(super) line: Line,
    idle: Arc<IdleWorkers>,
}

impl Turns {
    /// As many turns at a time as workers are kept.
    pub(super) fn new(count: usize, idle: Arc<IdleWorkers>) -> Self {
        Self { free: Arc::new(Semaphore::new(count)), line: Line::default(), idle }
    }

    /// A healthy target's turn at the workers that are kept, or what another's turn brought it.
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
            let mut place = self.line.join(number, request.clone(), assignment);
            let turn = tokio::select! {
                biased;
                outcome = place.outcome() => Err(outcome),
                turn = timeout_at(give_up, turns.clone().acquire_owned()) => Ok(turn.ok().and_then(Result::ok)),
            };
            let outcome = match turn {
                Err(outcome) => outcome,
                Ok(turn) => match place.leave_with(turn, &self.idle) {
                    Left::Alone(assignment, turn) => return Turn::Own(assignment, turn),
                    Left::TakenAlong => place.outcome().await,
                },
            };
            match outcome {
                Outcome::Answered(answer) => return Turn::Answered(answer),
                Outcome::Begun(begun) => return Turn::Begun(begun),
                Outcome::Broken => return Turn::Broken,
                Outcome::NotBegun(own) if Instant::now() < give_up => assignment = own,
                Outcome::NotBegun(own) => return Turn::Own(own, None),
            }
        }
    }

    /// Waits for the answer of a worker that had begun.
    pub(super) async fn ask_on(
        &self,
        mut begun: Box<Begun>,
        number: u64,
        deadline: Duration,
    ) -> Result<AskedOn, CallError> {
        let outcome = timeout(deadline, begun.answer(number)).await;
        let outcome = match outcome.map_err(|_| CallError::TimedOut { after: deadline })? {
            Ok(Some(answer)) => AskedOn::Answered(answer),
            Ok(None) => begun.worker.child.assignments.pop().map_or(AskedOn::Broken, AskedOn::GivenBack),
            Err(source) => {
                tell_of(&source);
                return Ok(AskedOn::Broken);
            }
        };
        if let Some(worker) = begun.blank().await {
            self.idle.put_back(worker);
        }
        Ok(outcome)
    }
}
