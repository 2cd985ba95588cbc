//! Mounts that the agent made on this host, by target.
//!
//! If a mount appears at an unused mount path while the agent's `mount.nfs` runs, the agent made it, whatever source
//! the kernel shows for it. Its identity is kept here. The daemon also keeps it in the registry, to recognize the mount
//! after a restart. Before `mount.nfs` starts, the daemon stores an intent, so that a mount is also recognized if the
//! agent was killed before it stored the identity. A disk that does not answer delays the mount for a bounded time only
//! ([`INTENT_STORED_MAX`]). An intent contains the time at which the command has ended, and does not apply to later
//! mounts. The identity is forgotten when the mount table no longer contains the mount, because the kernel reuses mount
//! ids and device numbers.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::model::{OwnMountId, TargetId};
use crate::sys::{MountEntry, MountTable, node};

/// Longest time that a mount waits until its intent is stored. A registry on a local disk takes a few milliseconds.
const INTENT_STORED_MAX: Duration = Duration::from_millis(500);

/// The mounts that the agent made.
#[derive(Debug)]
pub struct OwnMounts {
    /// Id of the current boot of this host. Empty if it is unknown: saved mounts are then not restored.
    boot_id: String,
    state: Mutex<State>,
    changed: Notify,
    /// Notifies of each confirmed write.
    saved: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    mounts: HashMap<TargetId, OwnMountId>,
    /// Targets whose `mount.nfs` was started, and may have mounted. With the time at which it has ended
    /// ([`node::monotonic_now`]).
    mounting: HashMap<TargetId, Duration>,
    /// The same for commands of an earlier agent process.
    interrupted: HashMap<TargetId, Duration>,
    /// Targets whose mount was saved by an earlier agent process, and was not yet looked up in the mount table.
    restored: HashSet<TargetId>,
    /// Targets whose mount changed since it was last saved.
    unsaved: HashSet<TargetId>,
    /// Targets whose mount is being saved.
    saving: HashSet<TargetId>,
    /// Whether a log saves the mounts.
    has_log: bool,
}

impl Default for OwnMounts {
    fn default() -> Self {
        let boot_id = node::boot_id().unwrap_or_default();
        Self { boot_id, state: Mutex::default(), changed: Notify::new(), saved: watch::Sender::default() }
    }
}

impl OwnMounts {
    /// Adds the mounts that an earlier agent process saved during this boot.
    pub fn restore(&self, saved: Vec<(TargetId, OwnMountId)>) {
        let is_valid = |(_, mount): &(_, OwnMountId)| !self.boot_id.is_empty() && mount.boot_id == self.boot_id;
        let mut state = self.state();
        for (target, mount) in saved.into_iter().filter(is_valid) {
            if mount.is_intent() {
                // An intent without this time applies to no mount.
                let ends_by = Duration::from_millis(mount.command_ends_by_ms.unwrap_or_default());
                state.interrupted.insert(target, ends_by);
            } else {
                state.restored.insert(target);
                state.mounts.insert(target, mount);
            }
        }
    }

    /// Whether an entry of the mount table is the mount that the agent made for the target.
    #[must_use]
    pub fn is_own(&self, target: TargetId, entry: &MountEntry) -> bool {
        self.state().mounts.get(&target).is_some_and(|mount| is_same(mount, entry))
    }

    /// Announces a log, which saves the mounts from now on.
    pub fn expect_log(&self) {
        self.state().has_log = true;
    }

    /// Records that `mount.nfs` is about to be started, with this deadline, for a target at whose path nothing is
    /// mounted.
    pub(crate) fn begin(&self, target: TargetId, deadline: Duration) {
        self.state().mounting.insert(target, node::monotonic_now() + INTENT_STORED_MAX + deadline);
        self.keep_unsaved([target]);
    }

    /// Waits until the log has stored the record of a target, at most [`INTENT_STORED_MAX`].
    pub(crate) async fn wait_until_saved(&self, target: TargetId) {
        let is_saved = |_: &()| {
            let state = self.state();
            !state.has_log || !(state.unsaved.contains(&target) || state.saving.contains(&target))
        };
        // The log reports a failed write. The mount does not depend on it.
        let _ = timeout(INTENT_STORED_MAX, self.saved.subscribe().wait_for(is_saved)).await;
    }

    /// Returns when the `mount.nfs` that an earlier agent process started for the target has ended
    /// ([`node::monotonic_now`]). `None` once that is settled.
    pub(super) fn interrupted(&self, target: TargetId) -> Option<Duration> {
        self.state().interrupted.get(&target).copied()
    }

