//! NFS mount options (nfs(5)): the string for `mount.nfs`, and the options that the agent itself needs.
//!
//! The network probes must use the same version and ports as the mount, so this module parses those options. It also
//! compares the options of a target with those of a mount.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::line::is_invisible;

/// Default port of an NFS server (RFC 7530 §3.1; common NFSv3 servers use it too).
pub const NFS_PORT: u16 = 2049;

/// Longest accepted option string, in bytes: mount(2) takes one page of data.
pub const OPTIONS_MAX_BYTES: usize = 4095;

/// Options that are refused, because the agent sets them itself or because they change how `mount`
/// works.
const REFUSED: &[&str] =
    &["remount", "bind", "rbind", "move", "fg", "bg", "suid", "dev", "user", "users", "owner", "group"];

/// Values of `timeo` that the kernel keeps, in tenths of a second: up to `NFS_MAX_TCP_TIMEOUT` (`fs/nfs/internal.h`).
const TIMEO_KEPT: RangeInclusive<u32> = 1..=6000;

/// Security flavors that the kernel shows as they were given.
const SEC_KEPT: [&str; 4] = ["sys", "krb5", "krb5i", "krb5p"];

/// NFS version that the options select.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NfsVersion {
    /// Version 3.
    V3,
    /// Version 4 with any minor version.
    V4,
    /// No version given: client and server negotiate the highest common version.
    Negotiated,
}

impl NfsVersion {
    /// Returns the version of the RPC program to call first.
    #[must_use]
    pub fn rpc_version(self) -> u32 {
        match self {
            Self::V3 => 3,
            Self::V4 | Self::Negotiated => 4,
        }
    }
}

/// Error in NFS mount options.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NfsOptionsError {
    /// White space or an invisible character.
    #[error(
        "mount options contain white space or an invisible character, expected a comma-separated list as in nfs(5)"
    )]
    Character,
    /// Longer than mount(2) accepts.
    #[error("mount options have {0} bytes, expected at most {OPTIONS_MAX_BYTES}")]
    TooLong(usize),
    /// Value that is not a port number.
    #[error("mount option {option}={value} is not a port, expected a number from 1 to 65535")]
    Port {
        /// Name of the option.
        option: String,
        /// Value of the option.
        value: String,
    },
    /// NFS version that Linux does not mount.
    #[error("mount option {0} is not a supported NFS version, expected 3, 4, 4.0, 4.1 or 4.2")]
    Version(String),
    /// Option that the agent does not allow.
    #[error(
        "mount option {0:?} is not allowed. Remove it, because the agent mounts with nosuid and nodev, in the foreground"
    )]
    Refused(String),
}

/// Validated NFS mount options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NfsOptions {
    text: String,
    version: NfsVersion,
    minor_version: Option<u32>,
    port: Option<u16>,
    mount_port: Option<u16>,
    read_only: bool,
}

