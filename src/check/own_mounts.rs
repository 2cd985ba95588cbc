//! Mounts that the agent made on this host, by target.
//!
//! If a mount appears at an unused mount path while the agent's `mount.nfs` runs, the agent made it, whatever source
//! the kernel shows for it. Its identity is kept here. The daemon also keeps it in the registry, to recognize the mount
//! after a restart. While `mount.nfs` starts, the daemon stores an intent, so that a mount is also recognized if the
//! agent was killed before it stored the identity. The probe does not wait for the disk, so a kill within the time of
//! that write can still make the mount a foreign one. The identity is forgotten when the mount table no longer contains
//! the mount, because the kernel reuses mount ids and device numbers.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::model::{OwnMountId, TargetId};
use crate::sys::{MountEntry, MountTable, node};

/// The mounts that the agent made.
#[derive(Debug)]
pub struct OwnMounts {
    /// Id of the current boot of this host. Empty if it is unknown: saved mounts are then not restored.
    boot_id: String,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    mounts: HashMap<TargetId, OwnMountId>,
    /// Targets whose `mount.nfs` was started, and may have mounted.
    mounting: HashSet<TargetId>,
    /// Targets whose mount was saved by an earlier agent process, and was not yet looked up in the mount table.
    restored: HashSet<TargetId>,
    /// Targets whose mount changed since it was last saved.
    unsaved: HashSet<TargetId>,
}

impl Default for OwnMounts {
    fn default() -> Self {
        Self { boot_id: node::boot_id().unwrap_or_default(), state: Mutex::default(), changed: Notify::new() }
    }
}

impl OwnMounts {
    /// Adds the mounts that an earlier agent process saved during this boot.
    pub fn restore(&self, saved: Vec<(TargetId, OwnMountId)>) {
        let is_valid = |(_, mount): &(_, OwnMountId)| !self.boot_id.is_empty() && mount.boot_id == self.boot_id;
        let mut state = self.state();
        for (target, mount) in saved.into_iter().filter(is_valid) {
            if mount.is_intent() {
                state.mounting.insert(target);
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

    /// Records that `mount.nfs` is being started for a target at whose path nothing is mounted.
    pub(super) fn begin(&self, target: TargetId) {
        self.state().mounting.insert(target);
        self.keep_unsaved([target]);
    }

    /// Records that `mount.nfs` mounted nothing.
    pub(super) fn give_up(&self, target: TargetId) {
        self.state().mounting.remove(&target);
        self.keep_unsaved([target]);
    }

    /// Updates the record from a mount table. `found` is the only NFS mount at the target's path, and `is_made` whether
    /// `mount.nfs` made it, if it was started.
    ///
    /// A restarted agent may be in another mount namespace, where the same mount has another id: a container whose
    /// mounts are propagated from the host. So the first look after a restart compares device and source only.
    pub(super) fn settle(&self, target: TargetId, found: Option<&MountEntry>, is_made: bool, table: &MountTable) {
        let mut state = self.state();
        let was_mounting = state.mounting.remove(&target);
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
            let mount = OwnMountId { boot_id: self.boot_id.clone(), mount_id, device, source };
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

    /// Returns each target whose mount changed since the last call, with its mount. If saving fails, pass the targets
    /// to [`Self::keep_unsaved`].
    #[must_use]
    pub fn take_unsaved(&self) -> Vec<(TargetId, Option<OwnMountId>)> {
        let mut state = self.state();
        let unsaved = std::mem::take(&mut state.unsaved);
        let intent = || OwnMountId::intent(self.boot_id.clone());
        let current = |target| match state.mounting.contains(&target) {
            true => Some(intent()),
            false => state.mounts.get(&target).cloned(),
        };
        unsaved.into_iter().map(|target| (target, current(target))).collect()
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
        mounts.begin(TargetId::nil());
        mounts.settle(TargetId::nil(), Some(&table.entries()[1]), true, table);
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
        mounts.settle(TargetId::nil(), None, false, &ours);
        assert!(mounts.is_own(TargetId::nil(), &ours.entries()[1]));
        mounts.settle(TargetId::nil(), None, false, &none);
        assert!(!mounts.is_own(TargetId::nil(), &ours.entries()[1]), "the numbers may belong to another mount now");
    }

    #[test]
    fn only_a_mount_after_a_mount_command_is_recorded() {
        let foreign = table("2 1 0:2 / /m rw - nfs nas:/b rw");
        let mounts = OwnMounts::default();
        mounts.settle(TargetId::nil(), Some(&foreign.entries()[1]), true, &foreign);
        assert!(!mounts.is_own(TargetId::nil(), &foreign.entries()[1]), "nothing was started");
        mounts.begin(TargetId::nil());
        mounts.give_up(TargetId::nil());
        mounts.settle(TargetId::nil(), Some(&foreign.entries()[1]), true, &foreign);
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
            restarted.settle(*target, Some(entry), false, &now);
            assert_eq!(restarted.is_own(*target, entry), is_own, "{id} {device} {source}");
            let unsaved = restarted.take_unsaved();
            assert_eq!(unsaved.is_empty(), id == 2, "{unsaved:?}");
            if is_own {
                let later = at(9, device, source);
                restarted.settle(*target, Some(&later.entries()[1]), false, &later);
                assert!(!restarted.is_own(*target, &later.entries()[1]), "the agent has looked already");
            }
        }
    }

    #[test]
    fn mount_of_an_agent_that_was_killed_before_it_saved_the_mount_is_recognized() {
        let ours = table("2 1 0:2 / /m rw - nfs4 nas:/resolved rw");
        let killed = OwnMounts::default();
        killed.begin(TargetId::nil());
        let saved: Vec<_> = killed.take_unsaved().into_iter().filter_map(|(id, mount)| Some((id, mount?))).collect();
        assert_eq!(saved.len(), 1);
        for (is_made, is_own) in [(true, true), (false, false)] {
            let restarted = OwnMounts::default();
            restarted.restore(saved.clone());
            restarted.settle(TargetId::nil(), Some(&ours.entries()[1]), is_made, &ours);
            assert_eq!(restarted.is_own(TargetId::nil(), &ours.entries()[1]), is_own);
            let unsaved = restarted.take_unsaved();
            assert!(matches!(unsaved.as_slice(), [(_, mount)] if mount.is_some() == is_own), "{unsaved:?}");
        }
    }

    #[test]
    fn intent_is_removed_when_nothing_was_mounted() {
        for is_given_up in [true, false] {
            let mounts = OwnMounts::default();
            mounts.begin(TargetId::nil());
            assert!(matches!(mounts.take_unsaved().as_slice(), [(_, Some(intent))] if intent.is_intent()));
            if is_given_up {
                mounts.give_up(TargetId::nil());
            } else {
                mounts.settle(TargetId::nil(), None, false, &table(""));
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
        mounts.settle(TargetId::nil(), None, false, &table(""));
        assert_eq!(mounts.take_unsaved(), [(TargetId::nil(), None)]);
    }
}
