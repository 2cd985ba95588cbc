//! Tests of the transition log, with a store that the test can break.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::oneshot;

use super::*;
use crate::agent::record::Intervals;
use crate::agent::task::tests::{shared, target};
use crate::model::report::{Finding, Verdict};
use crate::model::{CanaryRecord, OwnMountId, Reason, Report, Status, Target};
use crate::registry::{CommitError, MemoryStore, Revision, Snapshot, StorageError, Store, Write};

/// A store in memory that also keeps every transition in one list, unless it is broken.
#[derive(Default)]
struct FaultyStore {
    store: MemoryStore,
    kept: Arc<Mutex<Vec<Transition>>>,
    is_broken: AtomicBool,
    /// Blocks the next write once. The write is finished even if its caller stops waiting.
    gate: Mutex<Option<oneshot::Receiver<()>>>,
}

impl FaultyStore {
    fn seconds(&self) -> Vec<i64> {
        self.kept.lock().expect("not poisoned").iter().map(|kept| kept.at.as_second()).collect()
    }
}

#[async_trait]
impl Store for FaultyStore {
    fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.store.watch()
    }

    async fn commit(&self, expected: Revision, writes: Vec<Write>) -> Result<Arc<Snapshot>, CommitError> {
        self.store.commit(expected, writes).await
    }

    async fn add_transitions(&self, transitions: Vec<Transition>) -> Result<(), StorageError> {
        if self.is_broken.load(Ordering::Relaxed) {
            return Err(StorageError::Failed("disk full".to_owned()));
        }
        let (kept, gate) = (self.kept.clone(), self.gate.lock().expect("not poisoned").take());
        let writing = tokio::spawn(async move {
            if let Some(gate) = gate {
                gate.await.expect("opened");
            }
            kept.lock().expect("not poisoned").extend(transitions);
        });
        writing.await.expect("written");
        Ok(())
    }

    async fn transitions(&self, id: TargetId) -> Result<Vec<Transition>, StorageError> {
        self.store.transitions(id).await
    }

    async fn put_canary_record(&self, id: TargetId, record: CanaryRecord) -> Result<(), StorageError> {
        self.store.put_canary_record(id, record).await
    }

    async fn canary_record(&self, id: TargetId) -> Result<Option<CanaryRecord>, StorageError> {
        self.store.canary_record(id).await
    }

    async fn put_own_mounts(&self, mounts: Vec<(TargetId, Option<OwnMountId>)>) -> Result<(), StorageError> {
        self.store.put_own_mounts(mounts).await
    }

    async fn own_mounts(&self) -> Result<Vec<(TargetId, OwnMountId)>, StorageError> {
        self.store.own_mounts().await
    }
}

/// A log, and the store that it writes to.
fn log() -> (TransitionLog, Arc<FaultyStore>) {
    let store = Arc::new(FaultyStore::default());
    (TransitionLog::new(Registry::new(store.clone())), store)
}

fn transition(second: i64) -> Transition {
    let at = Timestamp::from_second(second).expect("a time");
    Transition { target_id: TargetId::nil(), at, from: None, to: Status::Available, finding: None }
}

fn record(log: &TransitionLog, seconds: std::ops::Range<i64>) {
    seconds.for_each(|second| log.record(transition(second)));
}

#[tokio::test]
async fn failed_writes_are_repeated_in_order() {
    let (log, store) = log();
    record(&log, 0..2);
    assert!(log.write().await);
    store.is_broken.store(true, Ordering::Relaxed);
    record(&log, 2..700);
    assert!(!log.write().await);
    assert_eq!((store.seconds().len(), log.pending_of(TargetId::nil()).len()), (2, 698));
    store.is_broken.store(false, Ordering::Relaxed);
    record(&log, 700..701);
    assert!(log.write().await);
    assert_eq!(store.seconds(), (0..701).collect::<Vec<_>>());
    assert!(log.pending_of(TargetId::nil()).is_empty());
}

