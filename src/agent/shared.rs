//! What tasks and use cases share: the registry, the settings, and the view that readers get.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::{OwnedMutexGuard, watch};

use super::history::History;
use super::{AgentError, TargetStatus, TargetView, View};
use crate::driver::Host;
use crate::model::settings::AgentSettings;
use crate::model::{PastFinding, Report, Status, TargetId, TargetSpec, Transition};
use crate::registry::{Entry, Registry};

pub(super) struct Shared {
    pub(super) registry: Arc<dyn Registry>,
    pub(super) host: Arc<Host>,
    pub(super) settings: watch::Sender<Arc<AgentSettings>>,
    pub(super) stopping: watch::Sender<bool>,
    /// Held over a change of the registry and the view that follows from it, so that views appear
    /// in the order in which the changes became durable. Never held while storage is waited for.
    changing: Arc<tokio::sync::Mutex<()>>,
    view: watch::Sender<Arc<View>>,
    /// Held while a view is replaced, which waits for nothing.
    replacing: Mutex<()>,
    pub(super) history: History,
}

impl Shared {
    pub(super) fn new(
        registry: Arc<dyn Registry>,
        host: Arc<Host>,
        settings: Arc<AgentSettings>,
        entries: Vec<Entry>,
    ) -> Self {
        let root = &settings.mounts.root;
        let since = Timestamp::now();
        let targets = entries
            .into_iter()
            .map(|entry| {
                Arc::new(TargetView {
                    mount_path: entry.target.mount_name.below(root),
                    target: entry.target,
                    types: entry.types.into(),
                    status: TargetStatus::not_checked(since),
                    report: None,
                })
            })
            .collect();
        Self {
            registry,
            host,
            settings: watch::Sender::new(settings),
            stopping: watch::Sender::new(false),
            changing: Arc::default(),
            view: watch::Sender::new(Arc::new(View { generation: 0, types_generation: 0, targets })),
            replacing: Mutex::default(),
            history: History::default(),
        }
    }

    pub(super) fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    pub(super) fn watch_view(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    /// Makes one change of the registry at a time.
    ///
    /// # Errors
    /// [`AgentError::Stopping`] when it is too late for one.
    pub(super) async fn begin_change(&self) -> Result<OwnedMutexGuard<()>, AgentError> {
        let guard = self.changing.clone().lock_owned().await;
        if *self.stopping.borrow() { Err(AgentError::Stopping) } else { Ok(guard) }
    }

    /// Shows an entry as the registry has it now; a new one if it is not there yet.
    pub(super) fn publish_entry(&self, entry: Entry) -> Arc<TargetView> {
        let (root, now) = (self.settings.borrow().mounts.root.clone(), Timestamp::now());
        self.replace(|view| put(view, entry, &root, now))
    }

    /// Shows entries that changed together in one view, so that nobody sees a default too few or
    /// too many.
    pub(super) fn publish_entries(&self, entries: Vec<Entry>) {
        let (root, now) = (self.settings.borrow().mounts.root.clone(), Timestamp::now());
        self.replace(|view| {
            for entry in entries {
                put(view, entry, &root, now);
            }
        });
    }

    /// Shows what a probe of `spec` found; logs a change of status once. Who sees the new status finds it in
    /// the history too.
    pub(super) fn publish_report(&self, spec: &TargetSpec, report: Arc<Report>, failures_before_offline: u32) {
        let changed = self.replace(|view| {
            // A target that became another during the probe was not the one that was probed.
            let is_same = |view: &&mut Arc<TargetView>| view.target.id == report.target_id && view.target.spec == *spec;
            let slot = view.targets.iter_mut().find(is_same)?;
            let status = slot.status.after(&report, failures_before_offline);
            let from = slot.report.is_some().then_some(slot.status.status);
            let view = Arc::new(TargetView { status, report: Some(report.clone()), ..TargetView::clone(slot) });
            *slot = view.clone();
            let TargetStatus { status: to, finding, .. } = view.status.clone();
            (from != Some(to)).then(|| {
                let (target_id, at) = (report.target_id, report.checked_at);
                self.history.note(Transition { target_id, at, from, to, finding: finding.map(PastFinding::from) });
                view
            })
        });
        if let Some(view) = changed {
            log_status(&view);
        }
    }

    /// Removes a target from registry and view.
    pub(super) async fn forget_target(&self, id: TargetId) -> Result<(), AgentError> {
        let _changing = self.begin_change().await?;
        self.registry.delete_target(id).await?;
        self.replace(|view| {
            view.targets.retain(|view| view.target.id != id);
            view.types_generation = view.generation;
        });
        tracing::info!(target_id = %id, "deleted");
        Ok(())
    }

    fn replace<T>(&self, change: impl FnOnce(&mut View) -> T) -> T {
        let _replacing = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut view = View::clone(&self.view.borrow());
        view.generation += 1;
        let outcome = change(&mut view);
        self.view.send_replace(Arc::new(view));
        outcome
    }
}

/// Puts an entry into the place of the one with its id, or at the end.
fn put(view: &mut View, entry: Entry, root: &Path, now: Timestamp) -> Arc<TargetView> {
    view.types_generation = view.generation;
    let targets = &mut view.targets;
    let old = targets.iter().position(|view| view.target.id == entry.target.id);
    // What was verified of another bucket or another promise says nothing of this one.
    let known = old.map(|at| &targets[at]).filter(|view| view.target.spec == entry.target.spec);
    let view = Arc::new(TargetView {
        mount_path: entry.target.mount_name.below(root),
        status: known.map_or_else(|| TargetStatus::not_checked(now), |view| view.status.clone()),
        report: known.and_then(|view| view.report.clone()),
        target: entry.target,
        types: entry.types.into(),
    });
    match old {
        Some(at) => targets[at] = view.clone(),
        None => targets.push(view.clone()),
    }
    view
}

fn log_status(view: &TargetView) {
    let (target_id, export) = (view.target.id, view.target.spec.export());
    let finding = view.status.finding.as_ref();
    let reason = finding.map_or("", |finding| finding.reason.code());
    let message = finding.map_or("", |finding| finding.message.as_str());
    match view.status.status {
        Status::Available => tracing::info!(%target_id, export, reason, message, "available"),
        Status::Offline => tracing::warn!(%target_id, export, reason, message, "offline"),
    }
}
