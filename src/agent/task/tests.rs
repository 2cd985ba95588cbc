//! Tests of tasks with a driver that the test controls.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use tokio::sync::Notify;

use super::*;
use crate::driver::{Host, Probe};
use crate::model::Reason;
use crate::registry::fixtures::{nfs, snapshot_of};
use crate::registry::{MemoryStore, Registry, Snapshot, Store, Write};

/// Shared state of an agent whose view shows these targets.
pub(in crate::agent) fn shared(store: Arc<dyn Store>, targets: Vec<Target>) -> Arc<Shared> {
    let shared = Shared::new(
        Registry::new(store),
        Arc::new(Host::without_workers()),
        AgentSettings::quiet(),
        tokio::sync::mpsc::channel(1).0,
    );
    let snapshot = snapshot_of(targets.into_iter().map(|target| (target, nfs("nas:/a").1)));
    shared.views.publish_differences(&snapshot.differences_from(&Snapshot::default()), &snapshot, "/mounts".as_ref());
    Arc::new(shared)
}

/// An NFS target.
pub(in crate::agent) fn target() -> Target {
    nfs("nas:/a").0
}

/// A driver whose probe hangs until its child is killed, and then fails.
struct Hanging {
    began: Arc<Notify>,
    ended: Arc<Notify>,
}

#[async_trait]
impl Driver for Hanging {
    async fn probe(&mut self, _: &AgentSettings, _: Depth) -> Probe {
        self.began.notify_one();
        self.ended.notified().await;
        Probe::panicked()
    }

    fn interval(&self, _: &AgentSettings) -> Duration {
        Duration::from_secs(3600)
    }

    async fn detach(&mut self, _: &AgentSettings) -> Result<Option<String>, DetachError> {
        Ok(None)
    }
}

fn task(shared: &Arc<Shared>, target: Target, driver: Box<dyn Driver>) -> (Task, TaskHandle) {
    let target = Arc::new(target);
    let mailbox = Arc::new(Mailbox::new(target.clone()));
    let (shared, settings) = (shared.clone(), shared.settings.subscribe());
    let (usage, span) = (UsageHistory::default(), Span::none());
    let task = Task { shared, driver, target, usage, mailbox: mailbox.clone(), settings, span };
    (task, TaskHandle(mailbox))
}

