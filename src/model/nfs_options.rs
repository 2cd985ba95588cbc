//! NFS mount options (nfs(5)): a string for `mount.nfs`, of which the agent itself needs a few.
//!
//! The probes over the network must ask the same server program, version and ports that the mount
//! would, so those options are read here; the rest is handed on untouched.

use std::fmt;

/// The port of an NFS server unless the options name one (RFC 7530 §3.1; every NFSv3 server of
/// note uses it too).
pub const NFS_PORT: u16 = 2049;

/// The longest option string that is accepted, in bytes: mount(2) takes one page of data.
pub const OPTIONS_MAX_BYTES: usize = 4095;

/// Options that make the service run something or read mounts through another helper, or that
/// this agent decides itself.
const REFUSED: &[&str] =
    &["remount", "bind", "rbind", "move", "fg", "bg", "suid", "dev", "user", "users", "owner", "group"];

/// The NFS version that the options ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NfsVersion {
    /// Version 3.
    V3,
    /// Version 4, of any minor version.
    V4,
    /// Not named: the client and the server agree on the highest both have.
    Negotiated,
}

impl NfsVersion {
    /// The version of the RPC program to ask first.
    #[must_use]
    pub fn rpc_version(self) -> u32 {
        match self {
            Self::V3 => 3,
            Self::V4 | Self::Negotiated => 4,
        }
    }
}

/// Why a string is not usable as NFS mount options.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NfsOptionsError {
    /// A character that cannot stand in mount options.
    #[error("mount options contain white space or a control character: expected a comma-separated list as in nfs(5)")]
    Character,
    /// Too long for mount(2).
    #[error("mount options are {0} bytes long: {OPTIONS_MAX_BYTES} is the limit")]
    TooLong(usize),
    /// A value that is no number where one is needed.
    #[error("mount option {option}={value} needs a port number from 1 to 65535")]
    Port {
        /// The option.
        option: String,
        /// Its value.
        value: String,
    },
    /// A version that Linux does not mount.
    #[error("mount option {0} names no NFS version that can be mounted: expected 3, 4, 4.0, 4.1 or 4.2")]
    Version(String),
    /// An option that the agent does not allow.
    #[error("mount option {0:?} is not allowed: the agent mounts in its own way (nosuid, nodev, in the foreground)")]
    Refused(String),
}

/// Validated NFS mount options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NfsOptions {
    text: String,
    version: NfsVersion,
    port: Option<u16>,
    mount_port: Option<u16>,
    read_only: bool,
}

impl NfsOptions {
    /// Validates options in the syntax of nfs(5).
    ///
    /// # Errors
    /// [`NfsOptionsError`] for white space, an impossible port or version, or an option that would
    /// change how the agent mounts.
    pub fn parse(text: &str) -> Result<Self, NfsOptionsError> {
        if text.chars().any(|character| character.is_whitespace() || character.is_control()) {
            return Err(NfsOptionsError::Character);
        }
        if text.len() > OPTIONS_MAX_BYTES {
            return Err(NfsOptionsError::TooLong(text.len()));
        }
        let mut parsed = Self {
            text: text.to_owned(),
            version: NfsVersion::Negotiated,
            port: None,
            mount_port: None,
            read_only: false,
        };
        for option in text.split(',').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            match name {
                "nfsvers" | "vers" => parsed.version = version(option, value)?,
                "v3" => parsed.version = NfsVersion::V3,
                "v4" | "v4.0" | "v4.1" | "v4.2" => parsed.version = NfsVersion::V4,
                "port" => parsed.port = Some(port(name, value)?),
                "mountport" => parsed.mount_port = Some(port(name, value)?),
                "ro" => parsed.read_only = true,
                "rw" => parsed.read_only = false,
                _ if REFUSED.contains(&name) => return Err(NfsOptionsError::Refused(name.to_owned())),
                _ => {}
            }
        }
        Ok(parsed)
    }

    /// The options for `mount.nfs`: as configured, with what the agent adds. A backup target
    /// never needs set-user-id programs or device nodes, and a mount that retries in the
    /// background would be invisible to the probe. Where no port is named it is the one that the probe
    /// asks: without it, the kernel's NFSv3 client asks the server's port mapper, and until that has
    /// answered no other server is mounted either (`nfs_get_client` in `fs/nfs/client.c` waits for every
    /// client that is not ready). RDMA has ports of its own.
    #[must_use]
    pub fn for_mount(&self) -> String {
        let separator = if self.text.is_empty() { "" } else { "," };
        let is_rdma = self.text.split(',').any(|option| option == "rdma" || option.starts_with("proto=rdma"));
        let port = if self.port.is_some() || is_rdma { String::new() } else { format!("port={NFS_PORT},") };
        format!("{}{separator}{port}nosuid,nodev,retry=0", self.text)
    }

    /// The version asked for.
    #[must_use]
    pub fn version(&self) -> NfsVersion {
        self.version
    }

    /// The port of the NFS server.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(NFS_PORT)
    }

    /// The port of the NFS server, if the options name one.
    #[must_use]
    pub fn explicit_port(&self) -> Option<u16> {
        self.port
    }

    /// The port of the MOUNT service, if the options name one; otherwise the port mapper is asked.
    #[must_use]
    pub fn mount_port(&self) -> Option<u16> {
        self.mount_port
    }

    /// Whether the export is to be mounted read-only.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }
}

impl fmt::Display for NfsOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

fn version(option: &str, value: &str) -> Result<NfsVersion, NfsOptionsError> {
    match value {
        "3" => Ok(NfsVersion::V3),
        "4" | "4.0" | "4.1" | "4.2" => Ok(NfsVersion::V4),
        _ => Err(NfsOptionsError::Version(option.to_owned())),
    }
}

fn port(option: &str, value: &str) -> Result<u16, NfsOptionsError> {
    value
        .parse()
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| NfsOptionsError::Port { option: option.to_owned(), value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_and_ports_are_read_and_the_rest_is_kept() {
        let options = NfsOptions::parse("nolock,soft,timeo=600,nfsvers=3,port=20490,mountport=20048").expect("valid");
        assert_eq!(options.version(), NfsVersion::V3);
        assert_eq!((options.port(), options.mount_port()), (20490, Some(20048)));
        assert_eq!(
            options.for_mount(),
            "nolock,soft,timeo=600,nfsvers=3,port=20490,mountport=20048,nosuid,nodev,retry=0"
        );
        assert_eq!(NfsOptions::parse("vers=4.2").expect("valid").version(), NfsVersion::V4);
        let empty = NfsOptions::parse("").expect("valid");
        assert_eq!((empty.version(), empty.port()), (NfsVersion::Negotiated, NFS_PORT));
        assert_eq!(empty.for_mount(), "port=2049,nosuid,nodev,retry=0");
        let rdma = NfsOptions::parse("vers=4.2,proto=rdma").expect("valid");
        assert_eq!(rdma.for_mount(), "vers=4.2,proto=rdma,nosuid,nodev,retry=0");
    }

    #[test]
    fn impossible_options_are_refused_by_name() {
        for text in ["nfsvers=2", "nfsvers=", "port=0", "mountport=99999", "soft, hard", "soft\n", "bg", "remount"] {
            assert!(NfsOptions::parse(text).is_err(), "{text}");
        }
    }
}
