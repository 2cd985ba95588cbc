//! The generation identifies the state of a registry: the registry's id and its number of changes.
//!
//! Every change of targets and types increments the generation in its own transaction. A record beside the file
//! (`registry.db.generation`) repeats the generation of the last acknowledged change. A registry that is older than
//! its record lost changes: its log was removed or damaged, or an older copy replaced the file.
//!
//! ```text
//! commit (fsync) ──► record (fsync) ──► answer
//! ```
//!
//! The record is written after the commit and before the answer. So after a crash or a loss of power it is never ahead
//! of the file, unless something that was written and confirmed is missing. A record that is behind the file is normal.

#![allow(clippy::disallowed_methods, reason = "the record is on a local disk, never below the mount root")]

use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use rusqlite::Connection;

use super::paths::{directory, remove_if_there, sync_directory, with_suffix};
use crate::model::digest::sha256_hex;
use crate::registry::error::OpenError;

/// The first schema with a generation.
pub(super) const SCHEMA: i64 = 5;

/// Length of the checksum of a record, in bytes.
const CHECKSUM_BYTES: usize = 4;

/// Most attempts to read a record that changes during the read.
const READS_MAX: usize = 8;

/// Identity and age of a registry's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Generation {
    /// Random text in hexadecimal, chosen when the registry was created.
    pub(super) registry_id: String,
    /// Number of changes.
    pub(super) number: i64,
    /// Number of targets after these changes.
    pub(super) targets: usize,
}

impl Generation {
    /// Reads the generation of an open file that contains this number of targets.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn read(connection: &Connection, targets: usize) -> rusqlite::Result<Self> {
        connection.query_row("SELECT registry_id, number FROM generation", [], |row| {
            Ok(Self { registry_id: row.get(0)?, number: row.get(1)?, targets })
        })
    }

    /// Increments the generation of an open file, in the transaction of a change.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn increment(connection: &Connection) -> rusqlite::Result<()> {
        connection.prepare_cached("UPDATE generation SET number = number + 1")?.execute([]).map(drop)
    }

    /// Makes an open file the successor of this generation, so that its content counts as the latest. For a loss that
    /// was accepted and for a restored backup.
    ///
    /// # Errors
    /// As [`Self::increment`].
    pub(super) fn continue_in(&self, connection: &Connection) -> rusqlite::Result<()> {
        let statement = "UPDATE generation SET registry_id = ?1, number = max(number, ?2) + 1";
        connection.execute(statement, (&self.registry_id, self.number)).map(drop)
    }

    /// Verifies that what was found contains every change up to this generation, which was the last acknowledged one.
    ///
    /// # Errors
    /// [`OpenError::ChangesLost`] when it does not.
    pub(super) fn verify(&self, path: &Path, found: Found<'_>) -> Result<(), OpenError> {
        // An upgraded registry starts at change 0, but has targets to lose.
        if self.number == 0 && self.targets == 0 {
            return Ok(());
        }
        let is_complete = match found {
            Found::Nothing | Found::OlderSchema(_) => false,
            Found::Generation(found) => {
                found.registry_id == self.registry_id
                    && (found.number > self.number || (found.number == self.number && found.targets >= self.targets))
            }
        };
        if is_complete {
            return Ok(());
        }
        let found = match found {
            Found::Nothing => "the file is missing".to_owned(),
            Found::OlderSchema(schema) => format!("it has schema {schema} of an older release"),
            Found::Generation(found) if found.registry_id == self.registry_id => {
                format!("it contains change {} with {}", found.number, counted(found.targets, "target"))
            }
            Found::Generation(found) => {
                format!(
                    "it is another registry ({}) at change {} with {}",
                    found.registry_id,
                    found.number,
                    counted(found.targets, "target")
                )
            }
        };
        let Self { registry_id, number, targets } = self;
        let expected =
            format!("change {number} or later of registry {registry_id} with {}", counted(*targets, "target"));
        Err(OpenError::ChangesLost { path: path.to_owned(), found, expected, record: record_path(path) })
    }
}

/// What is at the path of a registry.
#[derive(Debug, Clone, Copy)]
pub(super) enum Found<'a> {
    /// No file.
    Nothing,
    /// A registry of this schema, older than [`SCHEMA`].
    OlderSchema(i64),
    /// A registry of this generation.
    Generation(&'a Generation),
}

/// What a record says, without its checksum. The length is fixed, so that a newer one replaces it completely.
impl fmt::Display for Generation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { registry_id, number, targets } = self;
        write!(formatter, "registry {registry_id} change {number:020} targets {targets:020}")
    }
}

