//! A target's place among the mounts, and whose it is that is mounted there.
//!
//! What counts is the topmost entry of the mount table at the mount path: an NFS file system whose
//! source is the export, by the name it was registered under or the address that this node uses. The
//! kernel has one client for each server, and shows for all of its mounts the name that the first was
//! mounted by: so a source with another host is the export's too, if it has its path, and the address
//! and port that the server answers at. Anything else that is mounted there is a stranger.

use std::net::IpAddr;
use std::path::Path;

use crate::model::{MountName, NfsExport, TargetId};
use crate::sys::{MountEntry, MountTable};

/// One target's place among the mounts.
#[derive(Debug, Clone, Copy)]
pub struct MountPlace<'a> {
    /// The target.
    pub target: TargetId,
    /// The export as the target names it.
    pub export: &'a NfsExport,
    /// The export as this node reaches it.
    pub export_here: &'a NfsExport,
    /// Where its server answered last, if it did.
    pub server: Option<IpAddr>,
    /// The port that its options ask for.
    pub port: u16,
    /// The mount root.
    pub root: &'a Path,
    /// The directory below it.
    pub name: &'a MountName,
    /// The mount path: both together.
    pub path: &'a Path,
}

/// What is mounted at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occupant<'a> {
    /// Nothing.
    Nobody,
    /// The target's export; and how many mounts lie there, this one included.
    Ours(&'a MountEntry, usize),
    /// Something else.
    Stranger(&'a MountEntry),
}

impl MountPlace<'_> {
    /// Who is there, by the mount table. Touches nothing.
    #[must_use]
    pub fn occupant<'t>(&self, table: &'t MountTable) -> Occupant<'t> {
        match table.topmost_at(self.path) {
            None => Occupant::Nobody,
            Some(entry) if self.is_ours(entry) => Occupant::Ours(entry, table.stacked_at(self.path)),
            Some(entry) => Occupant::Stranger(entry),
        }
    }

    /// What was mounted between two readings of the table, and is ours, but lies elsewhere: the mount
    /// directory was replaced by a link in the moment in which it was mounted on.
    pub(super) fn astray<'t>(&self, before: &MountTable, after: &'t MountTable) -> Option<&'t MountEntry> {
        let is_new = |entry: &&MountEntry| !before.entries().iter().any(|old| old.mount_id == entry.mount_id);
        // Mounted elsewhere below the root, it may be another target's, which has the same path.
        after
            .entries()
            .iter()
            .filter(is_new)
            .find(|entry| self.is_ours(entry) && !entry.mount_point.starts_with(self.root))
    }

    fn is_ours(&self, entry: &MountEntry) -> bool {
        let by_name = self.export.matches_source(&entry.source) || self.export_here.matches_source(&entry.source);
        let by_address = self.server.is_some()
            && entry.server_address() == self.server
            && entry.server_port().is_none_or(|port| port == self.port);
        entry.is_nfs() && (by_name || by_address && self.export.matches_path_of(&entry.source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::nfs_options::NFS_PORT;
    use crate::model::{PathKey, TargetSpec};

    #[test]
    fn only_the_export_itself_is_ours() {
        let export = NfsExport::parse("nas:/b").expect("an export");
        let export_here = NfsExport::parse("10.0.0.9:/b").expect("an export");
        let name = MountName::derive(&TargetSpec::Nfs(export.clone()), PathKey::Path).expect("a name");
        let root = Path::new("/m");
        let path = name.below(root);
        let place = MountPlace {
            target: TargetId::nil(),
            export: &export,
            export_here: &export_here,
            server: "10.0.0.1".parse().ok(),
            port: NFS_PORT,
            root,
            name: &name,
            path: &path,
        };
        let table = |fs_type: &str, source: &str| {
            let line =
                format!("1 1 0:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / {} rw - {fs_type} {source} rw\n", path.display());
            MountTable::parse(line.as_bytes())
        };
        assert_eq!(place.occupant(&MountTable::parse(b"1 1 0:1 / / rw - ext4 /dev/a rw\n")), Occupant::Nobody);
        for source in ["nas:/b", "10.0.0.9:/b", "NAS:/b/"] {
            assert!(matches!(place.occupant(&table("nfs4", source)), Occupant::Ours(_, 1)), "{source}");
        }
        // The kernel shows the name by which somebody else mounted from the same server.
        for (source, addresses, is_ours) in [
            ("other:/b", "rw,addr=10.0.0.1", true),
            ("other:/b", "rw,addr=10.0.0.2", false),
            ("other:/b", "rw,port=2049,addr=10.0.0.1", true),
            ("other:/b", "rw,port=0,addr=10.0.0.1", true),
            ("other:/b", "rw,port=12049,addr=10.0.0.1", false),
            ("other:/b", "rw,proto=rdma,port=20049,addr=10.0.0.1", true),
            ("other:/b", "rw,mountaddr=10.0.0.1", false),
            ("other:/c", "rw,addr=10.0.0.1", false),
        ] {
            let line = format!(
                "1 1 0:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / {} rw - nfs {source} {addresses}\n",
                path.display()
            );
            let table = MountTable::parse(line.as_bytes());
            let occupant = place.occupant(&table);
            assert_eq!(matches!(occupant, Occupant::Ours(..)), is_ours, "{source} {addresses}: {occupant:?}");
        }
        for (fs_type, source) in [("nfs", "other:/b"), ("nfs", "nas:/c"), ("tmpfs", "nas:/b")] {
            assert!(matches!(place.occupant(&table(fs_type, source)), Occupant::Stranger(_)), "{fs_type} {source}");
        }
    }
}
