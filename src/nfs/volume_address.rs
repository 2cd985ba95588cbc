//! Address of a volume.

use std::net::IpAddr;

use crate::model::NfsOptions;
use crate::model::nfs_options::NfsVersion;

/// Address of a volume, and how it is accessed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeAddress {
    /// Address of the server.
    pub server: IpAddr,
    /// Port of its NFS service.
    pub nfs_port: u16,
    /// Port of its MOUNT service, for version 3. None to ask the port mapper.
    pub mount_port: Option<u16>,
    /// Version of NFS.
    pub version: NfsVersion,
    /// Minor version of version 4. None for the highest one of the server.
    pub minor_version: Option<u32>,
    /// The exported path.
    pub path: String,
}

impl VolumeAddress {
    /// Address of a path on a server, accessed as the options say.
    #[must_use]
    pub fn new(server: IpAddr, path: &str, options: &NfsOptions) -> Self {
        Self {
            server,
            nfs_port: options.port(),
            mount_port: options.mount_port(),
            version: options.version(),
            minor_version: options.minor_version(),
            path: path.to_owned(),
        }
    }
}
