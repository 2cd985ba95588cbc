//! Tasks: one per target. A task owns the target's driver.
//!
//! A task probes at an interval with [`JITTER`], and earlier if its driver has a step due. It probes at once on
//! request, when its driver reports that the latest report is outdated, and when the settings change. Requests are
//! counted and not queued, so the next probe serves all of them. A change or deletion of the target cancels a
//! running probe and kills its child processes, so neither waits for storage that hangs.

mod mailbox;

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use super::error::AgentError;
use super::record::Intervals;
use super::shared::Shared;
use crate::driver::{self, Depth, DetachError, Driver};
use crate::model::settings::AgentSettings;
use crate::model::{Target, UsageHistory, random_fraction};
use crate::registry::{Change, Snapshot};
use mailbox::Event;
pub(super) use mailbox::Mailbox;

/// Largest deviation of an interval, as a fraction of it. A thousand nodes that were started together must not keep
/// probing one server at the same moments.
const JITTER: f64 = 0.1;

/// Number of targets that are probed at the same time, on average. The first of them finds cold caches: of a hundred
/// targets, a probe takes 60 to 85 % of the processor time that it takes with two or three at a time. With a
/// hundred at a time, 1 % of the answers to clients came 10 ms later (`cargo bench --bench agent`).
const PROBES_TOGETHER: f64 = 8.0;

/// Largest distance of the times at which targets with the same interval are probed, as a fraction of the interval.
/// Three of these times are within the [`JITTER`].
const GRID: f64 = 1.0 / 15.0;

/// The largest distance in absolute terms.
const GRID_MAX: Duration = Duration::from_secs(1);

/// Longest delay of the first probes after the agent's start, so that not all targets are probed at once. With more
/// targets than fit into it, it is [`START_PACE`] for each.
const START_SPREAD: Duration = Duration::from_millis(500);

/// Mean time between two first probes of many targets. Each costs some 0.4 ms of processor time, and clients wait for
/// answers meanwhile.
const START_PACE: Duration = Duration::from_millis(1);

/// Shortest time from the start of a probe to the start of the next one if its report is outdated. A program that
/// mounts and unmounts in a loop must not keep the agent busy.
const OUTDATED_GAP: Duration = Duration::from_millis(500);

/// Shortest time from a probe to the next step of the driver.
const DUE_GAP: Duration = Duration::from_millis(500);

/// Time between two attempts to unmount a target that was removed from the registry.
const UNMOUNT_RETRY: Duration = Duration::from_secs(30);

/// The agent's end of a task. Dropping it ends the task.
pub(super) struct TaskHandle(Arc<Mailbox>);

impl TaskHandle {
    /// The mailbox of the task.
    pub(super) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.0
    }
}

impl Drop for TaskHandle {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// When a task begins to probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FirstProbe {
    /// Immediately, because a client waits for it.
    Now,
    /// Within [`start_spread`].
    Soon,
}

struct Task {
    /// The span of the log lines about this target.
    span: Span,
    shared: Arc<Shared>,
    driver: Box<dyn Driver>,
    target: Arc<Target>,
    /// Its use in the last days.
    usage: UsageHistory,
    mailbox: Arc<Mailbox>,
    settings: watch::Receiver<Arc<AgentSettings>>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.mailbox.close();
    }
}

/// Starts a target's task.
pub(super) fn start(shared: &Arc<Shared>, target: Arc<Target>, first: FirstProbe) -> TaskHandle {
    let mailbox = Arc::new(Mailbox::new(target.clone()));
    let driver = driver::for_spec(&target, &shared.host);
    let task = Task {
        span: span(&target),
        shared: shared.clone(),
        driver,
        target,
        usage: UsageHistory::default(),
        mailbox: mailbox.clone(),
        settings: shared.settings.subscribe(),
    };
    shared.runtime.spawn(task.run(first));
    TaskHandle(mailbox)
}

