//! The mounts of the host: the mount table of process 1.
//!
//! The kernel protects the tables of all mount namespaces with one lock (`namespace_sem` in `fs/namespace.c`). NFS
//! holds it only while memory changes. Some local file systems may read their disk for their options, such as btrfs. So
//! reading the table of another namespace waits no longer than reading an own table with the same file systems. Like
//! that one, it is read again only if the kernel reports a change.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::table::{MountTable, changed_since_opened};
use crate::sys::node;

/// The process whose mounts all programs of the host see.
pub const INIT: u32 = 1;

/// The mount table of process 1, shared by all targets.
#[derive(Debug, Default)]
pub struct HostMounts {
    latest: Mutex<Latest>,
}

#[derive(Debug, Default)]
enum Latest {
    #[default]
    Unread,
    /// Process 1 is in the mount namespace of this process, which never changes.
    OwnNamespace,
    /// The table of another namespace, and its open mountinfo, which reports later changes.
    Other(Arc<MountTable>, File),
}

/// How the host sees the mounts of this process.
#[derive(Debug, Clone)]
pub enum HostView {
    /// The host and this process are in one mount namespace, so they see the same mounts.
    OwnNamespace,
    /// They are not, and the host has this table.
    Other(Arc<MountTable>),
}

impl HostMounts {
    /// Returns the current mounts of the host. `own` is the table of this process.
    ///
    /// # Errors
    /// When this process does not see process 1 of the host, may not read its table, or the table does not stay
    /// unchanged.
    pub fn view(&self, own: &MountTable) -> io::Result<HostView> {
        if !node::sees_processes_of_host() {
            return Err(io::Error::other(
                "the agent runs in a container without the process ids of the host (--pid=host), so it does not see the mounts of the host",
            ));
        }
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        match &*latest {
            Latest::OwnNamespace => return Ok(HostView::OwnNamespace),
            Latest::Other(table, file) if !changed_since_opened(file) => {
                return Ok(HostView::Other(table.clone()));
            }
            _ => {}
        }
        *latest = Latest::Unread;
        let (table, unchanged) = MountTable::read_with_file(&format!("/proc/{INIT}/mountinfo"))?;
        if is_one_namespace(own, &table) {
            *latest = Latest::OwnNamespace;
            return Ok(HostView::OwnNamespace);
        }
        // A mount may be missing in a table that changed while it was read.
        let Some(file) = unchanged else {
            return Err(io::Error::other("the mount table of the host changed repeatedly while it was read"));
        };
        let table = Arc::new(table);
        *latest = Latest::Other(table.clone(), file);
        Ok(HostView::Other(table))
    }
}

/// Whether two tables are of one mount namespace. A mount belongs to one namespace, and its id is unique while it
/// exists. The root mount of this process exists as long as the process.
fn is_one_namespace(own: &MountTable, host: &MountTable) -> bool {
    let root = own.topmost_at(Path::new("/"));
    root.is_some_and(|root| host.entries().iter().any(|entry| entry.mount_id == root.mount_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_namespaces_differ_if_the_root_mount_does() {
        let table = |text: &str| MountTable::parse(text.as_bytes());
        let host = table("20 1 8:1 / / rw shared:1 - ext4 /dev/a rw\n30 20 8:2 / /m rw - ext4 /dev/b rw\n");
        assert!(is_one_namespace(&host, &host));
        // In a chroot of the host, which is a mount.
        assert!(is_one_namespace(&table("30 20 8:2 / / rw - ext4 /dev/b rw\n"), &host));
        assert!(!is_one_namespace(&table("90 80 8:1 / / rw shared:1 - ext4 /dev/a rw\n"), &host));
        assert!(!is_one_namespace(&table(""), &host));
    }
}