#[tokio::test]
async fn probe_ended_by_stop_publishes_no_report() {
    // The task sees two simultaneous events in random order, so the test repeats.
    for _ in 0..50 {
        let target = target();
        let shared = shared(Arc::new(MemoryStore::default()), vec![target.clone()]);
        let (began, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let driver = Box::new(Hanging { began: began.clone(), ended: ended.clone() });
        let (task, _handle) = task(&shared, target, driver);
        let task = tokio::spawn(task.run(FirstProbe::Now));
        began.notified().await;
        shared.stopping.send_replace(true);
        ended.notify_one();
        task.await.expect("ended");
        assert!(shared.views.view().targets[0].report.is_none(), "{:?}", shared.views.view().targets[0].report);
    }
}

/// A driver whose mount is in use at the first attempt to unmount it.
struct BusyOnce {
    attempts: Arc<AtomicU32>,
}

#[async_trait]
impl Driver for BusyOnce {
    async fn probe(&mut self, _: &AgentSettings, _: Depth) -> Probe {
        Probe::default()
    }

    fn interval(&self, _: &AgentSettings) -> Duration {
        Duration::from_secs(3600)
    }

    async fn detach(&mut self, _: &AgentSettings) -> Result<Option<String>, DetachError> {
        match self.attempts.fetch_add(1, Ordering::Relaxed) {
            0 => Err(DetachError::Busy),
            _ => Ok(None),
        }
    }
}

#[test]
fn first_probes_of_many_targets_take_longer() {
    for (targets, milliseconds) in [(0, 500), (1, 500), (500, 500), (1_000, 1_000), (10_000, 10_000)] {
        assert_eq!(start_spread(targets), Duration::from_millis(milliseconds), "{targets}");
    }
}

#[tokio::test(start_paused = true)]
async fn removed_target_is_unmounted_again_after_busy() {
    let shared = shared(Arc::new(MemoryStore::default()), Vec::new());
    // The task sees the removal and the end of its handle, so the test repeats.
    for _ in 0..50 {
        let attempts = Arc::new(AtomicU32::new(0));
        let (task, handle) = task(&shared, target(), Box::new(BusyOnce { attempts: attempts.clone() }));
        let task = tokio::spawn(task.run(FirstProbe::Soon));
        handle.mailbox().assign(None);
        drop(handle);
        task.await.expect("ended");
        assert_eq!(attempts.load(Ordering::Relaxed), 2);
    }
}

#[tokio::test]
async fn delete_of_a_removed_target_does_not_wait_for_its_busy_mount() {
    let shared = shared(Arc::new(MemoryStore::default()), Vec::new());
    let attempts = Arc::new(AtomicU32::new(0));
    let (task, handle) = task(&shared, target(), Box::new(BusyOnce { attempts: attempts.clone() }));
    handle.mailbox().assign(None);
    let answer = handle.mailbox().delete().await.expect("open");
    let task = tokio::spawn(task.run(FirstProbe::Soon));
    let answer = tokio::time::timeout(UNMOUNT_RETRY / 2, answer).await.expect("before the second attempt");
    assert!(!matches!(answer, Ok(Ok(_))), "there is nothing to delete");
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn removed_target_keeps_a_mount_that_another_target_needs() {
    let store = Arc::new(MemoryStore::default());
    let (other, first_type) = nfs("nas:/a");
    let writes = vec![Write::PutTarget(other.into()), Write::PutType(first_type.into())];
    store.commit(store.snapshot().revision(), writes).await.expect("committed");
    let attempts = Arc::new(AtomicU32::new(0));
    let shared = shared(store, Vec::new());
    let (task, handle) = task(&shared, target(), Box::new(BusyOnce { attempts: attempts.clone() }));
    let task = tokio::spawn(task.run(FirstProbe::Soon));
    handle.mailbox().assign(None);
    task.await.expect("ended");
    assert_eq!(attempts.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn task_handle_without_unmounting_when_the_agent_is_dropped() {
    let shared = shared(Arc::new(MemoryStore::default()), Vec::new());
    let attempts = Arc::new(AtomicU32::new(0));
    let (task, handle) = task(&shared, target(), Box::new(BusyOnce { attempts: attempts.clone() }));
    let task = tokio::spawn(task.run(FirstProbe::Soon));
    drop(handle);
    task.await.expect("ended");
    assert_eq!(attempts.load(Ordering::Relaxed), 0);
}

#[test]
fn probes_of_targets_with_one_interval_are_on_a_grid_within_the_jitter() {
    let (start, interval) = (Instant::now(), Duration::from_secs(10));
    // They are due within 9 s. The distance of the times is two thirds of a second, or for 800 targets the tenth of a
    // second in which eight of them are due on average.
    for (targets, expected) in [(0, 12..=15), (10, 12..=15), (800, 70..=91)] {
        let mut times = BTreeSet::new();
        for number in 0..1000_u32 {
            let began = start + Duration::from_millis(7) * number;
            let next = next_probe(began, interval, targets, f64::from(number * 7 % 1000) / 1000.0);
            let after = next - began;
            assert!(interval.mul_f64(1.0 - JITTER) <= after && after <= interval.mul_f64(1.0 + JITTER), "{after:?}");
            times.insert(next);
        }
        assert!(expected.contains(&times.len()), "{} times for {targets} targets", times.len());
    }
}

/// A target whose report is always outdated.
struct AlwaysOutdated {
    probes: Arc<AtomicU32>,
}

#[async_trait]
impl Driver for AlwaysOutdated {
    async fn probe(&mut self, _: &AgentSettings, _: Depth) -> Probe {
        self.probes.fetch_add(1, Ordering::Relaxed);
        Probe::default()
    }

    fn interval(&self, _: &AgentSettings) -> Duration {
        Duration::from_secs(3600)
    }

    async fn outdated(&mut self, _: &AgentSettings) {}

    async fn detach(&mut self, _: &AgentSettings) -> Result<Option<String>, DetachError> {
        Ok(None)
    }
}

#[tokio::test(start_paused = true)]
async fn outdated_report_causes_an_early_probe_but_not_a_loop() {
    let shared = shared(Arc::new(MemoryStore::default()), Vec::new());
    let probes = Arc::new(AtomicU32::new(0));
    let (task, _handle) = task(&shared, target(), Box::new(AlwaysOutdated { probes: probes.clone() }));
    let task = tokio::spawn(task.run(FirstProbe::Now));
    tokio::time::sleep(OUTDATED_GAP * 10 + OUTDATED_GAP / 2).await;
    assert!((10..=11).contains(&probes.load(Ordering::Relaxed)), "{probes:?}");
    task.abort();
}

/// A driver whose probes after the first one wait until they may end.
struct Stuck {
    is_probed: bool,
    end: Arc<Notify>,
}

#[async_trait]
impl Driver for Stuck {
    async fn probe(&mut self, _: &AgentSettings, _: Depth) -> Probe {
        if std::mem::replace(&mut self.is_probed, true) {
            self.end.notified().await;
        }
        Probe::default()
    }

    fn interval(&self, _: &AgentSettings) -> Duration {
        Duration::from_secs(10)
    }

    async fn detach(&mut self, _: &AgentSettings) -> Result<Option<String>, DetachError> {
        Ok(None)
    }
}

#[tokio::test(start_paused = true)]
async fn target_whose_probes_do_not_end_is_overdue_until_one_ends() {
    let target = target();
    let shared = shared(Arc::new(MemoryStore::default()), vec![target.clone()]);
    let end = Arc::new(Notify::new());
    let (task, _handle) = task(&shared, target, Box::new(Stuck { is_probed: false, end: end.clone() }));
    let task = tokio::spawn(task.run(FirstProbe::Now));
    let marking = tokio::spawn({
        let shared = shared.clone();
        async move { shared.views.mark_overdue_until(shared.stopping.subscribe()).await }
    });
    let reason = || shared.views.view().targets[0].status.finding.as_ref().map(|finding| finding.reason);
    tokio::time::sleep(Duration::from_secs(89)).await;
    assert!(shared.views.view().targets[0].report.is_some());
    let (before, generation) = (reason(), shared.views.view().generation);
    assert_ne!(before, Some(Reason::ProbeOverdue));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(reason(), Some(Reason::ProbeOverdue));
    assert_eq!(shared.views.view().generation, generation + 1, "so that lists are rendered again");
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(shared.views.view().generation, generation + 1, "once");
    end.notify_one();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(reason(), before);
    // The process was stopped for an hour.
    tokio::time::advance(Duration::from_secs(3600)).await;
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert_eq!(reason(), before, "the next probe has had no time to end");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(reason(), Some(Reason::ProbeOverdue));
    shared.stopping.send_replace(true);
    task.await.expect("ended");
    marking.await.expect("ended");
}

struct Panicking;

#[async_trait]
impl Driver for Panicking {
    async fn probe(&mut self, _: &AgentSettings, _: Depth) -> Probe {
        panic!("defect")
    }

    fn interval(&self, _: &AgentSettings) -> Duration {
        Duration::MAX
    }

    async fn detach(&mut self, _: &AgentSettings) -> Result<Option<String>, DetachError> {
        panic!("defect")
    }
}

#[tokio::test]
async fn panic_of_a_probe_is_reported_and_replaces_the_driver() {
    let (host, settings) = (Arc::new(Host::without_workers()), AgentSettings::quiet());
    let mut driver: Box<dyn Driver> = Box::new(Panicking);
    let report =
        driver::probe_once(&mut driver, &target(), &host, &settings, Depth::Routine, &mut UsageHistory::default())
            .await;
    assert_eq!(report.verdict.finding().map(|finding| finding.reason), Some(Reason::AgentError));
    assert_ne!(driver.interval(&settings), Duration::MAX);
}

#[tokio::test]
async fn panic_of_a_deletion_is_its_error_and_the_task_continues() {
    let store = Arc::new(MemoryStore::default());
    let (target, first_type) = nfs("nas:/a");
    let writes = vec![Write::PutTarget(target.clone().into()), Write::PutType(first_type.into())];
    store.commit(store.snapshot().revision(), writes).await.expect("committed");
    let shared = shared(store, Vec::new());
    let (task, handle) = task(&shared, target, Box::new(Panicking));
    let answer = handle.mailbox().delete().await.expect("open");
    let task = tokio::spawn(task.run(FirstProbe::Soon));
    let error = answer.await.expect("an answer").expect_err("a panic");
    let AgentError::Detach { finding, .. } = error else { panic!("{error}") };
    assert_eq!(finding.reason, Reason::AgentError);
    assert!(!task.is_finished());
    task.abort();
}

/// A driver with a mount that is slow to unmount. It counts its probes.
struct Slow {
    began: Arc<Notify>,
    ended: Arc<Notify>,
    probes: Arc<AtomicU32>,
}

#[async_trait]
impl Driver for Slow {
    async fn probe(&mut self, _: &AgentSettings, _: Depth) -> Probe {
        self.probes.fetch_add(1, Ordering::Relaxed);
        Probe::default()
    }

    fn interval(&self, _: &AgentSettings) -> Duration {
        Duration::from_secs(3600)
    }

    async fn detach(&mut self, _: &AgentSettings) -> Result<Option<String>, DetachError> {
        self.began.notify_one();
        self.ended.notified().await;
        Ok(None)
    }
}

#[tokio::test(start_paused = true)]
async fn new_target_is_not_probed_while_its_directory_is_unmounted() {
    let [former, new, other] = [target(), target(), nfs("nas:/other").0];
    let shared = shared(Arc::new(MemoryStore::default()), vec![former.clone()]);
    let (began, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let start = |target: Target, first| {
        let probes = Arc::new(AtomicU32::new(0));
        let driver = Box::new(Slow { began: began.clone(), ended: ended.clone(), probes: probes.clone() });
        let (task, handle) = task(&shared, target, driver);
        (tokio::spawn(task.run(first)), handle, probes)
    };
    let (removed, handle, _) = start(former, FirstProbe::Soon);
    handle.mailbox().assign(None);
    began.notified().await;
    let (_, _new_handle, of_new) = start(new, FirstProbe::Now);
    let (_, _other_handle, of_other) = start(other, FirstProbe::Now);
    // The paused clock of the test advances only while every task waits.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let probes = || [&of_new, &of_other].map(|probes| probes.load(Ordering::Relaxed));
    assert_eq!(probes(), [0, 1], "only the directory that is unmounted is waited for");
    ended.notify_one();
    removed.await.expect("ended");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(probes(), [1, 1]);
}