impl Task {
    async fn run(mut self, first: FirstProbe) {
        let mut stopping = self.shared.stopping.subscribe();
        tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => {}
            () = self.work(first) => {}
        }
    }

    async fn work(&mut self, first: FirstProbe) {
        let wait = match first {
            FirstProbe::Now => Duration::ZERO,
            FirstProbe::Soon => start_spread(self.shared.views.target_count()).mul_f64(random_fraction()),
        };
        let mut due = None;
        let mut latest_settings = self.settings.borrow().clone();
        let mut event = self.wait_until(Instant::now() + wait, Instant::now()).await;
        loop {
            event = match event {
                Event::ProbeDue => {
                    let settings = self.settings.borrow_and_update().clone();
                    if !Arc::ptr_eq(&latest_settings, &settings) {
                        self.driver.settings_changed();
                        latest_settings = settings.clone();
                    }
                    let began = Instant::now();
                    if let Some(due) = due.take() {
                        self.shared.statistics.started_late(began.saturating_duration_since(due));
                    }
                    let span = self.span.clone();
                    // Boxed like the rare steps below, so that a waiting task takes half of the memory.
                    let interrupted = Box::pin(self.probe(&settings)).instrument(span).await;
                    let interval = self.driver.interval(&settings);
                    let next = next_probe(began, interval, self.shared.views.target_count(), random_fraction());
                    let next = match self.driver.next_due() {
                        Some(wait) => next.min(Instant::now() + wait.max(DUE_GAP)),
                        None => next,
                    };
                    match interrupted {
                        Some(event) => event,
                        None => {
                            let event = self.wait_until(next, began).await;
                            // A requested probe replaces the due one.
                            due = Some(next).filter(|due| matches!(event, Event::ProbeDue) && *due <= Instant::now());
                            event
                        }
                    }
                }
                Event::Assigned(None) => return Box::pin(self.unmount_removed()).await,
                Event::Assigned(Some(target)) => {
                    if !self.target.spec.is_same_storage(&target.spec) {
                        self.usage = UsageHistory::default();
                    }
                    self.driver = driver::for_spec(&target, &self.shared.host);
                    self.span = span(&target);
                    self.target = target;
                    Event::ProbeDue
                }
                Event::Delete(reply) => match Box::pin(self.delete()).await {
                    Ok(snapshot) => {
                        let _ = reply.send(Ok(snapshot));
                        return;
                    }
                    Err(error) => {
                        let _ = reply.send(Err(error));
                        Event::ProbeDue
                    }
                },
                Event::Abandoned => return,
            };
        }
    }

    /// Probes and publishes the report. Returns the event that cancelled the probe, if any.
    async fn probe(&mut self, settings: &Arc<AgentSettings>) -> Option<Event> {
        let (request, is_requested) = self.mailbox.begin_probe();
        let depth = if is_requested { Depth::Full } else { Depth::Routine };
        let Self { driver, target, usage, shared, .. } = self;
        let probe = async {
            shared.unmounted(&target.mount_name).await;
            driver::probe_once(driver, target, &shared.host, settings, depth, usage).await
        };
        let report = tokio::select! {
            biased;
            event = self.mailbox.interruption() => return Some(event),
            report = probe => report,
        };
        // Stopping the agent killed the child processes, so the findings say nothing about the storage.
        if *self.shared.stopping.borrow() {
            return Some(Event::Abandoned);
        }
        let Shared { views, transitions, statistics, .. } = &*self.shared;
        statistics.count(self.target.spec.kind(), &report);
        let intervals =
            Intervals { probe: self.driver.interval(settings), canary: self.driver.canary_interval(settings) };
        let failures = settings.probe.failures_before_offline;
        views.publish_report(&self.target.spec, Arc::new(report), intervals, failures, transitions);
        self.mailbox.end_probe(request);
        None
    }

    /// Waits for the next event. A probe is due at `next`; the latest one began at `began`.
    async fn wait_until(&mut self, next: Instant, began: Instant) -> Event {
        let settings = self.settings.borrow().clone();
        let outdated = async {
            self.driver.outdated(&settings).await;
            // Not before the wait: each probe of each target would start a timer that wakes the runtime for nothing.
            tokio::time::sleep_until(began + OUTDATED_GAP).await;
        };
        let changed = tokio::select! {
            event = self.mailbox.event() => return event,
            () = tokio::time::sleep_until(next) => Ok(()),
            () = outdated => Ok(()),
            changed = self.settings.changed() => changed,
        };
        changed.map_or(Event::Abandoned, |()| Event::ProbeDue)
    }

    async fn delete(&mut self) -> Result<Arc<Snapshot>, AgentError> {
        let id = self.target.id;
        match self.unmount().await {
            Ok(()) => {}
            Err(DetachError::Busy) => return Err(AgentError::Busy { id, path: self.mount_path() }),
            Err(DetachError::Failed(finding)) => return Err(AgentError::Detach { id, finding }),
        }
        let _changing = self.shared.begin_change().await?;
        Ok(self.shared.registry.change(&Change::DeleteTarget(id)).await?)
    }

    /// Unmounts a target that another writer removed from the registry or from this node. Tries again while that fails,
    /// for example because the mount is in use. Gives up when another target needs the directory.
    async fn unmount_removed(&mut self) {
        // Otherwise a request to delete the target would wait as long as the mount is in use.
        self.mailbox.close();
        let mut is_logged = false;
        loop {
            // Announced before the registry is read, so that a target that is created later waits for the unmount.
            let unmounting = self.shared.begin_unmount(&self.target.mount_name);
            if self.shared.is_directory_used(&self.target.mount_name) {
                return;
            }
            let problem = match self.unmount().await {
                Ok(()) => return,
                Err(DetachError::Busy) => "it is in use".to_owned(),
                Err(DetachError::Failed(finding)) => finding.message,
            };
            drop(unmounting);
            if !std::mem::replace(&mut is_logged, true) {
                let path = self.mount_path();
                self.span.in_scope(|| tracing::warn!(path = %path.display(), problem, "a removed target is still mounted: the agent tries again until it is unmounted"));
            }
            tokio::time::sleep(UNMOUNT_RETRY).await;
        }
    }

    async fn unmount(&mut self) -> Result<(), DetachError> {
        let settings = self.settings.borrow().clone();
        let Self { driver, target, shared, span, .. } = self;
        let remark = driver::detach(driver, target, &shared.host, &settings).instrument(span.clone()).await?;
        if let Some(remark) = remark {
            self.span.in_scope(|| tracing::warn!("deleting: {remark}"));
        }
        Ok(())
    }

    fn mount_path(&self) -> PathBuf {
        self.target.mount_name.below(&self.settings.borrow().mounts.root)
    }
}