impl NfsOptions {
    /// Parses and validates options in the syntax of nfs(5).
    ///
    /// # Errors
    /// [`NfsOptionsError`] for white space or invisible characters, text that is too long, an invalid port or version,
    /// or an option that is not allowed.
    pub fn parse(text: &str) -> Result<Self, NfsOptionsError> {
        if text.chars().any(|character| character.is_whitespace() || is_invisible(character)) {
            return Err(NfsOptionsError::Character);
        }
        if text.len() > OPTIONS_MAX_BYTES {
            return Err(NfsOptionsError::TooLong(text.len()));
        }
        let mut parsed = Self {
            text: text.to_owned(),
            version: NfsVersion::Negotiated,
            minor_version: None,
            port: None,
            mount_port: None,
            read_only: false,
        };
        let mut minor = None;
        for option in text.split(',').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            match name {
                "nfsvers" | "vers" => (parsed.version, parsed.minor_version) = version(option, value)?,
                "v3" | "v4" | "v4.0" | "v4.1" | "v4.2" => {
                    (parsed.version, parsed.minor_version) = version(option, &name[1..])?;
                }
                "minorversion" => minor = Some(minor_version(option, value)?),
                "port" => parsed.port = Some(port(name, value)?),
                "mountport" => parsed.mount_port = Some(port(name, value)?),
                "ro" => parsed.read_only = true,
                "rw" => parsed.read_only = false,
                _ if REFUSED.contains(&name) => return Err(NfsOptionsError::Refused(name.to_owned())),
                _ => {}
            }
        }
        // As in nfs(5): `vers=4,minorversion=1` is `vers=4.1`. `mount.nfs` does not look at it for other versions.
        if parsed.version == NfsVersion::V4 {
            parsed.minor_version = parsed.minor_version.or(minor);
        }
        Ok(parsed)
    }

    /// Returns the options as they were written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the options for `mount.nfs`: the configured ones and those that the agent adds.
    ///
    /// A backup target needs no set-user-id programs and no device nodes (`nosuid`, `nodev`). The probe
    /// would not see a mount that retries in the background (`retry=0`). Without a configured port the
    /// agent adds the one that it probes. Otherwise the kernel's NFSv3 client asks the port mapper of the
    /// server. Until the port mapper answers, no other server can be mounted either: `nfs_get_client` in
    /// `fs/nfs/client.c` waits for every client that is not ready. RDMA uses other ports.
    #[must_use]
    pub fn for_mount(&self) -> String {
        let separator = if self.text.is_empty() { "" } else { "," };
        let is_rdma = self.text.split(',').any(|option| option == "rdma" || option.starts_with("proto=rdma"));
        let port = if self.port.is_some() || is_rdma { String::new() } else { format!("port={NFS_PORT},") };
        format!("{}{separator}{port}nosuid,nodev,retry=0", self.text)
    }

    /// Returns these options for a mount that shares neither requests nor caches with other mounts of the same file
    /// system (`nosharecache` in nfs(5)).
    #[must_use]
    pub fn unshared(&self) -> Self {
        let separator = if self.text.is_empty() { "" } else { "," };
        Self { text: format!("{}{separator}nosharecache", self.text), ..self.clone() }
    }

    /// Compares these options with those of a mount, as the kernel shows them (`nfs_show_mount_options` in
    /// `fs/nfs/super.c`). Returns each difference, such as `timeo=50 instead of timeo=600`.
    ///
    /// Only options that the kernel keeps and always shows are compared. It negotiates others with the server
    /// (`rsize`), does not show them (`intr`), or shows them for some versions only (`nolock`).
    #[must_use]
    pub fn differences(&self, mounted: &str) -> Vec<String> {
        let version = self.minor_version.map(|minor| format!("4.{minor}"));
        let mut wanted = BTreeMap::new();
        for option in self.text.split(',') {
            // If an option appears several times, the last one counts.
            match option.split_once('=').unwrap_or((option, "")) {
                ("nfsvers", value) => wanted.insert("vers", (option, value)),
                ("v3" | "v4" | "v4.0" | "v4.1" | "v4.2", _) => wanted.insert("vers", (option, &option[1..])),
                ("tcp" | "udp" | "rdma", _) => wanted.insert("proto", (option, option)),
                ("soft" | "softerr" | "hard", _) => wanted.insert("hard", (option, option)),
                (name, value) => wanted.insert(name, (option, value)),
            };
        }
        // A minor version of an option of its own.
        if let (Some((option, "4")), Some(version)) = (wanted.get("vers").copied(), &version) {
            wanted.insert("vers", (option, version));
        }
        let shown = |name: &str| mounted.split(',').find_map(|option| option.strip_prefix(name)?.strip_prefix('='));
        let difference = |(name, (option, value)): (&str, (&str, &str))| {
            let found = match name {
                "hard" => mounted.split(',').find(|option| matches!(*option, "soft" | "softerr" | "hard"))?,
                "vers" | "timeo" | "retrans" | "sec" | "proto" => shown(name)?,
                // The kernel does not show the default.
                "nconnect" => shown(name).unwrap_or("1"),
                "lookupcache" => shown(name).unwrap_or("all"),
                _ => return None,
            };
            let is_same = found == value
                || match name {
                    // "4" leaves the minor version to the server.
                    "vers" => found.strip_prefix(value).is_some_and(|rest| rest.starts_with('.')),
                    "timeo" => !TIMEO_KEPT.contains(&value.parse().unwrap_or_default()),
                    // The server chooses from a list, and the kernel has other names for some flavors.
                    "sec" => !SEC_KEPT.contains(&value),
                    // The kernel shows the netid, which is another one over IPv6 (RFC 5665 §5.2.3).
                    "proto" => found.trim_end_matches('6') == value.trim_end_matches('6'),
                    "lookupcache" => value == "positive" && found == "pos",
                    _ => false,
                };
            let found = if name == "hard" { found.to_owned() } else { format!("{name}={found}") };
            (!is_same).then(|| format!("{found} instead of {option}"))
        };
        wanted.into_iter().filter_map(difference).collect()
    }

    /// Returns the selected version.
    #[must_use]
    pub fn version(&self) -> NfsVersion {
        self.version
    }

    /// Returns the selected minor version of version 4. `None` for the highest one that the server speaks.
    #[must_use]
    pub fn minor_version(&self) -> Option<u32> {
        self.minor_version
    }

    /// Reports whether `mount.nfs` may need `rpc.statd` on this host, which registers with rpcbind. It needs it for
    /// locks of version 3 (`nfs_verify_lock_option` in nfs-utils). If no version is given, the server may have only
    /// version 3.
    #[must_use]
    pub fn may_need_statd(&self) -> bool {
        // If both appear, the last one counts.
        let locks = self.text.rsplit(',').find(|option| matches!(*option, "lock" | "nolock")) != Some("nolock");
        locks && self.version != NfsVersion::V4
    }

    /// Returns the port of the NFS server.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(NFS_PORT)
    }

    /// Returns the port of the MOUNT service if the options contain it. Otherwise the port mapper reports it.
    #[must_use]
    pub fn mount_port(&self) -> Option<u16> {
        self.mount_port
    }

    /// Reports whether the export is mounted read-only.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }
}

