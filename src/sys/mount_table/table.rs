//! A snapshot of the mount table: what is mounted where, read without touching any mount.
//!
//! The kernel answers `/proc/self/mountinfo` (proc_pid_mountinfo(5)) from memory, so reading it is safe when every
//! server in it is dead. The `procfs` crate does not parse it, because it leaves the kernel's octal escapes (`\040` for
//! a space) in paths. It also rejects the whole table for a single name that is not UTF-8.
//!
//! The mount at a path is found as the kernel finds it: a walk from the root enters, at each component, the mount on
//! top of it. The order of the lines is not enough, because a mount may be placed beneath another mount, or be hidden
//! by a mount on a parent directory.

#![allow(clippy::disallowed_methods, reason = "procfs answers from memory: nothing here can wait for storage")]

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::model::nfs_options::NFS_PORT;
use crate::model::report::MountFacts;
use nix::poll::{PollFd, PollFlags, PollTimeout};

/// Mounts of this process's mount namespace.
pub(super) const MOUNTINFO: &str = "/proc/self/mountinfo";

/// Maximum size of the mount table, in bytes. The kernel's own limit is 100 000 mounts (`fs.mount-max`), about
/// 20 MB.
const MOUNT_TABLE_MAX_BYTES: u64 = 64 << 20;

/// Maximum number of times that the table is read because it changed during the read. A read takes many `read` calls.
/// If the table changes between two of them, a mount that existed all the time may be missing.
const CONSISTENT_READS_MAX: usize = 5;

/// Id for the parent of mounts whose parent is not visible. The walk from the root begins there. No mount has this id.
const OUTSIDE: u32 = 0;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// Id of the mount, unique while it exists and reused afterwards.
    pub mount_id: u32,
    /// Id of the mount that this one is mounted on. 0 when that is not visible, such as the initial ramdisk, or
    /// outside a chroot.
    pub parent_id: u32,
    /// Device number of the file system, `major:minor`.
    pub device: String,
    /// Mount point, an absolute path.
    pub mount_point: PathBuf,
    /// Type of the file system, such as `nfs`, `nfs4` or `ext4`.
    pub fs_type: String,
    /// Source of the mount. `host:/path` for NFS.
    pub source: String,
    /// Options of this mount, such as `rw,relatime`.
    pub options: String,
    /// Options of the file system, such as `vers=3,soft`. NFS lists everything that was negotiated.
    pub super_options: String,
    /// Id of the peer group (`shared:`): mounts below one member appear below all others, also in other mount
    /// namespaces (mount_namespaces(7)). `None` if the mount is not shared.
    pub peer_group: Option<u32>,
    /// Id of the peer group from which this mount receives mounts, and to which it sends none (`master:`).
    pub master: Option<u32>,
}

impl MountEntry {
    /// Whether the file system is NFS of any version.
    #[must_use]
    pub fn is_nfs(&self) -> bool {
        matches!(self.fs_type.as_str(), "nfs" | "nfs4")
    }

    /// Whether this is an automount point, at which a file system is mounted when a process accesses it.
    #[must_use]
    pub fn is_automount(&self) -> bool {
        self.fs_type == "autofs"
    }

