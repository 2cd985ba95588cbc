//! Probe of a target whose mount path another program owns.
//!
//! The export is verified through a private mount, which is unmounted after the probe unless `[mounts]
//! keep_private_mounts` is set. Nothing is mounted, unmounted, created or removed at the mount path. What is mounted
//! there is verified through a copy of the mount, so its owner can always unmount it.

use super::nfs_driver::{MountLocation, NfsDriver};
use super::unmount::join_remarks;
use crate::check::CheckLog;
use crate::check::expected_mount::PathMount;
use crate::check::in_use::{in_use, nfs_at};
use crate::driver::driver_trait::{Depth, Probe};
use crate::model::CheckName;
use crate::model::MountMode;
use crate::model::report::KindFacts;
use crate::model::settings::AgentSettings;

/// The checks of an observed target, in the order of the report.
const PLAN: &[CheckName] =
    &[CheckName::Reachable, CheckName::Mounted, CheckName::Capacity, CheckName::WriteCanary, CheckName::InUse];

impl NfsDriver {
    pub(super) async fn probe_observed(&mut self, private: &MountLocation<'_>, depth: Depth) -> Probe {
        let settings = private.settings;
        let mut log = CheckLog::new(PLAN, settings.probe.slow_after);
        if self.has_outdated_mount(private) {
            self.end_private_mount(settings).await;
        }
        let (mount, capacity) = self.verify_through_mount(private, depth, &mut log).await;
        if let Some(entry) = self.host.mounts.current().topmost_at(&private.path) {
            self.private_source = Some(entry.source.clone());
        }
        let public = self.public_location(settings);
        let mut watch = std::mem::take(&mut self.in_use);
        let expected = self.expected_mount(&public);
        let verifying = in_use(
            (&self.host.workers, &self.host.mounts),
            (public.root, &self.name),
            settings,
            &mut watch,
            // A mount of a server that does not answer would only use up the deadline.
            !log.has_failure(),
            |table| nfs_at(expected, self.private_source.as_deref(), table),
        );
        let in_use = log.run(CheckName::InUse, verifying).await;
        self.in_use = watch;
        if !settings.mounts.keep_private {
            self.end_private_mount(settings).await;
        }
        let facts = KindFacts::Nfs { mode: MountMode::Observe, mount, in_use: in_use.flatten() };
        Probe { checks: log.finish(), capacity, facts: Some(facts) }
    }

    /// Whether a private mount of an earlier probe or process does not fit: another storage, other options, or a server
    /// that has moved.
    fn has_outdated_mount(&self, private: &MountLocation<'_>) -> bool {
        let (table, expected) = (self.host.mounts.current(), self.expected_mount(private));
        match expected.at_path(&table) {
            PathMount::None => false,
            PathMount::Foreign(_) => true,
            PathMount::Own(entry, stacked) => {
                stacked > 1
                    || !private.options.differences(&entry.super_options).is_empty()
                    || expected.former_server(entry).is_some()
            }
        }
    }

    /// Unmounts the private mount, if there is one, and removes its mount point.
    pub(super) async fn end_private_mount(&mut self, settings: &AgentSettings) {
        let is_mounted = self.mount_id_at(&self.private_path(settings)).is_some();
        if !is_mounted && self.mode(settings) != MountMode::Observe {
            return;
        }
        let private = self.private_location(settings);
        let unmounted = if is_mounted { self.unmount(&private).await } else { Ok(None) };
        let problem = match unmounted {
            Ok(remark) => join_remarks(remark.into_iter().chain(self.remove_mount_point(&private).await)),
            // The next probe uses the mount, and tries again.
            Err(error) => Some(error.to_string()),
        };
        if let Some(problem) = problem.as_ref().filter(|_| !self.is_busy_logged) {
            tracing::warn!("the private mount at {} was not ended cleanly: {problem}", private.path.display());
        }
        self.is_busy_logged = problem.is_some();
    }
}
