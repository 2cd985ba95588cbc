//! The exported directories: handles, attributes, entries and capacity, read from the local file system.

#![allow(clippy::disallowed_methods, reason = "exported directories are local, and this is not part of the agent")]

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nfs3_types::nfs3::{FSSTAT3resok, Nfs3Option, fattr3, ftype3, nfs_fh3, nfsstat3, nfstime3, specdata3};
use nfs3_types::xdr_codec::Opaque;
use nix::sys::statvfs::statvfs;
use uuid::Uuid;

use super::NfsExportFixture;

/// Maximum number of files and directories with a handle.
const HANDLES_MAX: usize = 65_536;

/// The exports, and the handles of their files and directories.
///
/// A handle is a generation and a number, of 8 bytes each (RFC 1813 allows 64 in total). Handles of another
/// generation are stale. Each server starts with a new generation.
pub struct Files {
    exports: Vec<NfsExportFixture>,
    generation: u64,
    paths: Vec<PathBuf>,
    numbers: HashMap<PathBuf, usize>,
}

impl Files {
    /// # Errors
    /// When an exported path does not exist or is not a directory.
    pub fn new(mut exports: Vec<NfsExportFixture>) -> io::Result<Self> {
        for export in &mut exports {
            export.directory = export.directory.canonicalize()?;
            std::fs::read_dir(&export.directory)?;
        }
        Ok(Self { exports, generation: new_generation(), paths: Vec::new(), numbers: HashMap::new() })
    }

    /// The paths that clients may mount.
    pub fn export_paths(&self) -> impl Iterator<Item = &str> {
        self.exports.iter().map(|export| export.path.as_str())
    }

    /// The root handle of the export with this path, with or without trailing slash.
    pub fn open_export(&mut self, path: &[u8]) -> Option<Result<nfs_fh3, nfsstat3>> {
        let wanted = trimmed(path);
        let found = self.exports.iter().find(|export| trimmed(export.path.as_bytes()) == wanted)?;
        Some(self.handle(found.directory.clone()))
    }

    /// Makes every handle stale.
    pub fn invalidate_handles(&mut self) {
        self.generation = new_generation();
        self.paths.clear();
        self.numbers.clear();
    }

    /// The handle of a path.
    ///
    /// # Errors
    /// When [`HANDLES_MAX`] paths have one.
    pub fn handle(&mut self, path: PathBuf) -> Result<nfs_fh3, nfsstat3> {
        let number = match self.numbers.get(&path) {
            Some(number) => *number,
            None if self.paths.len() >= HANDLES_MAX => return Err(nfsstat3::NFS3ERR_SERVERFAULT),
            None => {
                self.paths.push(path.clone());
                self.numbers.insert(path, self.paths.len() - 1);
                self.paths.len() - 1
            }
        };
        let bytes = [self.generation.to_be_bytes(), (number as u64).to_be_bytes()].concat();
        Ok(nfs_fh3 { data: Opaque::owned(bytes) })
    }

    /// Forgets the handle of a removed file. Its number is used again if it was the latest one.
    pub fn forget(&mut self, path: &Path) {
        if let Some(number) = self.numbers.remove(path)
            && number + 1 == self.paths.len()
        {
            self.paths.pop();
        }
    }

    /// The path of a handle.
    ///
    /// # Errors
    /// `NFS3ERR_BADHANDLE` for malformed handles, `NFS3ERR_STALE` for invalidated ones.
    pub fn path(&self, handle: &nfs_fh3) -> Result<PathBuf, nfsstat3> {
        let bytes: [u8; 16] = handle.data.as_ref().try_into().map_err(|_| nfsstat3::NFS3ERR_BADHANDLE)?;
        let both = u128::from_be_bytes(bytes);
        let (generation, number) = ((both >> 64) as u64, both as u64);
        let known = self.paths.get(usize::try_from(number).map_err(|_| nfsstat3::NFS3ERR_STALE)?);
        known.filter(|_| generation == self.generation).cloned().ok_or(nfsstat3::NFS3ERR_STALE)
    }

    /// The path of `name` in `directory`, which never leaves the export.
    ///
    /// # Errors
    /// `NFS3ERR_INVAL` for a name that is not a single component.
    pub fn child(&self, directory: &Path, name: &[u8]) -> Result<PathBuf, nfsstat3> {
        match name {
            b"." => Ok(directory.to_owned()),
            b".." if self.exports.iter().any(|export| export.directory == directory) => Ok(directory.to_owned()),
            b".." => directory.parent().map(Path::to_owned).ok_or(nfsstat3::NFS3ERR_NOENT),
            _ if name.is_empty() || name.iter().any(|byte| matches!(byte, b'/' | 0)) => Err(nfsstat3::NFS3ERR_INVAL),
            _ => Ok(directory.join(OsStr::from_bytes(name))),
        }
    }
}

/// Creates an empty file.
///
/// # Errors
/// The status that describes why it cannot be created.
pub fn create(path: &Path) -> Result<(), nfsstat3> {
    File::create_new(path).map(drop).map_err(|error| status(&error))
}

