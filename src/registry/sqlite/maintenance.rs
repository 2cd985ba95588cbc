//! Backup, restore, and acceptance of a loss, for the operator.
//!
//! A backup is one consistent file, made while the agent runs, through a connection that cannot write. Restoring
//! replaces the file by a rename. A crash leaves the old registry, the new one, or an empty file, which is refused.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags};

use super::errors::{unreadable, unwritable};
use super::file::{self, BUSY_TIMEOUT, Loss};
use super::generation::{Generation, Record, counted};
use super::paths::{directory, remove_if_there, sync_directory, with_suffix};
use super::{own_mount_rows, schema, target_rows, write_ahead_log};
use crate::model::{MountName, OwnMountId};
use crate::registry::error::{MaintenanceError, OpenError};
use crate::registry::snapshot::RegisteredTarget;

/// Suffixes of the files that belong to a registry. `.new` is a registry that is not complete yet.
const OWN_SUFFIXES: [&str; 7] = ["", LOG, "-shm", "-journal", ".lock", ".generation", UNFINISHED];
const UNFINISHED: &str = ".new";
const LOG: &str = "-wal";

/// What a copy of a registry contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Number of targets.
    pub targets: usize,
    /// Number of target types.
    pub types: usize,
}

impl fmt::Display for Content {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} and {}", counted(self.targets, "target"), counted(self.types, "target type"))
    }
}

impl Content {
    fn of(targets: &[RegisteredTarget]) -> Self {
        Self { targets: targets.len(), types: targets.iter().map(|registered| registered.types.len()).sum() }
    }
}

/// What a backup did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackedUp {
    /// What the backup contains.
    pub content: Content,
    /// Why it is not known whether the registry lost changes.
    pub warning: Option<String>,
}

/// What restoring did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// What the registry contains now.
    pub content: Content,
    /// Where the replaced file is kept, if there was one.
    pub replaced: Option<PathBuf>,
}

/// Copies the registry at `path` to the new file `to`, which no other user may read, and makes it durable. An agent may
/// run. `overwrite` allows that `to` exists.
///
/// # Errors
/// [`MaintenanceError`]; `to` is then as it was.
pub fn backup(path: &Path, to: &Path, overwrite: bool) -> Result<BackedUp, MaintenanceError> {
    let failed = |error: io::Error| MaintenanceError::Unwritable { path: to.to_owned(), detail: error.to_string() };
    if is_beside(path, &OWN_SUFFIXES, to).map_err(failed)? {
        return Err(failed(io::Error::other("it is a file of the registry itself, choose another name")));
    }
    // Read before the copy is made: the copy need not contain changes that the agent makes meanwhile.
    let (recorded, warning) = match Record::read(path) {
        Ok(recorded) => (recorded, None),
        Err(problem) => (None, Some(format!("{problem}: changes that the registry lost before cannot be detected"))),
    };
    let connection = open_to_read(path).map_err(unreadable_registry)?;
    let reserve = |name: &Path| match file::create_private(name) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(MaintenanceError::Exists(name.to_owned())),
        Err(error) => Err(failed(error)),
    };
    let new = with_suffix(to, UNFINISHED);
    if overwrite {
        remove_if_there(&new).map_err(failed)?;
    } else {
        // An empty file reserves the name. The rename of the complete copy replaces it.
        reserve(to)?;
    }
    let copied = reserve(&new).and_then(|()| {
        let copied = copy(path, &connection, recorded.as_ref(), &new)
            .map_err(|error| match error {
                MaintenanceError::Registry(error) => unreadable_registry(error).into(),
                error => error,
            })
            .and_then(|content| fs::rename(&new, to).map_err(failed).map(|()| content))
            .and_then(|content| sync_directory(directory(to)).map_err(failed).map(|()| content));
        if copied.is_err() {
            // The first error is the one that matters.
            let _ = remove_if_there(&new);
        }
        copied
    });
    if copied.is_err() && !overwrite {
        let _ = remove_if_there(to);
    }
    copied.map(|content| BackedUp { content, warning })
}

/// Returns the error of a command that only reads the registry.
pub(super) fn unreadable_registry(error: OpenError) -> OpenError {
    match error {
        OpenError::Unwritable { path, obstacle } => OpenError::Unreadable { path, obstacle },
        error => error,
    }
}

/// Whether `other` is `path` with one of these suffixes. Directories are compared by inode, so another spelling of the
/// same directory is recognized.
fn is_beside(path: &Path, suffixes: &[&str], other: &Path) -> io::Result<bool> {
    if !suffixes.iter().any(|suffix| with_suffix(path, suffix).file_name() == other.file_name()) {
        return Ok(false);
    }
    let identity = |file: &Path| -> io::Result<(u64, u64)> {
        let found = File::open(directory(file))?.metadata()?;
        Ok((found.dev(), found.ino()))
    };
    Ok(identity(path)? == identity(other)?)
}

