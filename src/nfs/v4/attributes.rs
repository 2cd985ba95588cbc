//! Attributes of a file (`fattr4`, RFC 8881 §3.3.9 and §5).

use std::fmt;

use super::super::xdr::{Decoder, Encoder, Malformed};
use super::reply_error::ReplyError;
use crate::model::BlockCounts;

/// Numbers of attributes (RFC 8881 §5.5 to §5.7, §11.16).
pub(super) const TYPE: u32 = 1;
pub(super) const SIZE: u32 = 4;
pub(super) const FSID: u32 = 8;
pub(super) const LEASE_TIME: u32 = 10;
const FILES_AVAIL: u32 = 21;
const FILES_FREE: u32 = 22;
const FILES_TOTAL: u32 = 23;
pub(super) const FS_LOCATIONS: u32 = 24;
pub(super) const MODE: u32 = 33;
pub(super) const NUMLINKS: u32 = 35;
pub(super) const OWNER: u32 = 36;
pub(super) const OWNER_GROUP: u32 = 37;
const SPACE_AVAIL: u32 = 42;
const SPACE_FREE: u32 = 43;
const SPACE_TOTAL: u32 = 44;
pub(super) const TIME_MODIFY: u32 = 53;

/// How full the file system is.
pub(super) const SPACE_AND_FILES: &[u32] =
    &[FILES_AVAIL, FILES_FREE, FILES_TOTAL, SPACE_AVAIL, SPACE_FREE, SPACE_TOTAL];

/// Types of files (`nfs_ftype4`, RFC 8881 §3.3.13).
pub(super) const REGULAR_FILE: u32 = 1;
pub(super) const DIRECTORY: u32 = 2;
pub(super) const SYMBOLIC_LINK: u32 = 5;

/// Number of words of a bitmap of attributes. The highest number in use is 89, in word 2.
pub(super) const MASK_WORDS: usize = 3;

/// Maximum number of words in a bitmap of a reply.
pub(super) const REPLY_MASK_WORDS_MAX: usize = 8;

/// Maximum length of the values of a reply, in bytes. The record is shorter anyway.
const VALUES_MAX_BYTES: usize = 1 << 14;

/// Maximum length of the name of a component or a server, in bytes.
const NAME_MAX_BYTES: usize = 1024;

/// Maximum number of components of a path in a reply.
const COMPONENTS_MAX: usize = 64;

/// Maximum number of locations of a file system that are kept. A server may list more.
pub(super) const LOCATIONS_MAX: usize = 16;

/// Upper limit of the number of elements in the values of a reply. Each has at least the four bytes of its length.
const ELEMENTS_MAX: usize = VALUES_MAX_BYTES / 4;

/// Bitmap of attributes.
pub(super) fn mask(attributes: &[u32]) -> [u32; MASK_WORDS] {
    let mut mask = [0; MASK_WORDS];
    for attribute in attributes {
        if let Some(word) = mask.get_mut((attribute / 32) as usize) {
            *word |= 1 << (attribute % 32);
        }
    }
    mask
}

pub(super) fn encode_mask(arguments: &mut Encoder, mask: &[u32; MASK_WORDS]) {
    let length = MASK_WORDS - mask.iter().rev().take_while(|word| **word == 0).count();
    arguments.u32(u32::try_from(length).unwrap_or_default());
    for word in &mask[..length] {
        arguments.u32(*word);
    }
}

/// Id of a file system on its server (`fsid4`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::nfs) struct FileSystemId {
    major: u64,
    minor: u64,
}

impl fmt::Display for FileSystemId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:x}:{:x}", self.major, self.minor)
    }
}

/// The requested attributes that the server supports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) kind: Option<u32>,
    pub(super) size: Option<u64>,
    pub(super) file_system: Option<FileSystemId>,
    /// Lease of clients of the server, in seconds.
    pub(super) lease_seconds: Option<u32>,
    pub(super) mode: Option<u32>,
    pub(super) owner: Option<String>,
    pub(super) group: Option<String>,
    /// Time of the last change, in seconds since 1970.
    pub(super) modified: Option<i64>,
    pub(super) links: Option<u32>,
    /// Where the file system is, such as `nas2:/backups`.
    pub(super) locations: Vec<String>,
    files: [Option<u64>; 3],
    space: [Option<u64>; 3],
}

