//! Properties of the queue of calls.

use proptest::prelude::*;
use tokio::time::Duration;
use uuid::Uuid;

use super::*;
use crate::sys::children::ChildCensus;

#[derive(Debug, Clone)]
enum Step {
    /// A call joins the queue.
    Join,
    /// A batch takes up to that many calls along.
    Take(usize),
    /// The caller drops one of its calls.
    Drop(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Join),
        1 => (0..=BATCH_MAX).prop_map(Step::Take),
        1 => any::<prop::sample::Index>().prop_map(Step::Drop),
    ];
    prop::collection::vec(step, 0..100)
}

async fn assignment(census: &ChildCensus) -> Assignment {
    let claim = census.claim(Uuid::new_v4(), Instant::now() + Duration::from_secs(10)).await.expect("free");
    Assignment { claim, permit: None }
}

async fn check(steps: Vec<Step>) {
    let (census, queue) = (ChildCensus::new(), CallQueue::default());
    let (mut handles, mut expected, mut taken) = (Vec::new(), VecDeque::new(), Vec::new());
    let mut next_number = 1;
    for step in steps {
        match step {
            Step::Join => {
                let request = Request::StatVfs { path: "/".into(), expect_nfs: false };
                handles.push(queue.join(next_number, request, assignment(&census).await));
                expected.push_back(next_number);
                next_number += 1;
            }
            Step::Take(most) => {
                let calls = queue.first(most);
                let numbers: Vec<u64> = calls.iter().map(|call| call.number).collect();
                let due: Vec<u64> = expected.drain(..most.min(expected.len())).collect();
                assert_eq!(numbers, due, "in order of arrival, and no dropped call");
                for PendingCall { number, assignment, reply, .. } in calls {
                    let _ = reply.send(Outcome::NotStarted(assignment));
                    taken.push(number);
                }
            }
            Step::Drop(index) if !handles.is_empty() => {
                let dropped = handles.swap_remove(index.index(handles.len()));
                expected.retain(|number| *number != dropped.number);
            }
            Step::Drop(_) => {}
        }
        assert_eq!(queue.len(), expected.len());
    }
    for mut handle in handles {
        let is_queued = expected.contains(&handle.number);
        let times_taken = taken.iter().filter(|number| **number == handle.number).count();
        assert_eq!(times_taken + usize::from(is_queued), 1, "call {} is lost or served twice", handle.number);
        if !is_queued {
            assert!(matches!(handle.outcome().await, Outcome::NotStarted(_)), "a taken call gets its result");
        }
    }
    assert_eq!(queue.len(), 0, "a call leaves with its caller");
}

proptest! {
    #[test]
    fn queue_loses_no_call_and_serves_none_twice(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(check(steps));
    }
}