impl FromStr for Generation {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let line = text.strip_suffix('\n').unwrap_or_default();
        // Older releases wrote no checksum.
        let (content, checksum) =
            line.split_once(" sha256 ").map_or((line, None), |(content, sum)| (content, Some(sum)));
        let mut words = content.split(' ');
        let mut value_of = |name| words.next().filter(|word| *word == name).and_then(|_| words.next());
        let parsed = (|| {
            let registry_id = value_of("registry")?.to_owned();
            let number = value_of("change")?.parse().ok()?;
            let targets = value_of("targets")?.parse().ok()?;
            Some(Self { registry_id, number, targets })
        })();
        let is_intact = checksum.is_none_or(|sum| sum == checksum_of(content));
        parsed.filter(|found| is_intact && found.to_string() == content).ok_or("it is damaged")
    }
}

/// The line of a record. Without the checksum, one wrong bit in a number would prove a loss.
fn line_of(generation: &Generation) -> String {
    let content = generation.to_string();
    format!("{content} sha256 {}\n", checksum_of(&content))
}

fn checksum_of(content: &str) -> String {
    sha256_hex(content, CHECKSUM_BYTES)
}

/// The record beside a registry's file.
#[derive(Debug)]
pub(super) struct Record {
    /// The registry's file.
    registry: PathBuf,
    /// The open record, unless it could not be opened or created yet.
    file: Mutex<Option<File>>,
}

impl Record {
    /// Reads the record of the registry at a path. `None` if there is none.
    ///
    /// # Errors
    /// The path of a record that cannot be used, and why. Such a record proves no loss.
    pub(super) fn read(path: &Path) -> Result<Option<Generation>, String> {
        let record = record_path(path);
        match read_unchanged(&record) {
            Ok(text) => text.parse().map(Some).map_err(|error| format!("{}: {error}", record.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{} cannot be read ({error})", record.display())),
        }
    }

    /// Opens the record of the registry at a path, and makes `generation` durable in it. `recorded` is what it contains
    /// now. An existing record is written in place, which needs no space on a full disk. If it cannot be written, that
    /// is logged, and the next change tries again. A record that is behind or missing is not a loss.
    pub(super) fn open(path: &Path, recorded: Option<&Generation>, generation: &Generation) -> Self {
        let file = recorded.and_then(|_| OpenOptions::new().write(true).open(record_path(path)).ok());
        let record = Self { registry: path.to_owned(), file: Mutex::new(file) };
        if recorded != Some(generation)
            && let Err(error) = record.write(generation)
        {
            log_unwritten(&error);
        }
        record
    }

    /// Creates or replaces the record of the registry at a path.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn create(path: &Path, generation: &Generation) -> std::io::Result<File> {
        let record = record_path(path);
        let new = with_suffix(&record, ".new");
        remove_if_there(&new)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(line_of(generation).as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &record)?;
        sync_directory(directory(path))?;
        Ok(file)
    }

    /// Makes a generation durable in place, or in a new record if the open one is no longer at its path. The line is
    /// shorter than a sector, which a disk writes as a whole.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn write(&self, generation: &Generation) -> std::io::Result<()> {
        let mut open = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let path = record_path(&self.registry);
        let Some(file) = open.as_ref().filter(|file| is_at(file, &path)) else {
            if open.take().is_some() {
                tracing::warn!(path = %path.display(), "the record beside the registry was removed or replaced while the agent was running: the agent writes it anew");
            }
            *open = Some(Self::create(&self.registry, generation)?);
            return Ok(());
        };
        let line = line_of(generation);
        file.write_all_at(line.as_bytes(), 0)?;
        // Another program may have made it longer.
        file.set_len(line.len() as u64)?;
        file.sync_data()
    }

    /// Removes the record of the registry at a path.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(super) fn remove(path: &Path) -> std::io::Result<()> {
        remove_if_there(&record_path(path))
    }
}

/// Whether an open file is still at its path.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |found: std::io::Result<Metadata>| found.map(|found| (found.dev(), found.ino())).ok();
    identity(fs::metadata(path)).is_some_and(|there| identity(file.metadata()) == Some(there))
}

/// Logs that a record could not be written.
pub(super) fn log_unwritten(error: &std::io::Error) {
    tracing::error!(%error, "the record beside the registry was not written: lost changes are not detected until a later change writes it. Check the space and the errors of the disk");
}

/// A number with its noun, which is in the plural unless the number is 1.
pub(super) fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Reads a record until two reads agree. A read during the agent's write may return parts of both lines.
fn read_unchanged(record: &Path) -> std::io::Result<String> {
    let mut text = fs::read_to_string(record)?;
    for _ in 1..READS_MAX {
        let again = fs::read_to_string(record)?;
        if again == text {
            break;
        }
        text = again;
    }
    Ok(text)
}

/// Returns the error of a registry whose file is missing and whose record cannot be used.
pub(super) fn unknown_loss(path: &Path, problem: &str) -> OpenError {
    let found = format!("the file is missing, and {problem}");
    OpenError::ChangesLost {
        path: path.to_owned(),
        found,
        expected: "a registry".to_owned(),
        record: record_path(path),
    }
}

fn record_path(path: &Path) -> PathBuf {
    with_suffix(path, ".generation")
}
