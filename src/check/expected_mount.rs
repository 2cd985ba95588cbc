//! Identifies what is mounted at the mount path of a target.
//!
//! The topmost entry of the mount table at the mount path counts. It is the target's if it is an NFS file
//! system whose source is the export, by its registered name or by the address that this node uses. If a
//! file system of a server is mounted several times, the kernel shares it, and shows the source of the
//! first mount for all of them. So a source with another host name also belongs to the export, if it has the
//! same path and an address to which the server's name resolves or resolved. A different port means a different
//! server.
//!
//! The kernel may also show a path other than the one that was mounted, and the configuration may have changed since.
//! So a mount that the agent made is the target's whatever the kernel shows ([`OwnMounts`]). Anything else is a foreign
//! mount.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::own_mounts::OwnMounts;
use super::server_addresses::ServerAddresses;
use crate::model::{NfsExport, NfsOptions, TargetId};
use crate::sys::node::monotonic_now;
use crate::sys::{ChildCensus, MountEntry, MountStats, MountStatsCache, MountTable};

/// Unit of the age of a mount in the kernel's counters, which are rounded down.
const AGE_UNIT: Duration = Duration::from_secs(1);

/// Mount that a target should have: its path, its export, and how it is recognized.
#[derive(Debug, Clone, Copy)]
pub struct ExpectedMount<'a> {
    /// The target.
    pub target: TargetId,
    /// The export as the target names it.
    pub export: &'a NfsExport,
    /// The export with the address that this node uses.
    pub mapped_export: &'a NfsExport,
    /// Addresses of the server's name.
    pub addresses: &'a ServerAddresses,
    /// Mounts that the agent made.
    pub own: &'a OwnMounts,
    /// Mount options.
    pub options: &'a NfsOptions,
    /// The mount root.
    pub root: &'a Path,
    /// Mount point, relative to the mount root.
    pub relative: &'a Path,
    /// The mount path: root and directory.
    pub path: &'a Path,
    /// Whether only the agent may access the mount path.
    pub is_private: bool,
}

/// State of the target's latest `mount.nfs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountCommand {
    /// It has just reported success.
    Succeeded,
    /// It has ended, and may have mounted before it was killed. Also if there was none.
    Ended,
    /// It was killed and has not exited, so it may still mount.
    Stuck,
}

impl MountCommand {
    /// State of an earlier command. A target has at most one child, so a stuck command is its stuck child.
    #[must_use]
    pub fn earlier(census: &ChildCensus, target: TargetId) -> Self {
        if census.stuck(target).is_some() { Self::Stuck } else { Self::Ended }
    }
}

