//! Lookup of the exported path, from the root of the server.
//!
//! Linux mounts the root of the server and follows the path there (`mount_subtree` in `fs/namespace.c`). So an absolute
//! symbolic link begins at the root of the server, and `..` does not leave it.

use std::collections::VecDeque;

use super::super::calls::BoundedCalls;
use super::super::error::NfsError;
use super::super::status::NfsStatus;
use super::attributes::{Attributes, DIRECTORY, FS_LOCATIONS, FSID, FileSystemId, LEASE_TIME, SYMBOLIC_LINK, TYPE};
use super::client::V4Client;
use super::compound::{Compound, GETATTR, GETFH, LOOKUP, PUTROOTFH, READLINK, Results, SECINFO};
use super::reply_error::ReplyError;
use crate::model::line::escape_invisible;

/// Maximum number of symbolic links in a path (`MAXSYMLINKS` of Linux).
const LINKS_MAX: u32 = 40;

/// Maximum number of components that are looked up, with those of symbolic links.
const LOOKUPS_MAX: u32 = 256;

/// Longest target of a symbolic link, in bytes (`PATH_MAX` of Linux).
const TARGET_MAX_BYTES: usize = 4096;

/// Maximum number of security flavors of a file. Servers list at most a handful.
const FLAVORS_MAX: usize = 16;

/// Longest object identifier of a security mechanism, in bytes. That of Kerberos has 9.
const IDENTIFIER_MAX_BYTES: usize = 64;

/// Attributes of a directory on the path.
const DIRECTORY_ATTRIBUTES: &[u32] = &[TYPE, FSID, LEASE_TIME];

/// Statuses after which each component is looked up alone: a link, a file or a referral, another security flavor, or a
/// server that does not accept such a long compound.
const INTERRUPTIONS: &[u32] = &[
    NfsStatus::SYMLINK,
    NfsStatus::NOTDIR,
    NfsStatus::MOVED,
    NfsStatus::WRONGSEC,
    NfsStatus::RESOURCE,
    NfsStatus::TOO_MANY_OPS,
];

/// Security flavor of Kerberos and other mechanisms of GSS-API (`RPCSEC_GSS`, RFC 2203 §1).
const RPCSEC_GSS: u32 = 6;

/// A directory on the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directory {
    pub(super) handle: Vec<u8>,
    pub(super) file_system: Option<FileSystemId>,
    /// File system of the root of the server.
    pub(super) root_file_system: Option<FileSystemId>,
    /// Lease of clients of the server, in seconds.
    pub(super) lease_seconds: Option<u32>,
}

/// Returns the directory with this path.
pub(super) async fn look_up(client: &mut V4Client, path: &str, calls: &BoundedCalls) -> Result<Directory, NfsError> {
    match look_up_together(client, path, calls).await? {
        Some(directory) => Ok(directory),
        None => look_up_stepwise(client, path, calls).await,
    }
}

/// How a compound with several LOOKUPs ended.
enum Walk {
    /// It found a file of this type. The root's file system is known if the walk began there.
    Found { file: Directory, kind: u32 },
    /// The component with this index does not exist.
    Missing(usize),
    /// The components must be looked up one by one.
    Interrupted,
}

/// Looks up the whole path with as few compounds as possible. Returns `None` if a component is not a directory, or may
/// be a link or a referral. It must then be looked up alone.
async fn look_up_together(
    client: &mut V4Client,
    path: &str,
    calls: &BoundedCalls,
) -> Result<Option<Directory>, NfsError> {
    let names: Vec<Vec<u8>> = components(path.as_bytes()).collect();
    if names.len() > LOOKUPS_MAX as usize || names.iter().any(|name| name == b"..") {
        return Ok(None);
    }
    let (mut from, mut root_file_system) = (None, None);
    let mut rest = names.as_slice();
    loop {
        // Beside PUTFH or PUTROOTFH, two GETATTR, and GETFH.
        let (now, later) = rest.split_at(rest.len().min(client.lookups_at_once(4)));
        let file = match walk(client, from.as_deref(), now, calls).await? {
            Walk::Found { file, kind: DIRECTORY } => file,
            Walk::Found { .. } | Walk::Interrupted => return Ok(None),
            Walk::Missing(index) => return Err(not_found(path, &now[index], NfsStatus::NOENT)),
        };
        root_file_system = root_file_system.or(file.root_file_system);
        if later.is_empty() {
            return Ok(Some(Directory { root_file_system, ..file }));
        }
        (from, rest) = (Some(file.handle), later);
    }
}

