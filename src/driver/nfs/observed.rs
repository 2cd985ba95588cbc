//! Probe of a target whose mount path another program owns.
//!
//! The export is verified through a private mount, which is unmounted after the probe unless `[mounts]
//! keep_private_mounts` is set. Nothing is mounted, unmounted, created or removed at the mount path. What is mounted
//! there is verified through a copy of the mount, so its owner can always unmount it.

use super::unmount::join_remarks;
use super::{MountLocation, NfsDriver};
use crate::check::CheckLog;
use crate::check::in_use::{in_use, nfs_at};
use crate::driver::{Depth, Probe};
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
        let (mount, capacity) = self.verify_through_mount(private, depth, &mut log).await;
        let public = self.public_location(settings);
        let mut first_seen = std::mem::take(&mut self.in_use);
        let expected = self.expected_mount(&public);
        let verifying = in_use(
            (&self.host.workers, &self.host.mounts),
            (self.target, self.lane),
            (public.root, &self.name),
            settings,
            &mut first_seen,
            // A mount of a server that does not answer would only use up the deadline.
            !log.has_failure(),
            |table| nfs_at(expected, table),
        );
        let in_use = log.run(CheckName::InUse, verifying).await;
        self.in_use = first_seen;
        if !settings.mounts.keep_private {
            self.end_private_mount(settings).await;
        }
        let facts = KindFacts::Nfs { mode: MountMode::Observe, mount, in_use: in_use.flatten() };
        Probe { checks: log.finish(), capacity, facts: Some(facts) }
    }

    /// Unmounts the private mount, if there is one, and removes its mount point.
    pub(super) async fn end_private_mount(&mut self, settings: &AgentSettings) {
        let private = self.private_location(settings);
        if self.mount_id_at(&private.path).is_none() {
            return;
        }
        let remarks = match self.unmount(&private).await {
            Ok(remark) => join_remarks(remark.into_iter().chain(self.remove_mount_point(&private).await)),
            // The next probe uses the mount, and tries again.
            Err(error) => Some(error.to_string()),
        };
        if let Some(remarks) = remarks {
            tracing::warn!("the private mount at {} was not ended cleanly: {remarks}", private.path.display());
        }
    }
}
