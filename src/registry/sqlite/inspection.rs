//! Inspection for the operator: whether an agent could open the registry, and what it contains.
//!
//! Nothing is created, locked or changed, so a running agent is not disturbed. A file without a log is complete, and
//! no process uses it. SQLite reads it as immutable, because it would otherwise create a log and an index.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use rusqlite::{Connection, OpenFlags};

use super::errors::{unreadable, unwritable};
use super::file::{self, LOCK};
use super::generation::Record;
use super::maintenance::{Content, content_of, open_to_read, unreadable_registry};
use super::paths::{directory, with_suffix};
use super::{membership_rows, schema};
use crate::model::TargetSpec;
use crate::registry::error::OpenError;
use crate::registry::shared::CloudId;
use crate::registry::snapshot::Snapshot;

/// What a registry contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// Its content. `None` if there is no file: the agent creates one.
    pub content: Option<Content>,
    /// Its targets. Empty if the file has an older schema, which the agent upgrades.
    pub targets: Vec<TargetSpec>,
    /// Why it is not known whether the registry lost changes.
    pub warning: Option<String>,
}

/// Inspects the registry at `path`.
///
/// # Errors
/// [`OpenError`] when an agent that runs as this user could not open it.
pub fn inspect(path: &Path) -> Result<Inspected, OpenError> {
    // Read before the file: the file need not be older than changes that the agent makes meanwhile.
    let recorded = Record::read(path);
    verify_writable(path)?;
    if !file::exists(path)? {
        file::verify_absent(path, &recorded)?;
        file::verify_no_log(path)?;
        return Ok(Inspected { content: None, targets: Vec::new(), warning: None });
    }
    let (recorded, warning) = match recorded {
        Ok(recorded) => (recorded, None),
        Err(problem) => (None, Some(format!("{problem}: changes that the registry lost before cannot be detected"))),
    };
    let connection = open(path).map_err(unreadable_registry)?;
    let version = file::verify_pages(path, &connection)?;
    if let Some(recorded) = &recorded {
        file::verify_generation(path, &connection, version, recorded)?;
    }
    let (content, targets) = content_of(&connection, version).map_err(|error| unreadable(path, &error))?;
    let targets = targets.into_iter().map(|registered| registered.target.spec.clone()).collect();
    Ok(Inspected { content: Some(content), targets, warning })
}

/// Reads the targets of the registry at `path`, and the id of the shared registry that its node has joined. An agent
/// may run.
///
/// # Errors
/// [`OpenError`] when it cannot be read, or an older release wrote it.
pub fn read_copy(path: &Path) -> Result<(Snapshot, Option<CloudId>), OpenError> {
    if !file::exists(path)? {
        return Ok((Snapshot::default(), None));
    }
    let connection = open(path).map_err(unreadable_registry)?;
    let version = file::verify_pages(path, &connection)?;
    if version < schema::KNOWN {
        let obstacle = format!("it has schema {version} of an older release: start this release of the agent first");
        return Err(OpenError::Unreadable { path: path.to_owned(), obstacle: obstacle.into() });
    }
    let content = content_of(&connection, version).and_then(|(_, targets)| {
        let cloud_id = membership_rows::cloud_id(&connection)?;
        Ok((Snapshot::new(targets).ordered_by_creation(), cloud_id))
    });
    content.map_err(|error| unreadable(path, &error))
}

/// Returns the file on which an agent holds a lock while it uses the registry at `path`.
#[must_use]
pub fn lock_path(path: &Path) -> PathBuf {
    with_suffix(path, LOCK)
}

fn open(path: &Path) -> Result<Connection, OpenError> {
    if file::exists(&with_suffix(path, "-wal"))? {
        return open_to_read(path);
    }
    file::inspect_header(path, fs::OpenOptions::new().read(true))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(immutable_url(path), flags).map_err(|error| unreadable(path, &error))
}

/// Returns the URL of a file that nothing changes (<https://www.sqlite.org/uri.html>).
fn immutable_url(path: &Path) -> String {
    let mut url = "file://".to_owned();
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.') {
            url.push(byte.into());
        } else {
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url + "?immutable=1"
}

/// Verifies that this user may write the file and its directory. If only the directory is missing, the agent creates
/// it.
fn verify_writable(path: &Path) -> Result<(), OpenError> {
    let directory = directory(path);
    let verify = |path: &Path| access(path, AccessFlags::W_OK);
    match verify(directory) {
        Ok(()) => match verify(path) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(unwritable(path, errno.desc())),
        },
        Err(Errno::ENOENT) => match directory.parent().map(verify) {
            None | Some(Ok(())) => Ok(()),
            Some(Err(Errno::ENOENT)) => {
                Err(unwritable(path, format!("directory {} and its parent do not exist", directory.display())))
            }
            Some(Err(errno)) => {
                Err(unwritable(path, format!("{} cannot be created: {}", directory.display(), errno.desc())))
            }
        },
        Err(errno) => Err(unwritable(path, format!("{}: {}", directory.display(), errno.desc()))),
    }
}
