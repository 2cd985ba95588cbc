//! Tasks: one for each target, which owns its driver.
//!
//! A task probes at its interval, give or take [`JITTER`], earlier when its driver began something that
//! is due to go on, and at once when it is asked to, when
//! the mount table changed at its path, or when the settings did. Requests to probe are a counter
//! and not a queue: any number of them is served by the next probe. A change of the target or its
//! deletion interrupts a running probe, whose children die with it, so neither waits for storage
//! that hangs.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use uuid::Uuid;

use super::error::AgentError;
use super::shared::Shared;
use crate::driver::{self, Depth, DetachError, Driver, Probe};
use crate::model::report::{Finding, Verdict};
use crate::model::settings::AgentSettings;
use crate::model::{CheckName, CheckResult, Outcome, Reason, Report, Target, TargetKind};
use crate::registry::{Change, Snapshot};

/// How far an interval is off at most, as a part of it: a thousand nodes that were started by one
/// command must not probe one server at the same moment for ever.
const JITTER: f64 = 0.1;

/// The longest that a target waits for its first probe after the agent's start, so that a hundred
/// targets do not begin at once.
const START_SPREAD: Duration = Duration::from_millis(500);

/// The shortest time between two probes that the mount table caused: somebody who mounts and
/// unmounts in a loop must not keep the agent busy.
const MOUNT_CHANGE_GAP: Duration = Duration::from_millis(500);

/// The shortest time from a probe to one that the driver wants ahead of the interval.
const DUE_GAP: Duration = Duration::from_millis(500);

/// The time between two attempts to unmount a target that was removed from the registry.
const UNMOUNT_RETRY: Duration = Duration::from_secs(30);

/// What a task can be told while it lives.
pub(super) enum Command {
    /// Unmounts the target, removes it from the registry, and ends the task. The task continues if one
    /// of them fails. The reply is the content of the registry without the target.
    Delete(oneshot::Sender<Result<Arc<Snapshot>, AgentError>>),
}

/// The agent's end of a task.
pub(super) struct TaskHandle {
    /// One at a time: who deletes twice waits for the first.
    pub(super) commands: mpsc::Sender<Command>,
    /// How many probes were asked for.
    pub(super) requested: watch::Sender<u64>,
    /// The value of `requested` when the latest finished probe began.
    pub(super) served: watch::Receiver<u64>,
    /// The target as the registry contains it. `None` when it was removed: the task unmounts it and ends.
    pub(super) assigned: watch::Sender<Option<Arc<Target>>>,
}

/// When a task begins to probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FirstProbe {
    /// Immediately: somebody waits for it.
    Now,
    /// Within [`START_SPREAD`].
    Soon,
}

struct Task {
    shared: Arc<Shared>,
    driver: Box<dyn Driver>,
    target: Arc<Target>,
    assigned: watch::Receiver<Option<Arc<Target>>>,
    settings: watch::Receiver<Arc<AgentSettings>>,
    commands: mpsc::Receiver<Command>,
    requested: watch::Receiver<u64>,
    served: watch::Sender<u64>,
    /// What was mounted at the path when the latest probe ended.
    mount_id: Option<u32>,
}

/// What ended a wait.
enum Event {
    ProbeDue,
    Command(Command),
    AssignmentChanged,
    Ended,
}

