//! Tests of calls that share a worker, also when it hangs or breaks.

use super::super::super::protocol::frame::{self, BATCH_MAX, Batch, HostTime, Numbered};
use super::*;

type Calls = Vec<tokio::task::JoinHandle<Result<Response, CallError>>>;

/// Queues calls of `count` targets. Returns them, and the number of slots that must be freed to dispatch them.
async fn queued_calls(pool: &WorkerPool, count: usize, deadline: Duration) -> (Calls, usize) {
    let dispatcher = &pool.inner.dispatcher;
    let slots = std::mem::take(&mut dispatcher.schedule().slots_free);
    let calls = (0..count).map(|_| {
        let pool = pool.clone();
        tokio::spawn(async move { call(&pool, deadline).await })
    });
    let calls: Calls = calls.collect();
    until("all are queued", || dispatcher.schedule().queue.len() == count).await;
    (calls, slots)
}

/// Frees a slot. Returns the number of calls that are dispatched then, and whether to an idle worker.
fn free_slot(pool: &WorkerPool) -> Option<(usize, bool)> {
    let mut dispatched = None;
    pool.inner.dispatcher.report(|schedule| {
        let dispatch = schedule.free_slot();
        dispatched = dispatch.as_ref().map(|dispatch| (dispatch.calls.len(), dispatch.worker.is_some()));
        dispatch
    });
    dispatched
}

/// Calls of `count` targets, which are all queued before the first is dispatched.
async fn calls_together(pool: &WorkerPool, count: usize, deadline: Duration) -> Calls {
    let (calls, slots) = queued_calls(pool, count, deadline).await;
    for _ in 0..slots {
        free_slot(pool);
    }
    calls
}

/// A pool in which calls wait for an idle worker as long as the tests need.
fn patient(mut pool: WorkerPool) -> WorkerPool {
    Arc::get_mut(&mut pool.inner).expect("not shared").start_after = ENOUGH;
    pool
}

/// Length of the first frame that a pool sends, in bytes.
fn first_frame() -> usize {
    let requests = vec![Numbered { number: 1, body: stat() }];
    frame::encode(&Batch { until: HostTime::now(), requests }).expect("encodes").len()
}

/// Four calls that are dispatched together to an idle worker that is stopped.
async fn calls_of_a_stopped_worker(pool: &WorkerPool, deadline: Duration) -> (Pid, Calls) {
    call(pool, ENOUGH).await.expect("answers");
    let [pid] = idle_pids(pool)[..] else { panic!("one is idle") };
    stop(pid).await;
    (pid, calls_together(pool, 4, deadline).await)
}

/// The outcomes of the calls.
async fn outcomes(calls: Calls) -> Vec<Result<Response, CallError>> {
    futures::future::join_all(calls).await.into_iter().map(|outcome| outcome.expect("no panic")).collect()
}

/// How many of the calls have ended.
fn ended<T>(calls: &[tokio::task::JoinHandle<T>]) -> usize {
    calls.iter().filter(|call| call.is_finished()).count()
}

#[tokio::test]
async fn simultaneous_calls_share_a_worker() {
    let pool = patient(pool_of(worker(), 64));
    call(&pool, ENOUGH).await.expect("answers");
    let (calls, slots) = queued_calls(&pool, 40, ENOUGH).await;
    // No task runs meanwhile, so the worker of the first dispatch is not idle again before the second.
    let dispatches: Vec<_> = (0..slots).map(|_| free_slot(&pool)).collect();
    assert_eq!(dispatches, [Some((BATCH_MAX, true)), Some((1, false))]);
    let answers = outcomes(calls).await;
    assert!(answers.iter().all(|answer| matches!(answer, Ok(Response::Counts(counts)) if counts.blocks > 0)));
    // On a busy host a dispatch may be late, and then starts one more worker.
    assert!(pool.stats().spawned_total <= 20, "calls share workers: {:?}", pool.stats());
    until("the last batch is done", || pool.stats().idle == pool.census().counts().alive).await;
}

#[tokio::test]
async fn dropped_call_leaves_the_queue_and_does_not_enter_it_again() {
    let pool = patient(pool_of(worker(), 64));
    let (calls, _) = queued_calls(&pool, 2, ENOUGH).await;
    let dispatcher = &pool.inner.dispatcher;
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    until("both have left", || dispatcher.schedule().queue.is_empty()).await;
    let (reply, outcome) = oneshot::channel();
    drop(outcome);
    dispatcher.enter(PendingCall {
        number: 1,
        request: stat(),
        lane: Lane::Healthy,
        route: Route::Shared,
        start_by: Instant::now() + ENOUGH,
        deadline: ENOUGH,
        assignment: None,
        span: Span::none(),
        reply,
    });
    assert!(dispatcher.schedule().queue.is_empty());
}

