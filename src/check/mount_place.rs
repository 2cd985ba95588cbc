//! Identifies what is mounted at the mount path of a target.
//!
//! The topmost entry of the mount table at the mount path counts. It is the target's if it is an NFS file
//! system whose source is the export, by its registered name or by the address that this node uses. If a
//! file system of a server is mounted several times, the kernel shares it, and shows the source of the
//! first mount for all of them. So a source with another host belongs to the export too, if it has the
//! same path and an address to which the server's name resolves or resolved. Another port is another
//! server. Anything else is a foreign mount.

use std::net::SocketAddr;
use std::path::Path;

use super::server_addresses::ServerAddresses;
use crate::model::{MountName, NfsExport, TargetId};
use crate::sys::{MountEntry, MountTable};

/// Where one target is mounted, and from which server.
#[derive(Debug, Clone, Copy)]
pub struct MountPlace<'a> {
    /// The target.
    pub target: TargetId,
    /// The export as the target names it.
    pub export: &'a NfsExport,
    /// The export as this node reaches it.
    pub export_here: &'a NfsExport,
    /// Addresses of the server's name.
    pub servers: &'a ServerAddresses,
    /// Port in the mount options.
    pub port: u16,
    /// The mount root.
    pub root: &'a Path,
    /// Directory below the mount root.
    pub name: &'a MountName,
    /// The mount path: root and directory.
    pub path: &'a Path,
}

/// What is mounted at the mount path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occupant<'a> {
    /// Nothing.
    Nobody,
    /// The target's export, and the number of mounts stacked there, including this one.
    Ours(&'a MountEntry, usize),
    /// Something else.
    Stranger(&'a MountEntry),
}

impl MountPlace<'_> {
    /// Returns what is mounted at the path according to the mount table. Touches no path.
    #[must_use]
    pub fn occupant<'t>(&self, table: &'t MountTable) -> Occupant<'t> {
        match table.topmost_at(self.path) {
            None => Occupant::Nobody,
            Some(entry) if self.is_ours(entry) => Occupant::Ours(entry, table.stacked_at(self.path)),
            Some(entry) => Occupant::Stranger(entry),
        }
    }

    /// Mounts of the export, at any path, that are in the later of two mount tables only.
    pub(super) fn new_mounts<'t>(&self, before: &MountTable, after: &'t MountTable) -> Vec<&'t MountEntry> {
        let is_new = |entry: &&MountEntry| !before.entries().iter().any(|old| old.mount_id == entry.mount_id);
        after.entries().iter().filter(is_new).filter(|entry| self.is_ours(entry)).collect()
    }

    /// Whether a mount at the path, topmost or not, may be the target's: NFS with the path of its export. A
    /// server may have names and addresses that this node does not know, or no longer knows.
    #[must_use]
    pub fn may_hold_ours(&self, table: &MountTable) -> bool {
        let may_be = |entry: &MountEntry| entry.is_nfs() && self.export.matches_path_of(&entry.source);
        table.entries().iter().any(|entry| entry.mount_point == self.path && may_be(entry))
    }

    /// Address and port of the server that a mount talks to, if the server's name points elsewhere now.
    #[must_use]
    pub fn left_behind(&self, entry: &MountEntry) -> Option<SocketAddr> {
        let address = entry.server_address().filter(|address| self.servers.have_left(*address))?;
        Some(SocketAddr::new(address, self.port))
    }

    fn is_ours(&self, entry: &MountEntry) -> bool {
        let by_name = self.export.matches_source(&entry.source) || self.export_here.matches_source(&entry.source);
        let by_address = entry.server_address().is_some_and(|address| self.servers.have_led_to(address))
            && self.export.matches_path_of(&entry.source);
        // Another port is another server, whatever its name.
        let is_its_port = entry.server_port().is_none_or(|port| port == self.port);
        entry.is_nfs() && is_its_port && (by_name || by_address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::nfs_options::NFS_PORT;
    use crate::model::{NfsTarget, PathKey, TargetSpec};

    const NOTHING: &str = "1 1 0:1 / / rw - ext4 /dev/a rw\n";

    /// Looks at a table through the place of `nas:/b`, which this node reaches as `10.0.0.9`, and whose
    /// name led to 10.0.0.7 and leads to 10.0.0.1.
    fn with_place<T>(look: impl FnOnce(MountPlace<'_>) -> T) -> T {
        let export = NfsExport::parse("nas:/b").expect("an export");
        let export_here = NfsExport::parse("10.0.0.9:/b").expect("an export");
        let name =
            MountName::derive(&TargetSpec::Nfs(NfsTarget { export: export.clone() }), PathKey::Path).expect("a name");
        let root = Path::new("/m");
        let path = name.below(root);
        let mut servers = ServerAddresses::default();
        for address in ["10.0.0.7", "10.0.0.1"] {
            servers.learn("nas", vec![address.parse().expect("an address")]);
        }
        look(MountPlace {
            target: TargetId::nil(),
            export: &export,
            export_here: &export_here,
            servers: &servers,
            port: NFS_PORT,
            root,
            name: &name,
            path: &path,
        })
    }

    fn table(place: MountPlace<'_>, fs_type: &str, source: &str, options: &str) -> MountTable {
        let path = place.path.display();
        MountTable::parse(format!("{NOTHING}2 1 0:2 / {path} rw - {fs_type} {source} {options}\n").as_bytes())
    }

    #[test]
    fn only_the_export_itself_is_ours() {
        with_place(|place| {
            assert_eq!(place.occupant(&MountTable::parse(NOTHING.as_bytes())), Occupant::Nobody);
            for (fs_type, source, options, is_ours) in [
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
                let table = table(place, fs_type, source, options);
                let occupant = place.occupant(&table);
                assert_eq!(matches!(occupant, Occupant::Ours(_, 1)), is_ours, "{source} {options}: {occupant:?}");
            }
        });
    }

    #[test]
    fn a_mount_of_an_address_that_the_name_has_left_is_left_behind() {
        with_place(|place| {
            for (options, left) in
                [("rw,addr=10.0.0.1", None), ("rw,addr=10.0.0.7", Some("10.0.0.7:2049")), ("rw", None)]
            {
                let table = table(place, "nfs", "nas:/b", options);
                let Occupant::Ours(entry, _) = place.occupant(&table) else { panic!("{options}: ours was expected") };
                assert_eq!(place.left_behind(entry).map(|server| server.to_string()).as_deref(), left, "{options}");
            }
        });
    }

    #[test]
    fn what_may_be_ours_is_seen_beneath_what_is_not() {
        with_place(|place| {
            let path = place.path.display();
            for (beneath, may_be) in [("nfs other:/b", true), ("nfs other:/c", false), ("tmpfs other:/b", false)] {
                let table = MountTable::parse(
                    format!("{NOTHING}2 1 0:2 / {path} rw - {beneath} rw\n3 2 0:3 / {path} rw - tmpfs t rw\n")
                        .as_bytes(),
                );
                assert!(matches!(place.occupant(&table), Occupant::Stranger(_)));
                assert_eq!(place.may_hold_ours(&table), may_be, "{beneath}");
            }
        });
    }
}