/// Looks up components one below the other with one compound, from a directory or from the root of the server.
async fn walk(
    client: &mut V4Client,
    from: Option<&[u8]>,
    names: &[Vec<u8>],
    calls: &BoundedCalls,
) -> Result<Walk, NfsError> {
    let begin = Compound::new(LOOKUP);
    let begin = match from {
        Some(directory) => begin.put_handle(directory),
        None => begin.with(PUTROOTFH, |_| {}).get_attributes(&[FSID]),
    };
    let request = names.iter().fold(begin, |request, name| request.look_up(name));
    let request = request.with(GETFH, |_| {}).get_attributes(DIRECTORY_ATTRIBUTES);
    let read = |results: &mut Results<'_>| {
        let mut found = 0;
        match read_walk(results, from.is_none(), names.len(), &mut found) {
            Err(ReplyError::Status(_, NfsStatus::NOENT)) if found < names.len() => Ok(Walk::Missing(found)),
            Err(ReplyError::Status(_, status)) if INTERRUPTIONS.contains(&status) => Ok(Walk::Interrupted),
            other => other,
        }
    };
    client.run(calls, &request, read).await
}

/// Reads the results of [`walk`]. `found` is the number of LOOKUPs that succeeded.
fn read_walk(
    results: &mut Results<'_>,
    is_from_root: bool,
    lookups: usize,
    found: &mut usize,
) -> Result<Walk, ReplyError> {
    let mut root_file_system = None;
    if is_from_root {
        results.next(PUTROOTFH)?;
        root_file_system = Attributes::decode(results.next(GETATTR)?, &[FSID])?.file_system;
    } else {
        results.put_handle()?;
    }
    for _ in 0..lookups {
        results.next(LOOKUP)?;
        *found += 1;
    }
    let handle = results.handle()?;
    let found = Attributes::decode(results.next(GETATTR)?, DIRECTORY_ATTRIBUTES)?;
    let (file_system, lease_seconds) = (found.file_system, found.lease_seconds);
    let file = Directory { handle, file_system, root_file_system, lease_seconds };
    Ok(Walk::Found { file, kind: found.kind.unwrap_or(DIRECTORY) })
}

/// Looks up the path component by component, and follows symbolic links.
async fn look_up_stepwise(client: &mut V4Client, path: &str, calls: &BoundedCalls) -> Result<Directory, NfsError> {
    let root = read_root(client, calls).await?;
    let mut pending: VecDeque<Vec<u8>> = components(path.as_bytes()).collect();
    // The directories from the root to the current one, by which `..` is resolved.
    let mut directories = vec![root];
    let (mut lookups, mut links) = (0, 0);
    while let Some(name) = pending.pop_front() {
        if name == b".." {
            directories.truncate((directories.len() - 1).max(1));
            continue;
        }
        let Some(directory) = directories.last() else { break };
        lookups += 1;
        if lookups > LOOKUPS_MAX {
            return Err(NfsError::PathTooLong { path: path.to_owned() });
        }
        let root_file_system = directory.root_file_system;
        let (handle, found) = look_up_component(client, path, &directory.handle, &name, calls).await?;
        match found.kind.unwrap_or(DIRECTORY) {
            DIRECTORY => {
                let (file_system, lease_seconds) = (found.file_system, found.lease_seconds);
                directories.push(Directory { handle, file_system, root_file_system, lease_seconds });
            }
            SYMBOLIC_LINK => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(NfsError::PathTooLong { path: path.to_owned() });
                }
                let target = read_link(client, &handle, calls).await?;
                if target.first() == Some(&b'/') {
                    directories.truncate(1);
                }
                for component in components(&target).collect::<Vec<_>>().into_iter().rev() {
                    pending.push_front(component);
                }
            }
            _ => return Err(not_found(path, &name, NfsStatus::NOTDIR)),
        }
    }
    directories.pop().ok_or_else(|| NfsError::PathTooLong { path: path.to_owned() })
}

/// Returns the root of the server. A root whose attributes the server refuses is usable.
async fn read_root(client: &mut V4Client, calls: &BoundedCalls) -> Result<Directory, NfsError> {
    let request = Compound::new(PUTROOTFH).with(PUTROOTFH, |_| {}).with(GETFH, |_| {});
    let request = request.get_attributes(DIRECTORY_ATTRIBUTES);
    let read = |results: &mut Results<'_>| {
        results.next(PUTROOTFH)?;
        let handle = results.handle()?;
        let found = match results.next(GETATTR) {
            Ok(decoder) => Attributes::decode(decoder, DIRECTORY_ATTRIBUTES)?,
            Err(_) => Attributes::default(),
        };
        let (file_system, lease_seconds) = (found.file_system, found.lease_seconds);
        Ok(Directory { handle, file_system, root_file_system: file_system, lease_seconds })
    };
    client.run(calls, &request, read).await
}

