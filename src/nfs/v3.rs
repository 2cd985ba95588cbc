//! NFS version 3 (RFC 1813) without a mount: MOUNT, FSINFO and FSSTAT, and files ([`files`]).

mod files;

use std::io::Read;
use std::net::{IpAddr, SocketAddr};

use nfs3_client::Nfs3Client;
use nfs3_client::rpc::RpcClient;
use nfs3_types::mount::{self, MOUNT_PROGRAM, dirpath, mountstat3};
use nfs3_types::nfs3::{FSINFO3args, FSSTAT3args, Nfs3Option, Nfs3Result, nfs_fh3, nfsstat3};
use nfs3_types::portmap::{self, PMAP_PROG, mapping};
use nfs3_types::rpc::opaque_auth;
use nfs3_types::xdr_codec::{self, Opaque, Unpack};

use super::calls::{BoundedCalls, NFS, credential, root_credential};
use super::error::NfsError;
use super::transport::Records;
use super::volume_address::VolumeAddress;
use crate::model::BlockCounts;
use files::FilesV3;

const MOUNT: &str = "MOUNT";
const PORT_MAPPER: &str = "the port mapper";

/// Maximum number of authentication flavors in a MOUNT reply. Servers list at most a handful.
const FLAVORS_MAX: usize = 64;

/// Authentication flavors of Kerberos: krb5, krb5i and krb5p (RFC 2623 §4.1).
const KERBEROS: std::ops::RangeInclusive<u32> = 390_003..=390_005;

/// An exported directory that the server granted to this host.
#[derive(Debug, Clone)]
pub(super) struct VolumeV3 {
    nfs: SocketAddr,
    path: String,
    root: nfs_fh3,
}

impl VolumeV3 {
    /// Requests the export (MNT), and verifies that NFS accepts its file handle (FSINFO).
    pub(super) async fn open(address: &VolumeAddress, calls: &BoundedCalls) -> Result<Self, NfsError> {
        let mount_port = match address.mount_port {
            Some(port) => port,
            None => ask_port_mapper(address.server, calls).await?,
        };
        let root = mount_root(SocketAddr::new(address.server, mount_port), &address.path, calls).await?;
        let volume = Self { nfs: SocketAddr::new(address.server, address.nfs_port), path: address.path.clone(), root };
        let mut client = client(calls.connect(NFS, volume.nfs).await?);
        let arguments = FSINFO3args { fsroot: volume.root.clone() };
        match calls.call(NFS, "FSINFO", 3, client.fsinfo(&arguments)).await? {
            Nfs3Result::Ok(_) => Ok(volume),
            Nfs3Result::Err((status, _)) => {
                Err(NfsError::Status { call: "FSINFO", path: volume.path, status: status.into() })
            }
        }
    }

    /// Measures the volume (FSSTAT), over this connection if there is one. If the server has closed that connection, a
    /// new one is opened, as NFS clients do.
    pub(super) async fn counts(
        &self,
        connection: Option<Records>,
        calls: &BoundedCalls,
    ) -> Result<BlockCounts, NfsError> {
        if let Some(connection) = connection {
            match self.counts_over(connection, calls).await {
                Err(NfsError::Broken { .. }) => {}
                outcome => return outcome,
            }
        }
        self.counts_over(calls.connect(NFS, self.nfs).await?, calls).await
    }

    async fn counts_over(&self, connection: Records, calls: &BoundedCalls) -> Result<BlockCounts, NfsError> {
        let mut client = client(connection);
        let arguments = FSSTAT3args { fsroot: self.root.clone() };
        match calls.call(NFS, "FSSTAT", 3, client.fsstat(&arguments)).await? {
            // A server may still report the counts of a removed directory.
            Nfs3Result::Ok(counts) if matches!(&counts.obj_attributes, Nfs3Option::Some(found) if found.nlink == 0) => {
                let (call, path, status) = ("FSSTAT", self.path.clone(), nfsstat3::NFS3ERR_STALE.into());
                Err(NfsError::Status { call, path, status })
            }
            Nfs3Result::Ok(counts) => Ok(BlockCounts {
                unit_bytes: 1,
                blocks: counts.tbytes,
                free: counts.fbytes,
                available: counts.abytes,
                inodes: counts.tfiles,
                // Like the NFS client of Linux, which counts only inodes that a user can use as free (`nfs_statfs`).
                inodes_free: counts.ffiles.min(counts.afiles),
            }),
            Nfs3Result::Err((status, _)) => {
                Err(NfsError::Status { call: "FSSTAT", path: self.path.clone(), status: status.into() })
            }
        }
    }

    /// Files of the volume, accessed by a user.
    pub(super) fn files(&self, uid: u32, gid: u32) -> FilesV3 {
        let (server, path, root) = (self.nfs, self.path.clone(), self.root.data.as_ref().to_vec());
        FilesV3 { server, path, root, credential: credential(uid, gid), rpc: None }
    }
}

fn client(connection: Records) -> Nfs3Client<Records> {
    Nfs3Client::new_with_auth(connection, root_credential(), opaque_auth::default())
}