    /// Whether the mount or its file system is read-only.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        [&self.options, &self.super_options].iter().any(|options| options.split(',').any(|option| option == "ro"))
    }

    /// Returns the address of the server, as reported by the kernel's NFS client (`addr=`). The source contains a name,
    /// which may come from another mount of the same server.
    #[must_use]
    pub fn server_address(&self) -> Option<IpAddr> {
        self.facts().server_address
    }

    /// Returns the facts that the options contain.
    #[must_use]
    pub fn facts(&self) -> MountFacts {
        MountFacts::from_options(&self.options, &self.super_options)
    }

    /// Returns the port of the server. The kernel's NFS client does not report the default port
    /// (`nfs_show_mount_options`). `None` for RDMA, which has its own port numbers.
    #[must_use]
    pub fn server_port(&self) -> Option<u16> {
        let value = |key: &str| self.super_options.split(',').find_map(|option| option.strip_prefix(key));
        if value("proto=").is_some_and(|protocol| protocol.starts_with("rdma")) {
            return None;
        }
        let reported = value("port=").and_then(|port| port.parse().ok());
        Some(reported.filter(|port| *port != 0).unwrap_or(NFS_PORT))
    }

    /// Parses a line of mountinfo: `36 35 98:0 /root /mount/point rw,noatime master:1 - ext3 /dev/sda
    /// rw,errors=continue`, with any number of tagged fields before the hyphen.
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let mount_id = number(fields.next()?)?;
        let parent_id = number(fields.next()?)?;
        let device = text(fields.next()?);
        let mount_point = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
        let options = text(fields.next()?);
        let (mut peer_group, mut master) = (None, None);
        loop {
            match fields.next()? {
                b"-" => break,
                tag => {
                    peer_group = tag.strip_prefix(b"shared:").and_then(number).or(peer_group);
                    master = tag.strip_prefix(b"master:").and_then(number).or(master);
                }
            }
        }
        let fs_type = text(fields.next()?);
        // The source of some file systems is empty or missing.
        let source = text(fields.next().unwrap_or_default());
        let super_options = text(fields.next().unwrap_or_default());
        Some(Self {
            mount_id,
            parent_id,
            device,
            mount_point,
            fs_type,
            source,
            options,
            super_options,
            peer_group,
            master,
        })
    }

    /// Whether this mount and one in another mount namespace are copies that propagation made.
    fn is_propagated_with(&self, other: &Self) -> bool {
        let same = |group: Option<u32>, other: Option<u32>| group.is_some() && group == other;
        same(self.peer_group, other.peer_group)
            || same(self.peer_group, other.master)
            || same(self.master, other.peer_group)
    }
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(&unescape(field)).into_owned()
}

/// Decodes the kernel's `\ooo` escapes (mangle_path in fs/seq_file.c). Other backslashes stand for themselves.
pub(in crate::sys) fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) = (byte, tail) {
            bytes.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
            rest = after;
        } else {
            bytes.push(byte);
            rest = tail;
        }
    }
    bytes
}

/// All mounts at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MountTable {
    entries: Vec<MountEntry>,
    /// Indexes of the entries at each mount point. Hosts have thousands of mounts, and each probe looks one up.
    at: HashMap<PathBuf, Vec<usize>>,
}

impl MountTable {
    /// Reads the current table. Never waits for storage. Takes a few milliseconds for thousands of mounts.
    ///
    /// # Errors
    /// When `/proc` is not mounted, or the table is larger than the kernel allows.
    pub fn read() -> io::Result<Self> {
        Ok(Self::read_with_file(MOUNTINFO)?.0)
    }

    /// Reads the table of the mount namespace of another process. A mount may be missing that exists while the table
    /// changes.
    ///
    /// # Errors
    /// When the process does not exist or hides its table, or as [`Self::read`].
    pub fn of_process(pid: u32) -> io::Result<Self> {
        Ok(Self::parse(&read_file(&format!("/proc/{pid}/mountinfo"))?.1))
    }

    /// Reads a mountinfo file. Also returns an open mountinfo that reports later changes ([`changed_since_opened`]),
    /// unless the table changed during each of [`CONSISTENT_READS_MAX`] reads.
    pub(super) fn read_with_file(path: &str) -> io::Result<(Self, Option<File>)> {
        let mut table = Self::default();
        for _ in 0..CONSISTENT_READS_MAX {
            let (file, text) = read_file(path)?;
            table = Self::parse(&text);
            if !changed_since_opened(&file) {
                return Ok((table, Some(file)));
            }
        }
        Ok((table, None))
    }