/// The components of a path. A component `.` and empty ones have no effect.
fn components(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".").map(<[u8]>::to_vec)
}

fn not_found(path: &str, component: &[u8], status: u32) -> NfsError {
    // A component of a symbolic link comes from the server.
    let component = escape_invisible(&String::from_utf8_lossy(component));
    NfsError::Component { path: path.to_owned(), component, status: NfsStatus::v4(status) }
}

/// Returns the handle and the attributes of a file in a directory.
async fn look_up_component(
    client: &mut V4Client,
    path: &str,
    directory: &[u8],
    name: &[u8],
    calls: &BoundedCalls,
) -> Result<(Vec<u8>, Attributes), NfsError> {
    let request = Compound::new(LOOKUP).put_handle(directory).look_up(name);
    let request = request.with(GETFH, |_| {}).get_attributes(DIRECTORY_ATTRIBUTES);
    let read = |results: &mut Results<'_>| {
        results.put_handle()?;
        results.next(LOOKUP)?;
        let handle = results.handle()?;
        Ok((handle, Attributes::decode(results.next(GETATTR)?, DIRECTORY_ATTRIBUTES)?))
    };
    let error = match client.run(calls, &request, read).await {
        Err(NfsError::Status { call, path, status }) => (call, path, status),
        other => return other,
    };
    let (call, on, status) = error;
    match status.code() {
        NfsStatus::NOENT | NfsStatus::NOTDIR => Err(not_found(path, name, status.code())),
        NfsStatus::MOVED => {
            let locations = referral(client, directory, name, calls).await.unwrap_or_default();
            Err(NfsError::Moved { path: path.to_owned(), locations })
        }
        NfsStatus::WRONGSEC => {
            let flavors = security_flavors(client, directory, name, calls).await.unwrap_or_default();
            Err(NfsError::Security { path: path.to_owned(), needs_kerberos: flavors.contains(&RPCSEC_GSS) })
        }
        _ => Err(NfsError::Status { call, path: on, status }),
    }
}

/// Returns where the file system is that another server has (`fs_locations`, RFC 8881 §11.16).
async fn referral(
    client: &mut V4Client,
    directory: &[u8],
    name: &[u8],
    calls: &BoundedCalls,
) -> Result<Vec<String>, NfsError> {
    let request = Compound::new(GETATTR).put_handle(directory).look_up(name).get_attributes(&[FS_LOCATIONS]);
    let read = |results: &mut Results<'_>| {
        results.put_handle()?;
        results.next(LOOKUP)?;
        Attributes::decode(results.next(GETATTR)?, &[FS_LOCATIONS])
    };
    Ok(client.run(calls, &request, read).await?.locations)
}

/// Returns the security flavors that the server accepts for a file (SECINFO, RFC 8881 §18.29).
async fn security_flavors(
    client: &mut V4Client,
    directory: &[u8],
    name: &[u8],
    calls: &BoundedCalls,
) -> Result<Vec<u32>, NfsError> {
    let request = Compound::new(SECINFO).put_handle(directory).with(SECINFO, |arguments| {
        arguments.opaque(name);
    });
    let read = |results: &mut Results<'_>| -> Result<Vec<u32>, ReplyError> {
        results.put_handle()?;
        let decoder = results.next(SECINFO)?;
        let mut flavors = Vec::new();
        for _ in 0..decoder.length(FLAVORS_MAX)? {
            let flavor = decoder.u32()?;
            if flavor == RPCSEC_GSS {
                decoder.opaque(IDENTIFIER_MAX_BYTES)?;
                decoder.u64()?;
            }
            flavors.push(flavor);
        }
        Ok(flavors)
    };
    client.run(calls, &request, read).await
}

async fn read_link(client: &mut V4Client, link: &[u8], calls: &BoundedCalls) -> Result<Vec<u8>, NfsError> {
    let request = Compound::new(READLINK).put_handle(link).with(READLINK, |_| {});
    let read = |results: &mut Results<'_>| {
        results.put_handle()?;
        Ok(results.next(READLINK)?.opaque(TARGET_MAX_BYTES)?.to_vec())
    };
    client.run(calls, &request, read).await
}
