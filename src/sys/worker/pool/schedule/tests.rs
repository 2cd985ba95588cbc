//! Properties of the schedule, with a simulated clock and simulated workers.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

const IDLE_MAX: usize = 3;
const START_AFTER: Duration = Duration::from_millis(10);

#[derive(Debug, Clone)]
struct TestCall {
    number: u64,
    route: Route,
    start_by: Instant,
}

impl Call for TestCall {
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

/// A simulated worker. The flag says whether it is alive.
#[derive(Debug)]
struct TestWorker(bool);

impl IdleWorker for TestWorker {
    fn is_usable(&mut self) -> bool {
        self.0
    }
}

#[derive(Debug, Clone)]
enum Step {
    Call(Route),
    /// The caller drops a call.
    Drop(Index),
    Wait(Duration),
    /// The worker of a dispatch answers its next call.
    Answer(Index),
    /// The worker of a dispatch hands its next call back, unless that is the first.
    HandBack(Index),
    /// A dispatch is late: all calls but the next one return to the schedule.
    BeLate(Index),
    /// The worker of a dispatch breaks or is killed.
    Break(Index),
    /// An idle worker dies.
    Die(Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let route = prop_oneof![
        6 => Just(Route::Shared),
        2 => Just(Route::Exclusive),
        2 => Just(Route::Surplus),
        1 => Just(Route::New),
    ];
    let index = any::<Index>;
    let step = prop_oneof![
        8 => route.prop_map(Step::Call),
        1 => index().prop_map(Step::Drop),
        2 => (0_u64..12).prop_map(|milliseconds| Step::Wait(Duration::from_millis(milliseconds))),
        6 => index().prop_map(Step::Answer),
        2 => index().prop_map(Step::HandBack),
        1 => index().prop_map(Step::BeLate),
        1 => index().prop_map(Step::Break),
        1 => index().prop_map(Step::Die),
    ];
    prop::collection::vec(step, 0..200)
}

/// A dispatch that a worker executes.
struct Running {
    calls: VecDeque<TestCall>,
    worker: TestWorker,
    has_slot: bool,
    is_first: bool,
}

struct World {
    schedule: CallQueue<TestCall, TestWorker>,
    now: Instant,
    running: Vec<Running>,
    /// Calls without an outcome.
    open: BTreeSet<u64>,
    next_number: u64,
}

impl World {
    fn new() -> Self {
        let schedule = CallQueue::new(IDLE_MAX);
        Self { schedule, now: Instant::now(), running: Vec::new(), open: BTreeSet::new(), next_number: 1 }
    }

    fn run(&mut self, dispatch: Option<Dispatch<TestCall, TestWorker>>) {
        let Some(Dispatch { calls, worker, has_slot }) = dispatch else { return };
        let routes: BTreeSet<_> = calls.iter().map(|call| format!("{:?}", call.route)).collect();
        assert!((1..=BATCH_MAX).contains(&calls.len()), "{} calls", calls.len());
        assert!(calls.len() == 1 || (worker.is_some() && routes == ["Shared".to_owned()].into()), "{routes:?}");
        assert!(worker.is_none() || calls[0].route != Route::New, "a repeated call gets a new worker");
        assert!(worker.as_ref().is_none_or(|worker| worker.0), "the worker lives");
        if calls[0].route == Route::Surplus && worker.is_some() {
            assert_eq!(self.schedule.idle.len(), IDLE_MAX - 1, "a suspect call takes a surplus worker only");
        }
        let worker = worker.unwrap_or(TestWorker(true));
        self.running.push(Running { calls: calls.into(), worker, has_slot, is_first: true });
    }

    fn enter(&mut self, call: TestCall) {
        let dispatch = self.schedule.enter(call, self.now);
        self.run(dispatch);
    }

    fn close(&mut self, number: u64) {
        assert!(self.open.remove(&number), "call {number} has a second outcome");
    }

    fn answer(&mut self, index: usize) {
        let call = self.running[index].calls.pop_front().expect("not empty");
        self.running[index].is_first = false;
        self.close(call.number);
        self.end_if_done(index);
    }

    /// Ends a dispatch if it has no calls left.
    fn end_if_done(&mut self, index: usize) {
        if self.running[index].calls.is_empty() {
            let Running { worker, has_slot, .. } = self.running.swap_remove(index);
            let _surplus = self.schedule.put_back(worker);
            self.free_slot(has_slot);
        }
    }

    fn free_slot(&mut self, has_slot: bool) {
        if has_slot {
            let dispatch = self.schedule.free_slot();
            self.run(dispatch);
        }
    }

