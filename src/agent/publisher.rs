//! The publisher of views. Every change of the view goes through it, one at a time.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::overdue;
use super::record::Intervals;
use super::status::TargetStatus;
use super::transition_log::TransitionLog;
use super::view::{TargetView, View};
use crate::model::{PastFinding, Report, Status, TargetId, TargetSpec, Transition};
use crate::registry::{Difference, RegisteredTarget, Snapshot};

/// Name of the `tracing` event of a target that became available.
pub const AVAILABLE_EVENT: &str = "target_available";

/// Name of the `tracing` event of a target that became offline.
pub const OFFLINE_EVENT: &str = "target_offline";

/// A change of a target's status, for notifications.
#[derive(Debug, Clone)]
pub struct StatusChange {
    /// The target after the change.
    pub target: Arc<TargetView>,
    /// Status before, and since when. `None` for the first verdict after the creation of the target or the start of
    /// the agent.
    pub from: Option<(Status, Timestamp)>,
}

/// Owner of the current view.
#[derive(Debug)]
pub(super) struct ViewPublisher {
    view: watch::Sender<Arc<View>>,
    changes: mpsc::Sender<StatusChange>,
    /// Position of each target in the view. Locked during each change of the view.
    positions: Mutex<HashMap<TargetId, usize>>,
}

impl ViewPublisher {
    /// Publisher of an empty view. Changes of status are also sent to `changes`.
    pub(super) fn new(changes: mpsc::Sender<StatusChange>) -> Self {
        Self { view: watch::Sender::default(), changes, positions: Mutex::default() }
    }

    /// Returns the current view.
    pub(super) fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// Returns the number of targets. Holds no view, which would have to be copied for the next report.
    pub(super) fn target_count(&self) -> usize {
        self.view.borrow().targets.len()
    }

    /// Returns a receiver of each new view. A slow receiver skips views.
    pub(super) fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    /// Publishes changes of the registry in one view, so that no reader sees only a part of a commit. A
    /// target whose storage did not change keeps its status and report.
    pub(super) fn publish_differences(&self, differences: &[Difference], snapshot: &Snapshot, mount_root: &Path) {
        let now = Timestamp::now();
        let mut positions = self.positions();
        // A copy, because many differences take longer than a reader may wait.
        let mut view = View::clone(&self.view.borrow());
        view.generation += 1;
        view.types_generation = view.generation;
        let removed: HashSet<TargetId> = differences.iter().filter_map(removed).collect();
        if !removed.is_empty() {
            view.targets.retain(|shown| !removed.contains(&shown.target.id));
            *positions = positions_in(&view);
        }
        for difference in differences {
            if let Difference::Added(registered) | Difference::Changed(registered) = difference {
                let position = *positions.entry(registered.target.id).or_insert(view.targets.len());
                put(&mut view, position, registered, mount_root, now);
            }
        }
        let order = snapshot.targets().iter().map(|registered| registered.target.id);
        if !view.targets.iter().map(|shown| shown.target.id).eq(order.clone()) {
            // A target of another node may be older than one of this node.
            let order: HashMap<TargetId, usize> = order.zip(0..).collect();
            view.targets.sort_by_key(|shown| order.get(&shown.target.id).copied());
        }
        *positions = positions_in(&view);
        view.has_restricted_types = view.targets.iter().any(|shown| shown.types.iter().any(|found| !found.is_public));
        self.view.send_replace(Arc::new(view));
    }

    /// Publishes the report of a probe of `spec` and logs a change of status once. The transition is
    /// recorded before the new status is visible, so a reader that sees the status finds it in the history.
    pub(super) fn publish_report(
        &self,
        spec: &TargetSpec,
        report: Arc<Report>,
        intervals: Intervals,
        failures_before_offline: u32,
        transitions: &TransitionLog,
    ) {
        let positions = self.positions();
        let changed = self.change_in_place(|view| {
            let slot = view.targets.get_mut(*positions.get(&report.target_id)?)?;
            // The storage of the target may have changed during the probe. The report is then about the former storage.
            if slot.target.spec != *spec {
                return None;
            }
            let status = slot.status.after(&report, failures_before_offline);
            let from = slot.report.is_some().then_some(slot.status.status);
            let from_since = slot.status.since;
            let record = Arc::new(slot.record.after(&report, intervals, from, status.status));
            let shown = Some(report.clone());
            let current_until = Some(overdue::deadline(intervals.probe));
            let view = TargetView { status, report: shown, record, current_until, ..TargetView::clone(slot) };
            let view = Arc::new(view);
            *slot = view.clone();
            let TargetStatus { status: to, finding, .. } = view.status.clone();
            (from != Some(to)).then(|| {
                let (target_id, at) = (report.target_id, report.checked_at);
                transitions.record(Transition { target_id, at, from, to, finding: finding.map(PastFinding::from) });
                StatusChange { target: view, from: from.map(|from| (from, from_since)) }
            })
        });
        drop(positions);
        if let Some(change) = changed {
            log_status(&change.target);
            if let Err(mpsc::error::TrySendError::Full(_)) = self.changes.try_send(change) {
                tracing::warn!("no receiver is notified of this change, because too many changes wait");
            }
        }
    }