async fn ask_port_mapper(server: IpAddr, calls: &BoundedCalls) -> Result<u16, NfsError> {
    let address = SocketAddr::new(server, portmap::PMAP_PORT);
    let mut client = RpcClient::new(calls.connect(PORT_MAPPER, address).await?);
    let wanted = mapping { prog: mount::PROGRAM, vers: mount::VERSION, prot: portmap::IPPROTO_TCP, port: 0 };
    let answer = client.call::<_, u32>(portmap::PROGRAM, portmap::VERSION, PMAP_PROG::PMAPPROC_GETPORT as u32, &wanted);
    let port = calls.call(PORT_MAPPER, "GETPORT", portmap::VERSION, answer).await?;
    match u16::try_from(port) {
        Ok(0) => Err(NfsError::NoMountd),
        Ok(port) => Ok(port),
        Err(_) => {
            let detail = format!("{port} is not a port");
            Err(NfsError::NotRpc { service: PORT_MAPPER, call: "GETPORT", detail })
        }
    }
}

async fn mount_root(address: SocketAddr, path: &str, calls: &BoundedCalls) -> Result<nfs_fh3, NfsError> {
    let stream = calls.connect(MOUNT, address).await?;
    let mut client = RpcClient::new_with_auth(stream, root_credential(), opaque_auth::default());
    let directory = dirpath(Opaque::borrowed(path.as_bytes()));
    let answer =
        client.call::<_, MountReply>(mount::PROGRAM, mount::VERSION, MOUNT_PROGRAM::MOUNTPROC3_MNT as u32, &directory);
    match calls.call(MOUNT, "MNT", mount::VERSION, answer).await? {
        MountReply::Accepted { is_kerberos_only: true, .. } => {
            Err(NfsError::Security { path: path.to_owned(), needs_kerberos: true })
        }
        MountReply::Accepted { root, .. } => Ok(root),
        MountReply::Refused(status) => Err(NfsError::Export { path: path.to_owned(), status }),
    }
}

/// `mountres3` (RFC 1813 §5.2.1), decoded with a limit on each length, which `nfs3_types` does not have.
enum MountReply {
    Accepted { root: nfs_fh3, is_kerberos_only: bool },
    Refused(mountstat3),
}

impl Unpack for MountReply {
    fn unpack(input: &mut impl Read) -> xdr_codec::Result<(Self, usize)> {
        let (status, mut read) = mountstat3::unpack(input)?;
        if !matches!(status, mountstat3::MNT3_OK) {
            return Ok((Self::Refused(status), read));
        }
        let (length, prefix) = u32::unpack(input)?;
        let length = bounded(length, mount::FHSIZE3)?;
        let mut handle = vec![0; length.next_multiple_of(4)];
        input.read_exact(&mut handle).map_err(xdr_codec::Error::Io)?;
        read += prefix + handle.len();
        handle.truncate(length);
        let (flavors, prefix) = u32::unpack(input)?;
        read += prefix;
        // A server may list none.
        let mut is_kerberos_only = flavors > 0;
        for _ in 0..bounded(flavors, FLAVORS_MAX)? {
            let (flavor, length) = u32::unpack(input)?;
            is_kerberos_only &= KERBEROS.contains(&flavor);
            read += length;
        }
        Ok((Self::Accepted { root: nfs_fh3 { data: Opaque::owned(handle) }, is_kerberos_only }, read))
    }
}

fn bounded(length: u32, limit: usize) -> xdr_codec::Result<usize> {
    let length = length as usize;
    if length > limit { Err(xdr_codec::Error::InvalidLength(length)) } else { Ok(length) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn reply(words: &[u32]) -> Cursor<Vec<u8>> {
        Cursor::new(words.iter().flat_map(|word| word.to_be_bytes()).collect())
    }

    #[test]
    fn mount_reply_is_decoded_with_bounded_lengths() {
        let (given, read) = MountReply::unpack(&mut reply(&[0, 4, 0xaabb_ccdd, 1, 1])).expect("a reply");
        assert_eq!(read, 20);
        assert!(matches!(
            given,
            MountReply::Accepted { root, is_kerberos_only: false } if root.data.as_ref() == [0xaa, 0xbb, 0xcc, 0xdd]
        ));
        for (flavors, expected) in [(&[2, 390_003, 390_005][..], true), (&[2, 1, 390_003], false), (&[0], false)] {
            let (given, _) = MountReply::unpack(&mut reply(&[&[0, 0], flavors].concat())).expect("a reply");
            let found = matches!(given, MountReply::Accepted { is_kerberos_only: true, .. });
            assert_eq!(found, expected, "{flavors:?}");
        }
        let refused = MountReply::unpack(&mut reply(&[13])).expect("a refusal");
        assert!(matches!(refused, (MountReply::Refused(mountstat3::MNT3ERR_ACCES), 4)));
        assert!(MountReply::unpack(&mut reply(&[0, u32::MAX, 0])).is_err());
        assert!(MountReply::unpack(&mut reply(&[0, 4, 0, u32::MAX, 0])).is_err());
    }
}
