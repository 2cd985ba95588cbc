//! The identity of the open files: whether a change still reaches the files at the registry's path.
//!
//! SQLite can write to an open file that was removed or replaced, but everything written is lost when the file
//! is closed. So each change first verifies that the open files are still at their paths ([`FileIdentity`]).

#![allow(clippy::disallowed_methods, reason = "the registry's file is on a local disk, never below the mount root")]

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::sys::statvfs::{FsFlags, statvfs};

use super::paths::with_suffix;
use crate::registry::store::StorageError;

/// Device and inode of the open files, the database and its write-ahead log, and whether their file system is
/// read-only.
#[derive(Debug)]
pub(super) struct FileIdentity {
    path: PathBuf,
    files: Mutex<Vec<OpenFile>>,
    is_read_only: AtomicBool,
    /// Whether the file system became read-only during a change.
    pub(super) is_uncertain: AtomicBool,
}

/// Path, device and inode.
type OpenFile = (PathBuf, u64, u64);

fn files_of(path: &Path) -> [std::io::Result<OpenFile>; 2] {
    let of_one = |path: PathBuf| fs::metadata(&path).map(|found| (path, found.dev(), found.ino()));
    [path.to_owned(), with_suffix(path, "-wal")].map(of_one)
}

impl FileIdentity {
    /// Returns the identity of the files that are at the path now.
    pub(super) fn of(path: &Path) -> std::io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            files: Mutex::new(files_of(path).into_iter().collect::<Result<_, _>>()?),
            is_read_only: AtomicBool::new(false),
            is_uncertain: AtomicBool::new(false),
        })
    }

    /// Verifies that the open files are still at their paths, and that their file system is writable.
    ///
    /// # Errors
    /// [`StorageError`] when a file was removed or replaced, when it cannot be read, or when the file system is or was
    /// read-only.
    pub(super) fn verify(&self) -> Result<(), StorageError> {
        for (path, device, inode) in self.files.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let is_same = match fs::metadata(path) {
                Ok(found) => (found.dev(), found.ino()) == (*device, *inode),
                Err(error) if error.kind() == ErrorKind::NotFound => false,
                Err(error) => {
                    return Err(StorageError::Failed(format!(
                        "{} cannot be read ({error}): expected a file on a local disk that the agent may read. Correct that, then repeat the change",
                        path.display()
                    )));
                }
            };
            if !is_same {
                return Err(StorageError::Failed(format!(
                    "{} was removed or replaced while the agent was running: restore the registry from a backup, then restart the agent",
                    path.display()
                )));
            }
        }
        if self.is_uncertain.load(Ordering::Relaxed) {
            return Err(StorageError::ReadOnly(format!(
                "the file system of {} became read-only during an earlier change: correct that, then restart the agent",
                self.path.display()
            )));
        }
        self.verify_writable()
    }

    /// Takes the files that are at the path now as the open ones, after SQLite created its log anew.
    pub(super) fn renew(&self) {
        let files = files_of(&self.path).into_iter().flatten().collect();
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = files;
    }

    /// Whether the file system has this much space, in bytes.
    pub(super) fn has_space(&self, bytes: u64) -> bool {
        statvfs(&self.path).is_ok_and(|found| found.blocks_available().saturating_mul(found.fragment_size()) >= bytes)
    }

    /// Verifies that the file system is not read-only. The kernel may make it read-only after a disk error. An fsync(2)
    /// of a file that was opened before then succeeds, although nothing is written (fs/ext4/fsync.c, `ext4_sync_file`).
    fn verify_writable(&self) -> Result<(), StorageError> {
        let path = self.path.display();
        let flags = statvfs(&self.path)
            .map_err(|error| StorageError::Failed(format!("the file system of {path} cannot be examined ({error})")))?
            .flags();
        let is_read_only = flags.contains(FsFlags::ST_RDONLY);
        if is_read_only != self.is_read_only.swap(is_read_only, Ordering::Relaxed) {
            if is_read_only {
                tracing::error!(%path, "the registry's file system became read-only: no change is accepted until it is writable again");
            } else {
                tracing::info!(%path, "the registry's file system is writable again");
            }
        }
        if !is_read_only {
            return Ok(());
        }
        Err(StorageError::ReadOnly(format!(
            "the file system of {path} is mounted read-only, possibly after a disk error (see dmesg): mount it read-write, then repeat the change"
        )))
    }

    /// Verifies, after a change, that the file system did not become read-only during it. If it did, this change may or
    /// may not be stored, and every later change is refused.
    ///
    /// # Errors
    /// [`StorageError::Uncertain`].
    pub(super) fn verify_written(&self) -> Result<(), StorageError> {
        self.verify_writable().map_err(|_| {
            self.is_uncertain.store(true, Ordering::Relaxed);
            StorageError::Uncertain(format!(
                "the file system of {} became read-only during the change, which may or may not be stored: the registry shows it after a restart of the agent",
                self.path.display()
            ))
        })
    }
}