fn version(option: &str, value: &str) -> Result<(NfsVersion, Option<u32>), NfsOptionsError> {
    match value {
        "3" => Ok((NfsVersion::V3, None)),
        "4" => Ok((NfsVersion::V4, None)),
        "4.0" => Ok((NfsVersion::V4, Some(0))),
        "4.1" => Ok((NfsVersion::V4, Some(1))),
        "4.2" => Ok((NfsVersion::V4, Some(2))),
        _ => Err(NfsOptionsError::Version(option.to_owned())),
    }
}

fn minor_version(option: &str, value: &str) -> Result<u32, NfsOptionsError> {
    value.parse().ok().filter(|minor| *minor <= 2).ok_or_else(|| NfsOptionsError::Version(option.to_owned()))
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
    fn nfs_version_and_ports_are_parsed_and_other_options_kept() {
        let options = NfsOptions::parse("nolock,soft,timeo=600,nfsvers=3,port=20490,mountport=20048").expect("valid");
        assert_eq!(options.version(), NfsVersion::V3);
        assert_eq!((options.port(), options.mount_port()), (20490, Some(20048)));
        assert_eq!(
            options.for_mount(),
            "nolock,soft,timeo=600,nfsvers=3,port=20490,mountport=20048,nosuid,nodev,retry=0"
        );
        for (text, minor) in [
            ("vers=4.2", Some(2)),
            ("v4.0", Some(0)),
            ("nfsvers=4.1,v4", None),
            ("v4.1,vers=3", None),
            ("vers=4,minorversion=1", Some(1)),
            ("minorversion=0,v4", Some(0)),
            ("minorversion=1,minorversion=2,nfsvers=4", Some(2)),
            ("vers=3,minorversion=1", None),
        ] {
            assert_eq!(NfsOptions::parse(text).expect("valid").minor_version(), minor, "{text}");
        }
        assert_eq!(NfsOptions::parse("vers=4.2").expect("valid").version(), NfsVersion::V4);
        let empty = NfsOptions::parse("").expect("valid");
        assert_eq!((empty.version(), empty.port()), (NfsVersion::Negotiated, NFS_PORT));
        assert_eq!(empty.for_mount(), "port=2049,nosuid,nodev,retry=0");
        let rdma = NfsOptions::parse("vers=4.2,proto=rdma").expect("valid");
        assert_eq!(rdma.for_mount(), "vers=4.2,proto=rdma,nosuid,nodev,retry=0");
    }

    #[test]
    fn locks_of_version_3_need_statd() {
        for (options, expected) in [
            ("nfsvers=3", true),
            ("soft", true),
            ("nolock,vers=3,lock", true),
            ("lock,vers=3,nolock", false),
            ("nolock", false),
            ("nfsvers=4.2", false),
        ] {
            assert_eq!(NfsOptions::parse(options).expect("valid").may_need_statd(), expected, "{options}");
        }
    }

    #[test]
    fn differences_of_mount_options_are_found() {
        let three = "rw,vers=3,rsize=131072,wsize=131072,namlen=255,soft,nolock,proto=tcp,timeo=600,retrans=10,sec=sys,\
            mountaddr=10.0.0.1,mountvers=3,mountport=635,mountproto=udp,local_lock=all,lookupcache=none,addr=10.0.0.1";
        let four = "rw,vers=4.2,rsize=262144,wsize=262144,namlen=255,hard,proto=tcp6,nconnect=4,timeo=600,retrans=2,\
            sec=krb5p,clientaddr=fd00::2,local_lock=none,addr=fd00::1";
        for (options, mounted, expected) in [
            ("nolock,soft,timeo=600,intr,lookupcache=none,nfsvers=3,retrans=10", three, &[][..]),
            ("", three, &[]),
            ("vers=4", four, &[]),
            ("v4.2,tcp,hard,nconnect=4,sec=krb5p", four, &[]),
            ("rsize=1048576,noac,port=20490,timeo=90000,sec=krb5:sys,proto=tcp,lookupcache=all", four, &[]),
            ("hard,soft,timeo=50,timeo=600", three, &[]),
            ("nfsvers=4.1", four, &["vers=4.2 instead of nfsvers=4.1"]),
            ("nfsvers=4,minorversion=2", four, &[]),
            ("minorversion=1,nfsvers=4", four, &["vers=4.2 instead of nfsvers=4"]),
            ("nfsvers=4", three, &["vers=3 instead of nfsvers=4"]),
            ("hard", three, &["soft instead of hard"]),
            ("softerr", four, &["hard instead of softerr"]),
            ("timeo=50,retrans=3", three, &["retrans=10 instead of retrans=3", "timeo=600 instead of timeo=50"]),
            ("sec=krb5", three, &["sec=sys instead of sec=krb5"]),
            ("udp", four, &["proto=tcp6 instead of udp"]),
            (
                "nconnect=8,lookupcache=pos",
                four,
                &["lookupcache=all instead of lookupcache=pos", "nconnect=4 instead of nconnect=8"],
            ),
            (
                "nconnect=8,lookupcache=positive",
                three,
                &["lookupcache=none instead of lookupcache=positive", "nconnect=1 instead of nconnect=8"],
            ),
        ] {
            assert_eq!(NfsOptions::parse(options).expect("valid").differences(mounted), expected, "{options}");
        }
    }

    #[test]
    fn invalid_nfs_options_are_refused() {
        let invalid = [
            "nfsvers=2",
            "vers=4,minorversion=3",
            "nfsvers=",
            "port=0",
            "mountport=99999",
            "soft, hard",
            "soft\n",
            "bg",
            "remount",
        ];
        for text in invalid.into_iter().chain(["soft\u{202e}", "soft\u{200b}"]) {
            assert!(NfsOptions::parse(text).is_err(), "{text}");
        }
    }
}