    /// Parses the text of mountinfo. Skips lines that it cannot parse, so that a line of a future kernel does not
    /// hide the others.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let mut entries: Vec<MountEntry> = text.split(|byte| *byte == b'\n').filter_map(MountEntry::parse).collect();
        let ids: HashSet<u32> = entries.iter().map(|entry| entry.mount_id).collect();
        for entry in &mut entries {
            if entry.parent_id == entry.mount_id || !ids.contains(&entry.parent_id) {
                entry.parent_id = OUTSIDE;
            }
        }
        let mut at = HashMap::<PathBuf, Vec<usize>>::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            at.entry(entry.mount_point.clone()).or_default().push(index);
        }
        Self { entries, at }
    }

    /// Returns all mounts in the kernel's order.
    #[must_use]
    pub fn entries(&self) -> &[MountEntry] {
        &self.entries
    }

    /// Returns the topmost mount whose mount point is `path`. `path` must be absolute and is not resolved.
    #[must_use]
    pub fn topmost_at(&self, path: &Path) -> Option<&MountEntry> {
        self.stack_at(path).pop()
    }

    /// Returns the number of mounts that are stacked at `path`. An automount point below them does not count.
    #[must_use]
    pub fn stacked_at(&self, path: &Path) -> usize {
        self.stack_at(path).iter().filter(|entry| !entry.is_automount()).count()
    }

    /// Returns the mount that contains `path`: the topmost one at the path or at its nearest parent. `path` must be
    /// absolute and is not resolved.
    #[must_use]
    pub fn containing(&self, path: &Path) -> Option<&MountEntry> {
        path.ancestors().find_map(|directory| self.topmost_at(directory))
    }

    /// Whether this table, of another mount namespace, contains a mount: propagation copied one to the other, or the
    /// same file system is mounted at the same path. A file system at another path does not count, because another
    /// program may have mounted it there.
    #[must_use]
    pub fn shows(&self, mount: &MountEntry) -> bool {
        let is_same = |entry: &&MountEntry| entry.device == mount.device && entry.source == mount.source;
        self.entries.iter().filter(is_same).any(|entry| {
            entry.mount_id == mount.mount_id
                || entry.is_propagated_with(mount)
                || self.topmost_at(&mount.mount_point) == Some(entry)
        })
    }

    /// Returns all mounts below `root`, including hidden ones.
    pub fn below<'a>(&'a self, root: &'a Path) -> impl Iterator<Item = &'a MountEntry> {
        self.entries.iter().filter(move |entry| entry.mount_point != root && entry.mount_point.starts_with(root))
    }

    /// Returns the mounts at `path` that a walk from the root passes, lowest first.
    fn stack_at(&self, path: &Path) -> Vec<&MountEntry> {
        let mut ancestors: Vec<&Path> = path.ancestors().collect();
        ancestors.reverse();
        let mut current = OUTSIDE;
        let mut stack = Vec::new();
        for directory in ancestors {
            let mounted = self.at.get(directory).map_or(&[][..], Vec::as_slice);
            // A walk enters each mount at most once, so it cannot be longer than the candidates.
            for _ in 0..mounted.len() {
                let entries = mounted.iter().map(|index| &self.entries[*index]);
                let Some(entry) = entries.rev().find(|entry| entry.parent_id == current) else { break };
                current = entry.mount_id;
                if directory == path {
                    stack.push(entry);
                }
            }
        }
        stack
    }
}

/// Opens and reads a mountinfo file.
fn read_file(path: &str) -> io::Result<(File, Vec<u8>)> {
    let failed = |what: &str, error: io::Error| io::Error::new(error.kind(), format!("cannot {what} {path}: {error}"));
    let file = File::open(path).map_err(|error| failed("open", error))?;
    let mut text = Vec::new();
    (&file).take(MOUNT_TABLE_MAX_BYTES + 1).read_to_end(&mut text).map_err(|error| failed("read", error))?;
    if text.len() as u64 > MOUNT_TABLE_MAX_BYTES {
        return Err(io::Error::other(format!("{path} is larger than {MOUNT_TABLE_MAX_BYTES} bytes")));
    }
    Ok((file, text))
}

/// Whether the mount table changed since `file`, an open mountinfo, was opened or last checked (`mounts_poll` in the
/// kernel's `fs/proc_namespace.c`). Also true on an error.
pub(super) fn changed_since_opened(file: &File) -> bool {
    let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLPRI)];
    match nix::poll::poll(&mut fds, PollTimeout::ZERO) {
        Ok(_) => fds[0].revents().is_some_and(|seen| seen.intersects(PollFlags::POLLPRI | PollFlags::POLLERR)),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests;
