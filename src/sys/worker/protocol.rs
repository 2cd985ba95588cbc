//! The worker protocol: requests, responses and faults. Their encoding is in [`frame`].

pub mod frame;

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::model::BlockCounts;
use crate::model::canary_file::CanaryFileNames;
use crate::model::fnv::{FNV_OFFSET_BASIS, fnv1a};

/// Maximum length of a path in a batch, in bytes. [`frame::BATCH_MAX`] paths fit into a frame.
const BATCH_PATH_MAX_BYTES: usize = 512;

/// Identity of this protocol: the FNV-1a hash of the files that define it. A worker of another build may understand the
/// agent only if it is the same.
pub(in crate::sys::worker) const IDENTITY: u64 = {
    let requests = fnv1a(FNV_OFFSET_BASIS, include_bytes!("protocol.rs"));
    fnv1a(fnv1a(requests, include_bytes!("protocol/frame.rs")), include_bytes!("../../model/canary_file.rs"))
};

/// Argument that makes this program a probe worker.
pub const ARGUMENT: &str = "probe-worker";

/// Request to a worker. Paths must be UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Measure the file system at a directory. Answered by [`Response::Counts`].
    StatVfs {
        /// The directory.
        path: PathBuf,
        /// Whether anything but NFS is an error ([`FaultKind::NotNfs`]).
        expect_nfs: bool,
    },
    /// Measure the file system that is mounted at a mount point, through a private copy of the mount. So the process
    /// that owns the mount can always unmount it and remove the mount point. Answered by [`Response::Counts`].
    StatMount {
        /// The mount root.
        root: PathBuf,
        /// The mount point, relative to the root.
        relative: PathBuf,
        /// User and group that measure it. `None` for those of the worker.
        user: Option<(u32, u32)>,
    },
    /// Write, read back and remove a file. Answered by [`Response::Canary`].
    Canary(CanaryRequest),
    /// Create the mount point. Refused when something is mounted there. Answered by
    /// [`Response::Prepared`].
    PrepareMountPoint {
        /// The mount root, which is created with its parents if it is missing.
        root: PathBuf,
        /// The mount point, relative to the root.
        relative: PathBuf,
        /// Whether only the owner of the root may list and traverse it.
        is_private: bool,
    },
    /// Verify that no user other than root can replace a mount point or a directory on the way to it. The mount itself
    /// is not accessed. Answered by [`Response::Done`].
    VerifyMountPoint {
        /// The mount point.
        path: PathBuf,
    },
    /// Remove the mount point, and then directories between it and the root that have become empty. Answered by
    /// [`Response::Done`], also when it does not exist.
    RemoveMountPoint {
        /// The mount root, which stays.
        root: PathBuf,
        /// The mount point, relative to the root.
        relative: PathBuf,
    },
    /// Unmount the topmost mount at a path. Refused when users other than root can replace a directory on the way
    /// ([`FaultKind::Unprotected`]). Answered by [`Response::Done`].
    Unmount {
        /// The mount point.
        path: PathBuf,
        /// Id of the mount. Refused when another mount is the topmost one at the path ([`FaultKind::Mounted`]).
        mount_id: u32,
        /// How the kernel treats users of the mount.
        how: UnmountHow,
    },
}

impl Request {
    /// Name of the request, for logs.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::StatVfs { .. } => "statvfs",
            Self::StatMount { .. } => "stat_mount",
            Self::Canary(_) => "canary",
            Self::PrepareMountPoint { .. } => "prepare_mount_point",
            Self::VerifyMountPoint { .. } => "verify_mount_point",
            Self::RemoveMountPoint { .. } => "remove_mount_point",
            Self::Unmount { .. } => "unmount",
        }
    }

    /// Whether the request may share a batch with requests of other targets. It changes nothing, and takes only
    /// the time that storage takes.
    #[must_use]
    pub(super) fn is_brief(&self) -> bool {
        match self {
            Self::StatVfs { path, .. } | Self::VerifyMountPoint { path } => {
                path.to_str().is_some_and(|path| path.len() <= BATCH_PATH_MAX_BYTES)
            }
            _ => false,
        }
    }

    /// Whether the request is idempotent, so that it may be repeated with another worker.
    #[must_use]
    pub const fn is_repeatable(&self) -> bool {
        match self {
            // Executing these again changes nothing more.
            Self::StatVfs { .. }
            | Self::StatMount { .. }
            | Self::PrepareMountPoint { .. }
            | Self::VerifyMountPoint { .. }
            | Self::RemoveMountPoint { .. } => true,
            // Leftovers of the first execution would be reported as a fault of the storage.
            Self::Canary(_) => false,
            // A second execution would remove the mount below, which the agent may not have made.
            Self::Unmount { .. } => false,
        }
    }
}

/// How to unmount (umount2(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnmountHow {
    /// Only if nothing uses the mount.
    Plain,
    /// Aborts requests that wait for the server first (`MNT_FORCE`). A mount in use stays.
    Force,
    /// Detaches the mount at once. The kernel removes it when nothing uses it any more (`MNT_DETACH`).
    Lazy,
}