/// Topmost mount at a mount path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathMount<'a> {
    /// Nothing is mounted.
    None,
    /// The target's export, and the number of mounts stacked there, including this one.
    Own(&'a MountEntry, usize),
    /// Another file system.
    Foreign(&'a MountEntry),
}

impl ExpectedMount<'_> {
    /// Returns the topmost mount at the path according to the mount table. Accesses no path.
    #[must_use]
    pub fn at_path<'t>(&self, table: &'t MountTable) -> PathMount<'t> {
        match table.topmost_at(self.path) {
            None => PathMount::None,
            Some(entry) if self.is_own(entry) => PathMount::Own(entry, table.stacked_at(self.path)),
            Some(entry) => PathMount::Foreign(entry),
        }
    }

    /// Updates the record of the agent's own mounts from a new mount table. If `mount.nfs` did not report success, a
    /// new mount at the path is the agent's only if it is a mount of the target's server with the target's options.
    pub fn settle(&self, table: &MountTable, command: MountCommand) {
        let found = table.topmost_at(self.path).filter(|entry| entry.is_nfs() && table.stacked_at(self.path) == 1);
        let fits =
            |entry: &MountEntry| self.is_of_server(entry) && self.options.differences(&entry.super_options).is_empty();
        let is_made = found.is_some_and(|entry| command == MountCommand::Succeeded || fits(entry));
        self.own.settle(self.target, found, is_made, command == MountCommand::Stuck, table);
    }

    /// Decides whether the mount at the path is old enough for the `mount.nfs` that an earlier agent process started. A
    /// younger one was made by another process while no agent ran. Call it before [`Self::settle`].
    pub async fn resume(&self, table: &MountTable, stats: &MountStatsCache) {
        if let Some(ends_by) = self.own.interrupted(self.target) {
            let may_be_its_mount = self.is_made_by(ends_by, table, &*stats.recent().await);
            self.own.resume(self.target, may_be_its_mount);
        }
    }

    /// Whether the mount at the path may have been made by a time of the monotonic clock. If its file system was
    /// mounted elsewhere before, the kernel only knows the time of the first mount.
    fn is_made_by(&self, time: Duration, table: &MountTable, stats: &MountStats) -> bool {
        let counters = table.topmost_at(self.path).and_then(|entry| stats.of(self.path, &entry.source));
        let made_at = |age| monotonic_now().saturating_sub(stats.read_at.elapsed() + age + AGE_UNIT);
        counters.is_some_and(|counters| made_at(counters.age) <= time)
    }

    /// Returns the mounts that `mount.nfs` may have made at another path. These are only in the later of two mount
    /// tables. They are mounts of the export if there are any, and otherwise all new NFS mounts.
    pub(super) fn new_mounts<'t>(&self, before: &MountTable, after: &'t MountTable) -> Vec<&'t MountEntry> {
        let is_new = |entry: &&MountEntry| !before.entries().iter().any(|old| old.mount_id == entry.mount_id);
        let new: Vec<_> = after.entries().iter().filter(is_new).filter(|entry| entry.is_nfs()).collect();
        let of_export: Vec<_> = new.iter().copied().filter(|entry| self.is_own(entry)).collect();
        if of_export.is_empty() { new } else { of_export }
    }

    /// Whether a mount at the path, topmost or not, may be the target's: NFS with the path of its export. The
    /// server may have names and addresses that this node does not know.
    #[must_use]
    pub fn may_hold_own(&self, table: &MountTable) -> bool {
        let may_be = |entry: &MountEntry| {
            entry.is_nfs() && (self.export.matches_path_of(&entry.source) || self.own.is_own(self.target, entry))
        };
        table.entries().iter().any(|entry| entry.mount_point == self.path && may_be(entry))
    }

    /// Returns address and port of the server that a mount uses, if the server's name now has another address, or if
    /// the options have another port.
    #[must_use]
    pub fn former_server(&self, entry: &MountEntry) -> Option<SocketAddr> {
        let address = entry.server_address()?;
        let port = entry.server_port().unwrap_or(self.options.port());
        (port != self.options.port() || self.addresses.is_elsewhere(address)).then(|| SocketAddr::new(address, port))
    }

    fn is_own(&self, entry: &MountEntry) -> bool {
        let is_of_export = self.is_of_server(entry) && self.export.matches_path_of(&entry.source);
        entry.is_nfs() && (is_of_export || self.own.is_own(self.target, entry))
    }

    /// Whether a mount uses the target's server, by name or address. A different port means a different server, even
    /// under the same name.
    fn is_of_server(&self, entry: &MountEntry) -> bool {
        let by_name = self.export.matches_host_of(&entry.source) || self.mapped_export.matches_host_of(&entry.source);
        let by_address = entry.server_address().is_some_and(|address| self.addresses.ever_included(address));
        (by_name || by_address) && entry.server_port().is_none_or(|port| port == self.options.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{MountName, NfsTarget, PathKey, TargetSpec};

    const DEADLINE: Duration = Duration::from_secs(30);
    const NOTHING: &str = "1 1 0:1 / / rw - ext4 /dev/a rw\n";

    /// Calls `look` for `nas:/b`, which this node reaches as `10.0.0.9`. The name `nas` had the address 10.0.0.7
    /// and now has 10.0.0.1.
    fn with_expected<T>(look: impl FnOnce(ExpectedMount<'_>) -> T) -> T {
        let export = NfsExport::parse("nas:/b").expect("an export");
        let mapped_export = NfsExport::parse("10.0.0.9:/b").expect("an export");
        let name = MountName::derive(
            &TargetSpec::Nfs(NfsTarget { export: export.clone(), options: None, mode: None }),
            PathKey::Path,
        )
        .expect("a name");
        let root = Path::new("/m");
        let (path, own) = (name.below(root), OwnMounts::default());
        let options = NfsOptions::parse("nfsvers=4.2,soft").expect("options");
        let mut addresses = ServerAddresses::default();
        for address in ["10.0.0.7", "10.0.0.1"] {
            addresses.update("nas", vec![address.parse().expect("an address")]);
        }
        look(ExpectedMount {
            target: TargetId::nil(),
            export: &export,
            mapped_export: &mapped_export,
            addresses: &addresses,
            own: &own,
            options: &options,
            root,
            relative: Path::new(name.as_str()),
            path: &path,
            is_private: false,
        })
    }

    fn table(expected: ExpectedMount<'_>, fs_type: &str, source: &str, options: &str) -> MountTable {
        let path = expected.path.display();
        MountTable::parse(format!("{NOTHING}2 1 0:2 / {path} rw - {fs_type} {source} {options}\n").as_bytes())
    }

    #[test]
    fn mount_is_recognized_by_source_address_and_port() {
        with_expected(|expected| {
            assert_eq!(expected.at_path(&MountTable::parse(NOTHING.as_bytes())), PathMount::None);
            for (fs_type, source, options, is_own) in [
                ("nfs4", "nas:/b", "rw", true),
                ("nfs4", "10.0.0.9:/b", "rw", true),
                ("nfs4", "NAS:/b/", "rw", true),
                ("nfs", "nas:/b", "rw,port=12049", false),
                // The kernel shows the name with which another process mounted from the same server.
                ("nfs", "other:/b", "rw,addr=10.0.0.1", true),
                ("nfs", "other:/b", "rw,addr=10.0.0.7", true),
                ("nfs", "other:/b", "rw,addr=10.0.0.2", false),
                ("nfs", "other:/b", "rw,port=2049,addr=10.0.0.1", true),
                ("nfs", "other:/b", "rw,port=0,addr=10.0.0.1", true),
                ("nfs", "other:/b", "rw,port=12049,addr=10.0.0.1", false),
                ("nfs", "other:/b", "rw,proto=rdma,port=20049,addr=10.0.0.1", true),
                ("nfs", "other:/b", "rw,mountaddr=10.0.0.1", false),
                ("nfs", "other:/c", "rw,addr=10.0.0.1", false),
                ("nfs", "other:/b", "rw", false),
                ("nfs", "nas:/c", "rw", false),
                ("tmpfs", "nas:/b", "rw", false),
            ] {
                let table = table(expected, fs_type, source, options);
                let found = expected.at_path(&table);
                assert_eq!(matches!(found, PathMount::Own(_, 1)), is_own, "{source} {options}: {found:?}");
            }
        });
    }

    #[test]
    fn former_server_is_reported_after_the_name_moved() {
        with_expected(|expected| {
            for (options, left) in [
                ("rw,addr=10.0.0.1", None),
                ("rw,addr=10.0.0.7", Some("10.0.0.7:2049")),
                ("rw", None),
                ("rw,port=12049,addr=10.0.0.1", Some("10.0.0.1:12049")),
                ("rw,proto=rdma,port=20049,addr=10.0.0.1", None),
            ] {
                let table = table(expected, "nfs", "nas:/b", options);
                expected.own.begin(expected.target, DEADLINE);
                expected.settle(&table, MountCommand::Succeeded);
                let PathMount::Own(entry, _) = expected.at_path(&table) else { panic!("{options}: not recognized") };
                assert_eq!(
                    expected.former_server(entry).map(|server| server.to_string()).as_deref(),
                    left,
                    "{options}"
                );
            }
        });
    }

    #[test]
    fn mount_that_the_agent_made_is_recognized_whatever_source_it_shows() {
        with_expected(|expected| {
            // The source has the path as resolved by the server, and some mounts a port that is no longer in the
            // options.
            for options in ["rw,addr=10.0.0.1", "rw,port=12049,addr=10.0.0.1", "rw,addr=10.9.9.9"] {
                let table = table(expected, "nfs4", "referred:/resolved", options);
                assert!(matches!(expected.at_path(&table), PathMount::Foreign(_)), "{options}");
                expected.own.begin(expected.target, DEADLINE);
                expected.settle(&table, MountCommand::Succeeded);
                assert!(matches!(expected.at_path(&table), PathMount::Own(_, 1)), "{options}");
                expected.settle(&MountTable::parse(NOTHING.as_bytes()), MountCommand::Ended);
                assert!(matches!(expected.at_path(&table), PathMount::Foreign(_)), "{options}: another mount by now");
            }
        });
    }

    #[test]
    fn mount_of_an_interrupted_command_needs_its_server_and_options() {
        with_expected(|expected| {
            for (options, is_own) in [
                ("rw,vers=4.2,soft,addr=10.0.0.1", true),
                ("rw,vers=4.2,hard,addr=10.0.0.1", false),
                ("rw,vers=4.1,soft,addr=10.0.0.1", false),
                ("rw,vers=4.2,soft,addr=10.0.0.2", false),
                ("rw,vers=4.2,soft", false),
            ] {
                let table = table(expected, "nfs4", "other:/resolved", options);
                expected.own.begin(expected.target, DEADLINE);
                expected.settle(&table, MountCommand::Ended);
                assert_eq!(matches!(expected.at_path(&table), PathMount::Own(_, 1)), is_own, "{options}");
                expected.settle(&MountTable::parse(NOTHING.as_bytes()), MountCommand::Ended);
            }
        });
    }

    #[test]
    fn mount_is_as_old_as_the_command_that_may_have_made_it() {
        with_expected(|expected| {
            let table = table(expected, "nfs4", "nas:/resolved", "rw,addr=10.0.0.1");
            let stats = |age: u64, source: &str| {
                let path = expected.path.display();
                MountStats::parse(
                    format!(
                        "device {source} mounted on {path} with fstype nfs4 statvers=1.1\n\tage:\t{age}\n\
                         \tbytes:\t0 0 0 0 7 8 0 0\n\tper-op statistics\n\t        NULL: 1 1 0 44 24 0 0 0\n"
                    )
                    .as_bytes(),
                )
            };
            let (resolved, second) = ("nas:/resolved", Duration::from_secs(1));
            let ended = monotonic_now() - second * 20;
            for (age, source, is_made_by) in
                [(25, resolved, true), (20, resolved, true), (15, resolved, false), (25, "nas:/other", false)]
            {
                assert_eq!(expected.is_made_by(ended, &table, &stats(age, source)), is_made_by, "{age} {source}");
            }
        });
    }

    #[test]
    fn mount_that_appears_after_an_interrupted_command_is_foreign() {
        with_expected(|expected| {
            expected.own.begin(expected.target, DEADLINE);
            expected.settle(&MountTable::parse(NOTHING.as_bytes()), MountCommand::Ended);
            let table = table(expected, "nfs4", "other:/resolved", "rw,addr=10.0.0.1");
            expected.settle(&table, MountCommand::Ended);
            assert!(matches!(expected.at_path(&table), PathMount::Foreign(_)));
        });
    }

    #[test]
    fn mount_over_or_instead_of_the_own_one_is_foreign() {
        with_expected(|expected| {
            let path = expected.path.display();
            let ours = format!("{NOTHING}2 1 0:2 / {path} rw - nfs4 nas:/resolved rw,addr=10.0.0.1\n");
            for (above, may_be) in [
                (format!("{ours}3 2 0:2 / {path} rw - nfs4 nas:/resolved rw,addr=10.0.0.1\n"), true),
                (format!("{ours}3 2 0:3 / {path} rw - tmpfs t rw\n"), true),
                (format!("{NOTHING}4 1 0:2 / {path} rw - nfs4 nas:/resolved rw,addr=10.0.0.1\n"), false),
                (format!("{NOTHING}2 1 0:3 / {path} rw - nfs4 nas:/resolved rw,addr=10.0.0.1\n"), false),
            ] {
                expected.own.begin(expected.target, DEADLINE);
                expected.settle(&MountTable::parse(ours.as_bytes()), MountCommand::Succeeded);
                let table = MountTable::parse(above.as_bytes());
                expected.settle(&table, MountCommand::Ended);
                assert!(matches!(expected.at_path(&table), PathMount::Foreign(_)), "{above}");
                assert_eq!(expected.may_hold_own(&table), may_be, "{above}");
            }
            let both = format!("{ours}3 2 0:3 / {path} rw - nfs4 nas:/other rw,addr=10.0.0.1\n");
            expected.settle(&MountTable::parse(NOTHING.as_bytes()), MountCommand::Ended);
            expected.own.begin(expected.target, DEADLINE);
            expected.settle(&MountTable::parse(both.as_bytes()), MountCommand::Succeeded);
            assert!(
                !expected.may_hold_own(&MountTable::parse(both.as_bytes())),
                "it is not known which of them is ours"
            );
        });
    }

    #[test]
    fn own_mount_may_be_below_a_foreign_mount() {
        with_expected(|expected| {
            let path = expected.path.display();
            for (beneath, may_be) in [("nfs other:/b", true), ("nfs other:/c", false), ("tmpfs other:/b", false)] {
                let table = MountTable::parse(
                    format!("{NOTHING}2 1 0:2 / {path} rw - {beneath} rw\n3 2 0:3 / {path} rw - tmpfs t rw\n")
                        .as_bytes(),
                );
                assert!(matches!(expected.at_path(&table), PathMount::Foreign(_)));
                assert_eq!(expected.may_hold_own(&table), may_be, "{beneath}");
            }
        });
    }
}