    fn step(&mut self, step: &Step) {
        let pick = |index: &Index, count: usize| (count > 0).then(|| index.index(count));
        match step {
            Step::Call(route) => {
                let call = TestCall { number: self.next_number, route: *route, start_by: self.now + START_AFTER };
                self.next_number += 1;
                self.open.insert(call.number);
                self.enter(call);
            }
            Step::Drop(index) => {
                let Some(index) = pick(index, self.open.len()) else { return };
                let number = *self.open.iter().nth(index).expect("one");
                if self.schedule.withdraw(number).is_some() {
                    self.close(number);
                }
            }
            Step::Wait(duration) => {
                self.now += *duration;
                let due = self.schedule.queue.iter().filter(|call| call.start_by <= self.now);
                for number in due.map(|call| call.number).collect::<Vec<_>>() {
                    let dispatch = self.schedule.start(number);
                    self.run(dispatch);
                }
            }
            Step::Answer(index) => {
                if let Some(index) = pick(index, self.running.len()) {
                    self.answer(index);
                }
            }
            Step::HandBack(index) => {
                let Some(index) = pick(index, self.running.len()) else { return };
                if self.running[index].is_first {
                    return;
                }
                let call = self.running[index].calls.pop_front().expect("not empty");
                self.enter(call);
                self.end_if_done(index);
            }
            Step::BeLate(index) => {
                let Some(index) = pick(index, self.running.len()) else { return };
                let running = &mut self.running[index];
                let others = running.calls.split_off(1);
                let has_slot = std::mem::take(&mut running.has_slot);
                self.now += START_AFTER;
                self.free_slot(has_slot);
                others.into_iter().for_each(|call| self.enter(call));
                self.step(&Step::Wait(Duration::ZERO));
            }
            Step::Break(index) => {
                let Some(index) = pick(index, self.running.len()) else { return };
                let Running { calls, has_slot, .. } = self.running.swap_remove(index);
                for mut call in calls {
                    match call.route {
                        Route::Shared => {
                            call.route = Route::New;
                            self.enter(call);
                        }
                        _ => self.close(call.number),
                    }
                }
                self.free_slot(has_slot);
            }
            Step::Die(index) => {
                if let Some(index) = pick(index, self.schedule.idle.len()) {
                    self.schedule.idle[index].0 = false;
                }
            }
        }
    }

    fn check(&self) {
        let queued = self.schedule.queue.iter();
        let running = self.running.iter().flat_map(|running| &running.calls);
        let places: Vec<u64> = queued.chain(running).map(|call| call.number).collect();
        let distinct: BTreeSet<u64> = places.iter().copied().collect();
        assert_eq!(places.len(), distinct.len(), "a call is in one place, so its target has one child");
        assert_eq!(distinct, self.open, "a call without an outcome waits or runs");
        assert!(self.schedule.idle.len() <= IDLE_MAX);
        let slots_used = self.running.iter().filter(|running| running.has_slot).count();
        assert_eq!(self.schedule.slots_free, IDLE_MAX - slots_used);
        assert!(self.running.len() <= self.open.len(), "each busy worker has a call, and so a permit");
        let queue = &self.schedule.queue;
        let wait_for_others = queue.len() < BATCH_MAX && queue.iter().all(|call| call.route == Route::Shared);
        let slots_to_wait_for = if wait_for_others { 1 } else { IDLE_MAX };
        assert!(
            queue.is_empty() || slots_used >= slots_to_wait_for,
            "a healthy call waits only for prompt dispatches of healthy calls"
        );
        for call in &self.schedule.queue {
            assert!(matches!(call.route, Route::Shared | Route::Exclusive), "only healthy calls wait");
            assert!(call.start_by > self.now, "a call waits no longer than START_AFTER");
        }
        assert!(self.schedule.queue.iter().is_sorted_by_key(|call| call.start_by), "first come, first served");
    }
}

proptest! {
    #[test]
    fn every_call_has_one_outcome_and_no_healthy_call_waits_for_a_suspect_one(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            world.check();
        }
        // All workers answer from now on.
        while !world.running.is_empty() {
            world.answer(0);
            world.check();
        }
        assert!(world.open.is_empty(), "{:?}", world.open);
    }
}

#[test]
fn simultaneous_calls_share_the_idle_workers() {
    let mut world = World::new();
    let call = |world: &mut World, route, count| (0..count).for_each(|_| world.step(&Step::Call(route)));
    call(&mut world, Route::Exclusive, IDLE_MAX);
    (0..IDLE_MAX).for_each(|_| world.answer(0));
    assert_eq!(world.schedule.idle.len(), IDLE_MAX, "all of them are idle now");
    call(&mut world, Route::Shared, 1);
    assert_eq!((world.running.len(), world.schedule.queue.len()), (1, 0), "nothing to wait for");
    for running in 2..=IDLE_MAX {
        call(&mut world, Route::Shared, BATCH_MAX - 1);
        assert_eq!((world.running.len(), world.schedule.queue.len()), (running - 1, BATCH_MAX - 1), "until it is full");
        call(&mut world, Route::Shared, 1);
        assert_eq!((world.running.len(), world.schedule.queue.len()), (running, 0));
    }
    call(&mut world, Route::Shared, BATCH_MAX + 1);
    assert_eq!((world.running.len(), world.schedule.queue.len()), (IDLE_MAX, BATCH_MAX + 1));
    world.answer(0);
    let shared = world.running.last().expect("running");
    assert_eq!((shared.calls.len(), world.schedule.queue.len()), (BATCH_MAX, 1));
    world.check();
}