#[tokio::test]
async fn other_calls_of_a_batch_are_answered_while_one_hangs() {
    let pool = patient(pool_of(worker(), 64));
    let (_, calls) = calls_of_a_stopped_worker(&pool, Duration::from_secs(3)).await;
    until("the others are answered", || ended(&calls) == 3).await;
    let (given_up, answered): (Vec<_>, Vec<_>) = outcomes(calls).await.into_iter().partition(Result::is_err);
    assert!(matches!(&given_up[..], [Err(CallError::TimedOut { .. })]), "{given_up:?}");
    assert_eq!((answered.len(), pool.stats().killed_total), (3, 1));
}

#[tokio::test]
async fn late_answer_in_a_batch_reaches_its_own_target() {
    let pool = patient(pool_of(worker(), 64));
    let (pid, calls) = calls_of_a_stopped_worker(&pool, ENOUGH).await;
    until("the others are answered", || ended(&calls) == 3).await;
    // Otherwise the workers that answered the others would be kept instead of the stopped one.
    pool.inner.dispatcher.schedule().idle().clear();
    kill(pid, Signal::SIGCONT).expect("sent");
    let outcomes = outcomes(calls).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(Response::Counts(_)))), "{outcomes:?}");
    // The worker becomes idle after the requests that it hands back are read, which is later than its last answer.
    until("the worker is idle", || idle_pids(&pool) == [pid]).await;
    let (idle, spawned) = (idle_pids(&pool), pool.stats().spawned_total);
    call(&pool, ENOUGH).await.expect("answered");
    assert_eq!((idle_pids(&pool), pool.stats().spawned_total), (idle, spawned));
}

#[tokio::test]
async fn dropped_call_in_a_batch_kills_only_the_hanging_worker() {
    let pool = patient(pool_of(worker(), 64));
    let (pid, calls) = calls_of_a_stopped_worker(&pool, ENOUGH).await;
    until("the others are answered", || ended(&calls) == 3).await;
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    until("it is killed", || kill(pid, None).is_err()).await;
    assert_eq!(futures::future::join_all(calls).await.iter().filter(|outcome| outcome.is_ok()).count(), 3);
}

#[tokio::test]
async fn worker_broken_by_a_batch_is_replaced_for_all_its_calls() {
    let directory = tempfile::tempdir().expect("a directory");
    let first_frame = first_frame();
    let breaks = format!("head -c {} >/dev/null; printf garbage >&3; exec sleep 600", first_frame + 4);
    let pool = patient(breaking_once(directory.path(), &breaks));
    std::fs::write(directory.path().join("asked"), "").expect("written");
    let first = call(&pool, ENOUGH).await;
    assert!(matches!(first, Ok(Response::Done)), "{first:?}");
    let answers = outcomes(calls_together(&pool, 4, ENOUGH).await).await;
    assert!(answers.iter().all(|answer| matches!(answer, Ok(Response::Counts(_)))), "{answers:?}");
    assert_eq!(pool.stats().killed_total, 1);
}

#[tokio::test]
async fn worker_hanging_in_a_partial_answer_keeps_only_one_call() {
    let directory = tempfile::tempdir().expect("a directory");
    let first_frame = first_frame();
    let breaks = format!("head -c {} >/dev/null; printf ab >&3; exec sleep 600", first_frame + 4);
    let pool = patient(breaking_once(directory.path(), &breaks));
    std::fs::write(directory.path().join("asked"), "").expect("written");
    assert!(matches!(call(&pool, ENOUGH).await, Ok(Response::Done)));
    // Until it waits for the second frame, so that it says that while the batch has patience.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let answers = outcomes(calls_together(&pool, 4, Duration::from_secs(2)).await).await;
    let given_up = answers.iter().filter(|answer| matches!(answer, Err(CallError::TimedOut { .. }))).count();
    let answered = answers.iter().filter(|answer| matches!(answer, Ok(Response::Counts(_)))).count();
    assert_eq!((given_up, answered), (1, 3), "{answers:?}");
}

#[tokio::test]
async fn worker_that_never_stops_running_keeps_only_one_call() {
    let directory = tempfile::tempdir().expect("a directory");
    let breaks = format!("head -c {} >/dev/null; while :; do :; done", first_frame() + 4);
    let pool = patient(breaking_once(directory.path(), &breaks));
    std::fs::write(directory.path().join("asked"), "").expect("written");
    assert!(matches!(call(&pool, ENOUGH).await, Ok(Response::Done)));
    let answers = outcomes(calls_together(&pool, 4, Duration::from_secs(2)).await).await;
    let given_up = answers.iter().filter(|answer| matches!(answer, Err(CallError::TimedOut { .. }))).count();
    let answered = answers.iter().filter(|answer| matches!(answer, Ok(Response::Counts(_)))).count();
    assert_eq!((given_up, answered), (1, 3), "{answers:?}");
}