/// Starts a target's task.
pub(super) fn start(shared: &Arc<Shared>, target: Arc<Target>, first: FirstProbe) -> TaskHandle {
    let (commands, command_receiver) = mpsc::channel(1);
    let (requested, request_receiver) = watch::channel(0);
    let (served_sender, served) = watch::channel(0);
    let driver = driver::for_spec(&target, &shared.host);
    let (assigned, assigned_receiver) = watch::channel(Some(target.clone()));
    let task = Task {
        shared: shared.clone(),
        driver,
        target,
        assigned: assigned_receiver,
        settings: shared.settings.subscribe(),
        commands: command_receiver,
        requested: request_receiver,
        served: served_sender,
        mount_id: None,
    };
    tokio::spawn(task.run(first));
    TaskHandle { commands, requested, served, assigned }
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
            FirstProbe::Soon => START_SPREAD.mul_f64(random()),
        };
        let mut event = self.wait_until(Instant::now() + wait, Instant::now()).await;
        loop {
            event = match event {
                Event::ProbeDue => {
                    let settings = self.settings.borrow_and_update().clone();
                    let began = Instant::now();
                    let interrupted = self.probe(&settings).await;
                    let interval = match self.target.spec.kind() {
                        TargetKind::Nfs => settings.probe.nfs_interval,
                        TargetKind::S3 => settings.probe.s3_interval,
                    };
                    let next = began + interval.mul_f64(1.0 + JITTER * (2.0 * random() - 1.0));
                    let next = match self.driver.next_due() {
                        Some(wait) => next.min(Instant::now() + wait.max(DUE_GAP)),
                        None => next,
                    };
                    match interrupted {
                        Some(event) => event,
                        None => self.wait_until(next, began).await,
                    }
                }
                Event::AssignmentChanged => {
                    let Some(target) = self.assigned.borrow_and_update().clone() else {
                        return self.unmount_removed().await;
                    };
                    self.driver = driver::for_spec(&target, &self.shared.host);
                    self.target = target;
                    Event::ProbeDue
                }
                Event::Command(Command::Delete(reply)) => match self.delete().await {
                    Ok(snapshot) => {
                        let _ = reply.send(Ok(snapshot));
                        return;
                    }
                    Err(error) => {
                        let _ = reply.send(Err(error));
                        Event::ProbeDue
                    }
                },
                Event::Ended => return,
            };
        }
    }

    /// Probes and publishes. Returns what interrupted it, if something did.
    async fn probe(&mut self, settings: &Arc<AgentSettings>) -> Option<Event> {
        let serving = *self.requested.borrow_and_update();
        let depth = if serving > *self.served.borrow() { Depth::Full } else { Depth::Routine };
        let began = Instant::now();
        let target = self.target.clone();
        let probe = tokio::select! {
            biased;
            event = interruption(&mut self.commands, &mut self.assigned) => return Some(event),
            probe = AssertUnwindSafe(self.driver.probe(settings, depth)).catch_unwind() => probe,
        };
        let probe = probe.unwrap_or_else(|_| {
            self.driver = driver::for_spec(&target, &self.shared.host);
            panicked()
        });
        // Its children were taken from it: what it found is not about the storage.
        if *self.shared.stopping.borrow() {
            return Some(Event::Ended);
        }
        self.mount_id = self.driver.mount_id(settings);
        let report = report(&target, probe, began.elapsed());
        let Shared { views, transitions, .. } = &*self.shared;
        views.publish_report(&target.spec, Arc::new(report), settings.probe.failures_before_offline, transitions);
        self.served.send_replace(serving);
        None
    }

    /// Waits for something to do; `next` is when a probe is due anyway, `began` when the latest did.
    async fn wait_until(&mut self, next: Instant, began: Instant) -> Event {
        let mut mounts = self.shared.host.mounts.subscribe();
        // A probe that was asked for while the last one ran, and a mount that came or went in its
        // last moments.
        let mut is_first_look = true;
        loop {
            let settings = self.settings.borrow().clone();
            let mounts_changed = async {
                if !is_first_look && mounts.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                // Not missed while this waits: the comparison below is with the table as it is then.
                tokio::time::sleep_until(began + MOUNT_CHANGE_GAP).await;
            };
            tokio::select! {
                event = interruption(&mut self.commands, &mut self.assigned) => return event,
                () = tokio::time::sleep_until(next) => return Event::ProbeDue,
                changed = self.requested.changed() => {
                    return if changed.is_ok() { Event::ProbeDue } else { Event::Ended };
                }
                changed = self.settings.changed() => {
                    return if changed.is_ok() { Event::ProbeDue } else { Event::Ended };
                }
                () = mounts_changed => {
                    is_first_look = false;
                    if self.driver.mount_id(&settings) != self.mount_id {
                        return Event::ProbeDue;
                    }
                }
            }
        }
    }

    async fn delete(&mut self) -> Result<Arc<Snapshot>, AgentError> {
        let id = self.target.id;
        let change = Change::DeleteTarget(id);
        {
            let _changing = self.shared.begin_change().await?;
            self.shared.registry.verify(&change).await?;
        }
        match self.unmount().await {
            Ok(()) => {}
            Err(DetachError::Busy) => return Err(AgentError::Busy { id, path: self.mount_path() }),
            Err(DetachError::Failed(finding)) => return Err(AgentError::Detach { id, finding }),
        }
        let _changing = self.shared.begin_change().await?;
        Ok(self.shared.registry.change(&change).await?)
    }

    /// Unmounts a target that another writer removed from the registry. While that fails, for example
    /// because the mount is in use, it is tried again, unless another target needs the directory.
    async fn unmount_removed(&mut self) {
        let (target_id, mut is_logged) = (self.target.id, false);
        loop {
            let snapshot = self.shared.registry.snapshot();
            if snapshot.targets().iter().any(|other| other.target.mount_name.collides_with(&self.target.mount_name)) {
                return;
            }
            let problem = match self.unmount().await {
                Ok(()) => return,
                Err(DetachError::Busy) => "it is in use".to_owned(),
                Err(DetachError::Failed(finding)) => finding.message,
            };
            if !std::mem::replace(&mut is_logged, true) {
                let path = self.mount_path();
                tracing::warn!(%target_id, path = %path.display(), problem, "a removed target is still mounted; the agent tries again until it is not");
            }
            tokio::time::sleep(UNMOUNT_RETRY).await;
        }
    }

    async fn unmount(&mut self) -> Result<(), DetachError> {
        let settings = self.settings.borrow().clone();
        let remark = self.driver.detach(&settings).await?;
        if let Some(remark) = remark {
            tracing::warn!(target_id = %self.target.id, "deleting: {remark}");
        }
        Ok(())
    }

    fn mount_path(&self) -> PathBuf {
        self.target.mount_name.below(&self.settings.borrow().mounts.root)
    }
}