#[tokio::test]
async fn oldest_pending_transitions_are_dropped_at_the_limit() {
    let (log, store) = log();
    let more = i64::try_from(PENDING_MAX).expect("few") + 3;
    record(&log, 0..more);
    assert_eq!(log.pending().dropped, 3);
    assert!(log.write().await);
    assert_eq!(store.seconds(), (3..more).collect::<Vec<_>>());
    assert_eq!(log.pending().dropped, 0);
}

#[tokio::test]
async fn write_during_stop_is_made_once() {
    let store = Arc::new(FaultyStore::default());
    let (open, gate) = oneshot::channel();
    *store.gate.lock().expect("not poisoned") = Some(gate);
    let shared = shared(store.clone(), Vec::new());
    let keeping = tokio::spawn({
        let shared = shared.clone();
        async move { shared.transitions.run(shared.stopping.subscribe()).await }
    });
    record(&shared.transitions, 0..3);
    while store.gate.lock().expect("not poisoned").is_some() {
        tokio::task::yield_now().await;
    }
    shared.stopping.send_replace(true);
    record(&shared.transitions, 3..4);
    let opening = async {
        // If the log abandoned the write, it would have done so by now.
        tokio::time::sleep(LAST_WRITE_MAX / 5).await;
        open.send(()).expect("a write is waiting");
    };
    tokio::join!(shared.transitions.write_rest(), opening);
    keeping.await.expect("ended");
    // An abandoned write is finished too.
    while Arc::strong_count(&store.kept) > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.seconds(), [0, 1, 2, 3]);
}

/// A report that changes the status compared with the report of the previous second.
fn changing(target: &Target, second: i64) -> Report {
    let offline = || Verdict::Failed(Finding::new(Reason::ConnectionRefused, "so"));
    Report {
        target_id: target.id,
        checked_at: Timestamp::from_second(second).expect("a time"),
        duration: Duration::ZERO,
        verdict: if second % 2 == 0 { offline() } else { Verdict::Available { warning: None } },
        capacity: None,
        time_to_full: None,
        facts: None,
        checks: Vec::new(),
    }
}

#[tokio::test]
async fn visible_status_is_already_in_the_history() {
    const LAST: i64 = 2000;
    let target = target();
    let shared = shared(Arc::new(MemoryStore::default()), vec![target.clone()]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for second in 1..=LAST {
                let report = Arc::new(changing(&target, second));
                let intervals = Intervals { probe: Duration::ZERO, canary: None };
                shared.views.publish_report(&target.spec, report, intervals, 1, &shared.transitions);
            }
        });
        let mut seen = 0;
        while seen < LAST {
            let view = shared.views.view();
            let shown = view.targets[0].report.as_ref().map_or(0, |report| report.checked_at.as_second());
            if shown > seen {
                let recorded = shared.transitions.pending().transitions.back().map(|(_, newest)| newest.at.as_second());
                assert!(recorded >= Some(shown), "{shown} is shown when {recorded:?} is recorded");
                seen = shown;
            }
        }
    });
}

#[test]
fn transition_written_during_a_read_is_returned_once() {
    let newest_first = |seconds: std::ops::Range<i64>| -> Vec<Transition> { seconds.rev().map(transition).collect() };
    let seconds = |history: Vec<Transition>| -> Vec<i64> { history.iter().map(|kept| kept.at.as_second()).collect() };
    let whole: Vec<i64> = (0..9).rev().collect();
    for (waited, written) in [(6..9, 0..6), (4..9, 0..6), (6..9, 0..9), (3..6, 0..9), (9..9, 0..9), (0..9, 0..0)] {
        let joined = join(newest_first(waited.clone()), newest_first(written.clone()));
        assert_eq!(seconds(joined), whole, "{waited:?} {written:?}");
    }
    let most = i64::try_from(TRANSITIONS_MAX).expect("few");
    let joined = seconds(join(newest_first(most..most + 5), newest_first(0..most)));
    assert_eq!((joined.len(), joined[0]), (TRANSITIONS_MAX, most + 4));
}