/// Returns the longest delay of the first probe of one of so many targets.
fn start_spread(targets: usize) -> Duration {
    START_SPREAD.max(START_PACE * u32::try_from(targets).unwrap_or(u32::MAX))
}

/// Returns when the probe after the one that `began` is due: after the interval with its [`JITTER`], on the grid of all
/// `targets` with this interval. `random` is from 0 to 1.
fn next_probe(began: Instant, interval: Duration, targets: usize, random: f64) -> Instant {
    // Random, because nodes that were started together have targets with the same intervals.
    static ORIGIN: LazyLock<Instant> = LazyLock::new(|| Instant::now() + GRID_MAX.mul_f64(random_fraction()));
    let part = (PROBES_TOGETHER / targets.max(1) as f64).min(GRID);
    let grid = interval.mul_f64(part).min(GRID_MAX).max(Duration::from_nanos(1));
    let spread = interval.mul_f64(2.0 * JITTER).saturating_sub(grid);
    let latest = began + interval.mul_f64(1.0 - JITTER) + grid + spread.mul_f64(random);
    let beyond = latest.saturating_duration_since(*ORIGIN).as_nanos() % grid.as_nanos();
    latest - Duration::from_nanos(u64::try_from(beyond).unwrap_or_default())
}

/// Returns the span of a target's log lines, which has no parent: a task outlives the request that created it.
fn span(target: &Target) -> Span {
    // At this level, every filter that accepts any log line of the target also accepts its span.
    tracing::error_span!(parent: None, "target", target_id = %target.id, export = target.spec.export())
}

#[cfg(test)]
pub(super) mod tests;
