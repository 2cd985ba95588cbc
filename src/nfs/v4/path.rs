//! Lookup of the exported path, from the root of the server.
//!
//! Linux mounts the root of the server and follows the path there (`mount_subtree` in `fs/namespace.c`). So an absolute
//! symbolic link begins at the root of the server, and `..` does not leave it.

use std::collections::VecDeque;

use super::super::calls::BoundedCalls;
use super::super::error::NfsError;
use super::super::status::NfsStatus;
use super::attributes::{Attributes, DIRECTORY, FS_LOCATIONS, SYMBOLIC_LINK, TYPE};
use super::client::V4Client;
use super::compound::{Compound, GETATTR, GETFH, LOOKUP, PUTROOTFH, READLINK, ReplyError, Results, SECINFO};

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

/// Security flavor of Kerberos and other mechanisms of GSS-API (`RPCSEC_GSS`, RFC 2203 §1).
const RPCSEC_GSS: u32 = 6;

/// Returns the file handle of the directory with this path.
pub(super) async fn look_up(client: &mut V4Client, path: &str, calls: &BoundedCalls) -> Result<Vec<u8>, NfsError> {
    let root = Compound::new(PUTROOTFH).with(PUTROOTFH, |_| {}).with(GETFH, |_| {});
    let read = |results: &mut Results<'_>| {
        results.next(PUTROOTFH)?;
        results.handle()
    };
    let root = client.run(calls, &root, read).await?;
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
        let (handle, kind) = look_up_component(client, path, directory, &name, calls).await?;
        match kind {
            DIRECTORY => directories.push(handle),
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

/// The components of a path. A component `.` and empty ones have no effect.
fn components(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".").map(<[u8]>::to_vec)
}

fn not_found(path: &str, component: &[u8], status: u32) -> NfsError {
    let component = String::from_utf8_lossy(component).into_owned();
    NfsError::Component { path: path.to_owned(), component, status: NfsStatus::v4(status) }
}

/// Returns the handle and the type of a file in a directory.
async fn look_up_component(
    client: &mut V4Client,
    path: &str,
    directory: &[u8],
    name: &[u8],
    calls: &BoundedCalls,
) -> Result<(Vec<u8>, u32), NfsError> {
    let request = Compound::new(LOOKUP).put_handle(directory).look_up(name);
    let request = request.with(GETFH, |_| {}).get_attributes(&[TYPE]);
    let read = |results: &mut Results<'_>| {
        results.put_handle()?;
        results.next(LOOKUP)?;
        let handle = results.handle()?;
        let found = Attributes::decode(results.next(GETATTR)?, &[TYPE])?;
        Ok((handle, found.kind.unwrap_or(DIRECTORY)))
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
