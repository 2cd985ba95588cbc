//! Histories with a registry that can be broken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::oneshot;

use super::*;
use crate::agent::task::tests::{shared, target};
use crate::model::report::{Finding, Verdict};
use crate::model::{Reason, Report, Status, Target, TargetType, TargetTypeId};
use crate::registry::{Entry, RegistryError, TargetChange, TypeChange};

/// Keeps transitions in memory, unless it is broken.
#[derive(Default)]
pub(in crate::agent) struct Fake {
    kept: Arc<Mutex<Vec<Transition>>>,
    is_broken: AtomicBool,
    /// What is written waits for this once, and is written even if nobody waits for it.
    gate: Mutex<Option<oneshot::Receiver<()>>>,
}

impl Fake {
    fn seconds(&self) -> Vec<i64> {
        self.kept.lock().expect("not poisoned").iter().map(|kept| kept.at.as_second()).collect()
    }
}

#[async_trait]
impl Registry for Fake {
    async fn add_transitions(&self, transitions: Vec<Transition>) -> Result<(), RegistryError> {
        if self.is_broken.load(Ordering::Relaxed) {
            return Err(RegistryError::Storage("disk full".to_owned()));
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

    async fn transitions(&self, _: TargetId) -> Result<Vec<Transition>, RegistryError> {
        unreachable!()
    }

    async fn load(&self) -> Result<Vec<Entry>, RegistryError> {
        unreachable!()
    }

    async fn create_target(&self, _: Target, _: TargetType) -> Result<Entry, RegistryError> {
        unreachable!()
    }

    async fn modify_target(&self, _: TargetId, _: TargetChange, _: Timestamp) -> Result<Vec<Entry>, RegistryError> {
        unreachable!()
    }

    async fn set_default_target(&self, _: TargetId, _: Timestamp) -> Result<Vec<Entry>, RegistryError> {
        unreachable!()
    }

    async fn may_delete_target(&self, _: TargetId) -> Result<(), RegistryError> {
        unreachable!()
    }

    async fn delete_target(&self, _: TargetId) -> Result<(), RegistryError> {
        unreachable!()
    }

    async fn create_type(&self, _: TargetType) -> Result<Vec<Entry>, RegistryError> {
        unreachable!()
    }

    async fn modify_type(&self, _: TargetTypeId, _: TypeChange, _: Timestamp) -> Result<Vec<Entry>, RegistryError> {
        unreachable!()
    }

    async fn delete_type(&self, _: TargetTypeId) -> Result<Entry, RegistryError> {
        unreachable!()
    }
}

fn transition(second: i64) -> Transition {
    let at = Timestamp::from_second(second).expect("a time");
    Transition { target_id: TargetId::nil(), at, from: None, to: Status::Available, finding: None }
}

fn note(history: &History, seconds: std::ops::Range<i64>) {
    seconds.for_each(|second| history.note(transition(second)));
}

#[tokio::test]
async fn what_cannot_be_written_waits_and_is_written_in_order() {
    let (history, registry) = (History::default(), Fake::default());
    note(&history, 0..2);
    assert!(history.write(&registry).await);
    registry.is_broken.store(true, Ordering::Relaxed);
    note(&history, 2..700);
    assert!(!history.write(&registry).await);
    assert_eq!((registry.seconds().len(), history.waiting_of(TargetId::nil()).len()), (2, 698));
    registry.is_broken.store(false, Ordering::Relaxed);
    note(&history, 700..701);
    assert!(history.write(&registry).await);
    assert_eq!(registry.seconds(), (0..701).collect::<Vec<_>>());
    assert!(history.waiting_of(TargetId::nil()).is_empty());
}

#[tokio::test]
async fn memory_is_bounded_and_what_is_oldest_goes() {
    let (history, registry) = (History::default(), Fake::default());
    let more = i64::try_from(WAITING_MAX).expect("few") + 3;
    note(&history, 0..more);
    assert_eq!(history.waiting().dropped, 3);
    assert!(history.write(&registry).await);
    assert_eq!(registry.seconds(), (3..more).collect::<Vec<_>>());
    assert_eq!(history.waiting().dropped, 0);
}

#[tokio::test]
async fn what_is_being_written_when_the_agent_stops_is_written_once() {
    let registry = Arc::new(Fake::default());
    let (open, gate) = oneshot::channel();
    *registry.gate.lock().expect("not poisoned") = Some(gate);
    let shared = shared(registry.clone(), Vec::new());
    let keeping = tokio::spawn({
        let shared = shared.clone();
        async move { shared.keep_history().await }
    });
    note(&shared.history, 0..3);
    while registry.gate.lock().expect("not poisoned").is_some() {
        tokio::task::yield_now().await;
    }
    shared.stopping.send_replace(true);
    note(&shared.history, 3..4);
    let opening = async {
        // Whoever would let go of what is being written has done so.
        tokio::time::sleep(LAST_WRITE_MAX / 5).await;
        open.send(()).expect("somebody writes");
    };
    tokio::join!(shared.end_history(), opening);
    keeping.await.expect("ended");
    // What was let go of is written all the same.
    while Arc::strong_count(&registry.kept) > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(registry.seconds(), [0, 1, 2, 3]);
}

/// A report after which the status is another than after the one of the second before.
fn changing(target: &Target, second: i64) -> Report {
    let offline = || Verdict::Failed(Finding::new(Reason::ConnectionRefused, "so"));
    Report {
        target_id: target.id,
        checked_at: Timestamp::from_second(second).expect("a time"),
        duration: Duration::ZERO,
        mode: None,
        verdict: if second % 2 == 0 { offline() } else { Verdict::Available { warning: None } },
        capacity: None,
        mount: None,
        bucket: None,
        checks: Vec::new(),
    }
}

#[tokio::test]
async fn who_sees_a_new_status_finds_it_in_the_history() {
    const LAST: i64 = 2000;
    let target = target();
    let shared = shared(Arc::new(Fake::default()), vec![target.clone()]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for second in 1..=LAST {
                shared.publish_report(&target.spec, Arc::new(changing(&target, second)), 1);
            }
        });
        let mut seen = 0;
        while seen < LAST {
            let view = shared.view();
            let shown = view.targets[0].report.as_ref().map_or(0, |report| report.checked_at.as_second());
            if shown > seen {
                let told = shared.history.waiting().transitions.back().map(|(_, newest)| newest.at.as_second());
                assert!(told >= Some(shown), "{shown} is shown when {told:?} is told");
                seen = shown;
            }
        }
    });
}

#[test]
fn what_was_written_meanwhile_is_told_once() {
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