    /// Marks the targets whose report is outdated, and returns when the next one may be. A probe that never ends
    /// publishes no report, and its target would keep its status forever.
    fn mark_overdue(&self) -> Option<Instant> {
        let now = Instant::now();
        let positions = self.positions();
        let is_marked = |shown: &TargetView| shown.is_overdue();
        let is_late = |shown: &TargetView| !is_marked(shown) && shown.current_until.is_some_and(|until| until <= now);
        let late: Vec<Arc<TargetView>> =
            self.view.borrow().targets.iter().filter(|shown| is_late(shown)).map(overdue::marked).collect();
        if !late.is_empty() {
            self.change_in_place(|view| {
                for marked in &late {
                    if let Some(slot) = positions.get(&marked.target.id).and_then(|at| view.targets.get_mut(*at)) {
                        *slot = marked.clone();
                    }
                }
                None::<()>
            });
        }
        let view = self.view.borrow();
        view.targets.iter().filter(|shown| !is_marked(shown)).filter_map(|shown| shown.current_until).min()
    }

    /// Marks the targets whose reports become outdated, until the agent stops.
    pub(super) async fn mark_overdue_until(&self, mut stopping: watch::Receiver<bool>) {
        let mut has_overslept = false;
        loop {
            // A report that is published later is outdated after this time.
            let latest = Instant::now() + overdue::SLACK;
            let next = if has_overslept { None } else { self.mark_overdue() };
            let next = next.map_or(latest, |next| next.min(latest));
            tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => return,
                () = sleep_until(next) => {}
            }
            has_overslept = next.elapsed() > overdue::OVERSLEPT;
        }
    }

    fn positions(&self) -> MutexGuard<'_, HashMap<TargetId, usize>> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the view. Copies it only while a reader has it, so that a report costs the same for any number of
    /// targets.
    fn change_in_place<T>(&self, change: impl FnOnce(&mut View) -> Option<T>) -> Option<T> {
        let mut outcome = None;
        self.view.send_modify(|view| {
            let view = Arc::make_mut(view);
            view.generation += 1;
            outcome = change(view);
        });
        outcome
    }
}

fn removed(difference: &Difference) -> Option<TargetId> {
    match difference {
        Difference::Removed(registered) => Some(registered.target.id),
        Difference::Added(_) | Difference::Changed(_) => None,
    }
}

fn positions_in(view: &View) -> HashMap<TargetId, usize> {
    view.targets.iter().enumerate().map(|(at, shown)| (shown.target.id, at)).collect()
}

/// Replaces the target at a position, or appends it if that is the end.
fn put(view: &mut View, position: usize, registered: &RegisteredTarget, mount_root: &Path, now: Timestamp) {
    let targets = &mut view.targets;
    let mut shown = TargetView::not_checked(registered, mount_root, now);
    // An earlier report does not apply if the storage or the declared immutability changed. With other options, the
    // storage has the same status until the next probe.
    let (before, now) = (targets.get(position), &shown.target.spec);
    let known = before.filter(|known| {
        let spec = &known.target.spec;
        spec.is_same_storage(now) && spec.is_immutable() == now.is_immutable()
    });
    if let Some(known) = known {
        shown.status = known.status.clone();
        shown.report.clone_from(&known.report);
        shown.record = known.record.clone();
        shown.current_until = known.current_until;
    }
    let shown = Arc::new(shown);
    match targets.get_mut(position) {
        Some(known) => *known = shown,
        None => targets.push(shown),
    }
}

/// Logs a new status, in the span of the target's probe.
fn log_status(view: &TargetView) {
    let finding = view.status.finding.as_ref();
    let reason = finding.map_or("", |finding| finding.reason.as_str());
    let message = finding.map_or("", |finding| finding.message.as_str());
    match view.status.status {
        Status::Available => tracing::info!(name: AVAILABLE_EVENT, reason, message, "available"),
        Status::Offline => tracing::warn!(name: OFFLINE_EVENT, reason, message, "offline"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn view_is_copied_only_while_a_reader_has_it() {
        let publisher = ViewPublisher::new(mpsc::channel(1).0);
        let address = || Arc::as_ptr(&publisher.view());
        let before = address();
        publisher.change_in_place(|_| None::<()>);
        assert_eq!(address(), before);
        let read = publisher.view();
        publisher.change_in_place(|_| None::<()>);
        assert_ne!(address(), before);
        assert_eq!((read.generation, publisher.view().generation), (1, 2));
    }
}