    /// Settles the `mount.nfs` that an earlier agent process started. `may_be_its_mount` says whether the mount at the
    /// path is old enough.
    pub(super) fn resume(&self, target: TargetId, may_be_its_mount: bool) {
        let mut state = self.state();
        let Some(ends_by) = state.interrupted.remove(&target) else { return };
        if may_be_its_mount {
            state.mounting.insert(target, ends_by);
        }
        drop(state);
        self.keep_unsaved([target]);
    }

    /// Records that `mount.nfs` mounted nothing.
    pub(super) fn give_up(&self, target: TargetId) {
        self.state().mounting.remove(&target);
        self.keep_unsaved([target]);
    }

    /// Updates the record from a mount table. `found` is the only NFS mount at the target's path, and `is_made` whether
    /// `mount.nfs` made it, if it was started. `is_running` is true while `mount.nfs` may still mount.
    ///
    /// A restarted agent may be in another mount namespace, where the same mount has another id: a container whose
    /// mounts are propagated from the host. So the first look after a restart compares device and source only.
    pub(super) fn settle(
        &self,
        target: TargetId,
        found: Option<&MountEntry>,
        is_made: bool,
        is_running: bool,
        table: &MountTable,
    ) {
        let mut state = self.state();
        if is_running && found.is_none() && state.mounting.contains_key(&target) {
            return;
        }
        let was_mounting = state.mounting.remove(&target).is_some();
        let is_restored = state.restored.remove(&target);
        let before = state.mounts.get(&target);
        let has_same_storage =
            |mount: &OwnMountId, entry: &MountEntry| (&mount.device, &mount.source) == (&entry.device, &entry.source);
        let is_here = table.entries().iter().any(|entry| before.is_some_and(|mount| is_same(mount, entry)));
        let own = found.filter(|entry| {
            was_mounting && is_made
                || is_restored && !is_here && before.is_some_and(|mount| has_same_storage(mount, entry))
        });
        if let Some(entry) = own {
            let (mount_id, device, source) = (entry.mount_id, entry.device.clone(), entry.source.clone());
            let boot_id = self.boot_id.clone();
            let mount = OwnMountId { boot_id, mount_id, device, source, command_ends_by_ms: None };
            state.mounts.insert(target, mount);
        } else {
            let is_forgotten = !is_here && state.mounts.remove(&target).is_some();
            if !is_forgotten && !was_mounting {
                return;
            }
        }
        drop(state);
        self.keep_unsaved([target]);
    }

    /// Waits until there is something to save.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Returns each target whose mount changed since the last call, with its mount. When they are saved, call
    /// [`Self::confirm_saved`]. If saving fails, pass the targets to [`Self::keep_unsaved`].
    #[must_use]
    pub fn take_unsaved(&self) -> Vec<(TargetId, Option<OwnMountId>)> {
        let mut state = self.state();
        let unsaved = std::mem::take(&mut state.unsaved);
        state.saving.clone_from(&unsaved);
        let current = |target| match state.mounting.get(&target) {
            Some(ends_by) => {
                let ends_by_ms = u64::try_from(ends_by.as_millis()).unwrap_or(u64::MAX);
                Some(OwnMountId::intent(self.boot_id.clone(), ends_by_ms))
            }
            None => state.mounts.get(&target).cloned(),
        };
        unsaved.into_iter().map(|target| (target, current(target))).collect()
    }

    /// Records that the mounts of the last [`Self::take_unsaved`] are saved.
    pub fn confirm_saved(&self) {
        self.state().saving.clear();
        self.saved.send_replace(());
    }