/// A file to write, read back and remove as the user that writes backups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryRequest {
    /// The directory.
    pub path: PathBuf,
    /// The user.
    pub uid: u32,
    /// The user's group. The user has no supplementary groups.
    pub gid: u32,
    /// Names of the file and of leftovers.
    pub names: CanaryFileNames,
    /// Whether anything but NFS is an error ([`FaultKind::NotNfs`]).
    pub expect_nfs: bool,
}

/// Answer of a worker that executed its request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// Answer to [`Request::StatVfs`].
    Counts(FileSystemCounts),
    /// Answer to [`Request::Canary`].
    Canary(CanaryWritten),
    /// Answer to [`Request::PrepareMountPoint`].
    Prepared(PreparedMountPoint),
    /// First answer of a worker, without a request: it is ready.
    Ready {
        /// Identity of the protocol that the worker was built with.
        protocol: u64,
    },
    /// Answer to the other requests.
    Done,
}

/// Counts of statvfs(3). The NFS client of Linux requests them from the server at each call (FSSTAT).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSystemCounts {
    /// Unit of the block counts, in bytes (`f_frsize`).
    pub unit_bytes: u64,
    /// Total number of blocks.
    pub blocks: u64,
    /// Free blocks.
    pub blocks_free: u64,
    /// Free blocks for unprivileged users.
    pub blocks_available: u64,
    /// Total number of inodes.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
    /// Magic number of the file system (statfs(2)).
    pub magic: u64,
}

impl FileSystemCounts {
    /// Returns the counts without the type of the file system.
    #[must_use]
    pub fn block_counts(&self) -> BlockCounts {
        BlockCounts {
            unit_bytes: self.unit_bytes,
            blocks: self.blocks,
            free: self.blocks_free,
            available: self.blocks_available,
            inodes: self.files,
            inodes_free: self.files_free,
        }
    }
}

/// Result of a canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryWritten {
    /// Number of bytes that were written and read back.
    pub bytes: u64,
    /// How they were read back.
    pub read_back: ReadBack,
    /// Number of leftovers of earlier canaries of this node that were removed.
    pub leftovers_removed: u32,
}

/// How a canary was read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadBack {
    /// With `O_DIRECT`, so from the server.
    Direct,
    /// After the kernel was advised to drop its cached copy. It may have kept the copy.
    Advised,
}

/// Result of preparing a mount point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedMountPoint {
    /// Whether the directory was created.
    pub created: bool,
    /// Whether users other than root could write to the bare directory, which was corrected.
    pub tightened: bool,
    /// Whether the bare directory contains files, which a mount hides. They may be backups that were written while
    /// nothing was mounted.
    pub holds_files: bool,
}

/// Why a worker could not execute its request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{at}")]
pub struct WorkerFault {
    /// Kind of the failure.
    pub kind: FaultKind,
    /// Error number of the system call that failed, if one did.
    errno: Option<i32>,
    /// Operation, path and error, as a sentence.
    pub at: String,
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FaultKind {
    /// A system call failed with [`WorkerFault::errno`].
    System,
    /// The file system at the path is not NFS, because it was unmounted meanwhile.
    NotNfs,
    /// Nothing is mounted at the mount point any more.
    NotMounted,
    /// The kernel cannot copy mounts, or does not permit it.
    NoMountCopies,
    /// The bytes that were read back differ from those that were written.
    CanaryMismatch,
    /// The directory to remove is not empty.
    NotEmpty,
    /// A symbolic link or a file is in place of a directory.
    NotADirectory,
    /// Users other than root can replace the mount point.
    Unprotected,
    /// Something is mounted where a bare directory was expected.
    Mounted,
    /// The worker may not act as the requested user.
    Identity,
    /// The request is invalid: a relative root, a `..`, or a file name that is not the name of a canary.
    BadRequest,
}

impl WorkerFault {
    pub(super) fn new(kind: FaultKind, at: impl Into<String>) -> Self {
        Self { kind, errno: None, at: at.into() }
    }

    /// Returns the fault of a system call that failed on a path.
    #[must_use]
    pub fn system(call: &str, path: &Path, errno: Errno) -> Self {
        let kind = match errno {
            Errno::ELOOP | Errno::ENOTDIR => FaultKind::NotADirectory,
            Errno::ENOTEMPTY => FaultKind::NotEmpty,
            _ => FaultKind::System,
        };
        let at = format!("{call} {}: {} ({errno:?})", path.display(), errno.desc());
        Self { kind, errno: Some(errno as i32), at }
    }

    /// Changes the kind of a fault whose meaning the caller knows.
    pub(super) fn of_kind(mut self, kind: FaultKind) -> Self {
        self.kind = kind;
        self
    }

    /// Error number of the system call that failed, if one did.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        self.errno.map(Errno::from_raw)
    }
}
