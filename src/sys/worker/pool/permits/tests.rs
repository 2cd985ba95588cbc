//! Properties of the permits, without a runtime.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

const WORKERS_MAX: usize = 6;

#[derive(Debug, Clone)]
enum Step {
    Acquire(Lane),
    Release(Index),
    GiveUp(Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => Just(Step::Acquire(Lane::Healthy)),
        2 => Just(Step::Acquire(Lane::Suspect)),
        3 => any::<Index>().prop_map(Step::Release),
        1 => any::<Index>().prop_map(Step::GiveUp),
    ];
    prop::collection::vec(step, 0..100)
}

type Waiting<'a> = (Lane, Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + 'a>>);

proptest! {
    #[test]
    fn busy_workers_are_bounded_and_suspect_calls_leave_half_of_the_permits(steps in steps()) {
        let permits = Permits::new(WORKERS_MAX);
        let (mut waiting, mut held): (Vec<Waiting<'_>>, Vec<(Lane, OwnedSemaphorePermit)>) = Default::default();
        for step in steps {
            match step {
                Step::Acquire(lane) => waiting.push((lane, Box::pin(permits.acquire(lane)))),
                Step::Release(index) if !held.is_empty() => drop(held.swap_remove(index.index(held.len()))),
                Step::GiveUp(index) if !waiting.is_empty() => drop(waiting.remove(index.index(waiting.len()))),
                Step::Release(_) | Step::GiveUp(_) => {}
            }
            waiting.retain_mut(|(lane, permit)| match permit.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(permit) => {
                    held.push((*lane, permit.expect("open")));
                    false
                }
                Poll::Pending => true,
            });
            let count = |wanted| held.iter().filter(|(lane, _)| *lane == wanted).count();
            let waits = |wanted| waiting.iter().any(|(lane, _)| *lane == wanted);
            prop_assert!(held.len() <= WORKERS_MAX);
            prop_assert!(count(Lane::Suspect) <= WORKERS_MAX / 2);
            prop_assert!(!waits(Lane::Healthy) || count(Lane::Healthy) >= WORKERS_MAX / 2, "its own half is in use");
            prop_assert!(!waits(Lane::Suspect) || permits.suspect.available_permits() == 0);
        }
    }
}
