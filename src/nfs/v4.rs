//! NFS version 4 (RFC 8881, for the minor versions 1 and 2, and RFC 7530 for 0) without a mount.
//!
//! There is no MOUNT service and no port mapper. A path begins at the root of the server, which PUTROOTFH selects, and
//! is looked up from there ([`path`]). One compound is enough if it has no symbolic links.
//!
//! A call of the minor versions 1 and 2 belongs to a session of a client ([`client`]). Each client of this module has a
//! unique name and lives for one measurement, and is always destroyed. So agents with the same host name do not destroy
//! each other's state, and nothing is left behind that would delay the grace period of the server. Minor version 0
//! needs no client for the calls that change nothing.

mod attributes;
mod client;
mod compound;
mod files;
mod path;
mod reply_error;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use super::calls::{BoundedCalls, credential, root_credential};
use super::canary::{self, CanaryFailure};
use super::error::NfsError;
use super::status::NfsStatus;
use crate::model::BlockCounts;
use crate::model::canary_file::CanaryFileNames;
use attributes::{Attributes, NUMLINKS, SPACE_AND_FILES};
use client::V4Client;
use compound::{Compound, GETATTR};
use files::FilesV4;
use path::Directory;

/// An exported directory.
#[derive(Debug, Clone)]
pub(super) struct VolumeV4 {
    nfs: SocketAddr,
    path: String,
    minor: u32,
    directory: Directory,
}

impl VolumeV4 {
    /// Looks up the path. Without a minor version, the highest one that the server speaks is used.
    pub(super) async fn open(
        nfs: SocketAddr,
        path: &str,
        minor: Option<u32>,
        calls: &BoundedCalls,
    ) -> Result<Self, NfsError> {
        let mut client = V4Client::connect(nfs, path, minor, root_credential(), calls).await?;
        let (minor, found) = (client.minor(), path::look_up(&mut client, path, &calls.before_cleanup()).await);
        client.close(calls).await;
        Ok(Self { nfs, path: path.to_owned(), minor, directory: found? })
    }

    /// Minor version that the server speaks.
    pub(super) fn minor(&self) -> u32 {
        self.minor
    }

    /// Id of the file system and lease of the server, as far as the server names them.
    pub(super) fn facts(&self) -> Vec<String> {
        let fsid = self.directory.file_system.map(|fsid| format!("fsid {fsid}"));
        let lease = self.directory.lease_seconds.map(|seconds| format!("lease {seconds} s"));
        fsid.into_iter().chain(lease).collect()
    }

    /// Whether the directory is on the file system of the server's root. `None` if the server does not say.
    pub(super) fn is_on_root_file_system(&self) -> Option<bool> {
        Some(self.directory.file_system? == self.directory.root_file_system?)
    }

    /// Measures the volume.
    pub(super) async fn counts(&self, calls: &BoundedCalls) -> Result<BlockCounts, NfsError> {
        let minor = Some(self.minor);
        let mut client = V4Client::connect(self.nfs, &self.path, minor, root_credential(), calls).await?;
        let requested = [SPACE_AND_FILES, &[NUMLINKS]].concat();
        let compound = Compound::new(GETATTR).put_handle(&self.directory.handle).get_attributes(&requested);
        let read = |results: &mut compound::Results<'_>| {
            results.put_handle()?;
            Attributes::decode(results.next(GETATTR)?, &requested)
        };
        let measured = client.run(&calls.before_cleanup(), &compound, read).await;
        client.close(calls).await;
        let found = measured?;
        if found.links == Some(0) {
            // A server may still report the counts of a removed directory.
            let (path, status) = (self.path.clone(), NfsStatus::v4(NfsStatus::STALE));
            return Err(NfsError::Status { call: GETATTR.name, path, status });
        }
        Ok(found.block_counts())
    }

    /// Writes a canary as a user. Returns `None` with minor version 0: a client that opens a file there cannot be
    /// destroyed, and stays until its lease ends.
    pub(super) async fn write_canary(
        &self,
        (uid, gid): (u32, u32),
        names: &CanaryFileNames,
        calls: &BoundedCalls,
    ) -> Option<Result<(), CanaryFailure>> {
        if self.minor == 0 {
            return None;
        }
        let connecting = V4Client::connect(self.nfs, &self.path, Some(self.minor), credential(uid, gid), calls);
        let mut client = match connecting.await {
            Ok(client) => client,
            Err(error) => return Some(Err(error.into())),
        };
        let written = match client.complete_reclaim(&calls.before_cleanup()).await {
            Ok(()) => {
                canary::write(&mut FilesV4 { client: &mut client, root: &self.directory.handle }, names, calls).await
            }
            Err(error) => Err(error.into()),
        };
        client.close(calls).await;
        Some(written)
    }
}
