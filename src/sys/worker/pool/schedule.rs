//! Worker scheduling: which call goes to which worker, and when.
//!
//! This is a pure state machine. It performs no I/O and reads no clock. The pool reports events, and executes
//! the [`Dispatch`]es that they result in.
//!
//! ```text
//!                                   enter
//!      healthy |       suspect |        repeated |
//!              v               |                 |
//!   +------ queued             |                 |
//!   |          | slot is free  | at once         | at once
//!   | start_by v               v                 v
//!   |     with an idle     alone, with an     alone, with
//!   |     worker: up to    idle worker only   a new worker
//!   |     BATCH_MAX calls. if idle_max of
//!   |     Without: alone,  them are idle
//!   |     with a new one
//!   +---> alone, without a slot
//! ```
//!
//! Healthy storage answers sooner than a worker starts, and a message to a worker costs ten times the time that
//! healthy storage takes to answer. So a few workers serve any number of healthy targets, and calls share messages.
//! The number of *slots* is the number of workers that are kept idle. Calls that wait for a slot share the next idle
//! worker. While any slot is in use, they wait until they fill a message or a slot becomes free, as small segments do
//! in TCP (RFC 896). So calls that start together need few messages.
//!
//! A dispatch whose worker does not answer promptly gives up its slot, and the calls that it has not started return to
//! the queue. At its `start_by`, a call continues alone. So it waits no longer than that for the storage of others.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::super::protocol::frame::BATCH_MAX;

/// Which workers a call may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// An idle worker, also together with other calls.
    Shared,
    /// An idle worker, without other calls.
    Exclusive,
    /// An idle worker, but only if the full number of idle workers is there. The worker of a suspect target is often
    /// killed, and healthy targets would then wait for the start of another.
    Surplus,
    /// A new worker, because the call broke an idle one.
    New,
}

/// A call as the schedule sees it.
pub(super) trait Call {
    /// Unique number of the call.
    fn number(&self) -> u64;
    /// Which workers the call may use.
    fn route(&self) -> Route;
    /// When the call stops waiting for an idle worker.
    fn start_by(&self) -> Instant;
}

/// A worker as the schedule sees it.
pub(super) trait IdleWorker {
    /// Whether the worker still waits for a request.
    fn is_usable(&mut self) -> bool;
}

/// Calls that one worker executes in this order.
#[derive(Debug)]
pub(super) struct Dispatch<C, W> {
    /// At least one call. Exactly one if the worker is new or the call may not share it.
    pub(super) calls: Vec<C>,
    /// An idle worker, or `None` to start a new one.
    pub(super) worker: Option<W>,
    /// Whether the dispatch holds a slot, which the pool reports as free when it ends or is late.
    pub(super) has_slot: bool,
}

/// Queued calls and idle workers.
#[derive(Debug)]
pub(super) struct CallQueue<C, W> {
    /// Maximum number of idle workers, and number of slots.
    idle_max: usize,
    /// The most recently used worker is last and is used first.
    idle: Vec<W>,
    pub(super) slots_free: usize,
    /// Ordered by [`Call::start_by`]. Each call holds a permit, which bounds their number.
    pub(super) queue: VecDeque<C>,
}

impl<C: Call, W: IdleWorker> CallQueue<C, W> {
    /// A schedule without workers, which keeps at most `idle_max` of them.
    pub(super) fn new(idle_max: usize) -> Self {
        Self { idle_max, idle: Vec::new(), slots_free: idle_max.max(1), queue: VecDeque::new() }
    }

    /// Adds a call that may start, or that a worker handed back without starting it.
    pub(super) fn enter(&mut self, call: C, now: Instant) -> Option<Dispatch<C, W>> {
        let worker = match call.route() {
            Route::New => None,
            Route::Surplus => self.take_idle(self.idle_max),
            Route::Shared | Route::Exclusive if call.start_by() <= now => self.take_idle(1),
            Route::Shared | Route::Exclusive => {
                let index = self.queue.partition_point(|queued| queued.start_by() <= call.start_by());
                self.queue.insert(index, call);
                return self.next();
            }
        };
        Some(Dispatch { calls: vec![call], worker, has_slot: false })
    }

    /// Starts a call that is still queued at its [`Call::start_by`].
    pub(super) fn start(&mut self, number: u64) -> Option<Dispatch<C, W>> {
        let call = self.withdraw(number)?;
        Some(Dispatch { calls: vec![call], worker: self.take_idle(1), has_slot: false })
    }

    /// Removes a call whose caller has stopped waiting, if it is still queued.
    pub(super) fn withdraw(&mut self, number: u64) -> Option<C> {
        let index = self.queue.iter().position(|call| call.number() == number)?;
        self.queue.remove(index)
    }

    pub(super) fn free_slot(&mut self) -> Option<Dispatch<C, W>> {
        self.slots_free += 1;
        self.next()
    }

    /// Keeps a worker that has answered everything, or returns it if there are enough idle workers.
    pub(super) fn put_back(&mut self, worker: W) -> Option<W> {
        if self.idle.len() >= self.idle_max {
            return Some(worker);
        }
        self.idle.push(worker);
        None
    }

    /// Returns the idle workers.
    pub(super) fn idle(&mut self) -> &mut Vec<W> {
        &mut self.idle
    }

    fn next(&mut self) -> Option<Dispatch<C, W>> {
        if self.slots_free == 0 {
            return None;
        }
        let is_shared = |call: &C| call.route() == Route::Shared;
        let all_slots_are_free = self.slots_free == self.idle_max.max(1);
        let first = if all_slots_are_free || self.queue.len() >= BATCH_MAX {
            0
        } else {
            // Shared calls wait for more of them. Other calls share no message, so they have nothing to wait for.
            self.queue.iter().position(|call| !is_shared(call))?
        };
        let mut calls = vec![self.queue.remove(first)?];
        self.slots_free -= 1;
        let worker = self.take_idle(1);
        if worker.is_some() && is_shared(&calls[0]) {
            while calls.len() < BATCH_MAX && self.queue.front().is_some_and(is_shared) {
                calls.extend(self.queue.pop_front());
            }
        }
        Some(Dispatch { calls, worker, has_slot: true })
    }

    /// Takes an idle worker if there are at least `count` usable ones.
    fn take_idle(&mut self, count: usize) -> Option<W> {
        self.idle.retain_mut(W::is_usable);
        if self.idle.len() < count { None } else { self.idle.pop() }
    }
}

#[cfg(test)]
mod tests;