/// Waits for what cannot wait for a probe to end.
async fn interruption(
    commands: &mut mpsc::Receiver<Command>,
    assigned: &mut watch::Receiver<Option<Arc<Target>>>,
) -> Event {
    tokio::select! {
        command = commands.recv() => command.map_or(Event::Ended, Event::Command),
        changed = assigned.changed() => if changed.is_ok() { Event::AssignmentChanged } else { Event::Ended },
    }
}

fn report(target: &Target, probe: Probe, duration: Duration) -> Report {
    Report {
        target_id: target.id,
        checked_at: Timestamp::now(),
        duration,
        mode: probe.mode,
        verdict: Verdict::of(&probe.checks),
        capacity: probe.capacity,
        mount: probe.mount,
        bucket: probe.bucket,
        checks: probe.checks,
    }
}

/// What a probe found that panicked: a defect of the agent must not leave the last verdict standing.
fn panicked() -> Probe {
    let message = "the probe panicked: this is a defect of the agent; its log has the place";
    let check = CheckResult {
        check: CheckName::Reachable,
        outcome: Outcome::Failed,
        finding: Some(Finding::new(Reason::AgentError, message)),
        detail: None,
        duration: Duration::ZERO,
    };
    Probe { checks: vec![check], ..Probe::default() }
}

/// A number from 0 to 1, for jitter.
fn random() -> f64 {
    let (bits, ..) = Uuid::new_v4().as_fields();
    f64::from(bits) / f64::from(u32::MAX)
}

#[cfg(test)]
pub(super) mod tests;