/// Makes a verified, durable copy in the empty file `new`.
fn copy(
    path: &Path,
    connection: &Connection,
    recorded: Option<&Generation>,
    new: &Path,
) -> Result<Content, MaintenanceError> {
    let failed = |detail: String| MaintenanceError::Unwritable { path: new.to_owned(), detail };
    let name = new.to_str().ok_or_else(|| failed("the path is not valid UTF-8".to_owned()))?;
    // SQLite reports a damaged registry as a copy that cannot be opened.
    file::verify_pages(path, connection)?;
    // Writes into an empty file: https://www.sqlite.org/lang_vacuum.html#vacuuminto
    connection.execute("VACUUM INTO ?1", [name]).map_err(|error| failed(error.to_string()))?;
    // SQLite does not make this copy durable.
    File::open(new).and_then(|file| file.sync_all()).map_err(|error| failed(error.to_string()))?;
    let copied = open_to_read(new)?;
    let version = file::verify_pages(new, &copied)?;
    if let Some(recorded) = recorded {
        file::verify_generation(path, &copied, version, recorded)?;
    }
    // The error names the registry, because a row that cannot be read there was copied as it is.
    let (content, _) = content_of(&copied, version).map_err(|error| unreadable(path, &error))?;
    Ok(content)
}

/// Returns what a verified file of this schema contains, and its targets. The rows of an older schema are only counted,
/// because only an upgraded file can be read.
pub(super) fn content_of(connection: &Connection, version: i64) -> rusqlite::Result<(Content, Vec<RegisteredTarget>)> {
    if version < schema::KNOWN {
        let count = |table| {
            let count = connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, u32>(0));
            count.map(|count| count as usize)
        };
        return Ok((Content { targets: count("target")?, types: count("target_type")? }, Vec::new()));
    }
    let targets = target_rows::load(connection)?;
    Ok((Content::of(&targets), targets))
}

/// Replaces the registry at `path` by the content of `from`, a backup or a copy of a registry. `from` is not changed.
/// A copy of `from` is verified and upgraded first. The replaced file is kept beside the registry.
///
/// # Errors
/// [`MaintenanceError`], also when an agent uses the registry. The registry is left as it was, unless the error says
/// otherwise.
pub fn restore(path: &Path, from: &Path) -> Result<Restored, MaintenanceError> {
    let not_restorable = |detail: String| MaintenanceError::NotRestorable { path: from.to_owned(), detail };
    // A new host has no directory before the first start of the agent.
    file::create_directory(path)?;
    let _lock = file::lock(path)?;
    let recorded = Record::read(path);
    if is_beside(path, &[UNFINISHED], from).map_err(|error| not_restorable(error.to_string()))? {
        return Err(not_restorable("restoring overwrites a file of this name, rename it first".to_owned()));
    }
    let new = with_suffix(path, UNFINISHED);
    let restored = prepare(from, &new, recorded.as_ref().ok().and_then(Option::as_ref)).map_err(not_restorable);
    let restored = restored.and_then(|content| {
        let replaced = replace(path, &new).map_err(|error| unwritable(path, error))?;
        if recorded.is_err() {
            // The record may become readable later, and it is about the replaced registry.
            Record::remove(path).map_err(|error| {
                unwritable(
                    path,
                    format!("the backup was restored, but the record of the old registry cannot be removed ({error}): remove {}.generation", path.display()),
                )
            })?;
        }
        Ok(Restored { content, replaced })
    });
    if restored.is_err() {
        for suffix in ["", "-wal", "-shm"] {
            let _ = remove_if_there(&with_suffix(&new, suffix));
        }
    }
    restored
}

/// Copies `from` to `new`, verifies and upgrades the copy, and makes it the successor of the `recorded` generation.
fn prepare(from: &Path, new: &Path, recorded: Option<&Generation>) -> Result<Content, String> {
    // The path of the copy means nothing to the operator.
    let without_path = |error: OpenError| match error {
        OpenError::NotARegistry { detail, .. } => detail,
        OpenError::Unreadable { obstacle, .. } | OpenError::Unwritable { obstacle, .. } => obstacle.to_string(),
        OpenError::NewerSchema { found, known, .. } => {
            format!(
                "it has schema {found} and this agent knows schemas up to {known}: install the agent version that wrote it, or a later one"
            )
        }
        OpenError::ChangesLost { .. } => error.to_string(),
    };
    file::inspect_header(from, OpenOptions::new().read(true)).map_err(without_path)?;
    for suffix in ["", "-wal", "-shm"] {
        let (from, new) = (with_suffix(from, suffix), with_suffix(new, suffix));
        remove_if_there(&new).map_err(|error| error.to_string())?;
        // A copy of a registry in use may have a log. SQLite rebuilds the index of the log (-shm).
        if suffix != "-shm"
            && let Err(error) = copy_private(&from, &new)
            && (suffix.is_empty() || error.kind() != io::ErrorKind::NotFound)
        {
            return Err(error.to_string());
        }
    }
    let (connection, targets) = file::open_checked(new, None).map_err(without_path)?;
    if let Some(recorded) = recorded {
        recorded.continue_in(&connection).map_err(|error| error.to_string())?;
    }
    connection.close().map_err(|(_, error)| error.to_string())?;
    // Closing copies the log into the file and removes it, and does not report a full disk.
    if File::open(with_suffix(new, "-wal")).is_ok() {
        return Err("its log cannot be copied into it: check the space and the errors of the disk".to_owned());
    }
    File::open(new).and_then(|file| file.sync_all()).map_err(|error| error.to_string())?;
    Ok(Content::of(&targets))
}