/// Writes to a file.
///
/// # Errors
/// The status that describes why it cannot be written.
pub fn write(path: &Path, offset: u64, data: &[u8]) -> Result<(), nfsstat3> {
    let file = File::options().write(true).open(path).map_err(|error| status(&error))?;
    file.write_all_at(data, offset).map_err(|error| status(&error))
}

/// Reads from a file.
///
/// # Errors
/// The status that describes why it cannot be read.
pub fn read(path: &Path, offset: u64, count: u32) -> Result<Vec<u8>, nfsstat3> {
    let mut data = vec![0; count as usize];
    let length = File::open(path).and_then(|file| file.read_at(&mut data, offset)).map_err(|error| status(&error))?;
    data.truncate(length);
    Ok(data)
}

/// Removes a file.
///
/// # Errors
/// The status that describes why it cannot be removed.
pub fn remove(path: &Path) -> Result<(), nfsstat3> {
    std::fs::remove_file(path).map_err(|error| status(&error))
}

fn new_generation() -> u64 {
    Uuid::new_v4().as_u64_pair().0
}

fn trimmed(path: &[u8]) -> &[u8] {
    path.strip_suffix(b"/").unwrap_or(path)
}

/// The attributes of a path, without following a link.
///
/// # Errors
/// The status that describes why they cannot be read.
pub fn attributes(path: &Path) -> Result<fattr3, nfsstat3> {
    let found = path.symlink_metadata().map_err(|error| status(&error))?;
    let kind = found.file_type();
    let time = |seconds: i64, nanoseconds: i64| nfstime3 {
        seconds: u32::try_from(seconds).unwrap_or_default(),
        nseconds: u32::try_from(nanoseconds).unwrap_or_default(),
    };
    Ok(fattr3 {
        type_: match () {
            () if kind.is_dir() => ftype3::NF3DIR,
            () if kind.is_symlink() => ftype3::NF3LNK,
            () if kind.is_block_device() => ftype3::NF3BLK,
            () if kind.is_char_device() => ftype3::NF3CHR,
            () if kind.is_socket() => ftype3::NF3SOCK,
            () if kind.is_fifo() => ftype3::NF3FIFO,
            () => ftype3::NF3REG,
        },
        // The low twelve bits are the permissions (RFC 1813 §2.5).
        mode: found.mode() & 0o7777,
        nlink: u32::try_from(found.nlink()).unwrap_or(u32::MAX),
        uid: found.uid(),
        gid: found.gid(),
        size: found.size(),
        // st_blocks counts units of 512 bytes, independent of the block size (stat(3type)).
        used: found.blocks() * 512,
        rdev: specdata3::default(),
        fsid: found.dev(),
        fileid: found.ino(),
        atime: time(found.atime(), found.atime_nsec()),
        mtime: time(found.mtime(), found.mtime_nsec()),
        ctime: time(found.ctime(), found.ctime_nsec()),
    })
}

/// The names in a directory in a stable order, with `.` and `..` first.
///
/// # Errors
/// The status that describes why it cannot be read.
pub fn names(directory: &Path) -> Result<Vec<Vec<u8>>, nfsstat3> {
    let entries = std::fs::read_dir(directory).map_err(|error| match error.kind() {
        io::ErrorKind::NotADirectory => nfsstat3::NFS3ERR_NOTDIR,
        _ => status(&error),
    })?;
    let mut names = entries
        .map(|entry| entry.map(|entry| entry.file_name().as_bytes().to_vec()).map_err(|error| status(&error)))
        .collect::<Result<Vec<_>, _>>()?;
    names.sort();
    names.splice(0..0, [b".".to_vec(), b"..".to_vec()]);
    Ok(names)
}

/// The capacity of the file system of a path in bytes. statvfs(3) counts in fragments.
///
/// # Errors
/// The status that describes why it cannot be read.
pub fn capacity(path: &Path) -> Result<FSSTAT3resok, nfsstat3> {
    let found = statvfs(path).map_err(|error| status(&error.into()))?;
    let unit = found.fragment_size();
    Ok(FSSTAT3resok {
        obj_attributes: Nfs3Option::Some(attributes(path)?),
        tbytes: found.blocks() * unit,
        fbytes: found.blocks_free() * unit,
        abytes: found.blocks_available() * unit,
        tfiles: found.files(),
        ffiles: found.files_free(),
        afiles: found.files_available(),
        invarsec: 0,
    })
}

fn status(error: &io::Error) -> nfsstat3 {
    match error.kind() {
        io::ErrorKind::NotFound => nfsstat3::NFS3ERR_NOENT,
        io::ErrorKind::PermissionDenied => nfsstat3::NFS3ERR_ACCES,
        io::ErrorKind::AlreadyExists => nfsstat3::NFS3ERR_EXIST,
        _ => nfsstat3::NFS3ERR_IO,
    }
}