    /// Marks targets whose mounts could not be saved, and wakes [`Self::changed`].
    pub fn keep_unsaved(&self, targets: impl IntoIterator<Item = TargetId>) {
        self.state().unsaved.extend(targets);
        self.changed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No statement that can panic leaves a change half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_same(mount: &OwnMountId, entry: &MountEntry) -> bool {
    (mount.mount_id, &mount.device, &mount.source) == (entry.mount_id, &entry.device, &entry.source)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(line: &str) -> MountTable {
        MountTable::parse(format!("1 0 0:1 / / rw - ext4 a rw\n{line}\n").as_bytes())
    }

    /// Returns the record after the agent made the second mount of the table.
    fn mounted(table: &MountTable) -> OwnMounts {
        let mounts = OwnMounts::default();
        mounts.begin(TargetId::nil(), Duration::ZERO);
        mounts.settle(TargetId::nil(), Some(&table.entries()[1]), true, false, table);
        mounts
    }

    #[test]
    fn own_mount_is_recognized_by_id_device_and_source() {
        let table_of =
            |id: u32, device: &str, source: &str| table(&format!("{id} 1 {device} / /m rw - nfs4 {source} rw"));
        let mounts = mounted(&table_of(2, "0:2", "nas:/b"));
        for (id, device, source, is_own) in [
            (2, "0:2", "nas:/b", true),
            (3, "0:2", "nas:/b", false),
            (2, "0:3", "nas:/b", false),
            (2, "0:2", "nas:/c", false),
        ] {
            let is_found = mounts.is_own(TargetId::nil(), &table_of(id, device, source).entries()[1]);
            assert_eq!(is_found, is_own, "{id} {device} {source}");
        }
        let other_target = TargetId::from_u128(1);
        assert!(!mounts.is_own(other_target, &table_of(2, "0:2", "nas:/b").entries()[1]));
    }

    #[test]
    fn mount_is_forgotten_when_the_table_does_not_contain_it() {
        let (ours, none) = (table("2 1 0:2 / /m rw - nfs nas:/b rw"), table(""));
        let mounts = mounted(&ours);
        mounts.settle(TargetId::nil(), None, false, false, &ours);
        assert!(mounts.is_own(TargetId::nil(), &ours.entries()[1]));
        mounts.settle(TargetId::nil(), None, false, false, &none);
        assert!(!mounts.is_own(TargetId::nil(), &ours.entries()[1]), "the numbers may belong to another mount now");
    }

    #[test]
    fn only_a_mount_after_a_mount_command_is_recorded() {
        let foreign = table("2 1 0:2 / /m rw - nfs nas:/b rw");
        let mounts = OwnMounts::default();
        mounts.settle(TargetId::nil(), Some(&foreign.entries()[1]), true, false, &foreign);
        assert!(!mounts.is_own(TargetId::nil(), &foreign.entries()[1]), "nothing was started");
        mounts.begin(TargetId::nil(), Duration::ZERO);
        mounts.give_up(TargetId::nil());
        mounts.settle(TargetId::nil(), Some(&foreign.entries()[1]), true, false, &foreign);
        assert!(!mounts.is_own(TargetId::nil(), &foreign.entries()[1]), "the command failed");
    }

    #[test]
    fn saved_mount_is_restored_only_in_the_same_boot() {
        let ours = table("2 1 0:2 / /m rw - nfs nas:/b rw");
        let saved = mounted(&ours).take_unsaved();
        let [(target, Some(mount))] = saved.as_slice() else { panic!("one mount: {saved:?}") };
        for (boot_id, is_own) in [(mount.boot_id.as_str(), true), ("another boot", false)] {
            let restarted = OwnMounts::default();
            restarted.restore(vec![(*target, OwnMountId { boot_id: boot_id.to_owned(), ..mount.clone() })]);
            assert_eq!(restarted.is_own(*target, &ours.entries()[1]), is_own, "{boot_id}");
            assert!(restarted.take_unsaved().is_empty());
        }
    }

    #[test]
    fn restored_mount_may_have_another_id_once() {
        let at = |id: u32, device: &str, source: &str| table(&format!("{id} 1 {device} / /m rw - nfs4 {source} rw"));
        let ours = at(2, "0:2", "nas:/b");
        let saved = mounted(&ours).take_unsaved();
        let [(target, Some(mount))] = saved.as_slice() else { panic!("one mount: {saved:?}") };
        for (id, device, source, is_own) in [
            (2, "0:2", "nas:/b", true),
            (7, "0:2", "nas:/b", true),
            (7, "0:3", "nas:/b", false),
            (7, "0:2", "nas:/c", false),
        ] {
            let now = at(id, device, source);
            let entry = &now.entries()[1];
            let restarted = OwnMounts::default();
            restarted.restore(vec![(*target, mount.clone())]);
            restarted.settle(*target, Some(entry), false, false, &now);
            assert_eq!(restarted.is_own(*target, entry), is_own, "{id} {device} {source}");
            let unsaved = restarted.take_unsaved();
            assert_eq!(unsaved.is_empty(), id == 2, "{unsaved:?}");
            if is_own {
                let later = at(9, device, source);
                restarted.settle(*target, Some(&later.entries()[1]), false, false, &later);
                assert!(!restarted.is_own(*target, &later.entries()[1]), "the agent has looked already");
            }
        }
    }

    #[test]
    fn own_mount_is_recognized_after_a_kill_before_it_was_saved() {
        let ours = table("2 1 0:2 / /m rw - nfs4 nas:/resolved rw");
        let killed = OwnMounts::default();
        killed.begin(TargetId::nil(), Duration::ZERO);
        let saved: Vec<_> = killed.take_unsaved().into_iter().filter_map(|(id, mount)| Some((id, mount?))).collect();
        assert_eq!(saved.len(), 1);
        for (is_in_time, is_made, is_own) in [(true, true, true), (true, false, false), (false, true, false)] {
            let restarted = OwnMounts::default();
            restarted.restore(saved.clone());
            let now = node::monotonic_now();
            let ends_by = restarted.interrupted(TargetId::nil()).expect("an intent");
            assert!(ends_by <= now + INTENT_STORED_MAX && ends_by + Duration::from_secs(60) > now, "{ends_by:?}");
            restarted.resume(TargetId::nil(), is_in_time);
            assert_eq!(restarted.interrupted(TargetId::nil()), None);
            restarted.settle(TargetId::nil(), Some(&ours.entries()[1]), is_made, false, &ours);
            assert_eq!(restarted.is_own(TargetId::nil(), &ours.entries()[1]), is_own);
            let unsaved = restarted.take_unsaved();
            assert!(matches!(unsaved.as_slice(), [(_, mount)] if mount.is_some() == is_own), "{unsaved:?}");
        }
    }

    #[test]
    fn mount_of_a_stuck_command_is_recognized_after_several_probes() {
        let (none, ours) = (table(""), table("2 1 0:2 / /m rw - nfs4 nas:/resolved rw"));
        for is_stuck in [true, false] {
            let mounts = OwnMounts::default();
            mounts.begin(TargetId::nil(), Duration::ZERO);
            for _ in 0..3 {
                mounts.settle(TargetId::nil(), None, false, is_stuck, &none);
            }
            mounts.settle(TargetId::nil(), Some(&ours.entries()[1]), true, false, &ours);
            assert_eq!(mounts.is_own(TargetId::nil(), &ours.entries()[1]), is_stuck);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn mount_waits_for_its_intent_only_as_long_as_the_disk_answers() {
        let waited = async |mounts: &OwnMounts| {
            let began = tokio::time::Instant::now();
            mounts.begin(TargetId::nil(), Duration::ZERO);
            mounts.wait_until_saved(TargetId::nil()).await;
            began.elapsed()
        };
        let mounts = OwnMounts::default();
        assert_eq!(waited(&mounts).await, Duration::ZERO, "a one-shot command has no log");
        mounts.expect_log();
        assert!(waited(&mounts).await >= INTENT_STORED_MAX, "the disk does not answer");
        let write_takes = Duration::from_millis(20);
        for is_written in [true, false] {
            let log = async {
                tokio::time::sleep(write_takes).await;
                let unsaved = mounts.take_unsaved();
                assert!(matches!(unsaved.as_slice(), [(_, Some(intent))] if intent.is_intent()), "{unsaved:?}");
                tokio::time::sleep(write_takes).await;
                if is_written { mounts.confirm_saved() } else { mounts.keep_unsaved([TargetId::nil()]) }
            };
            let (waited, ()) = tokio::join!(waited(&mounts), log);
            let is_short = waited >= write_takes * 2 && waited < write_takes * 3;
            assert_eq!(is_short, is_written, "{waited:?}");
        }
    }

    #[test]
    fn intent_is_removed_when_nothing_was_mounted() {
        for is_given_up in [true, false] {
            let mounts = OwnMounts::default();
            mounts.begin(TargetId::nil(), Duration::ZERO);
            assert!(matches!(mounts.take_unsaved().as_slice(), [(_, Some(intent))] if intent.is_intent()));
            if is_given_up {
                mounts.give_up(TargetId::nil());
            } else {
                mounts.settle(TargetId::nil(), None, false, false, &table(""));
            }
            assert_eq!(mounts.take_unsaved(), [(TargetId::nil(), None)]);
        }
    }

    #[test]
    fn change_is_saved_once_or_again_after_a_failure() {
        let mounts = mounted(&table("2 1 0:2 / /m rw - nfs nas:/b rw"));
        assert_eq!(mounts.take_unsaved().len(), 1);
        assert!(mounts.take_unsaved().is_empty());
        mounts.keep_unsaved([TargetId::nil()]);
        assert_eq!(mounts.take_unsaved().len(), 1);
        mounts.settle(TargetId::nil(), None, false, false, &table(""));
        assert_eq!(mounts.take_unsaved(), [(TargetId::nil(), None)]);
    }
}