fn copy_private(from: &Path, to: &Path) -> io::Result<u64> {
    let mut from = File::open(from)?;
    io::copy(&mut from, &mut file::create_private(to)?)
}

/// Replaces the registry by `new`. Returns the path under which the replaced file is kept.
///
/// # Errors
/// When that fails. The registry is left as it was, unless the error says otherwise.
pub(super) fn replace(path: &Path, new: &Path) -> io::Result<Option<PathBuf>> {
    let owner = File::open(directory(path))?.metadata()?;
    let metadata = File::open(new)?.metadata()?;
    if (owner.uid(), owner.gid()) != (metadata.uid(), metadata.gid()) {
        // Only root may do this. Any other user that can write here is the agent's user, which owns `new` already.
        let _ = chown(new, Some(owner.uid()), Some(owner.gid()));
    }
    let replaced = with_suffix(path, &Timestamp::now().strftime(".replaced-%Y%m%dT%H%M%S.%3fZ").to_string());
    let mut kept = Vec::new();
    for suffix in ["", LOG] {
        match fs::hard_link(with_suffix(path, suffix), with_suffix(&replaced, suffix)) {
            Ok(()) => kept.push(suffix),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                // A kept file without its log is incomplete.
                for suffix in kept {
                    let _ = remove_if_there(&with_suffix(&replaced, suffix));
                }
                return Err(error);
            }
        }
    }
    if let Err(error) = exchange(path, new, kept.contains(&LOG)) {
        return Err(match put_back(path, &replaced, &kept) {
            Ok(()) => error,
            Err(failed) => io::Error::other(format!(
                "{error}. The old registry could not be put back ({failed}) and is kept as {}: repeat the restore",
                replaced.display()
            )),
        });
    }
    sync_directory(directory(path)).map_err(|error| {
        io::Error::other(format!(
            "the restored registry is in place, but may not be durable ({error}): repeat the restore"
        ))
    })?;
    Ok((!kept.is_empty()).then_some(replaced))
}

/// Renames `new` to `path`. After a crash at any point, SQLite must not apply the old log to the new file, and must not
/// open the old file without its log. So an empty file replaces the old one first: an empty file is refused
/// ([`mod@file`]).
fn exchange(path: &Path, new: &Path, has_log: bool) -> io::Result<()> {
    if has_log {
        remove_if_there(path)?;
        file::create_private(path)?;
        sync_directory(directory(path))?;
        remove_if_there(&with_suffix(path, LOG))?;
    }
    remove_if_there(&with_suffix(path, "-shm"))?;
    sync_directory(directory(path))?;
    fs::rename(new, path)
}

/// Puts the `kept` files of a registry back. The log comes first, so that the file is never opened without it.
fn put_back(path: &Path, replaced: &Path, kept: &[&str]) -> io::Result<()> {
    for suffix in kept.iter().rev() {
        let kept = with_suffix(replaced, suffix);
        fs::rename(&kept, with_suffix(path, suffix))?;
        // rename(2) does nothing if both names are links to the same file, so both names still exist.
        remove_if_there(&kept)?;
    }
    if !kept.contains(&"") {
        remove_if_there(path)?;
    }
    sync_directory(directory(path))
}

/// Accepts that the registry at `path` lost acknowledged changes, or all of them if the file is missing. What it
/// contains now becomes the current state. Returns this content, and the error that was accepted, if there was one.
///
/// # Errors
/// [`OpenError`] when the file is damaged or an agent uses the registry.
pub fn accept_loss(path: &Path) -> Result<(Content, Option<OpenError>), OpenError> {
    let opened = file::open(path, Loss::Accepted)?;
    let file::Opened { connection, lock, identity, accepted, targets, .. } = opened;
    write_ahead_log::close(connection, &identity);
    drop(lock);
    Ok((Content::of(&targets), accepted))
}

/// Returns the mount that the agent of this host made for a target, found by its mount name and its export. `None`
/// if the registry contains none. An agent may run.
///
/// # Errors
/// [`OpenError`] when there is no registry, or when it cannot be read.
pub fn own_mount(path: &Path, mount_name: &MountName, export: &str) -> Result<Option<OwnMountId>, OpenError> {
    let connection = open_to_read(path)?;
    own_mount_rows::of_export(&connection, mount_name, export).map_err(|error| unreadable(path, &error))
}

/// Opens a registry for reading only.
pub(super) fn open_to_read(path: &Path) -> Result<Connection, OpenError> {
    file::inspect_header(path, OpenOptions::new().read(true))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| unreadable(path, &error))?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(|error| unreadable(path, &error))?;
    Ok(connection)
}