impl Attributes {
    /// Decodes the result of GETATTR.
    pub(super) fn decode(decoder: &mut Decoder<'_>, requested: &[u32]) -> Result<Self, ReplyError> {
        let mut present = [0; MASK_WORDS];
        for index in 0..decoder.length(REPLY_MASK_WORDS_MAX)? {
            let word = decoder.u32()?;
            match present.get_mut(index) {
                Some(slot) => *slot = word,
                None if word == 0 => {}
                None => return Err(UNREQUESTED.into()),
            }
        }
        let mut values = Decoder::new(decoder.opaque(VALUES_MAX_BYTES)?);
        let wanted = mask(requested);
        let mut found = Self::default();
        for attribute in 0..MASK_WORDS as u32 * 32 {
            let (word, bit) = ((attribute / 32) as usize, 1 << (attribute % 32));
            if present[word] & bit != 0 {
                if wanted[word] & bit == 0 {
                    return Err(UNREQUESTED.into());
                }
                found.decode_value(attribute, &mut values)?;
            }
        }
        if values.is_at_end() {
            Ok(found)
        } else {
            Err(Malformed("the reply has more attributes than it lists").into())
        }
    }

    fn decode_value(&mut self, attribute: u32, values: &mut Decoder<'_>) -> Result<(), Malformed> {
        match attribute {
            TYPE => self.kind = Some(values.u32()?),
            SIZE => self.size = Some(values.u64()?),
            FSID => self.file_system = Some(FileSystemId { major: values.u64()?, minor: values.u64()? }),
            LEASE_TIME => self.lease_seconds = Some(values.u32()?),
            MODE => self.mode = Some(values.u32()?),
            OWNER => self.owner = Some(text(values)?),
            OWNER_GROUP => self.group = Some(text(values)?),
            TIME_MODIFY => {
                self.modified = Some(values.u64()?.cast_signed());
                values.u32()?;
            }
            NUMLINKS => self.links = Some(values.u32()?),
            FILES_AVAIL..=FILES_TOTAL => self.files[(attribute - FILES_AVAIL) as usize] = Some(values.u64()?),
            SPACE_AVAIL..=SPACE_TOTAL => self.space[(attribute - SPACE_AVAIL) as usize] = Some(values.u64()?),
            FS_LOCATIONS => self.locations = locations(values)?,
            _ => return Err(UNREQUESTED),
        }
        Ok(())
    }

    /// The counts in bytes. A count that the server does not support is zero, as for the NFS client of Linux.
    pub(super) fn block_counts(&self) -> BlockCounts {
        let ([files_available, files_free, files], [available, free, total]) = (self.files, self.space);
        // Like the NFS client of Linux, which counts only inodes that a user can use as free (`nfs_statfs`).
        let inodes_free = [files_available, files_free].into_iter().flatten().min();
        BlockCounts {
            unit_bytes: 1,
            blocks: total.unwrap_or_default(),
            free: free.unwrap_or_default(),
            available: available.unwrap_or_default(),
            inodes: files.unwrap_or_default(),
            inodes_free: inodes_free.unwrap_or_default(),
        }
    }
}

const UNREQUESTED: Malformed = Malformed("the reply has an attribute that was not requested");

/// The first [`LOCATIONS_MAX`] locations of `fs_locations4` (RFC 8881 §11.16).
fn locations(values: &mut Decoder<'_>) -> Result<Vec<String>, Malformed> {
    path(values)?;
    let mut found = Vec::new();
    for _ in 0..values.length(ELEMENTS_MAX)? {
        let mut servers = Vec::new();
        for _ in 0..values.length(ELEMENTS_MAX)? {
            let server = text(values)?;
            if servers.len() < LOCATIONS_MAX {
                servers.push(server);
            }
        }
        let path = path(values)?;
        let left = LOCATIONS_MAX - found.len();
        found.extend(servers.into_iter().take(left).map(|server| format!("{server}:{path}")));
    }
    Ok(found)
}

/// `pathname4`: the components of a path.
fn path(values: &mut Decoder<'_>) -> Result<String, Malformed> {
    let mut path = String::new();
    for _ in 0..values.length(COMPONENTS_MAX)? {
        path.push('/');
        path.push_str(&text(values)?);
    }
    Ok(if path.is_empty() { "/".to_owned() } else { path })
}

fn text(values: &mut Decoder<'_>) -> Result<String, Malformed> {
    let bytes = values.opaque(NAME_MAX_BYTES)?;
    // It becomes part of a message.
    Ok(String::from_utf8_lossy(bytes).chars().filter(|character| !character.is_control()).collect())
}
